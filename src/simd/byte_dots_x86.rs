//! Dot products of bytes by VNNI, which multiplies and adds in one instruction, and by AVX2.
//!
//! The only way to a value is `detect`, which asks the CPU. So every intrinsic below runs on a CPU
//! that has it. Pointers come from references to as many elements as are read.
#![allow(clippy::undocumented_unsafe_blocks)] // said once, above

use std::arch::is_x86_feature_detected as has;
use std::arch::x86_64::*;

use super::byte_dots::{BYTES, is_hidden};
use super::{Avx2, Avx512, ByteDots, LANES, Lanes};

/// VNNI of AVX-512.
#[derive(Clone, Copy)]
pub struct Vnni512(Avx512);

/// AVX-VNNI, which CPUs without AVX-512 have.
#[derive(Clone, Copy)]
pub struct Vnni256(Avx2);

impl Vnni512 {
    /// A value if the CPU has the instructions.
    #[inline]
    pub fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| has!("avx512vnni") && !is_hidden(0)).map(Self)
    }
}

impl Vnni256 {
    /// A value if the CPU has the instructions.
    #[inline]
    pub fn detect() -> Option<Self> {
        Avx2::detect().filter(|_| has!("avxvnni") && !is_hidden(1)).map(Self)
    }
}

/// The numbers of the factors that `eights` and `fours` spread for i = 0.
const EIGHTS: [i32; LANES] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];
const FOURS: [i32; LANES] = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3];

impl Vnni512 {
    #[inline(always)]
    fn products(self, a: __m512i, x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), a, x)) }
    }

    #[inline(always)]
    fn spread(self, factors: __m512, numbers: &[i32; LANES], from: usize) -> __m512 {
        unsafe {
            let numbers = _mm512_loadu_si512(numbers.as_ptr().cast());
            _mm512_permutexvar_ps(_mm512_add_epi32(numbers, _mm512_set1_epi32(from as i32)), factors)
        }
    }
}

#[inline(always)]
fn joined([low, high]: [__m256i; 2]) -> __m512i {
    unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high) }
}

impl ByteDots for Vnni512 {
    type L = Avx512;
    type Factors = __m512;
    type I = __m512i;
    const ROWS: usize = 4;

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn dot(self, a: [__m256i; 2], x: &[i8; BYTES]) -> __m512 {
        self.products(joined(a), unsafe { _mm512_loadu_si512(x.as_ptr().cast()) })
    }

    // |a| times x with the sign of a, because the first operand is unsigned.
    #[inline(always)]
    fn dot_signed(self, a: [__m256i; 2], x: &[i8; BYTES]) -> __m512 {
        unsafe {
            let (a, x) = (joined(a), _mm512_loadu_si512(x.as_ptr().cast()));
            let magnitude = _mm512_abs_epi8(a);
            let x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(a), _mm512_setzero_si512(), x);
            self.products(magnitude, x)
        }
    }

    #[inline(always)]
    fn factors(self, factors: __m512) -> __m512 {
        factors
    }

    #[inline(always)]
    fn eights(self, factors: &__m512, i: usize) -> __m512 {
        self.spread(*factors, &EIGHTS, 2 * i)
    }

    #[inline(always)]
    fn fours(self, factors: &__m512, i: usize) -> __m512 {
        self.spread(*factors, &FOURS, 4 * i)
    }

    #[inline(always)]
    fn zero(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn add_quads(self, sums: __m512i, a: &[i8; BYTES], x: [i8; 4]) -> __m512i {
        unsafe {
            let a = _mm512_loadu_si512(a.as_ptr().cast());
            _mm512_dpbusd_epi32(sums, a, _mm512_set1_epi32(bytemuck::cast(x)))
        }
    }

    #[inline(always)]
    fn add_quads_signed(self, sums: __m512i, a: &[i8; BYTES], x: [i8; 4]) -> __m512i {
        unsafe {
            let a = _mm512_loadu_si512(a.as_ptr().cast());
            let x = _mm512_set1_epi32(bytemuck::cast(x));
            let x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(a), _mm512_setzero_si512(), x);
            _mm512_dpbusd_epi32(sums, _mm512_abs_epi8(a), x)
        }
    }

    #[inline(always)]
    fn numbers(self, sums: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
}

