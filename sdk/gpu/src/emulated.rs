//! A machine that runs the kernels' sources on the host, see `kernels/emulated`, and computes products as cuBLAS is asked to.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Result, bail};

use crate::{Arg, Kind, Launch, Machine, Memory, Product, View};

/// Bytes before and after a piece of memory that nobody may write; the piece itself starts as NaN.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xa5;

type Emulate = unsafe extern "C" fn(
    *const c_char,
    u32,
    u32,
    u32,
    u32,
    *mut *mut c_void,
    c_int,
) -> *const c_char;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// One kernel at a time: the emulation has one set of coroutines.
static RUNNING: Mutex<()> = Mutex::new(());

fn compile() -> PathBuf {
    // A test program that runs elsewhere than where it was built is told where the sources are.
    let kernels = std::env::var_os("SSL_EDGE_KERNELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"),
        PathBuf::from,
    );
    let folder = std::env::temp_dir().join(format!("ssl-edge-kernels-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let library = folder.join("kernels.so");
    let done = Command::new("c++")
        .args([
            "-std=c++17",
            "-O2",
            "-w",
            "-fno-strict-aliasing",
            "-U_FORTIFY_SOURCE",
            "-ffp-contract=off",
            "-shared",
            "-fPIC",
            "-o",
        ])
        .arg(&library)
        .arg(kernels.join("emulated/library.cpp"))
        .output()
        .expect("a C++ compiler is installed");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    library
}

fn emulate() -> Emulate {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    let address = *LIBRARY.get_or_init(|| {
        let library = compile();
        let path =
            CString::new(library.to_str().expect("a path in UTF-8")).expect("no zero in a path");
        // SAFETY: 2 is RTLD_NOW; the library is ours and has no constructors that could harm.
        let handle = unsafe { dlopen(path.as_ptr(), 2) };
        assert!(!handle.is_null(), "{} cannot be loaded", library.display());
        // SAFETY: the handle is valid.
        let symbol = unsafe { dlsym(handle, c"emulated_launch".as_ptr()) };
        assert!(!symbol.is_null(), "the library has no launcher");
        // The mapped library outlives its file.
        let _ = std::fs::remove_dir_all(library.parent().expect("it is in a folder"));
        symbol as usize
    });
    // SAFETY: the symbol is a function of this type, see kernels/emulated/library.cpp.
    unsafe { std::mem::transmute::<usize, Emulate>(address) }
}

struct Buffer {
    words: Box<[u64]>,
    bytes: usize,
}

impl Buffer {
    fn new(bytes: usize) -> Self {
        let words = vec![u64::from_ne_bytes([0xff; 8]); (bytes + 2 * GUARD).div_ceil(8) + 2]
            .into_boxed_slice();
        let mut buffer = Self { words, bytes };
        let start = buffer.start();
        let all = buffer.all();
        all[start - GUARD..start].fill(GUARD_BYTE);
        all[start + bytes..start + bytes + GUARD].fill(GUARD_BYTE);
        buffer
    }

    /// Where the piece begins: at a multiple of 16, as on a GPU.
    fn start(&self) -> usize {
        GUARD + (16 - self.words.as_ptr() as usize % 16) % 16
    }

    fn all(&mut self) -> &mut [u8] {
        // SAFETY: any bits are bytes; the length is that of the words.
        unsafe {
            std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.words.len() * 8)
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (start, bytes) = (self.start(), self.bytes);
        let all = self.all();
        let intact = |part: &[u8]| part.iter().all(|&b| b == GUARD_BYTE);
        let whole = intact(&all[start - GUARD..start])
            && intact(&all[start + bytes..start + bytes + GUARD]);
        assert!(
            whole || std::thread::panicking(),
            "a kernel wrote beyond a piece of {bytes} bytes"
        );
    }
}

/// The emulated GPU.
pub struct Emulated {
    /// What products read.
    pub work: Kind,
    /// Whether threads take turns from the last to the first.
    pub reversed: bool,
}

/// The value of a bf16.
fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// To the nearest bf16, ties to even.
fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        (bits >> 16) as u16 | 0x40
    } else {
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    }
}

