//! An encoder that a plug-in has opened.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::host::{Plugin, Room, Shape, locked};
use crate::{PluginError, Refusal};

/// An encoder of a plug-in. `Send` and `Sync`; calls take turns.
#[derive(Debug)]
pub struct Encoder {
    plugin: Plugin,
    handle: Mutex<Handle>,
    image: usize,
    n_patches: usize,
    dim: usize,
}

#[derive(Debug)]
struct Handle(NonNull<c_void>);

// SAFETY: the table's contract: any thread may call, one at a time, which the mutex sees to.
unsafe impl Send for Handle {}

impl Encoder {
    pub(crate) fn new(plugin: Plugin, handle: NonNull<c_void>, shape: &Shape) -> Self {
        let [height, width] = shape.image_size;
        Self {
            plugin,
            handle: Mutex::new(Handle(handle)),
            image: 3 * height * width,
            n_patches: height / shape.patch * (width / shape.patch),
            dim: shape.dim,
        }
    }

    /// `images [B, 3, H, W]` to `cls [B, D]` and `patches [B, N, D]`, after the final norm.
    ///
    /// # Errors
    /// [`PluginError::Refused`] with the plug-in's reason; also slices of other lengths.
    pub fn run(
        &self,
        images: &[f32],
        batch: usize,
        cls: &mut [f32],
        patches: &mut [f32],
    ) -> Result<(), PluginError> {
        let one = [self.image, self.dim, self.n_patches * self.dim];
        let lens = [images.len(), cls.len(), patches.len()];
        if batch == 0 || one.map(|one| one.checked_mul(batch)) != lens.map(Some) {
            return Err(PluginError::Refused {
                path: self.plugin.path().to_owned(),
                refusal: Refusal::Invalid,
                reason: format!(
                    "images, cls and patches have {lens:?} values where {batch} times {one:?} are needed"
                ),
            });
        }
        let handle = locked(&self.handle);
        let mut room = Room::new();
        // SAFETY: the encoder is alive and this call's alone, the arrays have the sizes of the batch, the room can be written.
        let status = unsafe {
            (self.plugin.api().run)(
                handle.0.as_ptr(),
                images.as_ptr(),
                batch,
                cls.as_mut_ptr(),
                patches.as_mut_ptr(),
                &raw mut room.text,
            )
        };
        self.plugin.check(status, &room)
    }

    /// Bytes of the device's memory that it holds.
    pub fn memory(&self) -> u64 {
        let mut bytes = 0;
        let handle = locked(&self.handle);
        // SAFETY: the encoder is alive and this call's alone, the number can be written.
        unsafe { (self.plugin.api().memory)(handle.0.as_ptr(), &raw mut bytes) };
        bytes
    }

    /// The plug-in that it is of.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let handle = self
            .handle
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // SAFETY: it came from `open` and is used no more.
        unsafe { (self.plugin.api().close)(handle.0.as_ptr()) };
    }
}
