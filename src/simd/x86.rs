//! Lanes of AVX-512, with and without VBMI (one register), and AVX2 (two registers).
//!
//! The only way to a value is `detect`, which asks the CPU. So every intrinsic below runs on a CPU
//! that has it. Pointers come from references to as many elements as are read or written.
#![allow(clippy::undocumented_unsafe_blocks)] // said once, above

use std::arch::is_x86_feature_detected as has;
use std::arch::x86_64::*;

use super::{LANES, Lanes};

/// Lanes of AVX-512.
#[derive(Clone, Copy)]
pub struct Avx512(());

/// Lanes of AVX-512 with VBMI, which permutes bytes.
#[derive(Clone, Copy)]
pub struct Vbmi(());

/// Lanes of AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx512 {
    /// A value if the CPU has the instructions.
    #[inline]
    pub fn detect() -> Option<Self> {
        let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        (wide && Avx2::detect().is_some()).then_some(Self(()))
    }
}

impl Vbmi {
    /// A value if the CPU has the instructions.
    #[inline]
    pub fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| has!("avx512vbmi")).map(|_| Self(()))
    }
}

impl Avx2 {
    /// A value if the CPU has the instructions.
    #[inline]
    pub fn detect() -> Option<Self> {
        (has!("avx2") && has!("fma") && has!("f16c")).then_some(Self(()))
    }
}

/// What both have in common: vectors of bytes are those of AVX2.
macro_rules! bytes_of_avx2 {
    () => {
        type B = __m256i;

        // The address may be any: the CPU ignores those that it cannot read.
        #[inline(always)]
        fn prefetch<T>(self, x: &[T], from: usize, count: usize) {
            let mut i = 0;
            while i < count {
                unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(from + i).cast()) }
                i += 64 / size_of::<T>();
            }
        }

        #[inline(always)]
        fn half_pair(self, word: u32) -> [f32; 2] {
            unsafe {
                let pair = _mm_cvtph_ps(_mm_cvtsi32_si128(word as i32));
                [_mm_cvtss_f32(pair), _mm_cvtss_f32(_mm_movehdup_ps(pair))]
            }
        }

        #[inline(always)]
        fn bytes(self, words: &[u32; 8]) -> __m256i {
            unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store_bytes(self, b: __m256i, out: &mut [u32; 8]) {
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), b) }
        }

        #[inline(always)]
        fn nibbles(self, words: &[u32; 4]) -> __m256i {
            unsafe {
                let low = _mm_loadu_si128(words.as_ptr().cast());
                let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), _mm_srli_epi16::<4>(low));
                _mm256_and_si256(both, _mm256_set1_epi8(15))
            }
        }

        #[inline(always)]
        fn six_bits(self, words: &[u32; 4]) -> __m256i {
            unsafe {
                let words = _mm_loadu_si128(words.as_ptr().cast());
                let shifted = _mm_srlv_epi32(_mm_shuffle_epi32::<0b11_10_11_01>(words), _mm_set_epi32(4, 0, 0, 0));
                let low = _mm_and_si128(shifted, _mm_set_epi32(0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f));
                let tops = _mm_srli_epi32::<2>(_mm_shuffle_epi32::<0b10_10_01_01>(words));
                let tops = _mm_and_si128(tops, _mm_set_epi32(0x3030_3030, 0, 0x3030_3030, 0));
                _mm256_zextsi128_si256(_mm_or_si128(low, tops))
            }
        }

        #[inline(always)]
        fn field(self, b: __m256i, shift: u32, mask: u8) -> __m256i {
            unsafe {
                let shifted = if shift == 0 { b } else { _mm256_srl_epi16(b, _mm_cvtsi32_si128(shift as i32)) };
                _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
            }
        }

        #[inline(always)]
        fn or_shifted(self, a: __m256i, b: __m256i, shift: u32) -> __m256i {
            unsafe { _mm256_or_si256(a, _mm256_sll_epi16(b, _mm_cvtsi32_si128(shift as i32))) }
        }

        #[inline(always)]
        fn minus(self, a: __m256i, b: u8) -> __m256i {
            unsafe { _mm256_sub_epi8(a, _mm256_set1_epi8(b as i8)) }
        }

        #[inline(always)]
        fn lookup(self, table: &[i8; LANES], b: __m256i) -> __m256i {
            unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), b) }
        }
    };
}

