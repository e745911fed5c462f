//! Where plug-ins are looked for.

use std::env;
use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// Folders or files to look at first, separated as in `PATH`.
pub const PATH_VARIABLE: &str = "SSL_EDGE_PLUGIN_PATH";

/// File of the plug-in of an engine on this system, for `cuda` on Linux `libssl_edge_cuda.so`.
pub fn file_name(engine: &str) -> String {
    let (prefix, suffix) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    format!("{prefix}ssl_edge_{engine}{suffix}")
}

/// Files that are tried in this order: those of [`PATH_VARIABLE`], then beside the library that this code is in, then beside the program. The working
/// directory is not among them.
pub fn places(engine: &str) -> Vec<PathBuf> {
    let beside = [own_library(), env::current_exe().ok()];
    let beside = beside
        .into_iter()
        .flatten()
        .filter_map(|file| Some(file.parent()?.to_owned()));
    from_variable(env::var_os(PATH_VARIABLE), engine)
        .into_iter()
        .chain(beside.map(|folder| folder.join(file_name(engine))))
        .fold(Vec::new(), |mut places, place| {
            if !places.contains(&place) {
                places.push(place);
            }
            places
        })
}

fn from_variable(value: Option<OsString>, engine: &str) -> Vec<PathBuf> {
    let value = value.unwrap_or_default();
    env::split_paths(&value)
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| in_folder(&path, engine))
        .collect()
}

/// The plug-in's file where `path` is a folder, else `path`.
pub(crate) fn in_folder(path: &Path, engine: &str) -> PathBuf {
    if path.is_dir() {
        path.join(file_name(engine))
    } else {
        path.to_owned()
    }
}

/// The library or program that this code is in.
#[cfg(unix)]
fn own_library() -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;

    #[repr(C)]
    struct Info {
        file: *const c_char,
        base: *mut c_void,
        symbol: *const c_char,
        address: *mut c_void,
    }

    unsafe extern "C" {
        fn dladdr(address: *const c_void, info: *mut Info) -> c_int;
    }

    let mut info = Info {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        symbol: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    let here: fn() -> Option<PathBuf> = own_library;
    // SAFETY: the struct is that of dlfcn.h on Linux and Apple's systems, and the address is in this library.
    let found = unsafe { dladdr(here as *const c_void, &raw mut info) };
    if found == 0 || info.file.is_null() {
        return None;
    }
    // SAFETY: the loader's own text, alive as long as the library is loaded.
    let file = unsafe { CStr::from_ptr(info.file) };
    let file = Path::new(std::ffi::OsStr::from_bytes(file.to_bytes()));
    file.is_absolute().then(|| file.to_owned())
}

#[cfg(not(unix))]
fn own_library() -> Option<PathBuf> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_of_the_variable_come_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.so");
        let value = env::join_paths([folder.path(), file.as_path()]).unwrap();
        let found = from_variable(Some(value), "cuda");
        assert_eq!(found, [folder.path().join(file_name("cuda")), file]);
        assert!(from_variable(Some("".into()), "cuda").is_empty());
        assert!(from_variable(None, "cuda").is_empty());
    }

    #[test]
    fn the_programs_folder_is_among_the_places() {
        let beside = env::current_exe()
            .unwrap()
            .parent()
            .unwrap()
            .join(file_name("cuda"));
        assert!(places("cuda").contains(&beside));
    }
}
