//! The side that opens a plug-in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use libloading::Library;

use crate::abi::{self, Api, GetApi, Versions};
use crate::encoder::Encoder;
use crate::search::{file_name, in_folder, places};
use crate::{PluginError, Refusal};

/// Longest text that is taken from a plug-in.
const TEXT: usize = 4096;

/// A plug-in whose table was checked. It stays loaded as long as the process: drivers do not take it well when their users are unloaded.
#[derive(Clone, Debug)]
pub struct Plugin {
    api: Table,
    path: PathBuf,
}

/// A table that lives as long as the process.
#[derive(Clone, Copy, Debug)]
struct Table(&'static Api);

/// A device of a plug-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Version of its instruction set, for NVIDIA's the compute capability.
    pub version: [u32; 2],
    /// Bytes of its memory.
    pub memory: u64,
}

/// What an encoder computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 weights and products.
    F32,
    /// f16 weights and products, sums in f32.
    F16,
}

/// Shape of an encoder; sizes as in [`abi::Model`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Token width D.
    pub dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Patch side in pixels.
    pub patch: usize,
    /// Register tokens.
    pub registers: usize,
    /// Hidden width of the MLP.
    pub hidden: usize,
    /// Height and width in pixels.
    pub image_size: [usize; 2],
    /// Whether GELU is the erf form, else the tanh form.
    pub erf: bool,
    /// Added to the variance by every norm.
    pub eps: f32,
}

/// How to open an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of the device.
    pub device: u32,
    /// What it computes with.
    pub precision: Precision,
    /// Images that go through together; memory is reserved for so many, larger batches take several passes.
    pub images: u32,
}

/// A room for a text of the plug-in.
pub(crate) struct Room {
    bytes: Vec<u8>,
    pub(crate) text: abi::Text,
}

impl Room {
    pub(crate) fn new() -> Box<Self> {
        let mut room = Box::new(Self {
            bytes: vec![0; TEXT],
            text: abi::Text {
                data: std::ptr::null_mut(),
                capacity: TEXT,
                len: 0,
            },
        });
        room.text.data = room.bytes.as_mut_ptr();
        room
    }

    fn text(&self) -> String {
        let len = self.text.len.min(TEXT);
        String::from_utf8_lossy(&self.bytes[..len]).into_owned()
    }
}

static OPENED: LazyLock<Mutex<HashMap<PathBuf, Table>>> = LazyLock::new(Mutex::default);

