//! Compiles a reference function for several instruction sets and runs the widest available one.
//!
//! Only the vector width differs. The function itself fixes the order of every sum, and Rust never
//! fuses a product and a sum, so all versions return the same bits. Callees must be
//! `#[inline(always)]` to be compiled for each instruction set. The loops use indices: closures and
//! iterator adapters are functions too, and a development build does not inline them.

/// Defines a generic function over [`Real`](crate::real::Real) with this body, compiled for AVX-512,
/// AVX2 and the build's own target. The f64 oracle only has the last version.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<T: Real $(, const $n:ident: usize, $b:ident: $bound:path)?>($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)] // closures would capture these
        $vis fn $name<T: Real $(, const $n: usize, $b: $bound)?>($($arg: $ty),*) $(-> $out)? {
            #[allow(clippy::needless_range_loop)]
            #[inline(always)]
            fn narrow<T: Real $(, const $n: usize, $b: $bound)?>($($arg: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            if const { size_of::<T>() == 4 } {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
                fn avx512<T: Real $(, const $n: usize, $b: $bound)?>($($arg: $ty),*) $(-> $out)? {
                    narrow::<T $(, $n, $b)?>($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2<T: Real $(, const $n: usize, $b: $bound)?>($($arg: $ty),*) $(-> $out)? {
                    narrow::<T $(, $n, $b)?>($($arg),*)
                }
                if $crate::simd::Avx512::detect().is_some() {
                    // SAFETY: the CPU supports these instructions.
                    return unsafe { avx512::<T $(, $n, $b)?>($($arg),*) };
                }
                if $crate::simd::Avx2::detect().is_some() {
                    // SAFETY: the CPU supports these instructions.
                    return unsafe { avx2::<T $(, $n, $b)?>($($arg),*) };
                }
            }
            narrow::<T $(, $n, $b)?>($($arg),*)
        }
    };
}
pub(crate) use vectorised;
