//! The kernels as the driver loads them, one module for each source file.

/// Everything as PTX, by file.
#[cfg(feature = "ptx")]
pub const PTX: [(&str, &str); 7] = [
    ("attention", include_str!(concat!(env!("OUT_DIR"), "/attention.ptx"))),
    ("attention_plain", include_str!(concat!(env!("OUT_DIR"), "/attention_plain.ptx"))),
    ("distil", include_str!(concat!(env!("OUT_DIR"), "/distil.ptx"))),
    ("elementwise", include_str!(concat!(env!("OUT_DIR"), "/elementwise.ptx"))),
    ("norm", include_str!(concat!(env!("OUT_DIR"), "/norm.ptx"))),
    ("optimiser", include_str!(concat!(env!("OUT_DIR"), "/optimiser.ptx"))),
    ("rows", include_str!(concat!(env!("OUT_DIR"), "/rows.ptx"))),
];

/// What [`crate::encoder`] launches, by file: machine code for compute capability 8.7, 8.9 and 9.0, PTX for others from 8.0 on.
#[cfg(feature = "fatbin")]
pub static FATBIN: [(&str, &[u8]); 5] = [
    ("attention", include_bytes!(concat!(env!("OUT_DIR"), "/attention.fatbin"))),
    ("attention_plain", include_bytes!(concat!(env!("OUT_DIR"), "/attention_plain.fatbin"))),
    ("elementwise", include_bytes!(concat!(env!("OUT_DIR"), "/elementwise.fatbin"))),
    ("norm", include_bytes!(concat!(env!("OUT_DIR"), "/norm.fatbin"))),
    ("rows", include_bytes!(concat!(env!("OUT_DIR"), "/rows.fatbin"))),
];