/// What both have in common on vectors of AVX2.
macro_rules! dots_of_avx2 {
    () => {
        type L = Avx2;
        type Factors = [f32; LANES];
        type I = [__m256i; 2];
        const ROWS: usize = 2;

        #[inline(always)]
        fn dot(self, a: [__m256i; 2], x: &[i8; BYTES]) -> [__m256; 2] {
            let (none, x) = (self.zero(), halves(x));
            self.numbers([self.add_products(none[0], a[0], x[0]), self.add_products(none[1], a[1], x[1])])
        }

        // |a| times x with the sign of a.
        #[inline(always)]
        fn dot_signed(self, a: [__m256i; 2], x: &[i8; BYTES]) -> [__m256; 2] {
            let (none, x) = (self.zero(), halves(x));
            let product =
                |h: usize| unsafe { self.add_products(none[h], _mm256_abs_epi8(a[h]), _mm256_sign_epi8(x[h], a[h])) };
            self.numbers([product(0), product(1)])
        }

        #[inline(always)]
        fn factors(self, factors: [__m256; 2]) -> [f32; LANES] {
            let mut array = [0.0; LANES];
            self.lanes().store(factors, &mut array);
            array
        }

        #[inline(always)]
        fn eights(self, factors: &[f32; LANES], i: usize) -> [__m256; 2] {
            unsafe { [_mm256_set1_ps(factors[2 * i]), _mm256_set1_ps(factors[2 * i + 1])] }
        }

        #[inline(always)]
        fn fours(self, factors: &[f32; LANES], i: usize) -> [__m256; 2] {
            let half = |h: usize| unsafe {
                let pair = [factors[4 * i + 2 * h], factors[4 * i + 2 * h + 1]];
                let pairs = _mm256_castsi256_ps(_mm256_set1_epi64x(bytemuck::cast(pair)));
                _mm256_permutevar_ps(pairs, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))
            };
            [half(0), half(1)]
        }

        #[inline(always)]
        fn zero(self) -> [__m256i; 2] {
            unsafe { [_mm256_setzero_si256(); 2] }
        }

        #[inline(always)]
        fn add_quads(self, sums: [__m256i; 2], a: &[i8; BYTES], x: [i8; 4]) -> [__m256i; 2] {
            let (a, x) = (halves(a), unsafe { _mm256_set1_epi32(bytemuck::cast(x)) });
            [self.add_products(sums[0], a[0], x), self.add_products(sums[1], a[1], x)]
        }

        #[inline(always)]
        fn add_quads_signed(self, sums: [__m256i; 2], a: &[i8; BYTES], x: [i8; 4]) -> [__m256i; 2] {
            let (a, x) = (halves(a), unsafe { _mm256_set1_epi32(bytemuck::cast(x)) });
            let added =
                |h: usize| unsafe { self.add_products(sums[h], _mm256_abs_epi8(a[h]), _mm256_sign_epi8(x, a[h])) };
            [added(0), added(1)]
        }

        #[inline(always)]
        fn numbers(self, sums: [__m256i; 2]) -> [__m256; 2] {
            sums.map(|sums| unsafe { _mm256_cvtepi32_ps(sums) })
        }
    };
}

#[inline(always)]
fn halves(x: &[i8; BYTES]) -> [__m256i; 2] {
    unsafe { [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().add(BYTES / 2).cast())] }
}

impl Vnni256 {
    #[inline(always)]
    fn add_products(self, sums: __m256i, a: __m256i, x: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sums, a, x) }
    }
}

impl ByteDots for Vnni256 {
    dots_of_avx2!();

    #[inline(always)]
    fn lanes(self) -> Avx2 {
        self.0
    }
}

impl Avx2 {
    /// Codes up to 128 times bytes from -127 to 127: sums of two are at most 32,512 and do not
    /// saturate.
    #[inline(always)]
    fn add_products(self, sums: __m256i, a: __m256i, x: __m256i) -> __m256i {
        unsafe {
            let quads = _mm256_madd_epi16(_mm256_maddubs_epi16(a, x), _mm256_set1_epi16(1));
            _mm256_add_epi32(sums, quads)
        }
    }
}

impl ByteDots for Avx2 {
    dots_of_avx2!();

    #[inline(always)]
    fn lanes(self) -> Self {
        self
    }
}
