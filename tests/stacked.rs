//! Stacked layers: a generated token gets q, k and v, or gate and up, from one product.
//!
//! The results equal those of the separate layers, for every weight format and on both executors.

mod common;

use longreach::attention::{Attention, Lrsa};
use longreach::autograd::{Param, Tape};
use longreach::checkpoint::load::{Decay, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::generate::Session;
use longreach::gpu::{CpuExecutor, Executor};
use longreach::kernels::embedding::TokenIndex;
use longreach::kernels::sample::Sampling;
use longreach::model::config::{Architecture, LayerConfig, ModelConfig, QkNorm};
use longreach::model::rope_config::RopeConfig;
use longreach::nn::{Adapters, Dora, Linear, Lora, Stacked};
use longreach::tensor::{Format, Tensor};

fn values(seed: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed * 101) % 83) as f32 / 41.5 - 1.0).collect()
}

fn param(device: &mut dyn Executor, name: &str, seed: usize, rows: usize, cols: usize) -> Param {
    let value = Tensor::persistent(name, Format::F32, rows, cols, &device.limits()).unwrap();
    value.write(device, &values(seed, rows * cols)).unwrap();
    Param::frozen(name, value)
}

/// Three layers whose weights are rows of one tensor: one with an adapter, one with a bias, one
/// with both.
fn layers(device: &mut dyn Executor, format: Format) -> ([Linear; 3], Tensor) {
    const ROWS: [usize; 3] = [128, 64, 64];
    let whole = Tensor::persistent("whole", format, 256, 48, &device.limits()).unwrap();
    whole.write(device, &values(1, 256 * 48)).unwrap();
    let parts = whole.split_rows(&ROWS).expect("rows of 48 words or halves are bound one by one");
    let mut made = parts.into_iter().enumerate().map(|(i, part)| {
        let n = part.rows;
        let lora = (i != 1).then(|| Lora {
            a: param(device, "a", 2 + i, 4, 48),
            b: param(device, "b", 5 + i, n, 4),
            scale: 0.5,
            dropout: 0.0,
            site: 0,
            dora: (i == 2).then(|| Dora { magnitude: param(device, "m", 11, 1, n), norms: None }),
        });
        let bias = (i != 0).then(|| param(device, "bias", 8 + i, 1, n));
        Linear { weight: Param::frozen("w", part), bias, lora, reference: None }
    });
    let layers = [made.next().unwrap(), made.next().unwrap(), made.next().unwrap()];
    (layers, whole)
}

/// The outputs for one or two rows, with or without a norm before, and the number of dispatches.
fn outputs(device: &mut dyn Executor, stacked: &Stacked<3>, rows: usize, normed: bool) -> (Vec<Vec<f32>>, usize) {
    let x = param(device, "x", 20, rows, 48).value;
    let scale = param(device, "scale", 21, 1, 48);
    let mut tape = Tape::inference();
    let x = tape.constant(x);
    let outs = match normed {
        true => stacked.forward_normed(&mut tape, &x, (&scale, 1e-3), Adapters::On(None)),
        false => stacked.forward(&mut tape, &x, Adapters::On(None)),
    };
    let outs = outs.unwrap();
    let mut kept = Vec::new();
    for out in &outs {
        let copy = Tensor::persistent("out", Format::F32, rows, out.tensor.cols, &device.limits()).unwrap();
        longreach::tensor::copy_tensor(&mut tape.rec, &out.tensor, &copy);
        kept.push(copy);
    }
    device.run(&tape.rec).unwrap();
    (kept.iter().map(|t| t.read(device).unwrap()).collect(), tape.rec.dispatches().count())
}

fn check_layers(device: &mut dyn Executor) {
    for format in [Format::F32, Format::Bf16, Format::F16] {
        let (layers, whole) = layers(device, format);
        let bare = layers.clone().map(|layer| Linear { lora: None, ..layer });
        // With a norm, a single row saves its dispatch too, unless adapters need its output.
        for (layers, normed, spared) in [(layers.clone(), false, 2), (layers, true, 2), (bare, true, 3)] {
            let together = Stacked::new(layers.clone(), Some(whole.clone()));
            let apart = Stacked::new(layers, None);
            for rows in [1, 2] {
                let (expected, n_apart) = outputs(device, &apart, rows, normed);
                let (got, n) = outputs(device, &together, rows, normed);
                for (expected, got) in expected.iter().zip(&got) {
                    assert!(expected.iter().any(|x| x.abs() > 1.0), "something is computed");
                    for (a, b) in expected.iter().zip(got) {
                        assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{format:?}, {rows} rows: {a} and {b}");
                    }
                }
                assert_eq!(
                    n_apart - n,
                    if rows == 1 { spared } else { 0 },
                    "{format:?}, {rows} rows: dispatches spared"
                );
            }
        }
    }
}

