//! Memory, launches and products, and what does them.

use std::any::Any;

use crate::{Result, bail};

/// Type of the values in a piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 32 bits.
    F32,
    /// 16 bits with the exponent of f32.
    Bf16,
    /// 16 bits with 11 for the fraction; beyond 65504 there is infinity.
    F16,
    /// Unsigned, 32 bits.
    U32,
    /// Bytes.
    U8,
}

impl Kind {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 => 1,
        }
    }

    /// End of a kernel's name.
    ///
    /// # Errors
    /// A type that kernels do not compute in.
    pub fn suffix(self) -> Result<&'static str> {
        match self {
            Self::F32 => Ok("float"),
            Self::Bf16 => Ok("bf16"),
            Self::F16 => Ok("half"),
            Self::U32 | Self::U8 => bail!("kernels compute in f32, bf16 and f16"),
        }
    }
}

/// Where values lie. The machine frees memory in the order of its work, so a view may be used until its [`Memory`] is dropped.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Of the first value.
    pub address: u64,
    /// Number of values.
    pub len: usize,
    /// Their type.
    pub kind: Kind,
}

/// Values on a machine, freed when dropped.
pub struct Memory {
    /// Where they lie.
    pub view: View,
    /// What frees them.
    pub owner: Box<dyn Any + Send + Sync>,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// Of an array.
    Address(u64),
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `float`.
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
pub struct Launch {
    /// File of the kernel, without its ending.
    pub file: &'static str,
    /// Its name.
    pub kernel: String,
    /// Blocks across and down.
    pub grid: [usize; 2],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of shared memory.
    pub shared: usize,
}

/// `out [m, n] = a b (+ c) (+ bias)` of row-major matrices; `a` is `[m, k]`, or stored as `[k, m]` where `a_transposed`, `b` is `[k, n]` or
/// stored as `[n, k]`. `c` and `bias [n]` are of the type of `out`; `c` may be `out`.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of `out`.
    pub m: usize,
    /// Columns of `out`.
    pub n: usize,
    /// Columns of `a`, rows of `b`.
    pub k: usize,
    /// Left matrix.
    pub a: View,
    /// Whether it is stored as `[k, m]`.
    pub a_transposed: bool,
    /// Right matrix.
    pub b: View,
    /// Whether it is stored as `[n, k]`.
    pub b_transposed: bool,
    /// Summand, `[m, n]`.
    pub c: Option<View>,
    /// Added to every row, `[n]`.
    pub bias: Option<View>,
    /// The result.
    pub out: View,
}

/// A product as cuBLAS sees it, whose matrices are column-major: `out = op(a) op(b) + c + bias` with `out [m, n]`, a bias for each row.
/// Its `a` is the row-major product's `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnMajor {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Columns of `a`, rows of `b`.
    pub k: usize,
    /// Whether `a` is stored as `[k, m]`.
    pub a_transposed: bool,
    /// Whether `b` is stored as `[n, k]`.
    pub b_transposed: bool,
    /// Values from a column of `a` to the next.
    pub lda: usize,
    /// The same of `b`.
    pub ldb: usize,
    /// The same of `c` and the result.
    pub ldc: usize,
}

impl Product {
    /// The same product in cuBLAS's order.
    pub fn column_major(&self) -> ColumnMajor {
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
pub trait Machine {
    /// What matrix products read.
    fn work(&self) -> Kind;

    /// `len` arbitrary values.
    ///
    /// # Errors
    /// Memory that does not suffice.
    fn alloc(&self, kind: Kind, len: usize) -> Result<Memory>;

    /// Values from the host.
    ///
    /// # Errors
    /// Memory that does not suffice, a device that failed.
    fn upload(&self, kind: Kind, bytes: &[u8]) -> Result<Memory>;

    /// f32 values to the host, when all work before is done.
    ///
    /// # Errors
    /// Values of another type, and what went wrong in the work before.
    fn download(&self, view: View) -> Result<Vec<f32>>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// A kernel that is not there or that the device does not take.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and what it reads and writes lies within views that are alive.
    unsafe fn launch(&self, launch: &Launch, args: &[Arg]) -> Result<()>;

    /// Computes a product.
    ///
    /// # Errors
    /// A product that the device does not take.
    ///
    /// # Safety
    /// All views are alive and hold the product's matrices.
    unsafe fn multiply(&self, product: &Product) -> Result<()>;
}

/// Checks the sizes of a product, then computes it.
///
/// # Errors
/// Sizes or types that do not go together, and those of [`Machine::multiply`].
pub fn multiply(machine: &dyn Machine, p: &Product) -> Result<()> {
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
///
/// # Errors
/// It has others.
pub fn expect(what: &str, view: View, len: usize) -> Result<()> {
    if view.len != len {
        bail!("{what} has {} values, {len} expected", view.len)
    }
    Ok(())
}

/// As a kernel's 32-bit argument.
///
/// # Errors
/// A number beyond 32 bits.
pub fn int(n: usize) -> Result<Arg> {
    match i32::try_from(n) {
        Ok(n) => Ok(Arg::I32(n)),
        Err(_) => bail!("{n} is more than a kernel takes; use a smaller batch"),
    }
}

/// `u32` values as bytes.
pub fn bytes_of(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}
