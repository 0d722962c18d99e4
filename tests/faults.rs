//! Injected device faults: a lost device, missing memory, broken kernels.
//!
//! Each gives an error that says what to do, never a panic. Work that cannot fit is rejected before
//! it starts.

mod common;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use longreach::attention::{Attention, Cache, Heads, Lrsa};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::data::token_count::TokenCount;
use longreach::error::{Error, ErrorKind, Result};
use longreach::gpu::{
    Alternative, Alternatives, Binding, Buffer, CpuExecutor, DeviceLimits, Executor, Expected, Feature, Features,
    KernelDef, Kind, MemoryUse, OpenOptions, Params, Recording, Source, Span, Timing, WgpuExecutor, shader,
};
use longreach::train::{ChunkLength, Observer, StepLine, TrainJob, Trainer, read_data, run};

longreach::params! {
    /// Parameters of the kernels below.
    pub struct OneParam { n: u32 }
}

/// A kernel without a working shader; `part` contains the fault.
const fn broken(label: &'static str, part: &'static [Source], bindings: &'static [Binding]) -> KernelDef {
    KernelDef {
        label,
        suffix: "",
        parts: part,
        bindings,
        params: OneParam::FIELDS,
        constants: &[],
        alternatives: &[],
        work: |d| Ok(d.work(0)),
        reference_f32: |_| {},
        reference_f64: |_| {},
    }
}

const READ: &[Binding] = &[Binding::read("x", Kind::Real, "[n]")];
const READ_WRITE: &[Binding] = &[Binding::read_write("x", Kind::Real, "[n]")];
const HEAD: Source =
    Source::new("broken/head", "struct Params { n: u32 }\n@group(0) @binding(0) var<uniform> p: Params;\n");
const SYNTAX_TEXT: &str = "@group(0) @binding(1) var<storage, read_write> x: array<f32>;\n\n@compute @workgroup_size(1)\n\
                           fn syntax() {\n    x[0] = f32(p.n) +;\n}\n";
const TYPES_TEXT: &str = "@group(0) @binding(1) var<storage, read_write> x: array<f32>;\n\n@compute @workgroup_size(1)\n\
                          fn types() {\n    let n = p.n;\n    x[0] = n;\n}\n";
const ACCESS_TEXT: &str = "// The description says that x is only read.\n\
                           @group(0) @binding(1) var<storage, read_write> x: array<f32>;\n\n@compute @workgroup_size(1)\n\
                           fn access() {\n    x[0] = f32(p.n);\n}\n";
const GREEDY_TEXT: &str = "@group(0) @binding(1) var<storage, read_write> x: array<f32>;\n\n\
                           @compute @workgroup_size(8192)\nfn greedy() {\n    x[0] = f32(p.n);\n}\n";
static SYNTAX: KernelDef = broken("broken/syntax", &[HEAD, Source::new("broken/syntax", SYNTAX_TEXT)], READ_WRITE);
static TYPES: KernelDef = broken("broken/types", &[HEAD, Source::new("broken/types", TYPES_TEXT)], READ_WRITE);
static ACCESS: KernelDef = broken("broken/access", &[HEAD, Source::new("broken/access", ACCESS_TEXT)], READ);
const HALF_TEXT: &str =
    "@group(0) @binding(1) var<storage, read> x: array<f32>;\n@compute @workgroup_size(1)\nfn half() {}\n";
const NATIVE_TEXT: &str = "// Halves are no reals.\n\n@group(0) @binding(1) var<storage, read> x: array<f16>;\n\
                           @compute @workgroup_size(1)\nfn half() {}\n";
static HALF: KernelDef = broken(
    "broken/half",
    &[HEAD, Source::new("broken/half", HALF_TEXT).or(Feature::F16, Source::new("broken/native", NATIVE_TEXT))],
    READ,
);
static GREEDY: KernelDef = broken("broken/greedy", &[HEAD, Source::new("broken/greedy", GREEDY_TEXT)], READ_WRITE);

const WHOLE_TEXT: &str = "@group(0) @binding(1) var<storage, read_write> x: array<f32>;\n\n@compute @workgroup_size(1)\n\
                          fn whole() {\n    x[0] = f32(p.n);\n}\n";
