//! Tests of the choice among kernels.

use super::*;
use crate::gpu::{Alternative, Binding, Kind, Params as _, Recording, Source};

crate::params! {
    /// Parameters of the kernels below.
    pub struct TestParams { n: u32 }
}

const PARTS: &[Source] = &[Source::new("test/part", "")];
const BINDINGS: &[Binding] = &[Binding::read_write("x", Kind::Real, "[n]")];

/// A kernel that nobody runs.
const fn kernel(label: &'static str, alternatives: &'static [Alternative]) -> KernelDef {
    KernelDef {
        label,
        suffix: "",
        parts: PARTS,
        bindings: BINDINGS,
        params: TestParams::FIELDS,
        constants: &[],
        alternatives,
        work: |d| Ok(d.work(0)),
        reference_f32: |_| {},
        reference_f64: |_| {},
    }
}

const fn alternative(kernel: &'static KernelDef, expected: Expected) -> Alternative {
    Alternative { kernel, expected, shape: |d| Some((d.constants.clone(), d.groups)) }
}

static SOFT: KernelDef = kernel("test/soft", &[]);
static HARD: KernelDef = kernel("test/hard", &[]);
const ONE: &[Alternative] = &[alternative(&SOFT, Expected::OnSoftware)];
const BOTH: &[Alternative] = &[alternative(&SOFT, Expected::OnSoftware), alternative(&HARD, Expected::OnHardware)];
static PLAIN: KernelDef = kernel("test/plain", BOTH);
static ONLY_SOFT: KernelDef = kernel("test/only_soft", ONE);

fn dispatch(kernel: &'static KernelDef, len: usize) -> Dispatch {
    let x = Buffer::persistent("x", Kind::Real, len).span();
    let mut rec = Recording::new();
    rec.dispatch(kernel, &[], TestParams { n: len as u32 }, &[&x], [8, 100, 1]);
    rec.dispatches().next().unwrap().clone()
}

fn gpu(store: Option<ChoiceStore>) -> Choice {
    Choice::new(false, Alternatives::Best, store)
}

fn names(rivals: Vec<Dispatch>) -> Vec<&'static str> {
    rivals.into_iter().map(|d| d.kernel.label).collect()
}

fn chosen(choice: &Choice, d: &Dispatch) -> &'static str {
    choice.of(d, Features::NONE).kernel.label
}

#[test]
fn a_gpu_measures_nothing_that_is_meant_for_software() {
    let d = dispatch(&PLAIN, 64);
    let software = Choice::new(true, Alternatives::Measured, None);
    assert_eq!(names(software.rivals(&d, Features::NONE)), ["test/soft", "test/plain", "test/hard"]);
    assert_eq!(names(gpu(None).rivals(&d, Features::NONE)), ["test/hard", "test/plain"]);
    assert!(gpu(None).wants(&d, Features::NONE));
    let alone = dispatch(&ONLY_SOFT, 64);
    assert!(!gpu(None).wants(&alone, Features::NONE), "there is nothing to choose");
    assert_eq!(chosen(&gpu(None), &alone), "test/only_soft");
}

#[test]
fn what_was_settled_unmeasured_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = || Some(ChoiceStore::in_folder(dir.path(), &["an adapter"]));
    let (d, other) = (dispatch(&PLAIN, 64), dispatch(&PLAIN, 640));
    let mut choice = gpu(store());
    choice.note(&d, &d, BUDGET);
    assert!(!choice.has_time(Duration::ZERO) && choice.wants(&other, Features::NONE));
    choice.settle(&other, Features::NONE);
    choice.save();
    let later = gpu(store());
    assert!(!later.wants(&d, Features::NONE) && !later.wants(&other, Features::NONE));
    assert_eq!((chosen(&later, &d), chosen(&later, &other)), ("test/plain", "test/hard"));
}

#[test]
fn a_kernel_that_ended_a_run_is_not_measured_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = || Some(ChoiceStore::in_folder(dir.path(), &["an adapter"]));
    let (known, d) = (dispatch(&PLAIN, 64), dispatch(&PLAIN, 640));
    let hard = |choice: &Choice| choice.rivals(&d, Features::NONE).remove(0);
    let mut first = gpu(store());
    let rival = hard(&first);
    assert_eq!(rival.kernel.label, "test/hard");
    first.mark(&d, &d);
    first.mark(&known, &rival);
    first.unmark();
    first.note(&known, &Dispatch { kernel: &HARD, ..known.clone() }, Duration::ZERO);
    assert!(gpu(store()).suspects.is_empty(), "it did no harm, and the recorded kernel is never marked");
    let mut second = gpu(store());
    second.mark(&d, &rival); // and here the program ends
    for _ in 0..2 {
        let mut later = gpu(store());
        assert_eq!(names(later.rivals(&d, Features::NONE)), ["test/plain"]);
        assert!(!later.wants(&d, Features::NONE));
        assert_eq!(chosen(&later, &d), "test/plain");
        assert_eq!(chosen(&later, &known), "test/hard", "what was measured gives the same bits");
        later.note(&known, &known.alternatives(Features::NONE)[1].0, Duration::ZERO);
    }
}

#[test]
fn a_long_dispatch_is_cut_to_a_part_of_its_grid() {
    let d = dispatch(&PLAIN, 64);
    let (part, share) = cut(&d, 4 * MOST_FLOPS);
    assert_eq!((part.groups, share), ([8, 25, 1], 0.25));
    let (part, share) = cut(&d, u64::MAX);
    assert_eq!((part.groups, share), ([8, 1, 1], 0.01));
    for flops in [0, MOST_FLOPS] {
        let (part, share) = cut(&d, flops);
        assert_eq!((part.groups, share), (d.groups, 1.0));
    }
}
