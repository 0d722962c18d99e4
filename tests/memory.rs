//! Training memory: linear in sequence length, smaller with recomputation, close to what is alive
//! at once.

mod common;

use std::path::Path;

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::adapter_file::Adapter;
use longreach::checkpoint::load::{Decay, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::error::ErrorKind;
use longreach::gpu::{Alternatives, Buffer, CpuExecutor, Executor, Kind, OpenOptions, Recording};
use longreach::kernels::matmul::matmul_nt;
use longreach::optim::{AdamW, OptimizerKind, OptimizerSettings};
use longreach::tensor::{Format, Tensor};
use longreach::train::{Distill, StepSettings, Stepper, Teacher, TrainJob};

fn stories() -> WeightSource {
    WeightSource::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k")).unwrap()
}

fn batch(n: usize) -> Batch {
    let ids: Vec<u32> = (0..n as u32).map(|i| i * 7 % 500 + 3).collect();
    Batch::new(&[Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None }])
}

/// The slots that an optimiser keeps for a tensor of this shape, in bytes.
fn slot_bytes(kind: OptimizerKind, rows: usize, cols: usize) -> usize {
    let n = rows * cols;
    match kind {
        OptimizerKind::AdamW => 2 * 4 * n,
        OptimizerKind::AdamW8bit => 2 * (n + 4 * n.div_ceil(256)),
        OptimizerKind::Adafactor => 4 * if rows == 1 { n } else { rows + cols },
        OptimizerKind::Lion | OptimizerKind::Sgd => 4 * n,
    }
}

/// Tensors begin at whole blocks, so that up to 255 elements between two are padding.
#[test]
fn the_plan_counts_what_each_optimiser_keeps() {
    for &kind in OptimizerKind::ALL {
        let mut device = CpuExecutor::<f32>::new();
        let mut loaded = load(&mut device, &stories(), None, Train::All(Decay::Matrices)).unwrap();
        let shapes = loaded.trainables.iter().map(|t| (t.value.rows, t.value.cols));
        let (tensors, values) = (shapes.len(), shapes.clone().map(|(r, c)| r * c).sum::<usize>());
        let kept = 4 * values + shapes.map(|(rows, cols)| slot_bytes(kind, rows, cols)).sum::<usize>();
        let rule = kind.info().rule(&OptimizerSettings::default()).unwrap();
        let mut stepper = Stepper::new(&mut device, &loaded, rule, StepSettings::default()).unwrap();
        let planned = stepper.planned(&mut device, &mut loaded, &batch(40), Attention::Dense).unwrap();
        let padding = 12 * 255 * tensors;
        let optimizer = planned.optimizer as usize;
        assert!((kept..=kept + padding).contains(&optimizer), "{kind:?}: {optimizer} planned, {kept} needed");
        device.reset_peak();
        stepper.step(&mut device, &mut loaded, &[batch(40)], Attention::Dense, 1e-3).unwrap();
        let (planned, used) = (planned.peak(), device.memory().peak_bytes());
        assert!(planned.abs_diff(used) * 100 < used, "{kind:?}: {planned} planned, {used} used");
    }
}

/// [`peak_bytes_of`] one sequence of `n` tokens.
fn peak_bytes(n: usize, attention: Attention, settings: StepSettings) -> [u64; 2] {
    peak_bytes_of(batch(n), attention, settings)
}

