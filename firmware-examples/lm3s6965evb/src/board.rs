//! Registers of the LM3S6965 (data sheet DS-LM3S6965, chapters 8 and 12): UART 0, port F, the core's SysTick.

use core::fmt;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;

const UART0: usize = 0x4000_c000;
const UART_DATA: usize = UART0;
const UART_FLAGS: usize = UART0 + 0x18;
const UART_CONTROL: usize = UART0 + 0x30;
const RECEIVE_EMPTY: u32 = 1 << 4;
const TRANSMIT_FULL: u32 = 1 << 5;
/// Enable, receive enable, transmit enable.
const UART_ON: u32 = 1 | 1 << 8 | 1 << 9;

const CLOCK_GATES_1: usize = 0x400f_e104;
const CLOCK_GATES_2: usize = 0x400f_e108;
const PORT_F: usize = 0x4002_5000;
/// Address bits 9..2 say which pins of the data register are meant.
const PIN_0: usize = PORT_F + (1 << 2);
const PORT_F_DIRECTION: usize = PORT_F + 0x400;
const PORT_F_DIGITAL: usize = PORT_F + 0x51c;

fn read(address: usize) -> u32 {
    // SAFETY: only the constants above are passed, which are aligned registers of this chip.
    unsafe { (address as *const u32).read_volatile() }
}

fn write(address: usize, value: u32) {
    // SAFETY: as in `read`; none of these registers affects memory.
    unsafe { (address as *mut u32).write_volatile(value) }
}

/// UART 0.
pub struct Uart(());

impl Uart {
    /// Switches the UART on.
    pub fn new() -> Self {
        write(CLOCK_GATES_1, read(CLOCK_GATES_1) | 1);
        write(UART_CONTROL, UART_ON);
        Self(())
    }

    /// Waits for a byte.
    pub fn receive(&mut self) -> u8 {
        while read(UART_FLAGS) & RECEIVE_EMPTY != 0 {}
        read(UART_DATA) as u8
    }

    /// Waits until a byte can be sent, and sends it.
    pub fn send(&mut self, byte: u8) {
        while read(UART_FLAGS) & TRANSMIT_FULL != 0 {}
        write(UART_DATA, byte.into());
    }
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.send(byte));
        Ok(())
    }
}

/// Pin 0 of port F, on the board the status LED: the reject gate.
pub struct GatePin(());

impl GatePin {
    /// Makes the pin an output, low.
    pub fn new() -> Self {
        write(CLOCK_GATES_2, read(CLOCK_GATES_2) | 1 << 5);
        write(PORT_F_DIRECTION, read(PORT_F_DIRECTION) | 1);
        write(PORT_F_DIGITAL, read(PORT_F_DIGITAL) | 1);
        let mut pin = Self(());
        pin.set(false);
        pin
    }

    /// Drives the pin.
    pub fn set(&mut self, high: bool) {
        write(PIN_0, u32::from(high));
    }

    /// What the port says the pin is.
    pub fn is_high(&self) -> bool {
        read(PIN_0) & 1 == 1
    }
}

impl Default for GatePin {
    fn default() -> Self {
        Self::new()
    }
}

/// Instructions that [`Stopwatch::calibrate`] runs.
pub const KNOWN: u32 = 100_000;

/// SysTick as a stopwatch of 24 bits.
pub struct Stopwatch(SYST);

impl Stopwatch {
    /// Lets SysTick run down from its largest value, again and again.
    pub fn new(mut syst: SYST) -> Self {
        syst.set_clock_source(SystClkSource::Core);
        syst.set_reload(0x00ff_ffff);
        syst.clear_current();
        syst.enable_counter();
        Self(syst)
    }

    /// Ticks that `work` took; at most 2^24.
    pub fn measure<T>(&mut self, work: impl FnOnce() -> T) -> (u32, T) {
        let start = SYST::get_current();
        let result = work();
        (
            start.wrapping_sub(SYST::get_current()) & 0x00ff_ffff,
            result,
        )
    }

    /// Ticks that a measurement itself takes, and those of [`KNOWN`] instructions: what a tick is worth on a machine that counts instructions.
    pub fn calibrate(&mut self) -> (u32, u32) {
        let overhead = self.measure(|| ()).0;
        // A loop of two instructions, run once more than half of the number.
        let known = self.measure(|| cortex_m::asm::delay(KNOWN - 2)).0;
        (overhead, known - overhead)
    }
}

/// Bytes of stack that were ever used: those that the start-up code's paint is gone from.
pub fn stack_used() -> usize {
    unsafe extern "C" {
        static _stack_start: u8;
        static _stack_end: u8;
    }
    let (end, start) = (
        &raw const _stack_end as usize,
        &raw const _stack_start as usize,
    );
    let painted = (end..start).step_by(4).take_while(|address| {
        // SAFETY: the linker script says that this is the stack's memory; `usize` steps of four keep it aligned.
        let word = unsafe { (*address as *const u32).read_volatile() };
        word == cortex_m_rt::STACK_PAINT_VALUE
    });
    start - end - 4 * painted.count()
}
