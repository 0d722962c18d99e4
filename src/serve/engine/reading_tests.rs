//! Prompts that are read after stored beginnings, to the bit as without them.

use super::*;
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::load::{Train, load};
use crate::checkpoint::weights::WeightSource;
use crate::gpu::CpuExecutor;
use crate::model::config::{LayerConfig, ModelConfig};
use crate::model::rope_config::{RopeConfig, RopeScaling};
use crate::serve::job::testing::job;

const STEP: usize = 16;

fn long_rope() -> RopeScaling {
    let divisors = |last: f32| (0..8).map(|i| 1.0 + (last - 1.0) * i as f32 / 7.0).collect();
    RopeScaling::LongRope {
        short: divisors(1.5),
        long: divisors(5.0),
        original_max_positions: 64,
        attention_factor: 1.1,
    }
}

/// A model with a layer of full attention and one with a window of 20, on its device.
struct Bench {
    device: CpuExecutor<f32>,
    model: Llama,
}

impl Bench {
    fn new(scaling: RopeScaling) -> Self {
        let config = ModelConfig {
            hidden: 32,
            inner: 48,
            layers: vec![LayerConfig::full(16), LayerConfig { window: Some(20), ..LayerConfig::full(16) }],
            n_heads: 2,
            n_kv_heads: 2,
            head_dim: 16,
            vocab: 50,
            max_positions: 256,
            ropes: vec![RopeConfig { scaling, ..RopeConfig::plain(1e4, 16) }],
            tied: true,
            ..ModelConfig::default()
        };
        let mut device = CpuExecutor::<f32>::new();
        let source = WeightSource::random(config, 3).unwrap();
        let model = load(&mut device, &source, None, Train::Nothing).unwrap().model;
        Self { device, model }
    }

    /// Reads a prompt; returns the tokens that were stored before, and the logits of three tokens that
    /// follow it.
    fn read(&mut self, prompt: &[u32], attention: Attention, prefixes: &mut Prefixes) -> (usize, Vec<f32>) {
        let Self { device, model } = self;
        let job = job(prompt.to_vec(), 8, attention);
        let beginning = Beginning::open(device, model, &job, STEP, prefixes).unwrap();
        let mut reading = Reading::new(job, beginning);
        while reading.n_left() > 0 {
            reading.step(device, model, prefixes).unwrap();
        }
        let cached_tokens = reading.cached_tokens;
        let mut session = reading.finish().session;
        (cached_tokens, session.feed_all_logits(device, model, &[5, 6, 7]).unwrap())
    }

    /// Reads prompts one after the other with one store, and each without a store, which gives the
    /// same logits; returns the tokens that were stored before each, and the bytes of the store.
    fn read_all(&mut self, prompts: &[&[u32]], attention: Attention) -> (Vec<usize>, u64) {
        let mut prefixes = Prefixes::new(1 << 20);
        let mut cached = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            let (n_alone, alone) = self.read(prompt, attention, &mut Prefixes::new(0));
            let (n_cached, logits) = self.read(prompt, attention, &mut prefixes);
            assert!(alone.iter().all(|x| x.is_finite()) && n_alone == 0);
            assert_eq!(logits, alone, "prompt {i}, {attention}");
            cached.push(n_cached);
        }
        (cached, prefixes.n_bytes())
    }
}

/// `n` tokens, which differ from those of other seeds from token `from` on.
fn text(n: usize, from: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * i + if i < from { 0 } else { seed }) % 50) as u32).collect()
}

fn lrsa() -> Attention {
    Attention::Lrsa(Lrsa::new(4, 16, 0.25).unwrap())
}

#[test]
fn long_rope_shares_beginnings_among_texts_on_one_side_of_the_original_length() {
    let mut bench = Bench::new(long_rope());
    // Two texts beyond 64 tokens, with 90 in common; two below, of which the second grows beyond.
    let prompts = [text(100, 100, 0), text(100, 90, 1), text(60, 60, 0), text(63, 60, 1)];
    let prompts = prompts.each_ref().map(Vec::as_slice);
    // Steps of 16 end at 80 and 48; partitions at 84 and 52.
    assert_eq!(bench.read_all(&prompts, Attention::Dense).0, [0, 80, 0, 48]);
    assert_eq!(bench.read_all(&prompts, lrsa()).0, [0, 84, 0, 52]);
}

#[test]
fn dynamic_rope_shares_beginnings_up_to_the_original_length() {
    let mut bench = Bench::new(RopeScaling::Dynamic { factor: 2.0, original_max_positions: 64 });
    let prompts = [text(60, 60, 0), text(63, 60, 1)];
    assert_eq!(bench.read_all(&prompts.each_ref().map(Vec::as_slice), lrsa()).0, [0, 52]);
    let prompts = [text(100, 100, 0), text(100, 90, 1)];
    assert_eq!(bench.read_all(&prompts.each_ref().map(Vec::as_slice), lrsa()), (vec![0, 0], 0));
}

#[test]
fn windows_and_partitions_go_on_after_every_place() {
    let mut bench = Bench::new(RopeScaling::None);
    for attention in [Attention::Dense, lrsa()] {
        let long = text(200, 200, 0);
        let shorter: Vec<&[u32]> = [200usize, 30, 70, 150, 199].map(|n| &long[..n]).to_vec();
        let (cached, _) = bench.read_all(&shorter, attention);
        let places = Places::new(STEP, attention, Some(20)).of_prompt(200, 0);
        let expected = |n: usize| places.iter().copied().rfind(|&at| at < n).unwrap_or(0);
        assert_eq!(cached, [0, expected(30), expected(70), expected(150), expected(199)]);
    }
}