#[inline(always)]
fn total(v: __m256) -> f32 {
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// What lanes of AVX-512 have in common.
macro_rules! lanes_of_avx512 {
    () => {
        type F = __m512;
        type Levels = __m512;
        const ROWS: usize = 8;

        bytes_of_avx2!();

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> __m512 {
            unsafe { _mm512_loadu_ps(x.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, v: __m512, out: &mut [f32; LANES]) {
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
        }

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn total(self, v: __m512) -> f32 {
            unsafe { total(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v))) }
        }

        // Each step adds halves of the vectors that are left, and puts the sums of two side by side.
        #[inline(always)]
        fn totals(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
            unsafe {
                let [ab, cd] = [self.regrouped(a, b), self.regrouped(c, d)].map(|[low, high]| _mm512_add_ps(low, high));
                let fours = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
                let twos = _mm512_add_ps(fours, _mm512_shuffle_ps::<0x4e>(fours, fours));
                let ones = _mm512_add_ps(twos, _mm512_movehdup_ps(twos));
                let mut totals = [0.0; 4];
                _mm_storeu_ps(totals.as_mut_ptr(), _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, ones)));
                totals
            }
        }

        #[inline(always)]
        fn regrouped(self, a: __m512, b: __m512) -> [__m512; 2] {
            unsafe { [_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b)] }
        }

        #[inline(always)]
        fn half_pairs(self, words: &[u32; LANES]) -> [__m512; 2] {
            unsafe {
                let words = _mm512_loadu_si512(words.as_ptr().cast());
                let high = _mm512_srli_epi32::<16>(words);
                [words, high].map(|half| _mm512_cvtph_ps(_mm512_cvtepi32_epi16(half)))
            }
        }

        #[inline(always)]
        fn halves(self, words: &[u32; 8]) -> __m512 {
            unsafe { _mm512_cvtph_ps(self.bytes(words)) }
        }

        #[inline(always)]
        fn brain(self, words: &[u32; 8]) -> __m512 {
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(self.bytes(words)))) }
        }

        #[inline(always)]
        fn bits(self, word: u32) -> __m256i {
            unsafe { _mm256_maskz_set1_epi8(word, 1) }
        }

        #[inline(always)]
        fn unsigned(self, b: __m256i) -> [__m512; 2] {
            unsafe {
                let (a, b) = (_mm256_castsi256_si128(b), _mm256_extracti128_si256::<1>(b));
                [_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(a)), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b))]
            }
        }

        #[inline(always)]
        fn signed(self, b: __m256i) -> [__m512; 2] {
            unsafe {
                let (a, b) = (_mm256_castsi256_si128(b), _mm256_extracti128_si256::<1>(b));
                [_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b))]
            }
        }

        #[inline(always)]
        fn levels(self, factor: f32, offset: f32) -> __m512 {
            unsafe {
                let q = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
                _mm512_fmadd_ps(q, _mm512_set1_ps(factor), _mm512_set1_ps(offset))
            }
        }

        // A permutation reads the low four bits of each index and ignores the others.
        #[inline(always)]
        fn low(self, levels: __m512, words: &[u32; 4]) -> __m512 {
            unsafe { _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(words.as_ptr().cast())), levels) }
        }

        #[inline(always)]
        fn high(self, levels: __m512, words: &[u32; 4]) -> __m512 {
            unsafe {
                let q = _mm512_cvtepu8_epi32(_mm_loadu_si128(words.as_ptr().cast()));
                _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(q), levels)
            }
        }
    };
}

impl Lanes for Avx512 {
    lanes_of_avx512!();
}

impl Lanes for Vbmi {
    lanes_of_avx512!();