const BROKEN_RIVAL: Alternative =
    Alternative { kernel: &TYPES, expected: Expected::Everywhere, shape: |d| Some((d.constants.clone(), d.groups)) };
static WHOLE: KernelDef = KernelDef {
    alternatives: &[BROKEN_RIVAL],
    ..broken("broken/whole", &[HEAD, Source::new("broken/whole", WHOLE_TEXT)], READ_WRITE)
};

fn real(label: &str, len: usize) -> Span {
    Buffer::persistent(label, Kind::Real, len).span()
}

fn run_kernel(device: &mut dyn Executor, kernel: &'static KernelDef, x: &Span) -> Result<()> {
    let mut rec = Recording::new();
    rec.dispatch(kernel, &[], OneParam { n: 1 }, &[x], [1, 1, 1]);
    device.run(&rec)
}

fn cleared(spans: &[&Span]) -> Recording {
    let mut rec = Recording::new();
    spans.iter().for_each(|s| rec.clear(s));
    rec
}

fn assert_error<T: std::fmt::Debug>(got: Result<T>, kind: ErrorKind, words: &[&str]) {
    let e = got.expect_err("the failure was injected");
    assert_eq!(e.kind(), kind, "{e}");
    for word in words {
        assert!(e.to_string().contains(word), "no '{word}' in: {e}");
    }
}

#[test]
fn a_lost_device_fails_every_call_and_hangs_none() {
    let Some(mut device) = common::software_device() else { return };
    let (x, fresh) = (real("x", 1 << 20), real("fresh", 64));
    device.run(&cleared(&[&x])).unwrap();
    assert_eq!(device.read_real(&x).unwrap()[7], 0.0);
    device.run(&cleared(&[&x])).unwrap();
    device.lose_device(); // while work is queued
    for _ in 0..2 {
        let kind = ErrorKind::DeviceLost;
        let words = ["lost", "`device` cpu"];
        assert_error(device.read_real(&x), kind, &words);
        assert_error(device.read_words(&Buffer::persistent("words", Kind::U32, 4).span()), kind, &words);
        assert_error(device.write_real(&x, &[1.0]), kind, &words);
        assert_error(device.write_real(&fresh, &[1.0]), kind, &words);
        assert_error(device.run(&cleared(&[&x])), kind, &words);
        assert_error(device.run(&cleared(&[&fresh])), kind, &words);
        assert_error(run_kernel(&mut device, &SYNTAX, &x), kind, &words);
        assert_error(device.wait(), kind, &words);
    }
}

#[test]
fn work_that_the_driver_drops_is_found_before_results_get_out() {
    let Some(mut device) = common::software_device() else { return };
    let x = real("x", 64);
    device.write_real(&x, &[1.0; 64]).unwrap();
    assert_eq!(device.read_real(&x).unwrap(), [1.0; 64]);
    device.drop_next_submit();
    device.run(&cleared(&[&x])).expect("the driver says that it has finished");
    let words = ["dropped work", "lost", "`device` cpu"];
    for _ in 0..2 {
        assert_error(device.read_real(&x), ErrorKind::DeviceLost, &words);
        assert_error(device.run(&cleared(&[&x])), ErrorKind::DeviceLost, &words);
    }
}

#[test]
fn a_rival_that_does_not_compile_is_done_without() {
    for alternatives in [Alternatives::Expected, Alternatives::Measured] {
        let Some(mut device) = common::open(&OpenOptions { alternatives, ..OpenOptions::default() }) else { return };
        let x = real("x", 1);
        device.write_real(&x, &[0.0]).unwrap();
        run_kernel(&mut device, &WHOLE, &x).unwrap();
        assert_eq!(device.read_real(&x).unwrap(), [1.0], "{alternatives:?}");
        run_kernel(&mut device, &WHOLE, &x).expect("the alternative is not asked for again");
        assert_error(run_kernel(&mut device, &TYPES, &x), ErrorKind::Failed, &["shaders/broken/types.wgsl:6"]);
    }
}

