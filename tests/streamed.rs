//! Streamed training: the same loss, gradients and selections as training at once, in less memory.

mod common;

use std::path::{Path, PathBuf};

use common::equality::{lrsa, tokens};
use longreach::attention::Attention;
use longreach::checkpoint::adapter_file::read_adapter;
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::{Example, IGNORED};
use longreach::gpu::{CpuExecutor, Executor};
use longreach::nn::Dropout;
use longreach::train::{Distill, GradientStep, ProbeRequest, Teacher, probe};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A model with all weights trained, or with an adapter that has dropout.
fn open(device: &mut dyn Executor, name: &str, with_adapter: bool) -> Loaded {
    let source = WeightSource::open(&golden(name)).unwrap();
    if !with_adapter {
        return load(device, &source, None, Train::All(Decay::All)).unwrap();
    }
    let mut adapter = read_adapter(&golden(name).join("lora"), source.config()).unwrap();
    adapter.config.dropout = 0.2;
    load(device, &source, Some(&adapter), Train::Adapter(Decay::All)).unwrap()
}

/// Sequences of these lengths. Every third token has no label, and neither has the first third of the
/// first sequence, the last two thirds of the second, and so on in turn.
fn batch(lengths: &[usize], vocab: usize) -> Batch {
    let example = |(row, &n): (usize, &usize)| {
        let ids = tokens(n, vocab, row);
        let outside = |i: usize| if row % 2 == 0 { i < n / 3 } else { i > n / 3 };
        let label = |(i, &id): (usize, &u32)| if i % 3 == 1 || outside(i) { IGNORED } else { id as i32 };
        Example { labels: ids.iter().enumerate().map(label).collect(), ids, rejected: None }
    };
    Batch::new(&lengths.iter().enumerate().map(example).collect::<Vec<_>>())
}

/// Loss and gradients of a step, in f64.
fn step(
    device: &mut dyn Executor,
    loaded: &mut Loaded,
    batches: &[Batch],
    (attention, distill): (Attention, Option<Distill>),
    (chunk, recompute): (Option<usize>, bool),
) -> (f64, Vec<Vec<f64>>) {
    let step = GradientStep::new(device, recompute, chunk).unwrap();
    let dropout = Some(Dropout { seed: 3, step: 5, first_token: 0, neftune: 5.0 });
    step.run(device, loaded, batches, attention, dropout, distill).unwrap();
    let loss = device.read_f64(step.loss()).unwrap()[0];
    let mut read = |t: &longreach::tensor::Tensor| {
        t.pieces().iter().flat_map(|p| device.read_f64(&p.span).unwrap()).collect::<Vec<f64>>()
    };
    (loss, loaded.trainables.iter().map(|t| read(&t.grad)).collect())
}

fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|x| x * x).sum::<f64>().sqrt()
}

/// Streaming must give the loss and each gradient of training at once, to `bound` of its norm.
fn check(device: &mut dyn Executor, name: &str, settings: &[(Attention, &[usize])], lengths: &[usize], bound: f64) {
    check_distilled(device, name, settings, lengths, None, bound);
}

fn check_distilled(
    device: &mut dyn Executor,
    name: &str,
    settings: &[(Attention, &[usize])],
    lengths: &[usize],
    distill: Option<Distill>,
    bound: f64,
) {
    for with_adapter in [true, false] {
        if !with_adapter && distill.is_some_and(|d| d.teacher == Teacher::Base) {
            continue;
        }
        let mut loaded = open(device, name, with_adapter);
        let vocab = loaded.model.config.vocab;
        let batches = [batch(lengths, vocab), batch(&lengths[..1], vocab)];
        for &(attention, chunks) in settings {
            let (loss, grads) = step(device, &mut loaded, &batches, (attention, distill), (None, false));
            let whole = norm(grads.iter().flatten().copied());
            for (i, &chunk) in chunks.iter().enumerate() {
                let recompute = i % 2 == 1;
                let what = format!(
                    "{name} {attention} {distill:?} chunk {chunk} adapter {with_adapter} recompute {recompute}"
                );
                let (found, streamed) =
                    step(device, &mut loaded, &batches, (attention, distill), (Some(chunk), recompute));
                assert!((found - loss).abs() < bound * loss, "{what}: loss {found} instead of {loss}");
                for (t, (got, want)) in loaded.trainables.iter().zip(streamed.iter().zip(&grads)) {
                    let error = norm(got.iter().zip(want).map(|(g, w)| g - w));
                    let scale = norm(want.iter().copied()).max(1e-3 * whole);
                    assert!(error < bound * scale, "{what}: {} differs by {:e}", t.name, error / scale);
                }
            }
        }
    }
}

/// One partition a chunk, several, seven, a chunk that is no multiple of a partition, and one that
/// is longer than the sequences; a sink longer than a chunk.
#[test]
fn loss_and_gradients_equal_those_at_once() {
    let device = &mut CpuExecutor::<f64>::new();
    let settings = [
        (lrsa(3, 10, 0.4), &[10, 20, 33, 70, 500][..]),
        (lrsa(25, 4, 0.5), &[4, 28]),
        (lrsa(0, 7, 0.2), &[7, 21]),
        (lrsa(3, 10, 1.0), &[10, 33]),
        (Attention::Dense, &[1, 16, 50]),
    ];
    check(device, "llama-gqa", &settings, &[101, 44, 7, 3, 83], 1e-9);
}