/// What the loader says, where it says something.
fn cause(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Plugin {
    /// Opens the plug-in of an engine: `path`, a file or its folder, or the first of [`places`] that exists.
    ///
    /// # Errors
    /// [`PluginError::NotFound`] with where it was looked for, and those of [`Plugin::open`].
    pub fn find(engine: &str, path: Option<&Path>) -> Result<Self, PluginError> {
        let places = match path {
            Some(path) => vec![in_folder(path, engine)],
            None => places(engine),
        };
        match places.iter().find(|place| place.is_file()) {
            Some(found) => Self::open(found),
            None => Err(PluginError::NotFound {
                file: file_name(engine),
                looked: places,
            }),
        }
    }

    /// Loads a library and asks it for its table.
    ///
    /// # Errors
    /// [`PluginError::Load`], [`PluginError::NotAPlugin`], [`PluginError::Version`], [`PluginError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, PluginError> {
        let load = |reason: String| PluginError::Load {
            path: path.to_owned(),
            reason,
        };
        let file = path
            .canonicalize()
            .map_err(|error| load(error.to_string()))?;
        let mut opened = locked(&OPENED);
        if let Some(&api) = opened.get(&file) {
            let path = path.to_owned();
            return Ok(Self { api, path });
        }
        // SAFETY: a library runs code of its own when it is loaded. Whoever names or installs a plug-in trusts it, as with any library of a program.
        let library = unsafe { Library::new(&file) }.map_err(|error| load(cause(&error)))?;
        let missing = |symbol: &'static str| PluginError::NotAPlugin {
            path: path.to_owned(),
            symbol,
        };
        // SAFETY: a function of this name has this type in every plug-in.
        let versions = unsafe { library.get::<Versions>(abi::VERSIONS_SYMBOL) };
        let versions = *versions.map_err(|_| missing(abi::VERSIONS_SYMBOL))?;
        // SAFETY: as above.
        let get_api = unsafe { library.get::<GetApi>(abi::GET_API_SYMBOL) };
        let get_api = *get_api.map_err(|_| missing(abi::GET_API_SYMBOL))?;
        // From here on it stays: it may have started threads.
        std::mem::forget(library);
        // SAFETY: the functions are those of a plug-in that stays loaded.
        let plugin = unsafe { Self::from_functions(versions, get_api, path) }?;
        opened.insert(file, plugin.api);
        Ok(plugin)
    }

    /// A plug-in in this process; `path` is what errors call it.
    ///
    /// # Errors
    /// [`PluginError::Version`], [`PluginError::Damaged`].
    ///
    /// # Safety
    /// The functions keep the contracts of [`Versions`] and [`GetApi`], and the table those of [`Api`], as long as the process lives.
    pub unsafe fn from_functions(
        versions: Versions,
        get_api: GetApi,
        path: &Path,
    ) -> Result<Self, PluginError> {
        let (mut oldest, mut newest) = (0, 0);
        // SAFETY: both can be written.
        unsafe { versions(&raw mut oldest, &raw mut newest) };
        if !(oldest..=newest).contains(&abi::VERSION) {
            return Err(PluginError::Version {
                path: path.to_owned(),
                oldest,
                newest,
                wanted: abi::VERSION,
            });
        }
        let damaged = |reason: String| PluginError::Damaged {
            path: path.to_owned(),
            reason,
        };
        // SAFETY: any number may be asked for.
        let table = unsafe { get_api(abi::VERSION) };
        if table.is_null() {
            return Err(damaged(format!(
                "there is none for version {}",
                abi::VERSION
            )));
        }
        // SAFETY: every table begins with its size and its version, and lives as long as the process.
        let (size, version) = unsafe {
            (
                (*table).struct_size,
                std::ptr::addr_of!((*table).version).read(),
            )
        };
        if size < size_of::<Api>() || version != abi::VERSION {
            return Err(damaged(format!(
                "{size} bytes of version {version} instead of {} of version {}",
                size_of::<Api>(),
                abi::VERSION
            )));
        }
        Ok(Self {
            // SAFETY: it is as long as this version's table, and lives as long as the process.
            api: Table(unsafe { &*table }),
            path: path.to_owned(),
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its functions.
    pub(crate) fn api(&self) -> &'static Api {
        self.api.0
    }

    /// What it says of itself.
    pub fn about(&self) -> String {
        let mut room = Room::new();
        // SAFETY: the room can be written.
        unsafe { (self.api.0.about)(&raw mut room.text) };
        room.text()
    }

    pub(crate) fn check(&self, status: u32, room: &Room) -> Result<(), PluginError> {
        if status == abi::OK {
            return Ok(());
        }
        let refusal = Refusal::of(status);
        let mut reason = room.text();
        if reason.is_empty() {
            reason = refusal.to_string();
        }
        Err(PluginError::Refused {
            path: self.path.clone(),
            refusal,
            reason,
        })
    }

    /// Its devices.
    ///
    /// # Errors
    /// [`PluginError::Refused`] with what keeps any from being used.
    pub fn devices(&self) -> Result<Vec<Device>, PluginError> {
        let (mut count, mut room) = (0, Room::new());
        // SAFETY: number and room can be written.
        let status = unsafe { (self.api.0.device_count)(&raw mut count, &raw mut room.text) };
        self.check(status, &room)?;
        (0..count).map(|device| self.device(device)).collect()
    }

    fn device(&self, device: u32) -> Result<Device, PluginError> {
        let (mut name, mut error) = (Room::new(), Room::new());
        let mut info = abi::DeviceInfo {
            struct_size: size_of::<abi::DeviceInfo>(),
            memory: 0,
            major: 0,
            minor: 0,
        };
        // SAFETY: struct and rooms can be written.
        let status = unsafe {
            (self.api.0.device)(
                device,
                &raw mut info,
                &raw mut name.text,
                &raw mut error.text,
            )
        };
        self.check(status, &error)?;
        Ok(Device {
            name: name.text(),
            version: [info.major, info.minor],
            memory: info.memory,
        })
    }

    /// Makes an encoder of named tensors ready; names as in DINO's and timm's checkpoints.
    ///
    /// # Errors
    /// [`PluginError::Refused`] with the plug-in's reason.
    pub fn encoder(
        &self,
        shape: &Shape,
        tensors: &[(&str, &[f32])],
        options: &Options,
    ) -> Result<Encoder, PluginError> {
        let invalid = || PluginError::Refused {
            path: self.path.clone(),
            refusal: Refusal::Invalid,
            reason: "a size of the encoder is beyond 32 bits, or 0".to_owned(),
        };
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, values)| abi::Tensor {
                name: name.as_ptr(),
                name_len: name.len(),
                values: values.as_ptr(),
                len: values.len(),
            })
            .collect();
        let model = model(shape, &tensors).ok_or_else(invalid)?;
        let options = abi::OpenOptions {
            struct_size: size_of::<abi::OpenOptions>(),
            device: options.device,
            precision: match options.precision {
                Precision::F32 => abi::PRECISION_F32,
                Precision::F16 => abi::PRECISION_F16,
            },
            images: options.images,
            reserved: 0,
        };
        let (mut handle, mut room) = (std::ptr::null_mut(), Room::new());
        // SAFETY: model, tensors and options are alive, pointer and room can be written.
        let status = unsafe {
            (self.api.0.open)(
                &raw const model,
                &raw const options,
                &raw mut handle,
                &raw mut room.text,
            )
        };
        self.check(status, &room)?;
        let Some(handle) = NonNull::new(handle) else {
            return Err(PluginError::Damaged {
                path: self.path.clone(),
                reason: "an encoder that was opened is NULL".to_owned(),
            });
        };
        Ok(Encoder::new(self.clone(), handle, shape))
    }
}

fn model(shape: &Shape, tensors: &[abi::Tensor]) -> Option<abi::Model> {
    let int = |size: usize| u32::try_from(size).ok();
    let [height, width] = shape.image_size;
    if shape.patch == 0 {
        return None;
    }
    Some(abi::Model {
        struct_size: size_of::<abi::Model>(),
        tensors: tensors.as_ptr(),
        n_tensors: tensors.len(),
        dim: int(shape.dim)?,
        depth: int(shape.depth)?,
        heads: int(shape.heads)?,
        patch: int(shape.patch)?,
        registers: int(shape.registers)?,
        hidden: int(shape.hidden)?,
        height: int(height)?,
        width: int(width)?,
        gelu: if shape.erf {
            abi::GELU_ERF
        } else {
            abi::GELU_TANH
        },
        eps: shape.eps,
    })
}