#[test]
fn a_fault_in_another_form_of_a_part_is_found_in_its_file() {
    shader::check(&HALF, &[], Features::NONE).unwrap();
    shader::check(&HALF, &[], Features::NONE.with(Feature::Subgroups)).unwrap();
    let found = shader::check(&HALF, &[], Features::ALL);
    assert_error(found, ErrorKind::Failed, &["shaders/broken/native.wgsl:3", "x holds"]);
    let standard = shader::standard_wgsl(&HALF, &[], Features::ALL);
    assert!(standard.starts_with("enable f16;\nstruct"), "{standard}");
}

#[test]
fn what_is_larger_than_the_device_takes_is_out_of_memory() {
    let options = OpenOptions { max_binding_bytes: Some(1 << 20), ..OpenOptions::default() };
    let Some(mut device) = common::open(&options) else { return };
    let large = (1 << 18) + 64;
    let words = ["weight", "needs 1.0 MiB", "binds at most 1.0 MiB", "smaller batch"];
    assert_error(device.write_real(&real("weight", large), &[0.0]), ErrorKind::OutOfMemory, &words);
    assert_error(device.read_real(&real("weight", large)), ErrorKind::OutOfMemory, &words);
    let mut rec = Recording::new();
    let activation = rec.transient("activation", Kind::Real, large);
    rec.clear(&activation);
    assert_error(device.check(&rec), ErrorKind::OutOfMemory, &["activation"]);
    assert_error(device.run(&rec), ErrorKind::OutOfMemory, &["activation"]);
    // A buffer over the adapter's limit, of which only a small part is bound.
    let huge = Buffer::persistent("huge", Kind::Real, 1 << 40);
    assert_error(device.run(&cleared(&[&huge.slice(0, 64)])), ErrorKind::OutOfMemory, &["huge"]);
    let fits = real("fits", 1 << 18);
    device.run(&cleared(&[&fits])).expect("the device is as good as before");
    assert_eq!(device.read_real(&fits).unwrap().len(), 1 << 18);
}

#[test]
fn a_broken_kernel_is_named_with_file_and_line() {
    let Some(mut device) = common::software_device() else { return };
    let x = real("x", 64);
    for _ in 0..2 {
        let failed = ErrorKind::Failed;
        assert_error(run_kernel(&mut device, &SYNTAX, &x), failed, &["broken/syntax", "shaders/broken/syntax.wgsl:5"]);
        assert_error(run_kernel(&mut device, &TYPES, &x), failed, &["broken/types", "shaders/broken/types.wgsl:6"]);
        let access = ["shaders/broken/access.wgsl:2", "Read in Rust"];
        assert_error(run_kernel(&mut device, &ACCESS, &x), failed, &access);
        // Valid WGSL beyond the limits of the device: only the device's validation rejects it.
        assert_error(run_kernel(&mut device, &GREEDY, &x), failed, &["broken/greedy", "report"]);
    }
    device.run(&cleared(&[&x])).expect("the device is as good as before");
    assert_eq!(device.read_real(&x).unwrap(), [0.0; 64]);
}

/// A device that is lost at the first run after the flag is set.
struct Failing {
    device: WgpuExecutor,
    lose: Rc<Cell<bool>>,
}

impl Executor for Failing {
    fn name(&self) -> String {
        self.device.name()
    }
    fn limits(&self) -> DeviceLimits {
        self.device.limits()
    }
    fn check(&self, recording: &Recording) -> Result<()> {
        self.device.check(recording)
    }
    fn run(&mut self, recording: &Recording) -> Result<()> {
        if self.lose.take() {
            self.device.lose_device();
        }
        self.device.run(recording)
    }
    fn run_timed(&mut self, recording: &Recording) -> Result<Vec<Timing>> {
        self.device.run_timed(recording)
    }
    fn wait(&mut self) -> Result<()> {
        self.device.wait()
    }
    fn write_real(&mut self, span: &Span, data: &[f32]) -> Result<()> {
        self.device.write_real(span, data)
    }
    fn write_f64(&mut self, span: &Span, data: &[f64]) -> Result<()> {
        self.device.write_f64(span, data)
    }
    fn write_words(&mut self, span: &Span, data: &[u32]) -> Result<()> {
        self.device.write_words(span, data)
    }
    fn read_real(&mut self, span: &Span) -> Result<Vec<f32>> {
        self.device.read_real(span)
    }
    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>> {
        self.device.read_f64(span)
    }
    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>> {
        self.device.read_words(span)
    }
    fn memory(&self) -> MemoryUse {
        self.device.memory()
    }
    fn reset_peak(&mut self) {
        self.device.reset_peak();
    }
}

