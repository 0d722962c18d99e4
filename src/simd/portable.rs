//! Lanes in plain Rust, for CPUs without other ones.

use std::array::from_fn;

use super::{LANES, Lanes, half};

/// Lanes as arrays.
#[derive(Clone, Copy)]
pub struct Portable;

type F = [f32; LANES];
type B = [u8; 2 * LANES];

impl Lanes for Portable {
    type F = F;
    type B = B;
    type Levels = [f32; 2];
    const ROWS: usize = 1;

    #[inline(always)]
    fn prefetch<T>(self, _: &[T], _: usize, _: usize) {}

    #[inline(always)]
    fn load(self, x: &F) -> F {
        *x
    }

    #[inline(always)]
    fn store(self, v: F, out: &mut F) {
        *out = v;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }

    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn total(self, v: F) -> f32 {
        let eight: [f32; 8] = from_fn(|i| v[i] + v[i + 8]);
        let four: [f32; 4] = from_fn(|i| eight[i] + eight[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    fn halves(self, words: &[u32; 8]) -> F {
        from_fn(|i| half(words[i / 2] >> (16 * (i % 2)) & 0xffff))
    }

    #[inline(always)]
    fn brain(self, words: &[u32; 8]) -> F {
        from_fn(|i| f32::from_bits(words[i / 2] >> (16 * (i % 2)) << 16))
    }

    #[inline(always)]
    fn half_pair(self, word: u32) -> [f32; 2] {
        [half(word & 0xffff), half(word >> 16)]
    }

    #[inline(always)]
    fn regrouped(self, a: F, b: F) -> [F; 2] {
        from_fn(|h| from_fn(|i| if i < 8 { a[8 * h + i] } else { b[8 * h + i - 8] }))
    }

    #[inline(always)]
    fn bytes(self, words: &[u32; 8]) -> B {
        bytemuck::cast(words.map(u32::to_le))
    }

    #[inline(always)]
    fn store_bytes(self, b: B, out: &mut [u32; 8]) {
        *out = bytemuck::cast(b);
    }

    #[inline(always)]
    fn nibbles(self, words: &[u32; 4]) -> B {
        let b: [u8; LANES] = bytemuck::cast(words.map(u32::to_le));
        from_fn(|i| if i < LANES { b[i] & 15 } else { b[i - LANES] >> 4 })
    }

    #[inline(always)]
    fn field(self, b: B, shift: u32, mask: u8) -> B {
        b.map(|b| b >> shift & mask)
    }

    #[inline(always)]
    fn or_shifted(self, a: B, b: B, shift: u32) -> B {
        from_fn(|i| a[i] | b[i] << shift)
    }

    #[inline(always)]
    fn minus(self, a: B, b: u8) -> B {
        a.map(|a| a.wrapping_sub(b))
    }

    #[inline(always)]
    fn bits(self, word: u32) -> B {
        from_fn(|i| (word >> i & 1) as u8)
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; LANES], b: B) -> B {
        b.map(|b| table[usize::from(b & 15)] as u8)
    }

    #[inline(always)]
    fn unsigned(self, b: B) -> [F; 2] {
        from_fn(|h| from_fn(|i| f32::from(b[LANES * h + i])))
    }

    #[inline(always)]
    fn signed(self, b: B) -> [F; 2] {
        from_fn(|h| from_fn(|i| f32::from(b[LANES * h + i] as i8)))
    }

    #[inline(always)]
    fn levels(self, factor: f32, offset: f32) -> [f32; 2] {
        [factor, offset]
    }

    #[inline(always)]
    fn low(self, [factor, offset]: [f32; 2], words: &[u32; 4]) -> F {
        let b: [u8; LANES] = bytemuck::cast(words.map(u32::to_le));
        b.map(|b| f32::from(b & 15) * factor + offset)
    }

    #[inline(always)]
    fn high(self, [factor, offset]: [f32; 2], words: &[u32; 4]) -> F {
        let b: [u8; LANES] = bytemuck::cast(words.map(u32::to_le));
        b.map(|b| f32::from(b >> 4) * factor + offset)
    }
}
