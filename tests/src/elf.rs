//! What an ELF file asks of the system that it is loaded on.

use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use std::path::Path;

/// The C library and its loader, which every Linux with glibc has, under the names that they have had over the years, and the unwinder of GCC.
const C_LIBRARY: [&str; 8] = [
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
    "libgcc_s.so.1",
    "ld-linux-",
];

/// Asserts that `file` starts where nothing is installed but a C library: no driver, no CUDA, no C++ library.
///
/// # Panics
/// When it needs anything else, or is no ELF file of 64 bit.
pub fn assert_needs_the_c_library_alone(file: &Path) {
    let needed = needed(file);
    assert!(
        needed.iter().any(|name| name == "libc.so.6"),
        "{}: {needed:?}",
        file.display()
    );
    let other: Vec<&String> = needed
        .iter()
        .filter(|name| !C_LIBRARY.iter().any(|known| name.starts_with(known)))
        .collect();
    assert!(other.is_empty(), "{} needs {other:?}", file.display());
}

/// The libraries that the loader must find before `file` runs.
fn needed(file: &Path) -> Vec<String> {
    let data = std::fs::read(file).expect("the file can be read");
    let header = FileHeader64::<Endianness>::parse(&*data).expect("an ELF file");
    let endian = header.endian().expect("a byte order");
    let sections = header.sections(endian, &*data).expect("sections");
    let (entries, link) = sections
        .dynamic(endian, &*data)
        .expect("a dynamic section that can be read")
        .expect("a dynamic section");
    let names = sections.strings(endian, &*data, link).expect("strings");
    entries
        .iter()
        .filter(|entry| entry.tag32(endian) == Some(DT_NEEDED))
        .map(|entry| {
            let name = entry.string(endian, names).expect("a name");
            String::from_utf8(name.to_vec()).expect("a name in UTF-8")
        })
        .collect()
}
