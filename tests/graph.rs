//! Gradients of whole models: analytic against central differences in f64.
//!
//! The models have residuals, a tied weight, norms, biases, SwiGLU, RoPE, dense and sparse
//! attention with its selection held fixed, adapters with dropout, and the head. `kernels.rs`
//! checks the gradients of single ops; this file checks how the tape sums and recomputes.

mod common;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use longreach::attention::{Attention, Lrsa};
use longreach::autograd::Tape;
use longreach::checkpoint::adapter_file::read_adapter;
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::{Example, IGNORED};
use longreach::gpu::{Command, CpuExecutor, Executor};
use longreach::kernels::case::random;
use longreach::model::block::KeptLog;
use longreach::model::config::BlockNorms;
use longreach::nn::Dropout;
use longreach::tensor::copy_tensor;
use longreach::tensor::{Format, Tensor};
use longreach::train::{GradientStep, Objective, UploadedBatch};

/// Step of the central differences relative to a tensor's largest value: small enough that no
/// selection changes.
const STEP: f64 = 1e-5;
/// Bound on truncation (h²) plus rounding (1e-16 / h), relative to a gradient's norm.
const TOLERANCE: f64 = 1e-6;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A model with all weights trained.
fn full(device: &mut dyn Executor, name: &str) -> Loaded {
    load(device, &WeightSource::open(&golden(name)).unwrap(), None, Train::All(Decay::All)).unwrap()
}

/// A model with a trained adapter and dropout 0.1.
fn adapted(device: &mut dyn Executor, name: &str) -> Loaded {
    let source = WeightSource::open(&golden(name)).unwrap();
    let mut adapter = read_adapter(&golden(name).join("lora"), source.config()).unwrap();
    adapter.config.dropout = 0.1;
    load(device, &source, Some(&adapter), Train::Adapter(Decay::All)).unwrap()
}

/// A model whose layers attend in different ways, every weight trained, with norms where `norms`
/// says.
fn layered(device: &mut dyn Executor, norms: &str) -> Loaded {
    let norms = match norms {
        "norms before" => BlockNorms::Before,
        "norms before and after" => BlockNorms::BeforeAndAfter,
        "norms after" => BlockNorms::After,
        other => panic!("{other} is no order of norms"),
    };
    let source = WeightSource::random(common::layered::config(norms), 5).unwrap();
    load(device, &source, None, Train::All(Decay::All)).unwrap()
}

fn lrsa() -> Attention {
    Attention::Lrsa(Lrsa::new(3, 10, 0.4).unwrap())
}

/// Two packed sequences; a fifth of the tokens has no label.
fn batch(vocab: usize) -> Batch {
    let example = |n: usize, seed: usize| {
        let ids: Vec<u32> = (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % vocab) as u32).collect();
        let label = |(i, &id): (usize, &u32)| if i % 5 == 2 { IGNORED } else { id as i32 };
        Example { labels: ids.iter().enumerate().map(label).collect(), ids, rejected: None }
    };
    Batch::new(&[example(47, 0), example(34, 1)])
}

struct DispatchCheck {
    loaded: Loaded,
    batch: Batch,
    objective: Objective,
    kept: KeptLog,
}

impl DispatchCheck {
    fn new(loaded: Loaded, attention: Attention) -> Self {
        let batch = batch(loaded.model.config.vocab);
        let kept = Rc::new(RefCell::new(Vec::new()));
        let dropout = Some(Dropout { seed: 3, step: 5, first_token: 0, neftune: 5.0 });
        let scale = 1.0 / batch.n_targets as f32;
        Self {
            loaded,
            objective: Objective {
                attention,
                scale,
                dropout,
                distill: None,
                preference: None,
                kept: Some(kept.clone()),
            },
            batch,
            kept,
        }
    }

    /// Gradients of all trained tensors, in order.
    fn gradients(&mut self, device: &mut dyn Executor, recompute: bool) -> Vec<Vec<f64>> {
        let step = GradientStep::new(device, recompute, None).unwrap();
        step.clear(device, &self.loaded).unwrap();
        step.accumulate(device, &mut self.loaded, &self.batch, &self.objective).unwrap();
        self.loaded.trainables.iter().map(|t| read(device, &t.grad)).collect()
    }

    /// Records only the forward. The returned function reruns it and gives the loss and the
    /// selections of all layers.
    fn forward(&mut self, device: &mut dyn Executor) -> impl Fn(&mut dyn Executor) -> (f64, Vec<Vec<u32>>) + use<> {
        self.kept.borrow_mut().clear();
        let uploaded = UploadedBatch::new(device, &mut self.loaded.model, &self.batch, &self.objective).unwrap();
        let mut tape = Tape::inference();
        let hidden = uploaded.hidden(&mut tape, &self.loaded.model).unwrap();
        let max_elements = device.limits().max_elements();
        let loss = uploaded.loss(&mut tape, &self.loaded.model, &hidden, self.objective.scale, max_elements).unwrap();
        let out = Tensor::persistent("loss", Format::F32, 1, 1, &device.limits()).unwrap();
        copy_tensor(&mut tape.rec, &loss.tensor, &out);
        let kept: Vec<_> = self.kept.borrow().iter().flatten().cloned().collect();
        move |device| {
            device.run(&tape.rec).unwrap();
            let selections = kept.iter().map(|span| device.read_words(span).unwrap()).collect();
            (device.read_f64(out.span()).unwrap()[0], selections)
        }
    }

