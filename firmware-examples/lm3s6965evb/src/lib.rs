//! What the programs for the board share: its registers, the clock, the end of a program.

#![no_std]

pub mod board;

use core::panic::PanicInfo;
use cortex_m_semihosting::{debug, heprintln};

/// A program that panics ends the emulator with an error, on which the script fails.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    heprintln!("{}", info);
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}

/// Ends the emulator: the program did what it should.
pub fn finish() -> ! {
    loop {
        debug::exit(debug::EXIT_SUCCESS);
    }
}
