//! The kernels as the driver loads them, one module for each source file.

/// Everything as PTX, by file.
#[cfg(feature = "ptx")]
pub const PTX: [(&str, &str); 7] = [
    (
        "attention",
        include_str!(concat!(env!("OUT_DIR"), "/attention.ptx")),
    ),
    (
        "attention_plain",
        include_str!(concat!(env!("OUT_DIR"), "/attention_plain.ptx")),
    ),
    (
        "distil",
        include_str!(concat!(env!("OUT_DIR"), "/distil.ptx")),
    ),
    (
        "elementwise",
        include_str!(concat!(env!("OUT_DIR"), "/elementwise.ptx")),
    ),
    ("norm", include_str!(concat!(env!("OUT_DIR"), "/norm.ptx"))),
    (
        "optimiser",
        include_str!(concat!(env!("OUT_DIR"), "/optimiser.ptx")),
    ),
    ("rows", include_str!(concat!(env!("OUT_DIR"), "/rows.ptx"))),
];

/// Bytes that begin where the driver may read numbers.
#[cfg(feature = "fatbin")]
#[repr(C, align(16))]
struct Aligned<B: ?Sized>(B);

#[cfg(feature = "fatbin")]
macro_rules! fatbin {
    ($file:literal) => {{
        static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
            env!("OUT_DIR"),
            "/",
            $file,
            ".fatbin"
        )));
        ($file, &IMAGE.0)
    }};
}

/// What [`crate::encoder`] launches, by file: machine code for compute capability 8.7, 8.9 and 9.0, PTX for others from 8.0 on.
#[cfg(feature = "fatbin")]
pub static FATBIN: [(&str, &[u8]); 5] = [
    fatbin!("attention"),
    fatbin!("attention_plain"),
    fatbin!("elementwise"),
    fatbin!("norm"),
    fatbin!("rows"),
];
