//! Two equalities of the method: cached generation equals training, and each dispatch its
//! reference.
//!
//! The training form equals chunked prefill and decode at any chunk size, and every dispatch of a
//! whole step equals its f64 reference. (The third, gradient = slope, is in tests/graph.rs.)

mod common;

use std::path::Path;

use common::equality::{self, lrsa, tokens};
use longreach::attention::{Attention, Cache};
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::gpu::{CpuExecutor, Executor};
use longreach::train::{ProbeRequest, probe};

fn open(device: &mut dyn Executor, case: &str, train: Train) -> Loaded {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
    load(device, &WeightSource::open(&dir).unwrap(), None, train).unwrap()
}

fn check_cached_equals_training(
    device: &mut dyn Executor,
    case: &str,
    attention: Attention,
    lengths: &[usize],
    chunks: &[usize],
) {
    let mut loaded = open(device, case, Train::Nothing);
    let shape = (lengths, chunks);
    equality::check_cached_equals_training(device, &mut loaded, (case, attention), shape, 3e-5, |_, _| {});
}

#[test]
fn cached_generation_equals_the_training_form() {
    let mut device = CpuExecutor::<f32>::new();
    let chunks = [1, 7, 64, 1000];
    // n < S, n = S, n < S + L, n < S + 2L, n = S + 2L, and lengths beyond that end within a
    // partition.
    let lengths = [2, 4, 17, 35, 36, 37, 131];
    check_cached_equals_training(&mut device, "llama-gqa", lrsa(4, 16, 0.25), &lengths, &chunks);
    check_cached_equals_training(&mut device, "qwen3-qknorm", lrsa(0, 9, 0.5), &[1, 9, 18, 100], &chunks);
    check_cached_equals_training(&mut device, "qwen2-bias-tied", lrsa(5, 33, 1.0), &[120, 3], &chunks);
    check_cached_equals_training(&mut device, "llama3-rope", lrsa(3, 10, 0.1), &[140, 29], &chunks);
    check_cached_equals_training(&mut device, "llama3-rope", Attention::Dense, &[90, 1, 33], &chunks);
}

#[test]
fn cached_generation_equals_the_training_form_on_the_device() {
    let Some(mut device) = common::software_device() else { return };
    check_cached_equals_training(&mut device, "llama-gqa", lrsa(4, 16, 0.25), &[3, 36, 90], &[7, 64]);
    check_cached_equals_training(&mut device, "qwen3-qknorm", Attention::Dense, &[40], &[7]);
}

#[test]
fn every_dispatch_of_a_training_step_equals_its_reference() {
    let Some(mut device) = common::software_device() else { return };
    let mut loaded = open(&mut device, "qwen2-bias-tied", Train::All(Decay::All));
    equality::check_training_step(&mut device, &mut loaded, &[61, 2, 30]);
}

#[test]
fn every_dispatch_of_prefill_and_decode_equals_its_reference() {
    let Some(mut device) = common::software_device() else { return };
    let loaded = open(&mut device, "llama-gqa", Train::Nothing);
    let attention = lrsa(4, 16, 0.25);
    let mut cache = loaded.model.cache(attention, 80, 16).unwrap();
    let next = |cache: &Cache, fed: usize| if fed < 60 { cache.chunk(70 - fed) } else { 1 };
    equality::check_prefill_and_decode(&mut device, &loaded, &mut cache, 70, next);
    assert_eq!(cache.n_entries(), attention.cache_length(70));
}

#[test]
fn two_runs_on_one_device_are_bitwise_equal() {
    let mut devices: Vec<Box<dyn Executor>> = vec![Box::new(CpuExecutor::<f32>::new())];
    devices.extend(common::software_device().map(|d| Box::new(d) as Box<dyn Executor>));
    for mut device in devices {
        let mut run = || {
            let mut loaded = open(device.as_mut(), "llama-gqa", Train::All(Decay::All));
            let ids = vec![tokens(100, loaded.model.config.vocab, 3)];
            let labels = vec![ids[0].iter().map(|&i| i as i32).collect()];
            let request = ProbeRequest {
                ids: &ids,
                labels: Some(&labels),
                grads: true,
                recompute: false,
                attention: lrsa(4, 16, 0.25),
                distill: None,
                chunk: None,
            };
            probe(device.as_mut(), &mut loaded, &request).unwrap()
        };
        let (first, second) = (run(), run());
        for ((name, a), (_, b)) in first.iter().zip(&second) {
            assert_eq!(a.bytes, b.bytes, "{name} on {}", device.name());
        }
    }
}