    /// Compares every trained tensor's gradient with the slope along a random direction of that
    /// tensor.
    fn check_slopes(&mut self, device: &mut dyn Executor, gradients: &[Vec<f64>]) {
        let forward = self.forward(device);
        let (loss, selections) = forward(device);
        assert!(loss > 1.0, "an untrained model is surprised");
        let layers = self.loaded.model.config.layer_attentions(self.objective.attention);
        let n_selecting = layers.iter().filter(|layer| layer.lrsa().is_some()).count();
        assert_eq!(selections.len(), n_selecting, "every LRSA layer selects");
        for (i, (t, gradient)) in self.loaded.trainables.iter().zip(gradients).enumerate() {
            let values = read(device, &t.value);
            let direction: Vec<f64> = random(i as u64, values.len(), 1.0).into_iter().map(f64::from).collect();
            let h = STEP * values.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
            let mut losses = [0.0; 2];
            for (l, step) in losses.iter_mut().zip([h, -h]) {
                let moved: Vec<f64> = values.iter().zip(&direction).map(|(v, d)| v + step * d).collect();
                write(device, &t.value, &moved);
                let (moved_loss, moved_selections) = forward(device);
                assert_eq!(moved_selections, selections, "{}: the selection changed, take a smaller STEP", t.name);
                *l = moved_loss;
            }
            write(device, &t.value, &values);
            let analytic: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let numeric = (losses[0] - losses[1]) / (2.0 * h);
            // The slope along a random direction has about the size of the gradient's norm.
            let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!(length > 0.0, "{}: no gradient reached it", t.name);
            let error = (analytic - numeric).abs() / length.max(analytic.abs());
            assert!(error < TOLERANCE, "{}: {analytic:e} and {numeric:e}, error {error:e} of {length:e}", t.name);
        }
    }
}

fn read(device: &mut dyn Executor, t: &Tensor) -> Vec<f64> {
    t.pieces().iter().flat_map(|p| device.read_f64(&p.span).unwrap()).collect()
}

fn write(device: &mut dyn Executor, t: &Tensor, values: &[f64]) {
    for p in t.pieces() {
        device.write_f64(&p.span, &values[p.row * t.cols..][..p.rows * t.cols]).unwrap();
    }
}

/// Gradients with and without recomputation are bitwise equal and match the slopes of the loss.
fn check(load: fn(&mut dyn Executor, &str) -> Loaded, model: &str, attention: Attention) {
    let device = &mut CpuExecutor::<f64>::new();
    let loaded = load(device, model);
    let mut check = DispatchCheck::new(loaded, attention);
    let plain = check.gradients(device, false);
    let recomputed = check.gradients(device, true);
    for ((t, a), b) in check.loaded.trainables.iter().zip(&plain).zip(&recomputed) {
        assert!(
            a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())),
            "{model} {attention}: {} differs when its block is recomputed",
            t.name
        );
    }
    check.check_slopes(device, &plain);
}

#[test]
fn tied_weights_and_biases_with_dense_attention() {
    check(full, "qwen2-bias-tied", Attention::Dense);
}

#[test]
fn tied_weights_and_biases_with_sparse_attention() {
    check(full, "qwen2-bias-tied", lrsa());
}

#[test]
fn norms_of_heads_with_sparse_attention() {
    check(full, "qwen3-qknorm", lrsa());
}

#[test]
fn adapters_with_dropout_and_sparse_attention() {
    check(adapted, "llama-gqa", lrsa());
}

#[test]
fn adapters_with_dropout_and_dense_attention() {
    check(adapted, "qwen2-bias-tied", Attention::Dense);
}

#[test]
fn windows_and_layers_without_rotation_with_sparse_attention() {
    check(layered, "norms before", lrsa());
}

#[test]
fn windows_and_layers_without_rotation_with_dense_attention() {
    check(layered, "norms before and after", Attention::Dense);
}

#[test]
fn norms_before_the_residual_alone() {
    check(layered, "norms after", lrsa());
}

#[test]
fn recomputation_attends_again_but_never_selects_again() {
    let device = &mut CpuExecutor::<f64>::new();
    let mut check = DispatchCheck::new(full(device, "qwen2-bias-tied"), lrsa());
    let one = Tensor::persistent("one", Format::F32, 1, 1, &device.limits()).unwrap();
    let uploaded = UploadedBatch::new(device, &mut check.loaded.model, &check.batch, &check.objective).unwrap();
    let n_layers = check.loaded.model.config.n_layers();
    for (recompute, n_forwards) in [(false, n_layers), (true, 2 * n_layers)] {
        let mut tape = Tape::training(recompute);
        let hidden = uploaded.hidden(&mut tape, &check.loaded.model).unwrap();
        let loss = uploaded.loss(&mut tape, &check.loaded.model, &hidden, 1.0, device.limits().max_elements()).unwrap();
        tape.backward(&loss, &one).unwrap();
        let count = |label: &str| {
            let is_it = |c: &&Command| matches!(c, Command::Dispatch(d) if d.kernel.label == label);
            tape.rec.commands().iter().filter(is_it).count()
        };
        assert_eq!((count("attend/forward"), count("lrsa/keep_mark")), (n_forwards, n_layers), "recompute {recompute}");
    }
}