/// Peak bytes of one LoRA step of stories260K on a batch, which the plan must tell: those of persistent
/// buffers, and those of transients.
fn peak_bytes_of(batch: Batch, attention: Attention, settings: StepSettings) -> [u64; 2] {
    let n = batch.ids.len();
    let source = stories();
    let job = TrainJob::default();
    let adapter = Adapter::fresh(job.new_adapter(source.config()).unwrap(), source.config(), 0).unwrap();
    let mut device = CpuExecutor::<f32>::new();
    let mut loaded = load(&mut device, &source, Some(&adapter), Train::Adapter(job.decay)).unwrap();
    let batch = [batch];
    let mut stepper = Stepper::new(&mut device, &loaded, Box::new(AdamW::default()), settings).unwrap();
    let planned = stepper.planned_bytes(&mut device, &mut loaded, &batch[0], attention).unwrap();
    device.reset_peak();
    stepper.step(&mut device, &mut loaded, &batch, attention, 1e-3).unwrap();
    let memory = device.memory();
    println!(
        "{n} tokens, {attention}, {settings:?}: transients {} bytes, persistent {} bytes",
        memory.transient_peak_bytes,
        memory.peak_bytes() - memory.transient_peak_bytes
    );
    let used = memory.peak_bytes();
    // The plan of a stream holds the tables of a few chunks, of which only one is there at a time.
    let percent = if settings.chunk.is_some() { 5 } else { 1 };
    assert!(planned.abs_diff(used) * 100 < percent * used, "planned {planned} bytes, used {used}");
    assert!(planned >= used, "planned {planned} bytes, used {used}");
    [memory.peak_bytes() - memory.transient_peak_bytes, memory.transient_peak_bytes]
}

#[test]
fn memory_grows_linearly_with_the_sequence() {
    // Dense attention takes quadratic time, so half as many tokens are enough.
    for (attention, n) in [(Attention::Dense, 256), (Attention::Lrsa(Lrsa::new(16, 128, 0.25).unwrap()), 512)] {
        let mut peaks = Vec::new();
        for recompute in [false, true] {
            let [short, long] =
                [n, 2 * n].map(|n| peak_bytes(n, attention, StepSettings { recompute, ..StepSettings::default() })[1]);
            let ratio = long as f64 / short as f64;
            assert!(ratio < 2.1, "{attention}, recompute {recompute}: {short} bytes, then {long}: {ratio}");
            peaks.push(long);
        }
        assert!(peaks[1] * 2 < peaks[0], "{attention}: recomputation needs {} bytes of {}", peaks[1], peaks[0]);
    }
}

/// What a longer sequence adds: the kept pairs with their gradients, and of each chunk the last
/// partition.
#[test]
fn a_streamed_sequence_holds_its_pairs_and_one_chunk() {
    let (lag, chunk, keep) = (32, 256, 0.25);
    let attention = Attention::Lrsa(Lrsa::new(16, lag, keep).unwrap());
    for recompute in [false, true] {
        let peak = |n, chunk| peak_bytes(n, attention, StepSettings { recompute, chunk, ..StepSettings::default() });
        let at_once = peak(1040, None);
        let [short, long] = [1040, 2064].map(|n| peak(n, Some(chunk)));
        assert!(2 * short[1] < at_once[1], "{short:?} in chunks, {at_once:?} at once");
        assert!(long[1] < short[1] + short[1] / 5, "transients of a chunk: {short:?}, then {long:?}");
        let pair_bytes = 5 * 2 * 4 * 8 * 4; // layers, keys and values, heads, channels, f32
        let expected = 1024.0 * (2.0 * keep + lag as f64 / chunk as f64) * f64::from(pair_bytes);
        let added = long[0] as f64 - short[0] as f64;
        assert!((0.9 * expected..1.15 * expected).contains(&added), "1,024 tokens add {added} bytes, not {expected}");
    }
}

/// Texts of several answers have chunks between without a label, and the last one may have few.
#[test]
fn the_plan_of_a_stream_counts_the_chunk_with_the_most_labels() {
    let settings = StepSettings { recompute: true, chunk: Some(256), ..StepSettings::default() };
    let labelled_only = |range: std::ops::Range<usize>| {
        let mut batch = batch(1040);
        for (row, label) in batch.labels_shifted.iter_mut().enumerate() {
            if row < 1038 && !range.contains(&row) {
                *label = -100;
            }
        }
        batch.n_targets = range.len() + 1;
        batch
    };
    let attention = Attention::Lrsa(Lrsa::new(16, 32, 0.25).unwrap());
    let [few, many] = [300..302, 300..500].map(|r| peak_bytes_of(labelled_only(r), attention, settings)[1]);
    assert!(many > few, "{few} bytes with two labels in the second chunk, {many} with 200");
}

