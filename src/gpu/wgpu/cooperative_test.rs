//! Whether a device's cooperative matrices compute what the kernels rely on. It runs once, before the first kernel that uses them is
//! compiled; a device that fails it does without.
//!
//! The feature is experimental in wgpu, and layouts are where back ends may disagree. Tried is what the kernels use: an array of
//! accumulators that begin at zero, arrays of operands in a loop, loads and stores with offsets and strides in workgroup memory, and a
//! workgroup of [`GROUP`] invocations with at least [`N_PARTS`] subgroups. One operand of each product has twelve significant bits, which
//! tells f32 from shorter floats.

use crate::error::{ErrorKind, Result};
use crate::gpu::{
    Binding, Buffer, Executor, Feature, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Source,
};

/// Why a device failed, where it did.
pub(super) type Verdict = std::result::Result<(), String>;

/// Invocations of a workgroup, as of the kernels that use cooperative matrices.
const GROUP: usize = 128;
/// Results, each of a subgroup of its own.
const N_PARTS: usize = 4;
/// Rows and columns of a matrix.
const SIDE: usize = 8;
/// Accumulators of a subgroup, side by side.
const WIDE: usize = 2;
/// Elements between the rows of the operands.
const STRIDE: usize = 24;

const TEXT: &str = "
struct Params { scale: f32 };
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> report: array<f32>; // [4, 8, 16], then the number of subgroups

var<workgroup> fine: array<f32, 256>;
var<workgroup> coarse: array<f32, 256>;
var<workgroup> product: array<f32, 640>; // [4, 8, 20]

@compute @workgroup_size(128)
fn cooperative_test(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32,
                    @builtin(num_subgroups) n_subgroups: u32) {
    for (var i = lane; i < 256u; i += 128u) {
        fine[i] = p.scale * f32(i * 1237u % 4093u);
        coarse[i] = p.scale * (f32(i * 5u % 13u) - 6.0);
    }
    workgroupBarrier();
    let part = subgroup % 4u;
    var sum: array<coop_mat8x8<f32, C>, 2>;
    for (var turn = 0u; turn < 2u; turn++) {
        var b: array<coop_mat8x8<f32, B>, 2>;
        for (var j = 0u; j < 2u; j++) {
            b[j] = coopLoadT<coop_mat8x8<f32, B>>(&coarse[4u * part + 8u * j], 24u);
        }
        let a = coopLoadT<coop_mat8x8<f32, A>>(&fine[4u * part + 8u * turn], 24u);
        for (var j = 0u; j < 2u; j++) {
            sum[j] = coopMultiplyAdd(a, b[j], sum[j]);
        }
        for (var j = 0u; j < 2u; j++) {
            b[j] = coopLoadT<coop_mat8x8<f32, B>>(&fine[4u * part + 8u * j], 24u);
        }
        let c = coopLoadT<coop_mat8x8<f32, A>>(&coarse[4u * part + 8u * turn], 24u);
        for (var j = 0u; j < 2u; j++) {
            sum[j] = coopMultiplyAdd(c, b[j], sum[j]);
        }
    }
    for (var j = 0u; j < 2u; j++) {
        coopStoreT(sum[j], &product[160u * part + 8u * j], 20u);
    }
    workgroupBarrier();
    for (var i = lane; i < 512u; i += 128u) {
        report[i] = product[160u * (i / 128u) + 20u * (i / 16u % 8u) + i % 16u];
    }
    if lane == 0u {
        report[512] = f32(n_subgroups);
    }
}
";

crate::params! {
    /// Of the test.
    pub struct TestParams { scale: f32 }
}

static TEST: KernelDef = KernelDef {
    label: "gpu/cooperative_test",
    suffix: "",
    parts: &[Source::new("gpu/cooperative_test", TEXT).needing(Feature::CooperativeMatrix)],
    bindings: &[Binding::write("report", Kind::Real, "[N_PARTS, SIDE, WIDE * SIDE], 1")],
    params: TestParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work((8 * N_PARTS * WIDE * SIDE.pow(3)) as u64)), // two turns of two products
    reference_f32: reference,
    reference_f64: reference,
};

