//! `longreach check` on llvmpipe through Vulkan and GL, with the adapter's and WebGPU's limits.
//!
//! Every kernel has rows in every variant, a faulty device is detected, and the program prints the
//! report.

mod common;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::process::Command;

use longreach::conformance::{
    CheckOptions, Direction, Report, Status, check_adapter, check_cpu, check_without_device, table,
};
use longreach::gpu::{AdapterReport, Features, KernelDef, LimitSet};

fn kernels() -> Vec<&'static KernelDef> {
    longreach::kernels::all().into_iter().chain(longreach::attention::kernels()).map(|(kernel, _)| kernel).collect()
}

/// Checks an adapter and asserts that nothing failed and nothing is missing.
fn assert_conforms(adapter: &AdapterReport, limits: LimitSet) {
    let options = CheckOptions { limits, ..CheckOptions::default() };
    let device = check_adapter(adapter, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    let used = if limits == LimitSet::WebGpu { Features::NONE } else { adapter.kernel_features() };
    let seen: BTreeSet<(&str, &str)> = device.rows.iter().map(|r| (r.kernel.as_str(), r.variant.as_str())).collect();
    for kernel in kernels().into_iter().filter(|k| k.runs_with(used)) {
        let own = kernel.features().and(used);
        let strict = format!("{own}, strict");
        assert!(seen.contains(&(&kernel.name(), &strict)), "no row of {} as {strict}", kernel.name());
        let variants = [own, Features::NONE].into_iter().filter(|f| kernel.runs_with(*f));
        for features in variants.map(|f| f.to_string()).collect::<BTreeSet<_>>() {
            for variant in [features.clone(), format!("{features}, bounds-checked")] {
                assert!(seen.contains(&(&kernel.name(), &variant)), "no row of {} as {variant}", kernel.name());
            }
        }
    }
    for run in ["training step", "LoRA training step", "training step, update", "prefill", "decode"] {
        assert!(device.rows.iter().any(|r| r.case == run), "no row of a whole {run}");
    }
    let text = table(&Report { devices: vec![device.clone()], ..Report::default() });
    assert!(device.rows.iter().all(|r| r.status != Status::Failed), "{text}");
}

#[test]
fn the_test_device_conforms() {
    let Some(adapter) = common::test_adapter_or_skip() else { return };
    assert_conforms(&adapter, LimitSet::Adapter);
}

#[test]
fn the_test_device_conforms_within_webgpu_limits() {
    let Some(adapter) = common::test_adapter_or_skip() else { return };
    assert_conforms(&adapter, LimitSet::WebGpu);
}

#[test]
fn llvmpipe_conforms_through_gl() {
    let list = longreach::gpu::adapters();
    let Ok(adapter) = longreach::gpu::find_adapter(&list, "gl:llvmpipe") else {
        // CI machines other than Linux have no GL; on Linux the setup script installs it.
        let must = std::env::var_os("CI").is_some() && cfg!(target_os = "linux");
        assert!(!must, "no llvmpipe on GL: install libegl1, libgles2 and libgl1-mesa-dri");
        eprintln!("SKIPPED: no llvmpipe on GL; on Debian: apt-get install libegl1 libgles2 libgl1-mesa-dri");
        return;
    };
    assert_conforms(adapter, LimitSet::Adapter);
}

#[test]
fn the_cpu_executor_conforms() {
    let device = check_cpu(&CheckOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    let seen: BTreeSet<&str> = device.rows.iter().map(|r| r.kernel.as_str()).collect();
    // The rows of references name the recorded kernel; its alternatives share them.
    let alternatives: BTreeSet<String> =
        kernels().iter().flat_map(|k| k.alternatives).map(|r| r.kernel.name()).collect();
    let recorded = kernels().into_iter().map(|k| k.name()).filter(|k| !alternatives.contains(k));
    let missing: Vec<String> = recorded.filter(|k| !seen.contains(k.as_str())).collect();
    assert!(missing.is_empty(), "no rows of {missing:?}");
    let text = table(&Report { devices: vec![device.clone()], ..Report::default() });
    assert!(device.rows.iter().all(|r| r.status == Status::Passed), "{text}");
}

#[test]
fn what_needs_no_device_is_in_the_report() {
    let mut report = Report::default();
    check_without_device(&CheckOptions::default(), &mut report, &mut |_| ControlFlow::Continue(())).unwrap();
    for direction in [Direction::Slope, Direction::Translation] {
        assert!(report.paper.iter().filter(|r| r.direction == direction).count() > 8, "{direction:?}");
    }
    assert_eq!(report.count(Status::Failed), 0, "{}", table(&report));
    let targets = report.targets();
    assert!(targets.len() == 4 && targets.iter().all(|t| t.validated + t.translated > 40), "{targets:?}");
}

fn check(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_longreach")).arg("check").args(args).output().unwrap()
}

#[test]
fn the_verb_prints_one_object_and_writes_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("report.html");
    let out = check(&["--device", "cpu", "--quick", "--json", "--html", page.to_str().unwrap()]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let cases = report["cases"].as_array().unwrap();
    assert!(report["passed"].as_u64().unwrap() as usize == cases.len() && cases.len() > 40);
    assert_eq!((report["known"].as_u64(), report["failed"].as_u64()), (Some(0), Some(0)));
    for key in ["kernel", "variant", "direction", "case", "status", "max_abs", "max_ulp", "reason"] {
        assert!(cases.iter().all(|c| !c[key].is_null()), "a case without {key}");
    }
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("keep_mark") && html.ends_with("</html>\n"), "a whole page");
}

#[test]
fn bad_usage_is_told() {
    for (args, status, words) in [
        (&["--device", "no such"][..], 2, "no adapter fits"),
        (&["--device", "cpu", "--only", "no such"], 2, "no case has this"),
        (&["--device", "cpu", "--html", "/"], 1, "/"),
    ] {
        let out = check(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(status) && said.contains(words), "{args:?}: {:?} {said}", out.status);
    }
}
