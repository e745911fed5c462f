//! Makes the firmware's inputs and what it must answer, into a folder: `verdicts.txt`, `requests.bin`, `replies.bin`, `gate.txt`.

mod line;

use ssl_edge_head::HeadImage;
use ssl_edge_head::vectors::{DIM, IMAGE_LENGTH, Line, Vectors};
use std::fmt::Write;
use std::path::Path;

/// As in the firmware's build script.
const SEED: u64 = 1;
const FRAMES: usize = 256;

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: host <folder to write to>");
        std::process::exit(2);
    };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("verdicts.txt"), verdicts())?;
    let requests = line::requests(SEED);
    let (replies, summary) = line::replay(&requests);
    std::fs::write(folder.join("requests.bin"), requests)?;
    std::fs::write(folder.join("replies.bin"), replies)?;
    std::fs::write(folder.join("gate.txt"), summary)
}

fn image(cosine: bool) -> [u8; IMAGE_LENGTH] {
    let mut image = [0; IMAGE_LENGTH];
    let written = Vectors::new(SEED, cosine).write(&mut image);
    assert_eq!(
        written,
        Ok(IMAGE_LENGTH),
        "the vectors do not fit their own length"
    );
    image
}

fn verdicts() -> String {
    let mut text = String::new();
    for cosine in [false, true] {
        let (vectors, image) = (Vectors::new(SEED, cosine), image(cosine));
        let head = HeadImage::parse(&image).expect("an image that was just made");
        for i in 0..FRAMES {
            let mut frame = [0; DIM];
            head.quantise(&vectors.frame(i), &mut frame)
                .expect("frames of the head's length");
            let verdict = head.inspect(&frame).expect("a frame of the head's length");
            writeln!(text, "{}", Line(i, verdict)).expect("a string grows");
        }
    }
    text
}