/// The value of an f16.
pub fn f16_to_f32(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (fraction + 1024.0) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// To the nearest f16, ties to even; beyond 65504 to infinity.
pub fn f32_to_f16(x: f32) -> u16 {
    let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
    let size = x.abs();
    if x.is_nan() {
        return sign | 0x7e00;
    }
    if size >= 65520.0 {
        return sign | 0x7c00;
    }
    if size < 2f32.powi(-14) {
        return sign | (size * 2f32.powi(24)).round_ties_even() as u16;
    }
    let exponent = (size.to_bits() >> 23) as i32 - 127;
    let steps = (size * 2f32.powi(10 - exponent)).round_ties_even() as i32;
    sign | (((exponent + 14) << 10) + steps) as u16
}

fn read(view: View) -> Vec<f32> {
    let at = view.address as *const u8;
    let value = |i: usize| match view.kind {
        // SAFETY: the tests' views are alive and as long as they say.
        Kind::F32 => unsafe { at.cast::<f32>().add(i).read_unaligned() },
        // SAFETY: as above.
        Kind::Bf16 => bf16_to_f32(unsafe { at.cast::<u16>().add(i).read_unaligned() }),
        // SAFETY: as above.
        Kind::F16 => f16_to_f32(unsafe { at.cast::<u16>().add(i).read_unaligned() }),
        _ => unreachable!("products and results are floating-point"),
    };
    (0..view.len).map(value).collect()
}

fn write(view: View, values: &[f32]) {
    assert_eq!(view.len, values.len());
    let at = view.address as *mut u8;
    for (i, &value) in values.iter().enumerate() {
        match view.kind {
            // SAFETY: as in `read`.
            Kind::F32 => unsafe { at.cast::<f32>().add(i).write_unaligned(value) },
            // SAFETY: as above.
            Kind::Bf16 => unsafe { at.cast::<u16>().add(i).write_unaligned(f32_to_bf16(value)) },
            // SAFETY: as above.
            Kind::F16 => unsafe { at.cast::<u16>().add(i).write_unaligned(f32_to_f16(value)) },
            _ => unreachable!("products and results are floating-point"),
        }
    }
}

impl Machine for Emulated {
    fn work(&self) -> Kind {
        self.work
    }

    fn alloc(&self, kind: Kind, len: usize) -> Result<Memory> {
        let buffer = Buffer::new(len * kind.bytes());
        let address = buffer.words.as_ptr() as u64 + buffer.start() as u64;
        Ok(Memory {
            view: View { address, len, kind },
            owner: Box::new(buffer),
        })
    }

    fn upload(&self, kind: Kind, bytes: &[u8]) -> Result<Memory> {
        let memory = self.alloc(kind, bytes.len() / kind.bytes())?;
        // SAFETY: the piece was made as long.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                memory.view.address as *mut u8,
                bytes.len(),
            )
        };
        Ok(memory)
    }

    fn download(&self, view: View) -> Result<Vec<f32>> {
        Ok(read(view))
    }

    unsafe fn launch(&self, launch: &Launch, args: &[Arg]) -> Result<()> {
        let _one = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values: Vec<[u8; 8]> = args
            .iter()
            .map(|arg| {
                let mut bytes = [0; 8];
                match arg {
                    Arg::Address(a) => bytes.copy_from_slice(&a.to_ne_bytes()),
                    Arg::I64(v) => bytes.copy_from_slice(&v.to_ne_bytes()),
                    Arg::I32(v) => bytes[..4].copy_from_slice(&v.to_ne_bytes()),
                    Arg::F32(v) => bytes[..4].copy_from_slice(&v.to_ne_bytes()),
                }
                bytes
            })
            .collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|v| v.as_mut_ptr().cast()).collect();
        let name = CString::new(launch.kernel.as_str()).expect("no zero in a name");
        let [x, y] = launch.grid.map(|n| n as u32);
        // SAFETY: the caller's contract, and one value for each argument.
        let failure = unsafe {
            emulate()(
                name.as_ptr(),
                x,
                y,
                launch.threads as u32,
                launch.shared as u32,
                pointers.as_mut_ptr(),
                c_int::from(self.reversed),
            )
        };
        if !failure.is_null() {
            bail!(
                "{}.cu: {}",
                launch.file,
                // SAFETY: what is not NULL is a text that ends with NUL and lives until the next launch.
                unsafe { CStr::from_ptr(failure) }.to_string_lossy()
            )
        }
        Ok(())
    }

    /// The column-major product that cuBLAS is asked for, from the same description, in f64.
    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        let call = product.column_major();
        let (a, b) = (read(product.b), read(product.a));
        let c = product.c.map(read);
        let bias = product.bias.map(read);
        let element = |matrix: &[f32], transposed: bool, ld: usize, row: usize, column: usize| {
            f64::from(if transposed {
                matrix[column + row * ld]
            } else {
                matrix[row + column * ld]
            })
        };
        let mut out = vec![0f32; call.m * call.n];
        for column in 0..call.n {
            for row in 0..call.m {
                let mut sum = 0.0;
                for k in 0..call.k {
                    sum += element(&a, call.a_transposed, call.lda, row, k)
                        * element(&b, call.b_transposed, call.ldb, k, column);
                }
                let at = row + column * call.ldc;
                sum += c.as_ref().map_or(0.0, |c| f64::from(c[at]))
                    + bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
                out[at] = sum as f32;
            }
        }
        write(product.out, &out);
        Ok(())
    }
}
