//! Preference pairs, and a golden model that learns from them.

use std::path::{Path, PathBuf};

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::adapter_file::read_adapter;
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::dataset::{Example, IGNORED};
use longreach::gpu::Executor;
use longreach::tensor::Tensor;

pub const OBJECTIVES: [(&str, bool); 2] = [("dpo", true), ("orpo", false)];

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama-gqa")
}

/// The golden model with its adapter in training, or with all weights.
pub fn open(device: &mut dyn Executor, with_adapter: bool) -> Loaded {
    let source = WeightSource::open(&folder()).unwrap();
    if !with_adapter {
        return load(device, &source, None, Train::All(Decay::All)).unwrap();
    }
    let adapter = read_adapter(&folder().join("lora"), source.config()).unwrap();
    load(device, &source, Some(&adapter), Train::Adapter(Decay::All)).unwrap()
}

/// A sequence of a prompt and an answer.
pub fn sequence(prompt: &[u32], answer: &[u32]) -> Example {
    let ids = [prompt, answer].concat();
    let label = |(i, &id): (usize, &u32)| if i < prompt.len() { IGNORED } else { id as i32 };
    Example { labels: ids.iter().enumerate().map(label).collect(), ids, rejected: None }
}

pub fn pair(prompt: &[u32], chosen: &[u32], rejected: &[u32]) -> Example {
    Example { rejected: Some(Box::new(sequence(prompt, rejected))), ..sequence(prompt, chosen) }
}

pub fn values(device: &mut dyn Executor, t: &Tensor) -> Vec<f64> {
    t.pieces().iter().flat_map(|p| device.read_f64(&p.span).unwrap()).collect()
}

pub fn gradients(device: &mut dyn Executor, loaded: &Loaded) -> Vec<Vec<f64>> {
    loaded.trainables.iter().map(|t| values(device, &t.grad)).collect()
}

pub fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|x| x * x).sum::<f64>().sqrt()
}

pub fn lrsa() -> Attention {
    Attention::Lrsa(Lrsa::new(3, 10, 0.4).unwrap())
}

pub fn tokens(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % 317 + 3) as u32).collect()
}

/// Two pairs whose sequences LRSA compresses, one of them with an answer in two parts.
pub fn long_pairs() -> Vec<Example> {
    let mut second = pair(&tokens(30, 4), &tokens(9, 5), &tokens(25, 6));
    second.labels[10..14].copy_from_slice(&second.ids[10..14].iter().map(|&id| id as i32).collect::<Vec<_>>());
    vec![pair(&tokens(20, 1), &tokens(30, 2), &tokens(14, 3)), second]
}