/// The teacher's activations are gone before the student's are made.
#[test]
fn a_teacher_costs_its_last_hidden_states_and_a_chunk_of_logits() {
    let (n, vocabulary, channels) = (512, 512, 64);
    let attention = Attention::Lrsa(Lrsa::new(16, 128, 0.25).unwrap());
    let settings = StepSettings { recompute: true, ..StepSettings::default() };
    let total = |settings| peak_bytes(n, attention, settings).iter().sum::<u64>();
    let alone = total(settings);
    for teacher in [Teacher::Base, Teacher::Oneself] {
        let taught = total(StepSettings { distill: Some(Distill { weight: 0.5, teacher }), ..settings });
        let (more, most) = (taught.saturating_sub(alone), 4 * n * (vocabulary + 3 * channels));
        assert!(more <= most as u64, "{more} bytes more, at most {most} expected");
        // In chunks the plan holds, too, though the teacher keeps all pairs while it runs.
        let distill = Some(Distill { weight: 0.5, teacher });
        peak_bytes(n, attention, StepSettings { distill, chunk: Some(128), ..settings });
    }
}

#[test]
fn a_gpu_refuses_what_its_memory_cannot_hold() {
    const MIB: usize = 1 << 18; // elements
    let options = OpenOptions { memory_bytes: Some(100 << 20), ..OpenOptions::default() };
    let Some(mut device) = common::open(&options) else { return };
    let held = Buffer::persistent("held", Kind::Real, 10 * MIB).span();
    device.write_real(&held, &[1.0]).unwrap();
    let clearing = |mib: usize| {
        let mut rec = Recording::new();
        let activation = rec.transient("activation", Kind::Real, mib * MIB);
        rec.clear(&activation);
        rec
    };
    device.run(&clearing(85)).expect("95 MiB are 95 percent");
    for refused in [device.check(&clearing(86)), device.run(&clearing(86))] {
        let e = refused.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory);
        assert!(e.to_string().contains("96.0 MiB") && e.to_string().contains("95.0 MiB"), "{e}");
    }
    let weight = Buffer::persistent("weight", Kind::Real, 86 * MIB).span();
    let mut rec = Recording::new();
    rec.clear(&weight);
    assert_eq!(device.check(&rec).unwrap_err().kind(), ErrorKind::OutOfMemory, "new persistent buffers count");
    let e = device.write_real(&weight, &[1.0]).unwrap_err();
    assert!(e.kind() == ErrorKind::OutOfMemory && e.to_string().contains("weight"), "{e}");
    assert_eq!(device.read_real(&held.prefix(1)).unwrap(), [1.0], "the device is as good as before");
}

#[test]
fn a_product_without_memory_to_measure_kernels_runs() {
    let (memory_bytes, alternatives) = (Some(100 << 20), Alternatives::Measured);
    let options = OpenOptions { memory_bytes, alternatives, ..OpenOptions::default() };
    let Some(mut device) = common::open(&options) else { return };
    let limits = device.limits();
    let tensor = |label, rows, cols| Tensor::persistent(label, Format::F32, rows, cols, &limits).unwrap();
    // 60 MiB of results fit, and not twice.
    let (m, n, k) = (3840, 4096, 4);
    let (a, b, out) = (tensor("a", m, k), tensor("b", n, k), tensor("out", m, n));
    a.write(&mut device, &vec![1.0; m * k]).unwrap();
    b.write(&mut device, &vec![2.0; n * k]).unwrap();
    out.write(&mut device, &vec![0.0; m * n]).unwrap();
    let mut rec = Recording::new();
    matmul_nt(&mut rec, &a, &b, &out, 1.0, 0.0);
    device.run(&rec).unwrap();
    assert!(out.read(&mut device).unwrap().iter().all(|&x| x == 8.0));
}
