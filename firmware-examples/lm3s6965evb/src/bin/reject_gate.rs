//! The reject gate on hardware: requests on the UART, replies back, the gate on pin F0; how long it takes on the debugger's console.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use cortex_m_semihosting::heprintln;
use gate::{CONTENT, FRAME, Gate};
use lm3s6965evb::board::{GatePin, KNOWN, Stopwatch, Uart, stack_used};
use ssl_edge_head::HeadImage;
use ssl_edge_head::wire::Reader;

static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/linear.image"));

#[entry]
fn main() -> ! {
    let core = cortex_m::Peripherals::take().expect("taken once");
    let (mut uart, mut pin, mut watch) = (Uart::new(), GatePin::new(), Stopwatch::new(core.SYST));
    let (overhead, known) = watch.calibrate();
    heprintln!("# calibration {} instructions {} ticks", KNOWN, known);
    let mut gate = Gate::new(HeadImage::parse(IMAGE).expect("the build script made the image"));
    let (mut reader, mut scratch, mut out) = (Reader::new(), [0; CONTENT], [0; FRAME]);
    let (mut replies, mut pulses, mut most) = (0u32, 0u32, 0);
    loop {
        let byte = uart.receive();
        let was_high = pin.is_high();
        // From a request's last byte to the gate: decoding, the verdict if there is one, the reply's coding.
        let (ticks, reply) = watch.measure(|| {
            let reply = gate.push(byte, &mut reader, &mut scratch, &mut out);
            pin.set(gate.driven());
            reply
        });
        pulses += u32::from(pin.is_high() && !was_high);
        let Some(reply) = reply else { continue };
        replies += 1;
        most = most.max(ticks - overhead);
        reply.frame.iter().for_each(|byte| uart.send(*byte));
        if reply.last {
            break;
        }
    }
    let (dropped, late) = gate.dropped_and_late();
    heprintln!(
        "replies {} pulses {} dropped {} late {}",
        replies,
        pulses,
        dropped,
        late
    );
    heprintln!("# request to gate: at most {} ticks", most);
    heprintln!("# stack {} bytes", stack_used());
    lm3s6965evb::finish()
}