struct LoseAfterSaving(Rc<Cell<bool>>);

impl Observer for LoseAfterSaving {
    fn saved(&mut self, _step: u64) {
        self.0.set(true);
    }
}

fn model() -> String {
    format!("{}/assets/stories260k", env!("CARGO_MANIFEST_DIR"))
}

/// A job on made-up examples of the given lengths.
fn job(dir: &Path, lengths: &[usize]) -> TrainJob {
    let ids = |&n: &usize| (0..n as u32).map(|i| i * 7 % 500 + 3).collect::<Vec<_>>();
    let lines: String = lengths.iter().map(|n| format!("{{\"input_ids\": {:?}}}\n", ids(n))).collect();
    let data: PathBuf = dir.join("data.jsonl");
    std::fs::write(&data, lines).unwrap();
    TrainJob { model: model(), data, out: dir.join("out"), steps: Some(4), save_every: 2, ..TrainJob::default() }
}

#[test]
fn a_run_that_loses_its_device_keeps_what_it_saved() {
    let Some(device) = common::software_device() else { return };
    let dir = tempfile::tempdir().unwrap();
    let lose = Rc::new(Cell::new(false));
    let (mut device, job) = (Failing { device, lose: lose.clone() }, job(dir.path(), &[40]));
    let words = ["step 3", "result of step 2 is kept", "lost", "`device` cpu"];
    assert_error(run(&job, &mut device, &mut LoseAfterSaving(lose)), ErrorKind::DeviceLost, &words);
    let adapter = ModelFiles::open(&job.model, Some(&job.out)).expect("the adapter is whole").adapter;
    assert!(adapter.is_some());
    assert_eq!(std::fs::read_to_string(job.out.join("metrics.jsonl")).unwrap().lines().count(), 2);
    for folder in [dir.path(), &job.out] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains("tmp"), "{name} was left behind");
        }
    }
}

#[test]
fn training_that_cannot_fit_is_refused_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let job = TrainJob { chunk: ChunkLength::Tokens(500), ..job(dir.path(), &[20, 20, 20, 500]) };
    let refused = |got: std::result::Result<_, Error>| {
        assert_error(got, ErrorKind::OutOfMemory, &["before the first step", "500 tokens does not fit"]);
        assert!(!job.out.exists(), "nothing is written");
    };
    // Enough for the model and for short examples.
    let mut cpu = CpuExecutor::<f32>::new().pretending_memory(4 << 20);
    refused(run(&job, &mut cpu, &mut ()));
    if let Some(mut device) = common::open(&OpenOptions { max_binding_bytes: Some(64 << 10), ..OpenOptions::default() })
    {
        refused(run(&job, &mut device, &mut ()));
    }
    let short = TrainJob { max_length: Some(20), steps: Some(1), ..job.clone() };
    run(&short, &mut CpuExecutor::<f32>::new().pretending_memory(4 << 20), &mut ()).unwrap();
}

#[test]
fn an_evaluation_that_does_not_fit_costs_no_step() {
    let dir = tempfile::tempdir().unwrap();
    let whole = job(dir.path(), &[20, 3000]);
    let text = std::fs::read_to_string(&whole.data).unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (name, line) in ["train.jsonl", "valid.jsonl"].iter().zip(text.lines()) {
        std::fs::write(data.join(name), line).unwrap();
    }
    let chunk = ChunkLength::Tokens(3000);
    let job = TrainJob { data, chunk, max_positions: Some(3000), eval_every: 3, save_every: 100, ..whole };
    let failed = run(&job, &mut CpuExecutor::<f32>::new().pretending_memory(4 << 20), &mut ());
    assert_error(failed, ErrorKind::OutOfMemory, &["evaluating", "what was learnt before is in", "step-3"]);
    let done = run(&job, &mut CpuExecutor::<f32>::new(), &mut ()).unwrap();
    assert_eq!((done.steps, done.tokens), (4, 20), "one step more, from the checkpoint");
}

