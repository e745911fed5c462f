//! Both sides against each other: an engine in this process for what it may say, and libraries made by the C compiler for how they load.

use std::path::{Path, PathBuf};
use std::process::Command;

use ssl_edge_plugin::abi::{self, Api, GetApi, Model, OpenOptions, Versions};
use ssl_edge_plugin::guest::{self, Failure, GuestDevice, GuestTensor};
use ssl_edge_plugin::{
    Device, Encoder, Options, PATH_VARIABLE, Plugin, PluginError, Precision, Refusal, Shape,
    file_name,
};

/// Tokens are the mean of an image, times the tensor `scale`.
struct Mean;

struct Opened {
    scale: f32,
    shape: [usize; 3],
}

impl guest::Engine for Mean {
    type Encoder = Opened;

    fn about() -> String {
        "means of images".into()
    }

    fn device_count() -> Result<u32, Failure> {
        Ok(2)
    }

    fn device(device: u32) -> Result<GuestDevice, Failure> {
        Ok(GuestDevice {
            name: format!("abacus {device}"),
            version: [8, 7],
            memory: 1 << 33,
        })
    }

    fn open(
        model: &Model,
        tensors: &[GuestTensor<'_>],
        options: &OpenOptions,
    ) -> Result<Opened, Failure> {
        let no = |refusal, reason: &str| Err(Failure::new(refusal, reason));
        match options.device {
            0 => {}
            1 => return no(Refusal::OldDevice, "compute capability 7.5 is too old"),
            2 => return no(Refusal::NoDriver, "no driver"),
            3 => return no(Refusal::OutOfMemory, "no memory for 8 images"),
            4 => panic!("beads everywhere"),
            5 => return no(Refusal::Failed, ""),
            6 => return no(Refusal::Unknown(77), "from the future"),
            _ => return no(Refusal::NoDevice, &"x".repeat(10_000)),
        }
        let scale = tensors.iter().find(|tensor| tensor.name == "scale");
        let Some(scale) = scale else {
            return no(Refusal::Invalid, "there is no scale");
        };
        let patches = model.height / model.patch * (model.width / model.patch);
        let [image, dim] = [3 * model.height * model.width, model.dim].map(|n| n as usize);
        Ok(Opened {
            scale: scale.values[0],
            shape: [image, dim, dim * patches as usize],
        })
    }

    fn sizes(encoder: &Opened) -> [usize; 3] {
        encoder.shape
    }

    fn run(
        encoder: &mut Opened,
        images: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), Failure> {
        assert!(batch < 5, "five is too much");
        let [image, class, rest] = encoder.shape;
        for (i, image) in images.chunks_exact(image).enumerate() {
            let mean = encoder.scale * image.iter().sum::<f32>() / image.len() as f32;
            if !mean.is_finite() {
                return Err(Failure::new(Refusal::Failed, "the sum overflows"));
            }
            cls[i * class..][..class].fill(mean);
            patches[i * rest..][..rest].fill(mean);
        }
        Ok(())
    }

    fn memory(_: &Opened) -> u64 {
        12_345
    }
}

static TABLE: Api = guest::api::<Mean>();

unsafe extern "C" fn versions(oldest: *mut u32, newest: *mut u32) {
    // SAFETY: the host's numbers.
    unsafe { (oldest.write(abi::VERSION), newest.write(abi::VERSION + 3)) };
}

unsafe extern "C" fn get_api(version: u32) -> *const Api {
    assert_eq!(version, abi::VERSION);
    &raw const TABLE
}

fn plugin() -> Plugin {
    // SAFETY: the functions above.
    unsafe { Plugin::from_functions(versions, get_api, Path::new("here")) }.unwrap()
}

const SHAPE: Shape = Shape {
    dim: 4,
    depth: 1,
    heads: 1,
    patch: 2,
    registers: 0,
    hidden: 16,
    image_size: [4, 6],
    erf: false,
    eps: 1e-6,
};

fn open(device: u32) -> Result<Encoder, PluginError> {
    let options = Options {
        device,
        precision: Precision::F16,
        images: 1,
    };
    plugin().encoder(&SHAPE, &[("scale", &[2.0])], &options)
}

#[test]
fn an_encoder_runs_across_the_table() {
    let plugin = plugin();
    assert_eq!(plugin.about(), "means of images");
    let devices = plugin.devices().unwrap();
    assert_eq!(devices.len(), 2);
    let second = Device {
        name: "abacus 1".into(),
        version: [8, 7],
        memory: 1 << 33,
    };
    assert_eq!(devices[1], second);

    let encoder = open(0).unwrap();
    assert_eq!(encoder.memory(), 12_345);
    let images: Vec<f32> = (0..2 * 72).map(|i| (i / 72 + 1) as f32).collect();
    let (mut cls, mut patches) = (vec![0.0; 8], vec![0.0; 48]);
    encoder.run(&images, 2, &mut cls, &mut patches).unwrap();
    assert_eq!(cls, [[2.0; 4], [4.0; 4]].concat());
    assert_eq!(patches, [[2.0; 24], [4.0; 24]].concat());
}

#[test]
fn several_threads_take_turns() {
    let encoder = open(0).unwrap();
    std::thread::scope(|scope| {
        for value in 1..5 {
            let encoder = &encoder;
            scope.spawn(move || {
                for _ in 0..200 {
                    let (mut cls, mut patches) = ([0.0; 4], [0.0; 24]);
                    let images = [value as f32; 72];
                    encoder.run(&images, 1, &mut cls, &mut patches).unwrap();
                    assert_eq!(cls, [2.0 * value as f32; 4]);
                }
            });
        }
    });
}

fn refused<T>(result: Result<T, PluginError>) -> (Refusal, String) {
    match result.map(|_| ()) {
        Err(PluginError::Refused {
            refusal, reason, ..
        }) => (refusal, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_plug_in_refuses_arrives_with_its_reason() {
    let expect = |device, refusal, part: &str| {
        let (found, reason) = refused(open(device));
        assert_eq!(found, refusal);
        assert!(reason.contains(part), "{reason}");
        reason
    };
    expect(1, Refusal::OldDevice, "7.5");
    expect(2, Refusal::NoDriver, "no driver");
    expect(3, Refusal::OutOfMemory, "8 images");
    expect(4, Refusal::Panicked, "beads everywhere");
    expect(5, Refusal::Failed, "device failed");
    expect(6, Refusal::Unknown(77), "future");
    assert_eq!(expect(7, Refusal::NoDevice, "xxx").len(), 4096);
    let options = Options {
        device: 0,
        precision: Precision::F32,
        images: 1,
    };
    let (found, _) = refused(plugin().encoder(&SHAPE, &[], &options));
    assert_eq!(found, Refusal::Invalid);
    let huge = Shape {
        dim: 1 << 40,
        ..SHAPE
    };
    assert_eq!(
        refused(plugin().encoder(&huge, &[], &options)).0,
        Refusal::Invalid
    );
}

#[test]
fn a_run_that_fails_or_panics_leaves_an_encoder_that_runs() {
    let encoder = open(0).unwrap();
    let run = |value: f32, batch: usize| {
        let (mut cls, mut patches) = (vec![0.0; 4 * batch], vec![0.0; 24 * batch]);
        encoder.run(&vec![value; 72 * batch], batch, &mut cls, &mut patches)
    };
    assert_eq!(
        refused(run(f32::MAX, 1)),
        (Refusal::Failed, "the sum overflows".into())
    );
    assert_eq!(refused(run(1.0, 5)).0, Refusal::Panicked);
    run(1.0, 1).unwrap();
    let (mut cls, mut patches) = ([0.0; 4], [0.0; 24]);
    for (images, batch) in [(71, 1), (72, 2), (0, 0), (72, usize::MAX)] {
        let (found, reason) =
            refused(encoder.run(&vec![0.0; images], batch, &mut cls, &mut patches));
        assert_eq!(found, Refusal::Invalid, "{reason}");
    }
}

#[test]
fn null_is_an_error_and_not_a_crash() {
    use std::ptr::null_mut as none;

    let mut text = [0u8; 64];
    let mut room = abi::Text {
        data: text.as_mut_ptr(),
        capacity: text.len(),
        len: 0,
    };
    // SAFETY: what is not NULL is alive and as large as it says.
    unsafe {
        assert_eq!((TABLE.device_count)(none(), &raw mut room), abi::INVALID);
        let status = (TABLE.open)(std::ptr::null(), std::ptr::null(), none(), &raw mut room);
        assert_eq!(status, abi::INVALID);
        let status = (TABLE.run)(none(), std::ptr::null(), 1, none(), none(), none());
        assert_eq!(status, abi::INVALID);
        assert_eq!((TABLE.memory)(none(), none()), abi::INVALID);
        assert_eq!((TABLE.device)(0, none(), none(), none()), abi::INVALID);
        assert_eq!((TABLE.about)(none()), abi::OK);
        (TABLE.close)(none());
    }
    assert_eq!(&text[..room.len], b"model is NULL");
}

fn from(versions: Versions, get_api: GetApi) -> String {
    // SAFETY: the tests' functions.
    let plugin = unsafe { Plugin::from_functions(versions, get_api, Path::new("p.so")) };
    plugin.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn versions_and_tables_that_do_not_fit_are_refused() {
    unsafe extern "C" fn old(oldest: *mut u32, newest: *mut u32) {
        // SAFETY: the host's numbers.
        unsafe { (oldest.write(0), newest.write(0)) };
    }
    unsafe extern "C" fn new(oldest: *mut u32, newest: *mut u32) {
        // SAFETY: the host's numbers.
        unsafe {
            (
                oldest.write(abi::VERSION + 1),
                newest.write(abi::VERSION + 2),
            )
        };
    }
    unsafe extern "C" fn nothing(_: u32) -> *const Api {
        std::ptr::null()
    }
    unsafe extern "C" fn short(_: u32) -> *const Api {
        static SHORT: Api = Api {
            struct_size: size_of::<Api>() - 8,
            ..guest::api::<Mean>()
        };
        &raw const SHORT
    }
    let text = from(old, get_api);
    assert!(text.contains("too old") && text.contains("p.so"), "{text}");
    let text = from(new, get_api);
    assert!(
        text.contains("2 to 3") && text.contains("too new"),
        "{text}"
    );
    assert!(from(versions, nothing).contains("damaged"));
    assert!(from(versions, short).contains("damaged"));
}

/// A library of C code.
fn library(folder: &Path, code: &str) -> PathBuf {
    let (source, library) = (folder.join("p.c"), folder.join(file_name("cuda")));
    std::fs::write(&source, code).unwrap();
    let done = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .expect("a C compiler is installed");
    assert!(done.success());
    library
}

#[cfg(unix)]
#[test]
fn libraries_that_are_no_plug_ins_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Plugin::find("cuda", Some(folder.path())).unwrap_err();
    assert!(matches!(error, PluginError::NotFound { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(PATH_VARIABLE) && text.contains("libssl_edge_cuda"),
        "{text}"
    );

    let damaged = folder.path().join("damaged.so");
    std::fs::write(&damaged, "no library").unwrap();
    let error = Plugin::find("cuda", Some(&damaged)).unwrap_err();
    assert!(matches!(error, PluginError::Load { .. }), "{error}");

    let path = library(folder.path(), "int something(void) { return 1; }");
    let error = Plugin::find("cuda", Some(folder.path())).unwrap_err();
    let PluginError::NotAPlugin { path: found, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(found, &path);

    let other = tempfile::tempdir().unwrap();
    let code = "
        void ssl_edge_engine_versions(unsigned *oldest, unsigned *newest) { *oldest = 7; *newest = 9; }
        const void *ssl_edge_engine_get_api(unsigned version) { return 0; }";
    library(other.path(), code);
    let error = Plugin::find("cuda", Some(other.path())).unwrap_err();
    assert!(
        matches!(
            error,
            PluginError::Version {
                oldest: 7,
                newest: 9,
                ..
            }
        ),
        "{error}"
    );
}
