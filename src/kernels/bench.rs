//! Two benchmark kernels that measure the peak arithmetic and memory throughput of a device.
//!
//! `bench/chains` loads the arithmetic units, `bench/copy` the memory. [`crate::bench`] evaluates
//! the measurements.
//!
//! The f32 reference of the chains uses vector instructions, because it measures the CPU.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::case::{Case, Tolerance, frozen};
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, groups_for};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

/// Workgroup size.
const GROUP: usize = 64;
/// Chains per invocation.
const CHAINS: usize = 8;
/// Steps of each chain per turn.
const STEPS: usize = 8;
/// Every chain converges to OFFSET / (1 - FACTOR).
const FACTOR: f32 = 0.9375;
const OFFSET: f32 = 0.25;

params! {
    /// Parameters of `bench/chains`.
    pub struct ChainParams { n: u32, turns: u32, factor: f32, offset: f32 }
}
params! {
    /// Parameters of `bench/copy`.
    pub struct CopyParams { n: u32 }
}

static CHAINS_KERNEL: KernelDef = KernelDef {
    label: "bench/chains",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("bench/chains")],
    bindings: &[Binding::write("out", Kind::Real, "[n]")],
    params: ChainParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(128 * d.param("n") * d.param("turns"))),
    reference_f32: chains_reference_f32,
    reference_f64: chains_reference_f64,
};

static COPY: KernelDef = KernelDef {
    label: "bench/copy",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("bench/copy")],
    bindings: &[Binding::read("x", Kind::Real, "[4 n]"), Binding::write("out", Kind::Real, "[4 n]")],
    params: CopyParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(0)),
    reference_f32: copy_reference,
    reference_f64: copy_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&CHAINS_KERNEL, vec![]), (&COPY, vec![])]
}

/// The initial value of chain `c` of invocation `i`.
fn start(i: usize, c: usize) -> f32 {
    (i % 16) as f32 / 16.0 + c as f32
}

fn chains_reference_f64(args: KernelArgs<'_, f64>) {
    let p: ChainParams = args.params();
    let (factor, offset) = (f64::from(p.factor), f64::from(p.offset));
    let [out] = args.buffers();
    for (i, out) in out.real_mut()[..p.n as usize].iter_mut().enumerate() {
        let mut x: [f64; CHAINS] = std::array::from_fn(|c| f64::from(start(i, c)));
        for _ in 0..p.turns as usize * STEPS {
            x.iter_mut().for_each(|x| *x = *x * factor + offset);
        }
        *out = x.iter().sum();
    }
}

fn chains_reference_f32(args: KernelArgs<'_, f32>) {
    let p: ChainParams = args.params();
    let [out] = args.buffers();
    let arch = Arch::new();
    // A part begins at a multiple of 16, so its initial values equal those of the first part.
    let parts = out.real_mut()[..p.n as usize].par_chunks_mut(GROUP);
    parts.for_each(|out| arch.dispatch(Part { p, out }));
}

/// Computes some invocations with the widest vectors of the processor.
struct Part<'a> {
    p: ChainParams,
    out: &'a mut [f32],
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (factor, offset) = (simd.splat_f32s(self.p.factor), simd.splat_f32s(self.p.offset));
        for (at, out) in self.out.chunks_mut(S::F32_LANES).enumerate() {
            let mut x: [S::f32s; CHAINS] = std::array::from_fn(|c| {
                let starts: [f32; 16] = std::array::from_fn(|lane| start(at * S::F32_LANES + lane, c));
                simd.partial_load_f32s(&starts[..S::F32_LANES])
            });
            for _ in 0..self.p.turns {
                for _ in 0..STEPS {
                    for x in &mut x {
                        *x = simd.mul_add_f32s(*x, factor, offset);
                    }
                }
            }
            let sum = x[1..].iter().fold(x[0], |sum, &x| simd.add_f32s(sum, x));
            simd.partial_store_f32s(out, sum);
        }
    }
}

fn copy_reference<T: Real>(args: KernelArgs<'_, T>) {
    let n = 4 * args.params::<CopyParams>().n as usize;
    let [x, out] = args.buffers();
    let parts = out.real_mut()[..n].par_chunks_mut(1 << 16).zip(x.real().par_chunks(1 << 16));
    parts.for_each(|(out, x)| out.copy_from_slice(&x[..out.len()]));
}

/// Appends chains of multiply-adds: one invocation per element of `out`.
pub fn chains(rec: &mut Recording, out: &Span, turns: u32) {
    let params = ChainParams { n: out.len as u32, turns, factor: FACTOR, offset: OFFSET };
    rec.dispatch(&CHAINS_KERNEL, &[], params, &[out], groups_for(out.len, GROUP));
}

/// Floating-point operations of [`chains`].
pub fn chains_flops(n: usize, turns: u32) -> u64 {
    2 * (CHAINS * STEPS) as u64 * n as u64 * u64::from(turns)
}

/// Appends out = x for spans of equal length, a multiple of four.
pub fn copy(rec: &mut Recording, x: &Span, out: &Span) {
    assert!(x.len == out.len && x.len.is_multiple_of(4), "four elements are copied at a time");
    let n = x.len / 4;
    rec.dispatch(&COPY, &[], CopyParams { n: n as u32 }, &[x, out], groups_for(n, GROUP));
}

fn chains_case(name: &str, n: usize, turns: u32) -> Case {
    let reason = "64 multiply-adds per element and turn, with one or two roundings each; the factor makes their errors decay";
    let tolerance = Tolerance { reason, ..Tolerance::SUMS };
    Case::new(format!("bench/chains: {name}"), vec![], tolerance, move |rec, _| {
        let out = Tensor::transient(rec, "chains", 1, n);
        chains(rec, out.span(), turns);
        Ok((vec![out], None))
    })
}

fn copy_case(name: &str, n: usize) -> Case {
    let inputs = vec![frozen(1, 1, n, 1.0, Format::F32)];
    Case::new(format!("bench/copy: {name}"), inputs, Tolerance::EXACT, move |rec, b| {
        let out = Tensor::transient(rec, "copy", 1, n);
        copy(rec, b.tensors[0].span(), out.span());
        Ok((vec![out], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        chains_case("one turn", 70, 1),
        chains_case("odd", 197, 3),
        chains_case("no turn", 64, 0),
        chains_case("beyond 16 bits", 70_000, 2),
        copy_case("odd", 4 * 37),
        copy_case("whole workgroups", 4 * 128),
        copy_case("beyond 16 bits", 4 * 70_000),
    ]
}
