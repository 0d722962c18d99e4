//! Compiles a loop of a twin for several instruction sets and runs the widest that the machine has.
//!
//! Only the width of the vectors differs: the order of every sum is written out by the loop itself, so the results are the same
//! bits on all of them. What the loop calls must be inlined into it to be compiled anew.

/// Runs `f`, compiled for AVX-512, AVX2 or the build's own target.
#[inline(always)]
pub fn widest<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
