//! Compiles a function for each set of lanes, and calls the widest one that the CPU has.

/// Defines a function with this body, generic over [`Lanes`](crate::simd::Lanes), for each
/// instruction set, and calls the widest one that the CPU has. Callees must be `#[inline(always)]`.
macro_rules! widest {
    ($(#[$meta:meta])* $vis:vis fn $name:ident[$($generics:tt)*]<$($pass:ident),*>($lanes:ident: $l:ident $(, $arg:ident: $ty:ty)* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$($generics)*>($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            fn with<$l: $crate::simd::Lanes, $($generics)*>($lanes: $l $(, $arg: $ty)*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c")]
                fn vbmi<$($generics)*>(lanes: $crate::simd::Vbmi $(, $arg: $ty)*) $(-> $out)? {
                    with::<$crate::simd::Vbmi, $($pass),*>(lanes $(, $arg)*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512<$($generics)*>(lanes: $crate::simd::Avx512 $(, $arg: $ty)*) $(-> $out)? {
                    with::<$crate::simd::Avx512, $($pass),*>(lanes $(, $arg)*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<$($generics)*>(lanes: $crate::simd::Avx2 $(, $arg: $ty)*) $(-> $out)? {
                    with::<$crate::simd::Avx2, $($pass),*>(lanes $(, $arg)*)
                }
                if let Some(lanes) = $crate::simd::Vbmi::detect() {
                    // SAFETY: the value of the type proves that the CPU has these instructions.
                    return unsafe { vbmi::<$($pass),*>(lanes $(, $arg)*) };
                }
                if let Some(lanes) = $crate::simd::Avx512::detect() {
                    // SAFETY: the value of the type proves that the CPU has these instructions.
                    return unsafe { avx512::<$($pass),*>(lanes $(, $arg)*) };
                }
                if let Some(lanes) = $crate::simd::Avx2::detect() {
                    // SAFETY: the value of the type proves that the CPU has these instructions.
                    return unsafe { avx2::<$($pass),*>(lanes $(, $arg)*) };
                }
            }
            #[cfg(target_arch = "aarch64")]
            return with::<$crate::simd::Neon, $($pass),*>($crate::simd::Neon $(, $arg)*);
            #[cfg(not(target_arch = "aarch64"))]
            with::<$crate::simd::Portable, $($pass),*>($crate::simd::Portable $(, $arg)*)
        }
    };
}

pub(crate) use widest;

/// Defines a function with this body, generic over [`ByteDots`](crate::simd::ByteDots), for each
/// instruction set, and calls the fastest one that the CPU has. Callees must be `#[inline(always)]`.
macro_rules! widest_dots {
    ($(#[$meta:meta])* $vis:vis fn $name:ident[$($generics:tt)*]<$($pass:ident),*>($dots:ident: $d:ident $(, $arg:ident: $ty:ty)* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$($generics)*>($($arg: $ty),*) {
            #[inline(always)]
            fn with<$d: $crate::simd::ByteDots, $($generics)*>($dots: $d $(, $arg: $ty)*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
                fn vnni512<$($generics)*>(dots: $crate::simd::Vnni512 $(, $arg: $ty)*) {
                    with::<$crate::simd::Vnni512, $($pass),*>(dots $(, $arg)*)
                }
                #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
                fn vnni256<$($generics)*>(dots: $crate::simd::Vnni256 $(, $arg: $ty)*) {
                    with::<$crate::simd::Vnni256, $($pass),*>(dots $(, $arg)*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<$($generics)*>(dots: $crate::simd::Avx2 $(, $arg: $ty)*) {
                    with::<$crate::simd::Avx2, $($pass),*>(dots $(, $arg)*)
                }
                if let Some(dots) = $crate::simd::Vnni512::detect() {
                    // SAFETY: the value of the type proves that the CPU has these instructions.
                    return unsafe { vnni512::<$($pass),*>(dots $(, $arg)*) };
                }
                if let Some(dots) = $crate::simd::Vnni256::detect() {
                    // SAFETY: the value of the type proves that the CPU has these instructions.
                    return unsafe { vnni256::<$($pass),*>(dots $(, $arg)*) };
                }
                if let Some(dots) = $crate::simd::Avx2::detect().filter(|_| !$crate::simd::is_hidden(2)) {
                    // SAFETY: the value of the type proves that the CPU has these instructions.
                    return unsafe { avx2::<$($pass),*>(dots $(, $arg)*) };
                }
            }
            #[cfg(target_arch = "aarch64")]
            {
                #[target_feature(enable = "neon,dotprod")]
                fn dotprod<$($generics)*>(dots: $crate::simd::NeonDots $(, $arg: $ty)*) {
                    with::<$crate::simd::NeonDots, $($pass),*>(dots $(, $arg)*)
                }
                if let Some(dots) = $crate::simd::NeonDots::detect() {
                    // SAFETY: the value of the type proves that the CPU has this instruction.
                    return unsafe { dotprod::<$($pass),*>(dots $(, $arg)*) };
                }
                return with::<$crate::simd::Neon, $($pass),*>($crate::simd::Neon $(, $arg)*);
            }
            #[cfg(not(target_arch = "aarch64"))]
            with::<$crate::simd::Portable, $($pass),*>($crate::simd::Portable $(, $arg)*)
        }
    };
}

pub(crate) use widest_dots;

/// [`Lanes::ROWS`](crate::simd::Lanes::ROWS) on this CPU.
pub fn widest_rows() -> usize {
    widest! {
        fn rows[]<>(_lanes: L) -> usize {
            L::ROWS
        }
    }
    rows()
}

/// [`ByteDots::ROWS`](crate::simd::ByteDots::ROWS) on this CPU.
pub fn widest_dot_rows() -> usize {
    let mut rows = 0;
    widest_dots! {
        fn of[]<>(_dots: D, rows: &mut usize) {
            *rows = D::ROWS;
        }
    }
    of(&mut rows);
    rows
}
