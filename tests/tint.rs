//! A second WGSL compiler judges every linked shader in each of its forms. naga, which wgpu uses, does not check that barriers and subgroup
//! operations are reached by all invocations alike; tint, which browsers use, does.
//!
//! tint is no requirement: where it is not on the PATH the test says that it was skipped.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Command;

use longreach::gpu::{Features, KernelDef, shader};
use longreach::kernels;

/// What tint says against a kernel in the form for `features`, or nothing.
fn verdict(kernel: &KernelDef, constants: &[u32], features: Features, file: &std::path::Path) -> Option<String> {
    std::fs::write(file, shader::standard_wgsl(kernel, constants, features)).unwrap();
    let out =
        Command::new("tint").args(["-f", "wgsl", "-o"]).arg(file.with_extension("out")).arg(file).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let is_fine = out.status.success() && !said.contains("error:") && !said.contains("warning:");
    (!is_fine).then(|| format!("{} {constants:?}, {features}:\n{said}", kernel.name()))
}

#[test]
fn tint_accepts_every_shader() {
    if let Err(e) = Command::new("tint").arg("--help").output() {
        assert_eq!(e.kind(), ErrorKind::NotFound, "tint does not start: {e}");
        eprintln!("SKIPPED: tint is not installed, so nothing but naga judged the shaders");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kernel.wgsl");
    let mut seen = BTreeSet::new();
    let all = longreach::attention::kernels().into_iter().chain(kernels::all());
    let fresh = all.filter(|(kernel, constants)| seen.insert((kernel.name(), constants.clone())));
    let forms =
        fresh.flat_map(|(k, constants)| k.features().subsets().into_iter().map(move |f| (k, constants.clone(), f)));
    let wrong: Vec<String> = forms.filter_map(|(kernel, c, features)| verdict(kernel, &c, features, &file)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() > 30, "only {} kernels were looked at", seen.len());
}

#[test]
fn tint_refuses_a_barrier_in_divergent_flow() {
    if Command::new("tint").arg("--help").output().is_err() {
        return; // the test above says so
    }
    static SPLIT: KernelDef = KernelDef {
        label: "broken/split",
        variant: "",
        parts: &[longreach::gpu::Source::new(
            "broken/split",
            "@compute @workgroup_size(64)\nfn split(@builtin(local_invocation_index) i: u32) {\n    if i < 3u {\n        \
             workgroupBarrier();\n    }\n}\n",
        )],
        bindings: &[],
        params: &[],
        constants: &[],
        twin_f32: |_| {},
        twin_f64: |_| {},
    };
    let dir = tempfile::tempdir().unwrap();
    let said =
        verdict(&SPLIT, &[], Features::NONE, &dir.path().join("kernel.wgsl")).expect("a split barrier is an error");
    assert!(said.contains("uniform"), "{said}");
}