/// What a right device reports, but for the number of subgroups. All sums are whole numbers below 2^24.
fn products() -> Vec<f32> {
    let fine = |i: usize| (i * 1237 % 4093) as f32;
    let coarse = |i: usize| (i * 5 % 13) as f32 - 6.0;
    let element = |i: usize| {
        let (part, row, col) = (i / (SIDE * WIDE * SIDE), i / (WIDE * SIDE) % SIDE, i % (WIDE * SIDE));
        let of_turn = |turn: usize| {
            let a = |k: usize| 4 * part + SIDE * turn + row * STRIDE + k;
            let b = |k: usize| 4 * part + k * STRIDE + col;
            (0..SIDE).map(|k| fine(a(k)) * coarse(b(k)) + coarse(a(k)) * fine(b(k))).sum::<f32>()
        };
        of_turn(0) + of_turn(1)
    };
    (0..N_PARTS * SIDE * WIDE * SIDE).map(element).collect()
}

/// The CPU as a device with subgroups of 32.
fn reference<T: Real>(args: KernelArgs<'_, T>) {
    let [out] = args.buffers();
    let said = products().into_iter().chain([(GROUP / 32) as f32]);
    out.real_mut().iter_mut().zip(said).for_each(|(o, x)| *o = T::from_f64(x.into()));
}

fn judge(said: &[f32]) -> Verdict {
    let n_subgroups = said[said.len() - 1];
    if n_subgroups < N_PARTS as f32 {
        return Err(format!("{n_subgroups} subgroups in a workgroup of {GROUP}"));
    }
    match said.iter().zip(products()).position(|(said, wanted)| *said != wanted) {
        None => Ok(()),
        Some(at) => Err(format!("element {at} of a product is {} instead of {}", said[at], products()[at])),
    }
}

/// Runs the test. Only the loss of the device is an error; all else is a verdict.
pub(super) fn run(device: &mut dyn Executor) -> Result<Verdict> {
    let out = Buffer::persistent("test of cooperative matrices", Kind::Real, N_PARTS * SIDE * WIDE * SIDE + 1).span();
    let mut rec = Recording::new();
    rec.dispatch(&TEST, &[], TestParams { scale: 1.0 }, &[&out], [1, 1, 1]);
    match device.run(&rec).and_then(|()| device.read_real(&out)) {
        Ok(said) => Ok(judge(&said)),
        Err(e) if e.kind() == ErrorKind::DeviceLost => Err(e),
        Err(e) => Ok(Err(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{CpuExecutor, Features, shader};

    #[test]
    fn the_shader_agrees_with_its_description() {
        shader::check(&TEST, &[], Features::ALL).unwrap();
    }

    #[test]
    fn right_products_of_enough_subgroups_pass() {
        assert_eq!(run(&mut CpuExecutor::<f32>::new()).unwrap(), Ok(()));
        let good: Vec<f32> = products().into_iter().chain([4.0]).collect();
        assert_eq!(judge(&good), Ok(()));
        let with = |at: usize, value: f32| {
            let mut said = good.clone();
            said[at] = value;
            judge(&said)
        };
        assert!(with(512, 2.0).unwrap_err().contains("2 subgroups"));
        assert!(with(77, good[77] + 1.0).unwrap_err().contains("element 77"));
        assert!(with(0, f32::NAN).is_err());
        // A device that takes rows for columns is found out in every part, as is one that rounds to the eleven bits of half floats.
        for part in good[..512].chunks_exact(128) {
            assert!((0..8).any(|r| (0..8).any(|c| part[16 * r + c] != part[16 * c + r])));
        }
        assert!((0..256).any(|i| half::f16::from_f32((i * 1237 % 4093) as f32).to_f32() != (i * 1237 % 4093) as f32));
    }
}
