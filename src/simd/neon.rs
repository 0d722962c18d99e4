//! Lanes of NEON: four registers. Every 64-bit ARM CPU has it.
#![allow(clippy::undocumented_unsafe_blocks)] // NEON belongs to the target, and pointers are to whole arrays

use std::arch::aarch64::*;
use std::array::from_fn;

use super::{LANES, Lanes, half};

/// Lanes of NEON.
#[derive(Clone, Copy)]
pub struct Neon;

type F = [float32x4_t; 4];
type B = [uint8x16_t; 2];

#[inline(always)]
fn sixteen(words: &[u32; 4]) -> uint8x16_t {
    unsafe { vld1q_u8(words.as_ptr().cast()) }
}

#[inline(always)]
fn unsigned(b: uint8x16_t) -> F {
    unsafe {
        let eights = [vmovl_u8(vget_low_u8(b)), vmovl_high_u8(b)];
        from_fn(|i| {
            let e = eights[i / 2];
            vcvtq_f32_u32(if i % 2 == 0 { vmovl_u16(vget_low_u16(e)) } else { vmovl_high_u16(e) })
        })
    }
}

impl Lanes for Neon {
    type F = F;
    type B = B;
    type Levels = [f32; 2];
    const ROWS: usize = 2;

    #[inline(always)]
    fn prefetch<T>(self, _: &[T], _: usize, _: usize) {}

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
    }

    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        for i in 0..4 {
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * i), v[i]) }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        from_fn(|i| unsafe { vmulq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        from_fn(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    fn total(self, v: F) -> f32 {
        unsafe {
            let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn halves(self, words: &[u32; 8]) -> F {
        self.load(&from_fn(|i| half(words[i / 2] >> (16 * (i % 2)) & 0xffff)))
    }

    #[inline(always)]
    fn brain(self, words: &[u32; 8]) -> F {
        unsafe {
            let eights = [0, 4].map(|at| vld1q_u16(words.as_ptr().add(at).cast()));
            from_fn(|i| {
                let e = eights[i / 2];
                vreinterpretq_f32_u32(if i % 2 == 0 {
                    vshll_n_u16::<16>(vget_low_u16(e))
                } else {
                    vshll_high_n_u16::<16>(e)
                })
            })
        }
    }

    #[inline(always)]
    fn half_pair(self, word: u32) -> [f32; 2] {
        [half(word & 0xffff), half(word >> 16)]
    }

    #[inline(always)]
    fn regrouped(self, a: F, b: F) -> [F; 2] {
        [[a[0], a[1], b[0], b[1]], [a[2], a[3], b[2], b[3]]]
    }

    #[inline(always)]
    fn bytes(self, words: &[u32; 8]) -> B {
        unsafe { [0, 4].map(|at| vld1q_u8(words.as_ptr().add(at).cast())) }
    }

    #[inline(always)]
    fn store_bytes(self, b: B, out: &mut [u32; 8]) {
        for h in 0..2 {
            unsafe { vst1q_u8(out.as_mut_ptr().add(4 * h).cast(), b[h]) }
        }
    }

    #[inline(always)]
    fn nibbles(self, words: &[u32; 4]) -> B {
        let b = sixteen(words);
        unsafe { [vandq_u8(b, vdupq_n_u8(15)), vshrq_n_u8::<4>(b)] }
    }

    #[inline(always)]
    fn field(self, b: B, shift: u32, mask: u8) -> B {
        b.map(|b| unsafe { vandq_u8(vshlq_u8(b, vdupq_n_s8(-(shift as i8))), vdupq_n_u8(mask)) })
    }

    #[inline(always)]
    fn or_shifted(self, a: B, b: B, shift: u32) -> B {
        from_fn(|i| unsafe { vorrq_u8(a[i], vshlq_u8(b[i], vdupq_n_s8(shift as i8))) })
    }

    #[inline(always)]
    fn minus(self, a: B, b: u8) -> B {
        a.map(|a| unsafe { vsubq_u8(a, vdupq_n_u8(b)) })
    }

    #[inline(always)]
    fn bits(self, word: u32) -> B {
        unsafe {
            let bit = vcombine_u8(vcreate_u8(0x8040_2010_0804_0201), vcreate_u8(0x8040_2010_0804_0201));
            let bytes = word.to_le_bytes();
            from_fn(|h| {
                let spread = vcombine_u8(vdup_n_u8(bytes[2 * h]), vdup_n_u8(bytes[2 * h + 1]));
                vandq_u8(vtstq_u8(spread, bit), vdupq_n_u8(1))
            })
        }
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; LANES], b: B) -> B {
        unsafe {
            let table = vld1q_u8(table.as_ptr().cast());
            b.map(|b| vqtbl1q_u8(table, b))
        }
    }

    #[inline(always)]
    fn unsigned(self, b: B) -> [F; 2] {
        b.map(unsigned)
    }

    #[inline(always)]
    fn signed(self, b: B) -> [F; 2] {
        b.map(|b| unsafe {
            let b = vreinterpretq_s8_u8(b);
            let eights = [vmovl_s8(vget_low_s8(b)), vmovl_high_s8(b)];
            from_fn(|i| {
                let e = eights[i / 2];
                vcvtq_f32_s32(if i % 2 == 0 { vmovl_s16(vget_low_s16(e)) } else { vmovl_high_s16(e) })
            })
        })
    }

    #[inline(always)]
    fn levels(self, factor: f32, offset: f32) -> [f32; 2] {
        [factor, offset]
    }

    #[inline(always)]
    fn low(self, [factor, offset]: [f32; 2], words: &[u32; 4]) -> F {
        let q = unsigned(unsafe { vandq_u8(sixteen(words), vdupq_n_u8(15)) });
        self.mul_add(q, self.splat(factor), self.splat(offset))
    }

    #[inline(always)]
    fn high(self, [factor, offset]: [f32; 2], words: &[u32; 4]) -> F {
        let q = unsigned(unsafe { vshrq_n_u8::<4>(sixteen(words)) });
        self.mul_add(q, self.splat(factor), self.splat(offset))
    }
}
