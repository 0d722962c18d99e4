//! Whether a device's cooperative matrices compute what the kernels rely on. It runs once, before the first kernel that uses them is
//! compiled; a device that fails it does without.
//!
//! The feature is experimental in wgpu, and layouts are where back ends may disagree. Tried are all that the kernels use: loads with an
//! offset and a stride from workgroup memory, an accumulator that begins at zero, sums over two products, stores, and a workgroup of
//! [`GROUP`] invocations with at least [`N_PARTS`] subgroups.

use super::{Binding, Buffer, Call, Executor, Feature, KernelDef, Kind, Params as _, Real, Recording, Source};
use crate::error::{ErrorKind, Result};

/// Why a device failed, where it did.
pub(super) type Verdict = std::result::Result<(), String>;

/// Invocations of a workgroup, as of the kernels that use cooperative matrices.
const GROUP: usize = 128;
/// Results, each of a subgroup of its own.
const N_PARTS: usize = 4;
/// Rows and columns of a matrix.
const SIDE: usize = 8;
/// Elements between the rows of the operands.
const STRIDE: usize = 24;

const TEXT: &str = "
struct Params { scale: f32 };
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> report: array<f32>; // [4, 8, 8], then the number of subgroups

var<workgroup> left: array<f32, 192>;
var<workgroup> right: array<f32, 192>;
var<workgroup> product: array<f32, 256>;

@compute @workgroup_size(128)
fn cooperative_test(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32,
                    @builtin(num_subgroups) n_subgroups: u32) {
    for (var i = lane; i < 192u; i += 128u) {
        left[i] = p.scale * f32(i * 7u % 11u);
        right[i] = p.scale * (f32(i * 5u % 13u) - 6.0);
    }
    workgroupBarrier();
    let part = subgroup % 4u;
    var sum: coop_mat8x8<f32, C>;
    for (var turn = 0u; turn < 2u; turn++) {
        let a = coopLoadT<coop_mat8x8<f32, A>>(&left[part + 8u * turn], 24u);
        let b = coopLoadT<coop_mat8x8<f32, B>>(&right[2u * part + 8u * turn], 24u);
        sum = coopMultiplyAdd(a, b, sum);
    }
    coopStoreT(sum, &product[64u * part], 8u);
    workgroupBarrier();
    for (var i = lane; i < 256u; i += 128u) {
        report[i] = product[i];
    }
    if lane == 0u {
        report[256] = f32(n_subgroups);
    }
}
";

crate::params! {
    /// Of the test.
    pub struct TestParams { scale: f32 }
}

static TEST: KernelDef = KernelDef {
    label: "gpu/cooperative_test",
    variant: "",
    parts: &[Source::new("gpu/cooperative_test", TEXT).needing(Feature::CooperativeMatrix)],
    bindings: &[Binding::write("report", Kind::Real, "[N_PARTS, SIDE, SIDE], 1")],
    params: TestParams::FIELDS,
    constants: &[],
    rivals: &[],
    twin_f32: twin,
    twin_f64: twin,
};

/// What a right device reports, but for the number of subgroups. All values are whole numbers below 2^24.
fn products() -> Vec<f32> {
    let left = |i: usize| (i * 7 % 11) as f32;
    let right = |i: usize| (i * 5 % 13) as f32 - 6.0;
    let element = |i: usize| {
        let (part, row, col) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
        let of_turn = |turn: usize| {
            let a = |k: usize| left(part + SIDE * turn + row * STRIDE + k);
            let b = |k: usize| right(2 * part + SIDE * turn + k * STRIDE + col);
            (0..SIDE).map(|k| a(k) * b(k)).sum::<f32>()
        };
        of_turn(0) + of_turn(1)
    };
    (0..N_PARTS * SIDE * SIDE).map(element).collect()
}

/// The CPU as a device with subgroups of 32.
fn twin<T: Real>(call: Call<'_, T>) {
    let [out] = call.args();
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
    let out = Buffer::persistent("test of cooperative matrices", Kind::Real, N_PARTS * SIDE * SIDE + 1).span();
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
    use super::super::{CpuExecutor, Features, shader};
    use super::*;

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
        assert!(with(256, 2.0).unwrap_err().contains("2 subgroups"));
        assert!(with(77, good[77] + 1.0).unwrap_err().contains("element 77"));
        assert!(with(0, f32::NAN).is_err());
        // A device that takes rows for columns is found out in every part.
        for part in good[..256].chunks_exact(64) {
            assert!((0..8).any(|r| (0..8).any(|c| part[8 * r + c] != part[8 * c + r])));
        }
    }
}