/// With one matrix for q, k and v and one for gate and up if `fused`.
fn config(fused: bool) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::new("qwen3"),
        hidden: 64,
        inner: 192,
        layers: vec![LayerConfig::full(16); 2],
        n_heads: 8,
        n_kv_heads: 4,
        head_dim: 16,
        vocab: 96,
        max_positions: 128,
        ropes: vec![RopeConfig::plain(1e4, 16)],
        qkv_bias: true,
        fused,
        qk_norm: QkNorm::PerHead,
        ..ModelConfig::default()
    }
}

/// Logits of 40 tokens, fed in chunks of `chunk`.
fn logits(device: &mut dyn Executor, fused: bool, chunk: usize) -> Vec<f32> {
    let source = WeightSource::random(config(fused), 3).unwrap();
    let mut model = load(device, &source, None, Train::Nothing).unwrap().model;
    let attention = Attention::Lrsa(Lrsa::new(2, 8, 0.5).unwrap());
    let mut session = Session::new(device, &mut model, attention, 40, chunk, Sampling::default(), 0).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| i * 29 % 96).collect();
    session.feed_all_logits(device, &model, &ids).unwrap()
}

fn check_model(device: &mut dyn Executor) {
    for fused in [false, true] {
        let (at_once, one_by_one) = (logits(device, fused, 40), logits(device, fused, 1));
        assert!(at_once.iter().any(|x| x.abs() > 0.5));
        for (i, (a, b)) in at_once.iter().zip(&one_by_one).enumerate() {
            assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "logit {i}: {a} and {b}, fused {fused}");
        }
    }
}

#[test]
fn a_row_through_stacked_layers_is_what_each_makes_of_it() {
    check_layers(&mut CpuExecutor::<f32>::new());
    let Some(mut device) = common::software_device() else { return };
    check_layers(&mut device);
}

/// The number of products, and of copies of columns, in the blocks of a step of `n` tokens.
fn n_dispatches(device: &mut dyn Executor, fused: bool, train: Train, n: usize) -> [usize; 2] {
    let model = load(device, &WeightSource::random(config(fused), 3).unwrap(), None, train).unwrap().model;
    let mut cache = model.cache(Attention::Dense, 40, 40).unwrap();
    let ids = TokenIndex::upload(device, &vec![1; n], false).unwrap();
    let step = cache.begin(device, n).unwrap();
    let mut tape = Tape::inference();
    model.forward_cached(&mut tape, &ids, &cache, &step).unwrap();
    ["matmul/", "columns/"].map(|family| tape.rec.dispatches().filter(|d| d.kernel.label.starts_with(family)).count())
}

#[test]
fn a_generated_token_takes_four_products_a_layer() {
    let mut device = CpuExecutor::<f32>::new();
    assert_eq!(n_dispatches(&mut device, false, Train::Nothing, 1), [2 * 4, 0]);
    assert_eq!(n_dispatches(&mut device, false, Train::Nothing, 2), [2 * 7, 0]);
    // Trained weights are in their own arena, not adjacent.
    assert_eq!(n_dispatches(&mut device, false, Train::All(Decay::All), 1), [2 * 7, 0]);
    // The outputs of fused layers are copied apart unless there is one row.
    assert_eq!(n_dispatches(&mut device, true, Train::Nothing, 1), [2 * 4, 0]);
    assert_eq!(n_dispatches(&mut device, true, Train::Nothing, 2), [2 * 4, 2 * 5]);
}

#[test]
fn a_model_says_the_same_token_by_token_and_at_once() {
    check_model(&mut CpuExecutor::<f32>::new());
    let Some(mut device) = common::software_device() else { return };
    check_model(&mut device);
}
