//! From good parts to verdicts and heat through the façade, on procedural surfaces and random weights.

#![cfg(feature = "train")]

use ssl_edge::Error;
use ssl_edge::anomaly::{GoodFrame, Normal, NormalOptions, Rates, frame_tokens, heat_map};
use ssl_edge::drift::camera_numbers;
use ssl_edge::encoder::{Encoder, EngineKind, Options, Pooling};
use ssl_edge::export::random_bundle;
use ssl_edge::vision::{Frame, Image, PixelFormat, Pixels, Roi, Station, Surface};

fn encoder() -> Encoder {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("random.sslb");
    random_bundle("vit_n16", 3, 32, Pooling::Cls, &path).expect("random weights can be packed");
    let options = Options {
        engine: EngineKind::Native,
        threads: 1,
        ..Options::default()
    };
    Encoder::open(&path, &options).expect("the bundle opens")
}

/// One tile of a square frame is what the encoder itself makes of it; a tile of many is what it makes of that part.
#[test]
fn tokens_of_tiles_are_the_encoders_own() {
    let encoder = encoder();
    let photo = Station::new(0).photo(Surface::Clean, 64, 1);
    let whole = frame_tokens(&encoder, &photo.frame(), 1).unwrap();
    assert_eq!((whole.size, whole.dim), ([2, 2], 192));
    assert_eq!(whole.values, encoder.embed(&photo.frame()).unwrap().patches);

    let tiled = frame_tokens(&encoder, &photo.frame(), 2).unwrap();
    assert_eq!(tiled.size, [4, 4]);
    let roi = Roi {
        x: 32,
        y: 0,
        width: 32,
        height: 32,
    };
    let corner = encoder
        .embed(&photo.frame().with_roi(roi).unwrap())
        .unwrap();
    for (row, tokens) in corner.patches.chunks_exact(2 * 192).enumerate() {
        let start = (4 * row + 2) * 192;
        assert_eq!(&tiled.values[start..start + 2 * 192], tokens);
    }
}

/// The region of interest is learned and judged; heat is 0 outside it and highest at the dent.
#[test]
fn a_dent_in_the_region_is_found_where_it_is() -> Result<(), Error> {
    let encoder = encoder();
    let roi = Roi {
        x: 16,
        y: 0,
        width: 64,
        height: 64,
    };
    let picture = |part: u64, dent: bool| -> Image {
        let Pixels::Gray8(inside) = Station::new(0)
            .photo(Surface::Clean, 64, part)
            .pixels()
            .clone()
        else {
            panic!("surfaces are grey");
        };
        let mut data = vec![0u8; 96 * 64];
        for (at, value) in inside.into_iter().enumerate() {
            let (y, x) = (at / 64, at % 64);
            let dented = dent && (34..46).contains(&y) && (34..46).contains(&x);
            data[y * 96 + x + 16] = if dented {
                255 * ((x + y) % 2) as u8
            } else {
                value
            };
        }
        Image::new(96, 64, Pixels::Gray8(data)).expect("the sizes fit")
    };
    let tokens = |image: &Image| frame_tokens(&encoder, &image.frame().with_roi(roi)?, 2);
    let good = (0..6)
        .map(|part| tokens(&picture(part, false)))
        .collect::<Result<Vec<_>, _>>()?;
    let frames = good
        .iter()
        .enumerate()
        .map(|(part, tokens)| {
            Ok(GoodFrame {
                grid: tokens.grid()?,
                part,
                copy_of: None,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let normal = Normal::fit(
        &frames,
        &NormalOptions::default(),
        &Rates {
            frame: 0.15,
            ..Rates::default()
        },
    )?;

    let bad = picture(9, true);
    let frame = bad.frame().with_roi(roi)?;
    let verdict = normal.inspect(&tokens(&bad)?.grid()?)?;
    assert!(
        verdict.anomalous,
        "{} of {:?}",
        verdict.score,
        normal.report()
    );
    assert_eq!(verdict.p_value, normal.report().floor);
    let heat = heat_map(&frame, &verdict.heat, 2.0)?;
    assert_eq!(heat.len(), 96 * 64);
    let hottest = (0..heat.len())
        .max_by(|&a, &b| heat[a].total_cmp(&heat[b]))
        .expect("there are pixels");
    let (y, x) = (hottest / 96, hottest % 96);
    assert!(
        (32..48).contains(&y) && (48..64).contains(&x),
        "row {y}, column {x}"
    );
    assert!((0..heat.len()).all(|at| (16..80).contains(&(at % 96)) || heat[at] == 0.0));
    Ok(())
}

#[test]
fn a_camera_says_how_it_is() {
    let data = [[0u8, 255].repeat(4), [255u8, 0].repeat(4)]
        .concat()
        .repeat(4);
    let frame = Frame::new(&data, 8, 8, 8, PixelFormat::Gray8, None).unwrap();
    let numbers = camera_numbers(&frame);
    assert!((numbers.brightness - 0.5).abs() < 1e-6);
    assert!((numbers.saturated - 0.5).abs() < 1e-9 && numbers.focus > 1e5);
}
