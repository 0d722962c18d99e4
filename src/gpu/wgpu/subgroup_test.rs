//! Tests that a device's subgroups behave as the kernels require, before a kernel first uses them.
//!
//! A device that fails the test runs the portable variants. WGSL does not specify how the lanes of
//! a workgroup map to subgroups, and drivers have had faults. The kernels require that all
//! subgroups of a workgroup are aligned runs of consecutive lanes of equal length, and that all
//! lanes of a subgroup take part after a barrier. Kernels read the length where they need it.

use crate::error::{ErrorKind, Result};
use crate::gpu::{Binding, Buffer, Executor, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Source};

/// The fewest lanes of a subgroup that took part, or the reason why a device failed.
pub(super) type Verdict = std::result::Result<u32, String>;

/// Workgroup sizes tested: those of the kernels that use subgroups.
const GROUPS: [u32; 4] = [8, 16, 64, 256];
/// Workgroups of a dispatch.
const N_GROUPS: usize = 2;
/// Words that a lane reports: length, index in the subgroup, first and last lane of its run, two
/// sums, and its partners at seven distances.
const WORDS: usize = 13;
/// Subgroup sizes that WGSL allows.
const LENGTHS: std::ops::RangeInclusive<u32> = 4..=128;

const TEXT: &str = "
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> report: array<u32>; // [n, 13]

@compute @workgroup_size(GROUP)
fn subgroup_test(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                 @builtin(subgroup_invocation_id) place: u32) {
    var value = 0.0; // lane + 1, by a loop that the lanes leave at different times
    for (var i = 0u; i <= lane; i++) {
        value += f32(p.n / p.n);
    }
    workgroupBarrier();
    let at = (group.x * GROUP + lane) * 13u;
    report[at] = subgroupAdd(1u);
    report[at + 1u] = place;
    report[at + 2u] = u32(subgroupMin(value));
    report[at + 3u] = u32(subgroupMax(value));
    report[at + 4u] = u32(subgroupAdd(value));
    report[at + 5u] = u32(subgroupAdd(vec4<f32>(0.0, value, 1.0, 2.0 * value)).w);
    for (var i = 0u; i < 7u; i++) {
        report[at + 6u + i] = u32(subgroupShuffleXor(value, 1u << i));
    }
}
";

crate::params! {
    /// Parameters of the test.
    pub struct TestParams { n: u32 }
}

static TEST: KernelDef = KernelDef {
    label: "gpu/subgroup_test",
    suffix: "",
    parts: &[Source::new("gpu/subgroup_test", TEXT)],
    bindings: &[Binding::write("report", Kind::U32, "[n, WORDS]")],
    params: TestParams::FIELDS,
    constants: &["GROUP"],
    alternatives: &[],
    work: |d| Ok(d.work(5 * d.param("n"))),
    reference_f32: reference,
    reference_f64: reference,
};

/// What lane `lane` reports if subgroups have `length` lanes. Partners beyond the subgroup are 0
/// here.
fn report(lane: u32, length: u32) -> [u32; WORDS] {
    let first = lane / length * length;
    let sum = (first + 1..=first + length).sum::<u32>(); // of lane + 1
    let mut words = [length, lane - first, first + 1, first + length, sum, 2 * sum, 0, 0, 0, 0, 0, 0, 0];
    for (i, word) in words[6..].iter_mut().enumerate().filter(|(i, _)| 1 << i < length) {
        *word = (lane ^ 1 << i) + 1;
    }
    words
}

/// The CPU as a device with subgroups of 32, of which a smaller workgroup fills a part.
fn reference<T: Real>(args: KernelArgs<'_, T>) {
    let group = args.constants[0];
    let [out] = args.buffers();
    for (lane, words) in out.u32_mut().chunks_exact_mut(WORDS).enumerate() {
        words.copy_from_slice(&report(lane as u32 % group, group.min(32)));
    }
}

/// Compares the lanes' reports of workgroups of size `group` with the expected ones.
fn judge(group: u32, words: &[u32]) -> Verdict {
    let length = words[0];
    if !length.is_power_of_two() || !LENGTHS.contains(&length) {
        return Err(format!("a subgroup of {length} lanes"));
    }
    for (i, said) in words.chunks_exact(WORDS).enumerate() {
        let lane = i as u32 % group;
        let wanted = report(lane, length);
        let n_defined = 6 + length.ilog2() as usize;
        if said[..n_defined] != wanted[..n_defined] {
            return Err(format!(
                "lane {lane} of {group}, in subgroups of {length}, reports {:?} instead of {:?}",
                &said[..n_defined],
                &wanted[..n_defined]
            ));
        }
    }
    Ok(length)
}

/// Runs the test. It fails only if the device is lost; every other outcome is a verdict.
pub(super) fn run(device: &mut dyn Executor) -> Result<Verdict> {
    let mut shortest = *LENGTHS.end();
    for group in GROUPS {
        let n = group as usize * N_GROUPS;
        let out = Buffer::persistent("subgroup test", Kind::U32, n * WORDS).span();
        let mut rec = Recording::new();
        rec.dispatch(&TEST, &[group], TestParams { n: n as u32 }, &[&out], [N_GROUPS as u32, 1, 1]);
        let verdict = match device.run(&rec).and_then(|()| device.read_words(&out)) {
            Ok(words) => judge(group, &words),
            Err(e) if e.kind() == ErrorKind::DeviceLost => return Err(e),
            Err(e) => Err(e.to_string()),
        };
        match verdict {
            Ok(length) => shortest = shortest.min(length),
            failed => return Ok(failed),
        }
    }
    Ok(Ok(shortest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{CpuExecutor, Features, shader};

    #[test]
    fn the_shader_agrees_with_its_description() {
        shader::check(&TEST, &[64], Features::NONE).unwrap();
    }

    #[test]
    fn regular_subgroups_pass() {
        assert_eq!(run(&mut CpuExecutor::<f32>::new()).unwrap(), Ok(8), "that of the smallest workgroup");
        for length in [4, 8, 16, 32, 64, 128] {
            let words: Vec<u32> = (0..512).flat_map(|lane| report(lane % 256, length)).collect();
            assert_eq!(judge(256, &words), Ok(length));
        }
        let words: Vec<u32> = (0..16).flat_map(|lane| report(lane % 8, 8)).collect();
        assert_eq!(judge(8, &words), Ok(8), "two workgroups of a part of a subgroup");
    }

    #[test]
    fn irregular_subgroups_fail() {
        let good: Vec<u32> = (0..64).flat_map(|lane| report(lane, 16)).collect();
        for (what, at, word) in [
            ("a length that is no power of two", 0, 12),
            ("a length that WGSL forbids", 0, 2),
            ("lanes in another order", WORDS + 1, 2),
            ("a subgroup that is no run", 20 * WORDS + 3, 40),
            ("a sum that misses a lane", 33 * WORDS + 4, 600),
            ("a sum of vectors that misses one", 33 * WORDS + 5, 600),
            ("a partner too far away", 5 * WORDS + 8, 3),
        ] {
            let mut words = good.clone();
            words[at] = word;
            assert!(judge(64, &words).is_err(), "{what}");
        }
    }
}
