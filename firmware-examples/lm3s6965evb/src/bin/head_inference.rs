//! Two heads in flash, 256 frames each: a line of integers for each verdict on the UART, what it took on the debugger's console.

#![no_std]
#![no_main]

use core::fmt::Write;
use cortex_m_rt::entry;
use cortex_m_semihosting::heprintln;
use lm3s6965evb::board::{KNOWN, Stopwatch, Uart, stack_used};
use ssl_edge_head::HeadImage;
use ssl_edge_head::vectors::{DIM, Line};

static HEADS: [(&[u8], &[u8]); 2] = [
    (
        include_bytes!(concat!(env!("OUT_DIR"), "/linear.image")),
        include_bytes!(concat!(env!("OUT_DIR"), "/linear.frames")),
    ),
    (
        include_bytes!(concat!(env!("OUT_DIR"), "/cosine.image")),
        include_bytes!(concat!(env!("OUT_DIR"), "/cosine.frames")),
    ),
];

#[entry]
fn main() -> ! {
    let core = cortex_m::Peripherals::take().expect("taken once");
    let (mut uart, mut watch) = (Uart::new(), Stopwatch::new(core.SYST));
    let (overhead, known) = watch.calibrate();
    heprintln!("# calibration {} instructions {} ticks", KNOWN, known);
    for (image, frames) in HEADS {
        let (parse, head) = watch.measure(|| HeadImage::parse(image));
        let head = head.expect("the build script made the image");
        let (mut sum, mut most) = (0, 0);
        for (i, bytes) in frames.as_chunks::<DIM>().0.iter().enumerate() {
            let frame = bytes.map(|byte| byte as i8);
            let (ticks, verdict) = watch.measure(|| head.inspect(&frame));
            let verdict = verdict.expect("frames of the head's length");
            writeln!(uart, "{}", Line(i, verdict)).expect("the UART takes everything");
            sum += ticks - overhead;
            most = most.max(ticks - overhead);
        }
        let n = frames.len() / DIM;
        heprintln!(
            "# values {} classes {} rows {}",
            DIM,
            head.n_classes(),
            head.n_rows()
        );
        heprintln!("# parse {} ticks", parse - overhead);
        heprintln!(
            "# verdict {} ticks, at most {} ticks",
            sum as usize / n,
            most
        );
    }
    heprintln!("# stack {} bytes", stack_used());
    lm3s6965evb::finish()
}
