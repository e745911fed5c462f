//! The instruction sets that have kernels of their own, and which of them this CPU has.

use std::fmt;

/// An instruction set with kernels of its own.
///
/// Integer sums are equal to the last bit on all of them. Products of f32 are too wherever the CPU fuses multiplication and
/// addition, which only [`Isa::Portable`] on x86 does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// Plain loops.
    Portable,
    /// x86 with AVX2 and FMA: `vpmaddwd` on 16-bit factors, which cannot saturate as `vpmaddubsw` does.
    Avx2,
    /// x86 with AVX2, FMA and AVX-VNNI: `vpdpbusd` on 256 bits.
    AvxVnni,
    /// x86 with AVX-512 F and BW: `vpmaddwd` on 512 bits.
    Avx512,
    /// x86 with AVX-512 F, BW and VNNI: `vpdpbusd` on 512 bits.
    Avx512Vnni,
    /// 64-bit Arm: `smull`, `smlal` and `sadalp` on pairs, which every one has.
    Neon,
    /// 64-bit Arm with the dot product instructions: `sdot`.
    NeonDot,
}

impl Isa {
    /// All, slowest first.
    pub const ALL: [Self; 7] = [
        Self::Portable,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Neon,
        Self::NeonDot,
    ];

    /// The fastest one that this CPU has.
    pub fn detect() -> Self {
        Self::ALL
            .into_iter()
            .rfind(|isa| isa.is_available())
            .unwrap_or(Self::Portable)
    }

    /// Whether this CPU has it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma");
        let avx512 = avx2 && has!("avx512f") && has!("avx512bw");
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2,
            Self::AvxVnni => avx2 && has!("avxvnni"),
            Self::Avx512 => avx512,
            Self::Avx512Vnni => avx512 && has!("avx512vnni"),
            Self::Neon | Self::NeonDot => false,
        }
    }

    /// Whether this CPU has it.
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable | Self::Neon => true,
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    /// Whether this CPU has it.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// `portable`, `avx2`, `avx-vnni`, `avx512`, `avx512-vnni`, `neon` or `neon-dot`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avx-vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
