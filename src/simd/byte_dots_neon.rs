//! Dot products of bytes by NEON, with the instruction for them where the CPU has it.
#![allow(clippy::undocumented_unsafe_blocks)] // NEON belongs to the target, and pointers are to whole arrays

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected as has;
use std::array::from_fn;

use super::byte_dots::{BYTES, is_hidden};
use super::{ByteDots, LANES, Lanes, Neon};

/// NEON with its dot product (FEAT_DotProd).
#[derive(Clone, Copy)]
pub struct NeonDots(());

impl NeonDots {
    /// A value if the CPU has the instruction.
    #[inline]
    pub fn detect() -> Option<Self> {
        (has!("dotprod") && !is_hidden(0)).then_some(Self(()))
    }

    /// Adds four products to each of four sums. Rust has no stable intrinsic for this instruction.
    #[inline(always)]
    fn add_products(self, mut sums: int32x4_t, a: int8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe {
            std::arch::asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {a:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums, a = in(vreg) a, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
            sums
        }
    }
}

impl Neon {
    /// Adds four products to each of four sums.
    #[inline(always)]
    fn add_products(self, sums: int32x4_t, a: int8x16_t, x: int8x16_t) -> int32x4_t {
        unsafe {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(x)));
            let high = vpaddlq_s16(vmull_high_s8(a, x));
            vaddq_s32(sums, vpaddq_s32(low, high))
        }
    }
}

/// What both have in common.
macro_rules! dots_of_neon {
    () => {
        type L = Neon;
        type Factors = [f32; LANES];
        type I = [int32x4_t; 4];
        const ROWS: usize = 2;

        #[inline(always)]
        fn lanes(self) -> Neon {
            Neon
        }

        #[inline(always)]
        fn dot(self, a: [<Neon as Lanes>::B; 2], x: &[i8; BYTES]) -> <Neon as Lanes>::F {
            from_fn(|i| unsafe {
                let x = vld1q_s8(x.as_ptr().add(16 * i));
                vcvtq_f32_s32(self.add_products(vdupq_n_s32(0), vreinterpretq_s8_u8(a[i / 2][i % 2]), x))
            })
        }

        #[inline(always)]
        fn dot_signed(self, a: [<Neon as Lanes>::B; 2], x: &[i8; BYTES]) -> <Neon as Lanes>::F {
            self.dot(a, x)
        }

        #[inline(always)]
        fn factors(self, factors: <Neon as Lanes>::F) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            Neon.store(factors, &mut array);
            array
        }

        #[inline(always)]
        fn eights(self, factors: &[f32; LANES], i: usize) -> <Neon as Lanes>::F {
            from_fn(|j| unsafe { vdupq_n_f32(factors[2 * i + j / 2]) })
        }

        #[inline(always)]
        fn fours(self, factors: &[f32; LANES], i: usize) -> <Neon as Lanes>::F {
            from_fn(|j| unsafe { vdupq_n_f32(factors[4 * i + j]) })
        }

        #[inline(always)]
        fn zero(self) -> Self::I {
            unsafe { [vdupq_n_s32(0); 4] }
        }

        #[inline(always)]
        fn add_quads(self, sums: Self::I, a: &[i8; BYTES], x: [i8; 4]) -> Self::I {
            from_fn(|i| unsafe {
                let x = vreinterpretq_s8_s32(vdupq_n_s32(bytemuck::cast(x)));
                self.add_products(sums[i], vld1q_s8(a.as_ptr().add(16 * i)), x)
            })
        }

        #[inline(always)]
        fn add_quads_signed(self, sums: Self::I, a: &[i8; BYTES], x: [i8; 4]) -> Self::I {
            self.add_quads(sums, a, x)
        }

        #[inline(always)]
        fn numbers(self, sums: Self::I) -> <Neon as Lanes>::F {
            sums.map(|sums| unsafe { vcvtq_f32_s32(sums) })
        }
    };
}

impl ByteDots for NeonDots {
    dots_of_neon!();
}

impl ByteDots for Neon {
    dots_of_neon!();
}
