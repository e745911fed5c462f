//! Operations on NVIDIA GPUs: which kernels run in which order, on memory of a [`Machine`].
//!
//! Two machines exist: the GPU (feature `cuda`), and, for tests, an emulation that runs the same kernel sources on the host.
//! Everything in between is written once, so what the tests run is what the GPU runs, up to the compiler and cuBLAS.
//!
//! Tensors are f32 outside of an operation. Inside, matrix products read [`Machine::work`]: f32, or bf16 rounded from it; they sum in f32.
//! Norms, softmax, residuals, losses, parameters and their gradients are f32 in either case.

pub(crate) mod attention;
pub(crate) mod block;
#[cfg(feature = "cuda")]
pub(crate) mod blocks_op;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
pub(crate) mod distil;
#[cfg(all(test, target_os = "linux"))]
mod emulated;
pub(crate) mod kernels;
pub(crate) mod linear;
pub(crate) mod losses;
#[cfg(feature = "cuda")]
mod matmul;
pub(crate) mod multi;
#[cfg(feature = "cuda")]
pub(crate) mod ops;
#[cfg(feature = "cuda")]
pub(crate) mod rows_op;
#[cfg(all(test, target_os = "linux"))]
mod tests;
#[cfg(feature = "cuda")]
pub(crate) mod update;

use std::any::Any;

use candle_core::{Result, bail};

#[cfg(feature = "cuda")]
pub(crate) use cuda::{Cuda, machine_of, open};

/// Type of the values in a piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    F32,
    Bf16,
    U32,
    U8,
}

impl Kind {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    /// End of a kernel's name.
    pub(crate) fn suffix(self) -> Result<&'static str> {
        match self {
            Self::F32 => Ok("float"),
            Self::Bf16 => Ok("bf16"),
            Self::U32 | Self::U8 => bail!("kernels compute in f32 and bf16"),
        }
    }
}

/// Where values lie. The machine frees memory in the order of its work, so a view may be used until its [`Memory`] is dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) address: u64,
    pub(crate) len: usize,
    pub(crate) kind: Kind,
}

/// Values on a machine, freed when dropped.
pub(crate) struct Memory {
    pub(crate) view: View,
    /// What frees them.
    pub(crate) _owner: Box<dyn Any + Send + Sync>,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    Address(u64),
    I32(i32),
    I64(i64),
    F32(f32),
}

impl From<View> for Arg {
    fn from(view: View) -> Self {
        Self::Address(view.address)
    }
}

impl From<Option<View>> for Arg {
    fn from(view: Option<View>) -> Self {
        Self::Address(view.map_or(0, |view| view.address))
    }
}

/// A kernel with the size of its launch.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// File of the kernel, without its ending.
    pub(crate) file: &'static str,
    pub(crate) kernel: String,
    pub(crate) grid: [usize; 2],
    pub(crate) threads: usize,
    /// Bytes of shared memory.
    pub(crate) shared: usize,
}

/// `out [m, n] = a b (+ c) (+ bias)` of row-major matrices; `a` is `[m, k]`, or stored as `[k, m]` where `a_transposed`, `b` is `[k, n]` or
/// stored as `[n, k]`. `c` and `bias [n]` are of the type of `out`; `c` may be `out`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: View,
    pub(crate) a_transposed: bool,
    pub(crate) b: View,
    pub(crate) b_transposed: bool,
    pub(crate) c: Option<View>,
    pub(crate) bias: Option<View>,
    pub(crate) out: View,
}

/// A product as cuBLAS sees it, whose matrices are column-major: `out = op(a) op(b) + c + bias` with `out [m, n]`, a bias for each row.
/// Its `a` is the row-major product's `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ColumnMajor {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a_transposed: bool,
    pub(crate) b_transposed: bool,
    /// Values from a column to the next.
    pub(crate) lda: usize,
    pub(crate) ldb: usize,
    pub(crate) ldc: usize,
}

impl Product {
    pub(crate) fn column_major(&self) -> ColumnMajor {
        ColumnMajor {
            m: self.n,
            n: self.m,
            k: self.k,
            a_transposed: self.b_transposed,
            b_transposed: self.a_transposed,
            lda: if self.b_transposed { self.k } else { self.n },
            ldb: if self.a_transposed { self.m } else { self.k },
            ldc: self.n,
        }
    }
}

/// Does work in the order in which it is asked for.
pub(crate) trait Machine {
    /// What matrix products read.
    fn work(&self) -> Kind;

    /// `len` arbitrary values.
    fn alloc(&self, kind: Kind, len: usize) -> Result<Memory>;

    /// Values from the host.
    fn upload(&self, kind: Kind, bytes: &[u8]) -> Result<Memory>;

    /// Values to the host, when all work before is done.
    fn download(&self, view: View) -> Result<Vec<f32>>;

    /// Runs a kernel.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and what it reads and writes lies within views that are alive.
    unsafe fn launch(&self, launch: &Launch, args: &[Arg]) -> Result<()>;

    /// Computes a product.
    ///
    /// # Safety
    /// All views are alive and hold the product's matrices.
    unsafe fn multiply(&self, product: &Product) -> Result<()>;
}

/// Checks the sizes of a product, then computes it.
pub(crate) fn multiply(machine: &dyn Machine, p: &Product) -> Result<()> {
    expect("left matrix", p.a, p.m * p.k)?;
    expect("right matrix", p.b, p.k * p.n)?;
    expect("product", p.out, p.m * p.n)?;
    p.c.map_or(Ok(()), |c| expect("summand", c, p.m * p.n))?;
    p.bias.map_or(Ok(()), |bias| expect("bias", bias, p.n))?;
    let same = |view: Option<View>| view.is_none_or(|view| view.kind == p.out.kind);
    if p.a.kind != p.b.kind || !same(p.c) || !same(p.bias) {
        bail!(
            "product of {:?} and {:?} into {:?}: types that do not go together",
            p.a.kind,
            p.b.kind,
            p.out.kind
        )
    }
    // SAFETY: the matrices have the sizes of the product.
    unsafe { machine.multiply(p) }
}

/// Checks that a view has `len` values.
pub(crate) fn expect(what: &str, view: View, len: usize) -> Result<()> {
    if view.len != len {
        bail!("{what} has {} values, {len} expected", view.len)
    }
    Ok(())
}

/// As a kernel's 32-bit argument.
pub(crate) fn int(n: usize) -> Result<Arg> {
    match i32::try_from(n) {
        Ok(n) => Ok(Arg::I32(n)),
        Err(_) => bail!("{n} is more than a kernel takes; use a smaller batch"),
    }
}

/// `u32` values as bytes.
pub(crate) fn bytes_of(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}
