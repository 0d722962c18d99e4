//! Everything that follows from the cases: shaders agree with their descriptions, devices with the f64 twins, gradients
//! with difference quotients, f32 twins with f64 twins.

mod common;

use longreach::conformance::mutation::strict;
use longreach::gpu::trial::{Grid, Trial};
use longreach::gpu::{CpuExecutor, Dispatch, Executor, Features, OpenOptions, WgpuExecutor, shader, walk};
use longreach::kernels::case::Case;
use longreach::kernels::{self, gradient};

/// Difference quotients in f64 leave this much of the gradient's length.
const GRADIENT_TOLERANCE: f64 = 1e-6;

#[test]
fn every_shader_agrees_with_its_rust_description() {
    for (kernel, constants) in longreach::attention::kernels().into_iter().chain(kernels::all()) {
        for features in kernel.features().subsets() {
            shader::check(kernel, &constants, features).unwrap();
        }
    }
}

#[test]
fn every_gradient_is_the_slope_of_its_forward() {
    for case in all_cases().iter().filter(|c| !c.bench) {
        for slope in gradient::check(case).unwrap() {
            assert!(slope.relative_error() < GRADIENT_TOLERANCE, "{}: {slope:?}", case.name);
        }
    }
}

fn all_cases() -> Vec<Case> {
    kernels::cases().into_iter().chain(longreach::attention::cases()).collect()
}

fn compare_all(device: &mut dyn Executor) {
    let mut wrong = Vec::new();
    for case in all_cases().iter().filter(|c| !c.bench) {
        let recorded = case.record(device).unwrap();
        for d in walk::examine(device, &recorded.recording).unwrap() {
            if !case.tolerance.allows(&d) {
                wrong.push(format!(
                    "{}: {d}; tolerance {:e} ({})",
                    case.name, case.tolerance.relative, case.tolerance.reason
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn f32_twins_agree_with_f64_twins() {
    compare_all(&mut CpuExecutor::<f32>::new());
}

#[test]
fn the_device_agrees_with_the_twins_in_all_its_forms() {
    let Some(mut device) = common::software_device() else { return };
    compare_all(&mut device);
    assert_eq!(device.subgroup_failure(), None, "the forms with subgroups were left out");
}

#[test]
fn the_device_agrees_with_the_twins_in_portable_form_within_webgpu_limits_and_with_checks() {
    let Some(mut device) = common::minimal_device() else { return };
    compare_all(&mut device);
    assert_eq!(device.features(), Features::NONE);
}

#[test]
fn a_device_uses_what_it_has_of_what_it_may() {
    let Some(device) = common::software_device() else { return };
    let own = device.features();
    for allowed in Features::ALL.subsets() {
        let options = OpenOptions { features: allowed, ..OpenOptions::default() };
        let used = common::open(&options).expect("it opened before").features();
        assert_eq!(used, own.and(allowed), "{allowed}");
    }
}

#[test]
fn a_device_that_fails_the_test_of_its_subgroups_runs_the_other_forms() {
    let Some(mut device) = common::software_device() else { return };
    let before = device.features();
    device.fail_subgroup_test();
    assert_eq!(device.features(), Features { subgroups: false, ..before });
    assert!(device.subgroup_failure().is_some());
    for case in all_cases().iter().filter(|c| c.name.starts_with("norm/rms_norm: odd")) {
        let recorded = case.record(&mut device).unwrap();
        let found = walk::compare(&mut device, &recorded.recording).unwrap();
        assert!(!found.is_empty() && found.iter().all(|d| case.tolerance.allows(d)), "{found:?}");
    }
    assert!(!device.features().subgroups, "it was tested again");
}

#[test]
fn two_runs_on_a_device_give_the_same_bits() {
    let bits = |device: &mut WgpuExecutor| {
        let mut found = Vec::new();
        for case in all_cases().iter().filter(|c| !c.bench) {
            let recorded = case.record(device).unwrap();
            device.run(&recorded.recording).unwrap();
            for t in recorded.outputs.iter().chain(recorded.input_grads.iter().flatten()) {
                let values = t.read(device).unwrap();
                found.push((case.name.clone(), values.iter().map(|x| x.to_bits()).collect::<Vec<_>>()));
            }
        }
        found
    };
    let (Some(mut first), Some(mut second)) = (common::software_device(), common::software_device()) else { return };
    let (a, b) = (bits(&mut first), bits(&mut second));
    assert!(a.len() > 100, "only {} tensors were compared", a.len());
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert_eq!(a, b, "{name}");
    }
    assert_eq!(a, bits(&mut first), "a later run on the same device");
}

#[test]
fn no_kernel_counts_on_a_kind_device() {
    let Some(mut device) = common::software_device() else { return };
    let features = device.features();
    for case in all_cases().iter().filter(|c| !c.bench) {
        let mut cpu = CpuExecutor::<f32>::new();
        let recorded = case.record(&mut cpu).unwrap();
        let judge = |cpu: &mut dyn Executor, trial: Trial| {
            trial.run_in_place(cpu)?;
            let dispatch = Dispatch { kernel: strict(trial.dispatch.kernel, features), ..trial.dispatch.clone() };
            for d in trial.run_guarded(&mut device, &dispatch, Grid::Recorded)?.0 {
                assert!(case.tolerance.allows(&d), "{}, strict: {d}", case.name);
            }
            Ok(())
        };
        walk::visit(&mut cpu, &recorded.recording, judge).unwrap();
    }
}

#[test]
fn tables_larger_than_a_binding_are_looked_up_slice_by_slice() {
    let options = OpenOptions { max_binding_bytes: Some(768), ..OpenOptions::default() };
    let Some(mut device) = common::open(&options) else { return };
    let name = "embedding/embedding: odd, repeated";
    let case = kernels::cases().into_iter().find(|c| c.name == name).expect("the embedding family has this case");
    let recorded = case.record(&mut device).unwrap();
    assert!(recorded.bound.tensors[0].pieces().len() > 1);
    for d in walk::compare(&mut device, &recorded.recording).unwrap() {
        assert!(d.relative() <= case.tolerance.relative, "{d}");
    }
}
