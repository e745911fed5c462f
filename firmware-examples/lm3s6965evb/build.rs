//! Makes the head images and the frames that lie in flash, and puts the memory map where the linker looks.

use ssl_edge_head::HeadImage;
use ssl_edge_head::vectors::{DIM, IMAGE_LENGTH, Vectors};
use std::path::PathBuf;

/// As in the host program.
const SEED: u64 = 1;
const FRAMES: usize = 256;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::copy("memory.x", out.join("memory.x")).expect("the memory map can be copied");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rerun-if-changed=memory.x");
    for (cosine, name) in [(false, "linear"), (true, "cosine")] {
        let vectors = Vectors::new(SEED, cosine);
        let mut image = [0; IMAGE_LENGTH];
        let written = vectors.write(&mut image);
        assert_eq!(
            written,
            Ok(IMAGE_LENGTH),
            "the vectors do not fit their own length"
        );
        let head = HeadImage::parse(&image).expect("an image that was just made");
        let mut frames = Vec::new();
        for i in 0..FRAMES {
            let mut frame = [0; DIM];
            head.quantise(&vectors.frame(i), &mut frame)
                .expect("frames of the head's length");
            frames.extend(frame.map(|value| value as u8));
        }
        std::fs::write(out.join(format!("{name}.image")), image).expect("the image can be written");
        std::fs::write(out.join(format!("{name}.frames")), frames)
            .expect("the frames can be written");
    }
}