#[test]
fn a_run_does_not_start_from_what_it_removes() {
    let dir = tempfile::tempdir().unwrap();
    let first = job(dir.path(), &[20]);
    run(&first, &mut CpuExecutor::<f32>::new(), &mut ()).unwrap();
    let checkpoint = first.out.join("checkpoints/step-4");
    let again = TrainJob { adapter: Some(checkpoint.clone()), overwrite: true, ..first };
    assert_error(
        run(&again, &mut CpuExecutor::<f32>::new(), &mut ()),
        ErrorKind::Usage,
        &["`adapter`", "another `out`"],
    );
    assert!(checkpoint.is_dir());
}

/// The number behind a setting in a message.
fn named(text: &str, setting: &str) -> Option<usize> {
    let (_, rest) = text.split_once(&format!("`{setting}` "))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A refusal names settings, and with these settings the run fits into the same memory.
#[test]
fn a_refusal_names_settings_that_fit() {
    let dir = tempfile::tempdir().unwrap();
    let whole = TrainJob { steps: Some(1), max_positions: Some(1000), ..job(dir.path(), &[900, 700, 600, 500, 40]) };
    let fixed = TrainJob { chunk: ChunkLength::Tokens(900), ..whole.clone() };
    let pairs = TrainJob { batch_size: 4, ..fixed.clone() };
    let tokens = TrainJob { batch_tokens: Some(TokenCount::Tokens(2700)), ..fixed.clone() };
    let mut words = std::collections::BTreeSet::new();
    let tries =
        [(&fixed, &[12, 6][..]), (&pairs, &[30, 12, 6, 3, 2, 1]), (&tokens, &[30, 12, 6, 3, 2, 1]), (&whole, &[2, 1])];
    let tries = tries.into_iter().flat_map(|(job, sizes)| sizes.iter().map(move |&mib| (job, mib)));
    for (i, (job, mib)) in tries.enumerate() {
        let job = &TrainJob { out: dir.path().join(format!("out-{i}")), ..job.clone() };
        let cpu = || CpuExecutor::<f32>::new().pretending_memory(mib << 20);
        let Err(refused) = run(job, &mut cpu(), &mut ()) else { continue };
        let text = refused.to_string();
        let Some((_, settings)) = text.split_once("it fits with ") else { panic!("{mib} MiB: {text}") };
        let settings = settings.split(": ").next().unwrap_or_default();
        let mut nearest = TrainJob { recompute: job.recompute || settings.contains("`recompute`"), ..job.clone() };
        words.extend(settings.split('`').skip(1).step_by(2).map(str::to_string));
        if let Some(n) = named(settings, "chunk") {
            nearest.chunk = ChunkLength::Tokens(n);
        }
        if let Some(n) = named(settings, "batch_size") {
            (nearest.batch_size, nearest.accumulate) =
                (n, named(settings, "accumulate").expect("as many sequences a step"));
            assert_eq!(nearest.batch_size * nearest.accumulate, job.batch_size * job.accumulate, "{settings}");
        }
        if let Some(n) = named(settings, "batch_tokens") {
            let accumulate = named(settings, "accumulate").expect("as many tokens a step");
            assert!(n * accumulate >= 2700 || settings.contains("`max_length`"), "{settings}");
            (nearest.batch_tokens, nearest.accumulate) = (Some(TokenCount::Tokens(n)), accumulate);
        }
        nearest.max_length = named(settings, "max_length");
        run(&nearest, &mut cpu(), &mut ()).unwrap_or_else(|e| panic!("{mib} MiB with {settings}: {e}"));
    }
    let all = ["accumulate", "batch_size", "batch_tokens", "chunk", "max_length", "recompute"];
    assert_eq!(words, all.map(String::from).into(), "each setting is the nearest somewhere");
}

/// Keeps what a run says.
#[derive(Default)]
struct Log {
    notes: Vec<String>,
    losses: Vec<f64>,
    chunks: Vec<Option<usize>>,
}

impl Observer for Log {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_string());
    }

    fn step(&mut self, line: &StepLine) {
        self.losses.push(line.loss);
        self.chunks.push(line.chunk);
    }
}