#[test]
fn tied_heads_and_biases_stream() {
    let device = &mut CpuExecutor::<f64>::new();
    let settings = [(lrsa(4, 16, 0.25), &[16, 48][..]), (Attention::Dense, &[20, 45])];
    check(device, "qwen2-bias-tied", &settings, &[100, 20], 1e-9);
}

/// Windows shorter and longer than a chunk, beside full layers.
#[test]
fn windowed_layers_stream() {
    let device = &mut CpuExecutor::<f64>::new();
    let settings = [(lrsa(3, 10, 0.4), &[10, 40, 70][..]), (lrsa(2, 3, 0.5), &[3, 9]), (Attention::Dense, &[5, 30])];
    for name in ["gemma3", "mistral-window", "phi4-mini", "llama-dynamic"] {
        check(device, name, &settings, &[95, 40], 1e-9);
    }
}

#[test]
fn streaming_in_f32_stays_within_the_golden_bounds_and_repeats_its_bits() {
    let device = &mut CpuExecutor::<f32>::new();
    check(device, "llama-gqa", &[(lrsa(3, 10, 0.4), &[10, 40]), (Attention::Dense, &[30])], &[101, 44], 1e-5);
    for with_adapter in [true, false] {
        let mut loaded = open(device, "gemma3", with_adapter);
        let batches = [batch(&[101, 44], loaded.model.config.vocab)];
        let distill = Distill { weight: 0.5, teacher: if with_adapter { Teacher::Base } else { Teacher::Oneself } };
        for lesson in [lrsa(3, 10, 0.4), Attention::Dense].into_iter().flat_map(|a| [(a, None), (a, Some(distill))]) {
            let mut run = |recompute| step(device, &mut loaded, &batches, lesson, (Some(20), recompute));
            let first = run(false);
            assert!(first == run(false) && first == run(true), "{lesson:?} adapter {with_adapter}: equal bits");
        }
    }
}

#[test]
fn distillation_streams() {
    let device = &mut CpuExecutor::<f64>::new();
    let settings = [(lrsa(3, 10, 0.4), &[10, 33][..]), (Attention::Dense, &[20, 45])];
    for weight in [0.3, 1.0] {
        let distill = |teacher| Some(Distill { weight, teacher });
        check_distilled(device, "llama-gqa", &settings, &[71, 44, 3], distill(Teacher::Base), 1e-9);
        // A dense student that learns from itself has nothing to learn.
        check_distilled(device, "llama-gqa", &settings[..1], &[71, 44, 3], distill(Teacher::Oneself), 1e-9);
    }
    let distill = Some(Distill { weight: 0.5, teacher: Teacher::Base });
    check_distilled(device, "gemma3", &settings[..1], &[71, 12], distill, 1e-9);
}

#[test]
fn probes_of_streams_select_the_same_pairs() {
    let device = &mut CpuExecutor::<f32>::new();
    for name in ["llama-gqa", "gemma3"] {
        let mut loaded = open(device, name, true);
        let vocab = loaded.model.config.vocab;
        let ids: Vec<Vec<u32>> = [90, 12, 120].iter().enumerate().map(|(i, &n)| tokens(n, vocab, i)).collect();
        let labels: Vec<Vec<i32>> = ids.iter().map(|row| row.iter().map(|&id| id as i32).collect()).collect();
        let request = |chunk| ProbeRequest {
            ids: &ids,
            labels: Some(&labels),
            grads: true,
            recompute: false,
            attention: lrsa(3, 10, 0.4),
            distill: None,
            chunk,
        };
        let at_once = probe(device, &mut loaded, &request(None)).unwrap();
        for chunk in [10, 50] {
            let streamed = probe(device, &mut loaded, &request(Some(chunk))).unwrap();
            assert_eq!(streamed.len(), at_once.len());
            assert!(at_once.iter().any(|(tensor, _)| tensor.starts_with("kept")), "{name}");
            for ((tensor, got), (_, want)) in streamed.iter().zip(&at_once) {
                if tensor.starts_with("kept") {
                    assert_eq!(got.to_i64().unwrap(), want.to_i64().unwrap(), "{name} {tensor}");
                    continue;
                }
                let (got, want) = (got.to_f32().unwrap(), want.to_f32().unwrap());
                let error = norm(got.iter().zip(&want).map(|(g, w)| f64::from(g - w)));
                let scale = norm(want.iter().map(|&w| f64::from(w)));
                assert!(error < 1e-5 * scale, "{name} {tensor} differs by {:e}", error / scale);
            }
        }
    }
}

#[test]
fn an_evaluation_streams_too() {
    let device = &mut CpuExecutor::<f64>::new();
    let mut loaded = open(device, "gemma3", false);
    let batch = batch(&[120, 30, 9], loaded.model.config.vocab);
    let attention = lrsa(4, 16, 0.25);
    let sums = [None, Some(16), Some(40)].map(|chunk| {
        let step = GradientStep::new(device, false, chunk).unwrap();
        step.evaluate(device, &mut loaded, &batch, attention).unwrap()
    });
    assert!(sums.iter().all(|(sum, n)| *n == sums[0].1 && (sum - sums[0].0).abs() < 1e-9 * sum), "{sums:?}");
}

#[test]
fn streaming_on_a_device_stays_within_three_times_the_golden_bounds() {
    let Some(mut device) = common::software_device() else { return };
    let settings = [(lrsa(3, 10, 0.4), &[10, 40][..]), (Attention::Dense, &[30])];
    check(&mut device, "llama-gqa", &settings, &[101, 44], 3e-5);
    check(&mut device, "gemma3", &settings[..1], &[95, 40], 3e-5);
}