    // A byte below 128 with 0x43 above it is the float 128 + byte.
    #[inline(always)]
    fn centred(self, b: __m256i, zero: u8) -> [__m512; 2] {
        unsafe {
            let places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let base = _mm512_set1_ps(128.0 + f32::from(zero));
            [0, 16].map(|from| {
                let places = _mm512_slli_epi32::<16>(_mm512_add_epi32(places, _mm512_set1_epi32(from)));
                let of_128 = _mm512_set1_epi32(0x4300_0000);
                let x = _mm512_mask_permutexvar_epi8(of_128, THIRD_BYTES, places, _mm512_castsi256_si512(b));
                _mm512_sub_ps(_mm512_castsi512_ps(x), base)
            })
        }
    }
}

/// The third byte of each lane.
const THIRD_BYTES: u64 = 0x4444_4444_4444_4444;

type Pair = [__m256; 2];

#[inline(always)]
fn unsigned(b: __m128i) -> Pair {
    unsafe {
        let (a, b) = (_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(b, b)));
        [_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)]
    }
}

#[inline(always)]
fn signed(b: __m128i) -> Pair {
    unsafe {
        let (a, b) = (_mm256_cvtepi8_epi32(b), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(b, b)));
        [_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b)]
    }
}

impl Lanes for Avx2 {
    type F = Pair;
    type Levels = [f32; 2];
    const ROWS: usize = 2;

    bytes_of_avx2!();

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Pair {
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, v: Pair, out: &mut [f32; LANES]) {
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Pair {
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Pair, b: Pair, c: Pair) -> Pair {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn total(self, v: Pair) -> f32 {
        unsafe { total(_mm256_add_ps(v[0], v[1])) }
    }

    #[inline(always)]
    fn regrouped(self, a: Pair, b: Pair) -> [Pair; 2] {
        [[a[0], b[0]], [a[1], b[1]]]
    }

    #[inline(always)]
    fn halves(self, words: &[u32; 8]) -> Pair {
        unsafe {
            let b = self.bytes(words);
            [_mm256_cvtph_ps(_mm256_castsi256_si128(b)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(b))]
        }
    }

    #[inline(always)]
    fn brain(self, words: &[u32; 8]) -> Pair {
        unsafe {
            let b = self.bytes(words);
            let low = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(b)));
            let high = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(b)));
            [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)]
        }
    }

    #[inline(always)]
    fn bits(self, word: u32) -> __m256i {
        unsafe {
            let low = _mm_set_epi64x(0x0101_0101_0101_0101, 0);
            let of_byte = _mm256_setr_m128i(low, _mm_add_epi8(low, _mm_set1_epi8(2)));
            let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(word as i32), of_byte);
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8(1))
        }
    }

    #[inline(always)]
    fn unsigned(self, b: __m256i) -> [Pair; 2] {
        unsafe { [unsigned(_mm256_castsi256_si128(b)), unsigned(_mm256_extracti128_si256::<1>(b))] }
    }

    #[inline(always)]
    fn signed(self, b: __m256i) -> [Pair; 2] {
        unsafe { [signed(_mm256_castsi256_si128(b)), signed(_mm256_extracti128_si256::<1>(b))] }
    }

    #[inline(always)]
    fn levels(self, factor: f32, offset: f32) -> [f32; 2] {
        [factor, offset]
    }

    #[inline(always)]
    fn low(self, [factor, offset]: [f32; 2], words: &[u32; 4]) -> Pair {
        unsafe {
            let q = _mm_and_si128(_mm_loadu_si128(words.as_ptr().cast()), _mm_set1_epi8(15));
            self.mul_add(unsigned(q), self.splat(factor), self.splat(offset))
        }
    }

    #[inline(always)]
    fn high(self, [factor, offset]: [f32; 2], words: &[u32; 4]) -> Pair {
        unsafe {
            let q = _mm_srli_epi16::<4>(_mm_loadu_si128(words.as_ptr().cast()));
            let q = _mm_and_si128(q, _mm_set1_epi8(15));
            self.mul_add(unsigned(q), self.splat(factor), self.splat(offset))
        }
    }
}