#[test]
fn training_streams_what_does_not_fit_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let job = TrainJob { steps: Some(3), max_positions: Some(1000), ..job(dir.path(), &[900, 700, 40]) };
    let files = ModelFiles::open(&job.model, None).unwrap();
    let data = read_data(&job, &files, &mut ()).unwrap();
    let planned = |chunk| {
        let mut cpu = CpuExecutor::<f32>::new();
        let mut trainer = Trainer::new(&mut cpu, &files, &TrainJob { chunk, ..job.clone() }).unwrap();
        trainer.planned_bytes(&mut cpu, &data.train.examples).unwrap()
    };
    let [at_once, streamed] = [ChunkLength::Auto, ChunkLength::Tokens(256)].map(planned);
    assert!(2 * streamed < at_once, "{streamed} and {at_once} bytes");
    let pretending = || CpuExecutor::<f32>::new().pretending_memory((at_once + streamed) / 2);
    let mut enough = Log::default();
    run(&job, &mut CpuExecutor::<f32>::new(), &mut enough).unwrap();
    // A run looks before it starts; without that look, a step that fails is tried again.
    let mut looked = Log::default();
    let out = dir.path().join("streamed");
    run(&TrainJob { out, ..job.clone() }, &mut pretending(), &mut looked).unwrap();
    let mut failed = Log::default();
    let mut cpu = pretending();
    let mut trainer = Trainer::new(&mut cpu, &files, &job).unwrap();
    trainer.fit(&mut cpu, &data, None, &mut failed).unwrap();
    assert!(trainer.chunk().is_some_and(|chunk| chunk >= 256));
    assert_eq!((&enough.chunks, &failed.chunks), (&vec![None; 3], &vec![trainer.chunk(); 3]));
    for (log, why) in [(&looked, "the longest batch"), (&failed, "step 1 does not fit")] {
        let note = log.notes.iter().find(|note| note.contains("stream in chunks of"));
        assert!(note.is_some_and(|note| note.contains(why)), "{:?}", log.notes);
        assert_eq!(log.losses.len(), 3);
        for (got, want) in log.losses.iter().zip(&enough.losses) {
            assert!((got - want).abs() < 1e-5 * want, "{got} instead of {want}");
        }
    }
    assert!(!enough.notes.iter().any(|note| note.contains("stream in chunks")), "{:?}", enough.notes);
}

#[test]
fn a_cache_larger_than_memory_is_refused() {
    let mut device = CpuExecutor::<f32>::new().pretending_memory(100 << 20);
    let heads = Heads { queries: 8, keys: 4, dim: 8 };
    let cache = |attention: Attention| Cache::new(&[attention.into(); 5], heads, 100_000, 512).unwrap();
    let words = ["a cache for 100000 tokens", "122.1 MiB", "100.0 MiB left", "`max_tokens`"];
    assert_error(cache(Attention::Dense).check(&device), ErrorKind::OutOfMemory, &words);
    cache(Attention::Lrsa(Lrsa::new(16, 128, 0.25).unwrap())).check(&device).expect("a quarter of it fits");
    device = device.pretending_memory(123 << 20);
    cache(Attention::Dense).check(&device).expect("a mebibyte more than it takes");
}

#[test]
fn a_cache_that_cannot_fit_is_refused_before_it_is_made() {
    let generate = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
        command.args(["generate", "--device", "cpu", "--model", &model(), "--prompt", "Once"]).args(more);
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    // Either a layer has more elements than 32 bits can count, or their number overflows any
    // integer.
    let most = usize::MAX.to_string();
    for (n, keep) in
        [(100_000_000, None), (usize::MAX - 9, None), (1 << 40, Some("0.5")), (usize::MAX - 9, Some("0.5"))]
    {
        let n = n.to_string();
        let attention = keep.map_or(vec!["--attention", "dense"], |r| vec!["--keep", r]);
        let (code, stderr) = generate(&[&["--max-tokens", &n, "--max-positions", &most], &attention[..]].concat());
        assert_eq!(code, Some(1), "{n} {attention:?}: {stderr}");
        assert!(stderr.contains("a cache for") && stderr.contains("--max-tokens"), "{n} {attention:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    let (code, stderr) = generate(&["--max-tokens", "3", "--chunk", &usize::MAX.to_string()]);
    assert_eq!(code, Some(0), "a chunk is never longer than the text: {stderr}");
}
