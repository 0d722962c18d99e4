//! Two equalities of the method: cached generation equals training, and each dispatch its
//! reference.
//!
//! The training form equals chunked prefill and decode at any chunk size, and every dispatch of a
//! whole step equals its f64 reference. (The third, gradient = slope, is in tests/graph.rs.)

mod common;

use std::path::Path;

use longreach::attention::{Attention, Lrsa};
use longreach::autograd::Tape;
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::generate::Session;
use longreach::gpu::{CpuExecutor, Executor};
use longreach::kernels::embedding::TokenIndex;
use longreach::kernels::sample::Sampling;
use longreach::tensor::{Format, Tensor};
use longreach::train::{Objective, ProbeRequest, UploadedBatch, probe};
use longreach::verify::walk;

fn open(device: &mut dyn Executor, case: &str, train: Train) -> Loaded {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case);
    load(device, &WeightSource::open(&dir).unwrap(), None, train).unwrap()
}

fn tokens(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % vocab) as u32).collect()
}

fn lrsa(sink: usize, lag: usize, keep: f64) -> Attention {
    Attention::Lrsa(Lrsa::new(sink, lag, keep).unwrap())
}

/// The logits of each sequence from the training form, with all sequences in one flat batch, must
/// equal those of cached feeding.
fn check_cached_equals_training(
    device: &mut dyn Executor,
    case: &str,
    attention: Attention,
    lengths: &[usize],
    chunks: &[usize],
) {
    let mut loaded = open(device, case, Train::Nothing);
    let vocab = loaded.model.config.vocab;
    let ids: Vec<Vec<u32>> = lengths.iter().enumerate().map(|(i, &n)| tokens(n, vocab, i)).collect();
    let request = ProbeRequest { ids: &ids, labels: None, grads: false, recompute: false, attention };
    let trained = probe(device, &mut loaded, &request).unwrap();
    let all = trained.iter().find(|(name, _)| name == "logits").unwrap().1.to_f32().unwrap();
    let longest = lengths.iter().max().unwrap();
    for (row, sequence) in ids.iter().enumerate() {
        let want = &all[row * longest * vocab..][..sequence.len() * vocab];
        for &chunk in chunks {
            let mut session =
                Session::new(device, &mut loaded.model, attention, sequence.len(), chunk, Sampling::default(), 0)
                    .unwrap();
            let got = session.feed_all_logits(device, &loaded.model, sequence).unwrap();
            let worst = got.iter().zip(want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < 3e-5, "{case} {attention} n {} chunk {chunk}: logits differ by {worst:e}", sequence.len());
            assert_eq!(session.cache.n_entries(), attention.cache_length(sequence.len()));
        }
    }
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

fn assert_walk(device: &mut dyn Executor, rec: &longreach::gpu::Recording, what: &str) {
    let differences = walk::compare(device, rec).unwrap();
    assert!(differences.len() > 20, "{what}: {} dispatches were compared", differences.len());
    for d in &differences {
        assert!(d.max_abs <= 1e-6 + 2e-5 * d.scale, "{what}: first wrong kernel: {d}");
    }
}

#[test]
fn every_dispatch_of_a_training_step_equals_its_reference() {
    let Some(mut device) = common::software_device() else { return };
    let mut loaded = open(&mut device, "qwen2-bias-tied", Train::All(Decay::All));
    let vocab = loaded.model.config.vocab;
    let example = |n: usize, seed: usize| {
        let ids = tokens(n, vocab, seed);
        Example { labels: ids.iter().map(|&i| i as i32).collect(), ids }
    };
    let batch = Batch::new(&[example(61, 0), example(2, 1), example(30, 2)]);
    let objective = Objective { attention: lrsa(3, 10, 0.4), scale: 0.01, dropout: None, kept: None };
    let uploaded = UploadedBatch::new(&mut device, &mut loaded.model, &batch, &objective).unwrap();
    let max_elements = device.limits().max_elements();
    let one = Tensor::persistent("one", Format::F32, 1, 1, &device.limits()).unwrap();
    one.write(&mut device, &[1.0]).unwrap();
    let mut tape = Tape::training(true);
    loaded.arena.as_ref().unwrap().clear_grads(&mut tape.rec);
    let hidden = uploaded.hidden(&mut tape, &loaded.model).unwrap();
    let loss = uploaded.loss(&mut tape, &loaded.model, &hidden, 0.01, max_elements).unwrap();
    tape.backward(&loss, &one).unwrap();
    assert_walk(&mut device, &tape.rec, "training step");
}

#[test]
fn every_dispatch_of_prefill_and_decode_equals_its_reference() {
    let Some(mut device) = common::software_device() else { return };
    let loaded = open(&mut device, "llama-gqa", Train::Nothing);
    let attention = lrsa(4, 16, 0.25);
    let mut cache = loaded.model.cache(attention, 80, 16).unwrap();
    let ids = tokens(70, loaded.model.config.vocab, 5);
    let mut fed = 0;
    while fed < ids.len() {
        let n = if fed < 60 { cache.chunk(ids.len() - fed) } else { 1 };
        let step = cache.begin(&mut device, n).unwrap();
        let index = TokenIndex::upload(&mut device, &ids[fed..fed + n], false).unwrap();
        let mut tape = Tape::inference();
        loaded.model.forward_cached(&mut tape, &index, &cache, &step).unwrap();
        assert_walk(&mut device, &tape.rec, &format!("tokens {fed} to {}", fed + n));
        cache.commit(&step);
        fed += n;
    }
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
            };
            probe(device.as_mut(), &mut loaded, &request).unwrap()
        };
        let (first, second) = (run(), run());
        for ((name, a), (_, b)) in first.iter().zip(&second) {
            assert_eq!(a.bytes, b.bytes, "{name} on {}", device.name());
        }
    }
}
