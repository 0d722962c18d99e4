//! Dot products of bytes, in integers: the vector operations of products with rounded activations.
//!
//! [`ByteDots`] does for them what [`Lanes`] does for f32, and [`widest_dots!`](super::widest_dots)
//! compiles a function for VNNI (of AVX-512, and of AVX2), AVX2, NEON with and without its dot
//! product, and plain Rust. The integers are the same everywhere.

use std::array::from_fn;

use super::{LANES, Lanes, Portable};

#[cfg(test)]
thread_local! {
    /// How many instruction sets a test hides from [`widest_dots!`](super::widest_dots) on this thread,
    /// the fastest first.
    pub static HIDDEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whether a test hides an instruction set, by its place among them.
pub fn is_hidden(_place: usize) -> bool {
    #[cfg(test)]
    return HIDDEN.get() > _place;
    #[cfg(not(test))]
    false
}

/// Bytes of a dot product: four for each lane.
pub const BYTES: usize = 4 * LANES;

/// Dot products of four bytes in each of sixteen lanes. A value of such a type proves that the CPU
/// has the instructions.
pub trait ByteDots: Copy {
    /// The lanes that unpack weights, and that add the dot products.
    type L: Lanes;
    /// Sixteen factors to spread over lanes.
    type Factors: Copy;
    /// Sixteen i32.
    type I: Copy;
    /// Rows whose sums, two each, fit into registers beside a weight.
    const ROWS: usize;

    /// The lanes that unpack weights.
    fn lanes(self) -> Self::L;
    /// Σ a·x of codes from 0 to 127, as f32. `x` is at least -127.
    fn dot(self, a: [<Self::L as Lanes>::B; 2], x: &[i8; BYTES]) -> <Self::L as Lanes>::F;
    /// Σ a·x of codes from -128 to 127, as f32. `x` is at least -127.
    fn dot_signed(self, a: [<Self::L as Lanes>::B; 2], x: &[i8; BYTES]) -> <Self::L as Lanes>::F;
    /// Prepares sixteen factors.
    fn factors(self, factors: <Self::L as Lanes>::F) -> Self::Factors;
    /// Factors 2i and 2i + 1, each in eight lanes.
    fn eights(self, factors: &Self::Factors, i: usize) -> <Self::L as Lanes>::F;
    /// Factors 4i to 4i + 3, each in four lanes.
    fn fours(self, factors: &Self::Factors, i: usize) -> <Self::L as Lanes>::F;

    /// Zeros.
    fn zero(self) -> Self::I;
    /// Adds Σ a·x to each lane, with its four codes a from 0 to 127 and the same four x, which are at
    /// least -127.
    fn add_quads(self, sums: Self::I, a: &[i8; BYTES], x: [i8; 4]) -> Self::I;
    /// The same for codes from -128 to 127.
    fn add_quads_signed(self, sums: Self::I, a: &[i8; BYTES], x: [i8; 4]) -> Self::I;
    /// The sums as f32.
    fn numbers(self, sums: Self::I) -> <Self::L as Lanes>::F;
}

impl ByteDots for Portable {
    type L = Self;
    type Factors = [f32; LANES];
    type I = [i32; LANES];
    const ROWS: usize = 1;

    #[inline(always)]
    fn lanes(self) -> Self {
        self
    }

    #[inline(always)]
    fn dot(self, a: [[u8; BYTES / 2]; 2], x: &[i8; BYTES]) -> [f32; LANES] {
        let product = |j: usize| i32::from(a[j / 32][j % 32]) * i32::from(x[j]);
        from_fn(|i| (4 * i..4 * i + 4).map(product).sum::<i32>() as f32)
    }

    #[inline(always)]
    fn dot_signed(self, a: [[u8; BYTES / 2]; 2], x: &[i8; BYTES]) -> [f32; LANES] {
        let product = |j: usize| i32::from(a[j / 32][j % 32] as i8) * i32::from(x[j]);
        from_fn(|i| (4 * i..4 * i + 4).map(product).sum::<i32>() as f32)
    }

    #[inline(always)]
    fn factors(self, factors: [f32; LANES]) -> [f32; LANES] {
        factors
    }

    #[inline(always)]
    fn eights(self, factors: &[f32; LANES], i: usize) -> [f32; LANES] {
        from_fn(|lane| factors[2 * i + lane / 8])
    }

    #[inline(always)]
    fn fours(self, factors: &[f32; LANES], i: usize) -> [f32; LANES] {
        from_fn(|lane| factors[4 * i + lane / 4])
    }

    #[inline(always)]
    fn zero(self) -> [i32; LANES] {
        [0; LANES]
    }

    #[inline(always)]
    fn add_quads(self, sums: [i32; LANES], a: &[i8; BYTES], x: [i8; 4]) -> [i32; LANES] {
        from_fn(|i| sums[i] + (0..4).map(|j| i32::from(a[4 * i + j]) * i32::from(x[j])).sum::<i32>())
    }

    #[inline(always)]
    fn add_quads_signed(self, sums: [i32; LANES], a: &[i8; BYTES], x: [i8; 4]) -> [i32; LANES] {
        self.add_quads(sums, a, x)
    }

    #[inline(always)]
    fn numbers(self, sums: [i32; LANES]) -> [f32; LANES] {
        sums.map(|x| x as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// Compares all operations with those of plain Rust.
    fn check<D: ByteDots>(d: D) {
        let (l, mut rng) = (d.lanes(), StdRng::seed_from_u64(1));
        let array = |v| {
            let mut array = [0.0; LANES];
            l.store(v, &mut array);
            array
        };
        for round in 0..50 {
            let words: [[u32; 8]; 2] = from_fn(|_| from_fn(|_| rng.random()));
            let small = words.map(|half| half.map(|word| word & 0x7f7f_7f7f));
            // The extremes meet each other in the first round.
            let (words, small) =
                if round == 0 { ([[0x8080_8080; 8]; 2], [[0x7f7f_7f7f; 8]; 2]) } else { (words, small) };
            let x: [i8; BYTES] = from_fn(|_| if round == 0 { -127 } else { rng.random_range(-127..=127) });
            let f: [f32; LANES] = from_fn(|_| rng.random_range(-1.0..1.0));
            let (p, bytes) = (Portable, |words: &[u32; 8]| l.bytes(words));
            let plain = |words: &[u32; 8]| Portable.bytes(words);
            assert_eq!(array(d.dot(small.each_ref().map(bytes), &x)), p.dot(small.each_ref().map(plain), &x));
            assert_eq!(
                array(d.dot_signed(words.each_ref().map(bytes), &x)),
                p.dot_signed(words.each_ref().map(plain), &x)
            );
            let factors = d.factors(l.load(&f));
            for i in 0..8 {
                assert_eq!(array(d.eights(&factors, i)), p.eights(&f, i));
            }
            for i in 0..4 {
                assert_eq!(array(d.fours(&factors, i)), p.fours(&f, i));
            }
            let of = |words: [[u32; 8]; 2]| -> [i8; BYTES] { bytemuck::cast(words) };
            let quad = [x[0], x[1], x[2], x[3]];
            let sums = d.add_quads(d.add_quads(d.zero(), &of(small), quad), &of(small), quad);
            let expected = p.add_quads(p.add_quads(p.zero(), &of(small), quad), &of(small), quad);
            assert_eq!(array(d.numbers(sums)), p.numbers(expected));
            let sums = d.numbers(d.add_quads_signed(d.zero(), &of(words), quad));
            assert_eq!(array(sums), p.numbers(p.add_quads_signed(p.zero(), &of(words), quad)));
            let mut stored = [0; 8];
            l.store_bytes(l.bytes(&words[0]), &mut stored);
            assert_eq!(stored, words[0]);
            let header = words[0].first_chunk().unwrap();
            l.store_bytes(l.six_bits(header), &mut stored);
            assert_eq!(bytemuck::cast::<_, [u8; BYTES / 2]>(stored), p.six_bits(header));
            let g: [f32; LANES] = from_fn(|i| f[i] + 1.0);
            assert_eq!(l.regrouped(l.load(&f), l.load(&g)).map(array), p.regrouped(f, g));
            let halves: [u32; LANES] = from_fn(|i| words[i / 8][i % 8] & 0xbfff_bfff); // finite
            assert_eq!(l.half_pairs(&halves).map(array), p.half_pairs(&halves));
        }
    }

    #[test]
    fn every_instruction_set_has_the_numbers_of_plain_rust() {
        check(Portable);
        #[cfg(target_arch = "x86_64")]
        {
            use crate::simd::{Avx2, Vnni256, Vnni512};
            Vnni512::detect().into_iter().for_each(check);
            Vnni256::detect().into_iter().for_each(check);
            Avx2::detect().into_iter().for_each(check);
        }
        #[cfg(target_arch = "aarch64")]
        {
            use crate::simd::{Neon, NeonDots};
            NeonDots::detect().into_iter().for_each(check);
            check(Neon);
        }
    }
}
