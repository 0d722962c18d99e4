//! Kernel tests beyond tests/conformance.rs: shader descriptions, variants, repeatability, slices.
//!
//! Every variant of every shader matches its description, a device uses the variants that it may,
//! whole cases give the same bits twice, and sliced tables work.

mod common;

use longreach::conformance::all_cases;
use longreach::gpu::{
    Alternatives, Binding, Executor, Features, KernelArgs, KernelDef, Kind, OpenOptions, Params as _, Source,
    WgpuExecutor, shader,
};
use longreach::verify::walk;
use longreach::{kernels, table_row};

#[test]
fn every_shader_agrees_with_its_rust_description() {
    for (kernel, constants) in longreach::attention::kernels().into_iter().chain(kernels::all()) {
        for features in kernel.variants() {
            shader::check(kernel, &constants, features).unwrap();
        }
    }
}

table_row! {
    /// An element of a table in the test below.
    pub struct Run { first: u32, n: u32 }
}

#[test]
fn a_table_whose_elements_differ_in_wgsl_and_rust_is_refused() {
    fn reference<T>(_: KernelArgs<'_, T>) {}
    let check = |members: &str, element: &str| {
        let text = format!(
            "struct Params {{ n: u32 }}\nstruct Run {{ {members} }}\nstruct Other {{ first: u32, n: u32 }}\n\
             @group(0) @binding(0) var<uniform> p: Params;\n\
             @group(0) @binding(1) var<storage, read_write> runs: array<{element}>;\n\
             @compute @workgroup_size(1) fn rows() {{ _ = p.n; _ = arrayLength(&runs); }}"
        );
        let kernel: &'static KernelDef = Box::leak(Box::new(KernelDef {
            label: "test/rows",
            suffix: "",
            parts: vec![Source::new("test/rows", text.leak())].leak(),
            bindings: vec![Binding::write("runs", Kind::U32, "[n]").of_rows::<Run>()].leak(),
            params: kernels::elementwise::Params::FIELDS,
            constants: &[],
            alternatives: &[],
            work: |d| Ok(d.work(0)),
            reference_f32: reference,
            reference_f64: reference,
        }));
        shader::check(kernel, &[], Features::NONE).map_err(|e| e.to_string())
    };
    check("first: u32, n: u32", "Run").expect("both are alike");
    for (members, element, why) in [
        ("n: u32, first: u32", "Run", "member 0 of Run"),
        ("first: u32, n: f32", "Run", "member 1 of Run"),
        ("first: u32", "Run", "Run has 1 members in WGSL and 2 in Rust"),
        ("first: u32, @size(8) n: u32", "Run", "a Run takes 12 bytes in WGSL and 8 in Rust"),
        ("first: u32, n: u32", "Other", "called Other in WGSL and Run in Rust"),
        ("first: u32, n: u32", "vec2<u32>", "no structs in WGSL"),
    ] {
        let e = check(members, element).expect_err(why);
        assert!(e.contains(why), "{e}");
    }
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
    assert_eq!(device.features(), Features { subgroups: false, wide_subgroups: false, ..before });
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
        for case in &all_cases() {
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

#[test]
fn a_device_that_measures_its_kernels_computes_the_same() {
    let Some(mut device) =
        common::open(&OpenOptions { alternatives: Alternatives::Measured, ..OpenOptions::default() })
    else {
        return;
    };
    for case in
        all_cases().iter().filter(|c| c.name.starts_with("matmul/linear: odd") || c.name.contains("heads of 32"))
    {
        let recorded = case.record(&mut device).unwrap();
        let found = walk::compare(&mut device, &recorded.recording).unwrap();
        assert!(!found.is_empty() && found.iter().all(|d| case.tolerance.allows(d)), "{found:?}");
        let chosen = |device: &WgpuExecutor| -> Vec<String> {
            recorded.recording.dispatches().map(|d| device.kernel_of(d).name()).collect()
        };
        device.run(&recorded.recording).unwrap();
        let first = chosen(&device);
        device.run(&recorded.recording).unwrap();
        assert_eq!(chosen(&device), first, "a choice stands");
    }
}
