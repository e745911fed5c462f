//! Copies of a frame that stand for other ways in which a part may lie or be lit: turned by quarters, mirrored, dimmed and brightened. They are made
//! when a sample is taught; a job keeps their features and uses them unless left-out samples speak against them
//! ([`Augmentation`](crate::job::Augmentation)).

use crate::vision::{Image, Pixels};

/// Factors of the exposure of the two copies that lie as the frame does.
const EXPOSURES: [f32; 2] = [0.75, 1.3];

/// Largest class whose frames [`calibrate`](crate::job::calibrate) and [`teach`](crate::job::teach) make copies of: beyond it samples show by themselves how
/// parts lie and are lit, and copies only cost time and room.
pub const LARGEST_CLASS: usize = 50;

/// Copies of a frame: the seven other ways to lay its rectangle (quarter turns, mirrored or not), and two exposures.
pub fn copies(image: &Image) -> Vec<Image> {
    let laid = (1..8).map(|way| lay(image, way));
    let lit = EXPOSURES.into_iter().map(|factor| expose(image, factor));
    laid.chain(lit).collect()
}

/// The image mirrored if bit 2 of `way` is set, then turned clockwise by as many quarters as the lower bits say. Exact: every pixel keeps its value.
fn lay(image: &Image, way: usize) -> Image {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (mirrored, quarters) = (way & 4 != 0, way & 3);
    let [out_width, out_height] = match quarters {
        1 | 3 => [height, width],
        _ => [width, height],
    };
    let source = |x: usize, y: usize| {
        let (x, y) = match quarters {
            0 => (x, y),
            1 => (y, height - 1 - x),
            2 => (width - 1 - x, height - 1 - y),
            _ => (width - 1 - y, x),
        };
        y * width + if mirrored { width - 1 - x } else { x }
    };
    let places: Vec<usize> = (0..out_width * out_height)
        .map(|i| source(i % out_width, i / out_width))
        .collect();
    let pixels = match image.pixels() {
        Pixels::Gray8(v) => Pixels::Gray8(picked(v, &places, 1)),
        Pixels::Gray16(v) => Pixels::Gray16(picked(v, &places, 1)),
        Pixels::Rgb8(v) => Pixels::Rgb8(picked(v, &places, 3)),
        Pixels::Rgb16(v) => Pixels::Rgb16(picked(v, &places, 3)),
    };
    of_pixels(out_width, out_height, pixels)
}

fn picked<T: Copy>(values: &[T], places: &[usize], channels: usize) -> Vec<T> {
    let pixel = |&place: &usize| &values[place * channels..][..channels];
    places.iter().flat_map(pixel).copied().collect()
}

/// The image with every sample times `factor`, rounded and cut at white.
fn expose(image: &Image, factor: f32) -> Image {
    let eight = |v: &[u8]| -> Vec<u8> {
        // `as` cuts at 255.
        v.iter()
            .map(|x| (f32::from(*x) * factor).round() as u8)
            .collect()
    };
    let sixteen = |v: &[u16]| -> Vec<u16> {
        v.iter()
            .map(|x| (f32::from(*x) * factor).round() as u16)
            .collect()
    };
    let pixels = match image.pixels() {
        Pixels::Gray8(v) => Pixels::Gray8(eight(v)),
        Pixels::Gray16(v) => Pixels::Gray16(sixteen(v)),
        Pixels::Rgb8(v) => Pixels::Rgb8(eight(v)),
        Pixels::Rgb16(v) => Pixels::Rgb16(sixteen(v)),
    };
    of_pixels(image.width() as usize, image.height() as usize, pixels)
}

fn of_pixels(width: usize, height: usize, pixels: Pixels) -> Image {
    Image::new(width as u32, height as u32, pixels).expect("as many pixels as the image has")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, pixels: &[u8]) -> Image {
        Image::new(width, height, Pixels::Gray8(pixels.to_vec())).unwrap()
    }

    #[test]
    fn the_eight_ways_are_those_of_a_rectangle() {
        let one = image(3, 2, &[1, 2, 3, 4, 5, 6]);
        let ways: Vec<Image> = (0..8).map(|way| lay(&one, way)).collect();
        assert_eq!(ways[0], one);
        assert_eq!(ways[1], image(2, 3, &[4, 1, 5, 2, 6, 3]));
        assert_eq!(ways[2], image(3, 2, &[6, 5, 4, 3, 2, 1]));
        assert_eq!(ways[3], image(2, 3, &[3, 6, 2, 5, 1, 4]));
        assert_eq!(ways[4], image(3, 2, &[3, 2, 1, 6, 5, 4]));
        assert_eq!(ways[6], image(3, 2, &[4, 5, 6, 1, 2, 3]));
        for (i, a) in ways.iter().enumerate() {
            assert!(ways[..i].iter().all(|b| a != b), "way {i} is there twice");
        }
        let rgb = Image::new(2, 1, Pixels::Rgb16(vec![1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!(
            lay(&rgb, 4).pixels(),
            &Pixels::Rgb16(vec![4, 5, 6, 1, 2, 3])
        );
    }

    #[test]
    fn exposure_scales_and_cuts_at_white() {
        let bright = expose(&image(3, 1, &[0, 100, 250]), 1.3);
        assert_eq!(bright, image(3, 1, &[0, 130, 255]));
        let deep = Image::new(1, 1, Pixels::Gray16(vec![60_000])).unwrap();
        assert_eq!(expose(&deep, 1.3).pixels(), &Pixels::Gray16(vec![u16::MAX]));
        assert_eq!(copies(&image(1, 1, &[40])).len(), 9);
    }
}
