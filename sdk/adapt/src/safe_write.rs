//! Replacing a file so that at every moment either the old or the new content is there, whole.

use crate::error::AdaptError;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes `content` to a temporary file in the folder of `path`, flushes it to the disk, renames it over `path` and flushes the folder.
///
/// # Errors
///
/// [`AdaptError::Io`]. An error before the rename leaves the old file as it was; the temporary file is removed.
pub(crate) fn safe_write(path: &Path, content: &[u8]) -> Result<(), AdaptError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let failed = |action| {
        move |source| AdaptError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let name = path
        .file_name()
        .ok_or_else(|| failed("write")(io::Error::from(io::ErrorKind::IsADirectory)))?;
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    let mut temporary = options(path)
        .prefix(&prefix)
        .suffix(".tmp")
        .tempfile_in(folder)
        .map_err(failed("create a temporary file for"))?;
    temporary.write_all(content).map_err(failed("write"))?;
    temporary
        .as_file()
        .sync_all()
        .map_err(failed("flush to the disk"))?;
    temporary
        .persist(path)
        .map_err(|error| failed("replace")(error.error))?;
    flush_folder(folder).map_err(|source| AdaptError::Io {
        action: "flush the folder",
        path: folder.to_owned(),
        source,
    })
}

/// Permissions of the file that is replaced, or what the process gives to a new file.
#[cfg(unix)]
fn options(path: &Path) -> tempfile::Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt;
    let old = fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    let mut builder = tempfile::Builder::new();
    builder.permissions(fs::Permissions::from_mode(old.unwrap_or(0o666)));
    builder
}

#[cfg(not(unix))]
fn options(_path: &Path) -> tempfile::Builder<'static, 'static> {
    tempfile::Builder::new()
}

#[cfg(unix)]
fn flush_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn flush_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
