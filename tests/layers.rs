//! A model whose layers use different attention: training form, chunked prefill and decode agree.
//!
//! Dispatches equal their f64 references, and only layers with full attention are compressed.

mod common;

use common::layered::{self, COMPRESSED, WINDOWS};
use common::stories::Stories;
use longreach::attention::{Attention, Lrsa};
use longreach::autograd::Tape;
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::eval::kept_map;
use longreach::generate::Session;
use longreach::gpu::{CpuExecutor, Executor, Recording};
use longreach::kernels::embedding::TokenIndex;
use longreach::kernels::sample::Sampling;
use longreach::model::config::BlockNorms;
use longreach::tensor::{Format, Tensor};
use longreach::train::{Objective, ProbeRequest, UploadedBatch, probe};
use longreach::verify::walk;

fn open(device: &mut dyn Executor, norms: BlockNorms, train: Train) -> Loaded {
    load(device, &WeightSource::random(layered::config(norms), 5).unwrap(), None, train).unwrap()
}

fn tokens(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % 512) as u32).collect()
}

fn lrsa(sink: usize, lag: usize, keep: f64) -> Attention {
    Attention::Lrsa(Lrsa::new(sink, lag, keep).unwrap())
}

/// Logits of each sequence must agree between the training form, with all sequences in one flat
/// batch, and cached feeding.
fn check_cached_equals_training(
    device: &mut dyn Executor,
    norms: BlockNorms,
    attention: Attention,
    (lengths, chunks): (&[usize], &[usize]),
    tolerance: f32,
) {
    let mut loaded = open(device, norms, Train::Nothing);
    let ids: Vec<Vec<u32>> = lengths.iter().enumerate().map(|(i, &n)| tokens(n, i)).collect();
    let request = ProbeRequest { ids: &ids, labels: None, grads: false, recompute: false, attention };
    let trained = probe(device, &mut loaded, &request).unwrap();
    let all = trained.iter().find(|(name, _)| name == "logits").unwrap().1.to_f32().unwrap();
    let longest = lengths.iter().max().unwrap();
    for (row, sequence) in ids.iter().enumerate() {
        let n = sequence.len();
        let want = &all[row * longest * 512..][..n * 512];
        assert!(want.iter().any(|x| x.abs() > 0.5), "the model says something");
        for &chunk in chunks {
            let mut session =
                Session::new(device, &mut loaded.model, attention, n, chunk, Sampling::default(), 0).unwrap();
            let got = session.feed_all_logits(device, &loaded.model, sequence).unwrap();
            let worst = got.iter().zip(want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < tolerance, "{norms:?} {attention} n {n} chunk {chunk}: logits differ by {worst:e}");
            let full = attention.cache_length(n);
            let entries = WINDOWS.map(|w| n.min(w)).iter().sum::<usize>() + COMPRESSED.len() * full;
            assert_eq!(session.cache.n_entries(), full);
            assert_eq!(session.cache.n_bytes(), (entries * 2 * 2 * 8 * 4) as u64, "2 KV heads of 8, f32");
        }
    }
}

const ALL_NORMS: [BlockNorms; 3] = [BlockNorms::Before, BlockNorms::BeforeAndAfter, BlockNorms::After];

#[test]
fn cached_generation_equals_the_training_form() {
    let mut device = CpuExecutor::<f64>::new();
    // The rings of both windows wrap in texts of 140 and 230 tokens at every chunk size.
    let shape = (&[5, 140, 1, 51, 230][..], &[1, 7, 64, 1000][..]);
    for attention in [Attention::Dense, lrsa(4, 16, 0.25), lrsa(3, 70, 0.1)] {
        check_cached_equals_training(&mut device, BlockNorms::Before, attention, shape, 1e-6);
    }
    for norms in ALL_NORMS {
        check_cached_equals_training(&mut device, norms, lrsa(0, 9, 0.5), (&[100, 7], &[7, 1000]), 1e-6);
    }
    let mut device = CpuExecutor::<f32>::new();
    for attention in [Attention::Dense, lrsa(4, 16, 0.25)] {
        check_cached_equals_training(&mut device, BlockNorms::Before, attention, (&[140, 9], &[1, 7, 64, 1000]), 1e-4);
    }
}

#[test]
fn cached_generation_equals_the_training_form_on_the_device() {
    let Some(mut device) = common::software_device() else { return };
    for (norms, attention) in [(BlockNorms::BeforeAndAfter, lrsa(4, 16, 0.25)), (BlockNorms::Before, Attention::Dense)]
    {
        check_cached_equals_training(&mut device, norms, attention, (&[140, 30], &[1, 7, 64, 1000]), 1e-4);
    }
}

fn assert_walk(device: &mut dyn Executor, rec: &Recording, what: &str) {
    let differences = walk::compare(device, rec).unwrap();
    assert!(differences.len() > 20, "{what}: {} dispatches were compared", differences.len());
    for d in &differences {
        assert!(d.max_abs <= 1e-6 + 2e-5 * d.scale, "{what}: first wrong kernel: {d}");
    }
}

#[test]
fn every_dispatch_of_a_training_step_equals_its_reference() {
    let Some(mut device) = common::software_device() else { return };
    let mut loaded = open(&mut device, BlockNorms::BeforeAndAfter, Train::All(Decay::All));
    let example = |n: usize, seed: usize| {
        let ids = tokens(n, seed);
        Example { labels: ids.iter().map(|&i| i as i32).collect(), ids }
    };
    let batch = Batch::new(&[example(121, 0), example(2, 1), example(40, 2)]);
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
    let loaded = open(&mut device, BlockNorms::Before, Train::Nothing);
    let mut cache = loaded.model.cache(lrsa(4, 16, 0.25), 150, 70).unwrap();
    let ids = tokens(144, 5);
    let mut fed = 0;
    while fed < ids.len() {
        let n = if fed < 140 { cache.chunk(140 - fed) } else { 1 };
        let step = cache.begin(&mut device, n).unwrap();
        let index = TokenIndex::upload(&mut device, &ids[fed..fed + n], false).unwrap();
        let mut tape = Tape::inference();
        loaded.model.forward_cached(&mut tape, &index, &cache, &step).unwrap();
        assert_walk(&mut device, &tape.rec, &format!("tokens {fed} to {}", fed + n));
        cache.commit(&step);
        fed += n;
    }
}

#[test]
fn only_layers_with_full_attention_are_compressed() {
    let device = &mut CpuExecutor::<f32>::new();
    let mut loaded = open(device, BlockNorms::Before, Train::Nothing);
    let ids = vec![tokens(60, 1), tokens(31, 2)];
    let request = ProbeRequest { ids: &ids, labels: None, grads: false, recompute: false, attention: lrsa(4, 8, 0.5) };
    let found = probe(device, &mut loaded, &request).unwrap();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).filter(|n| n.starts_with("kept.")).collect();
    assert_eq!(names, COMPRESSED.map(|layer| format!("kept.{layer}")), "layers keep their numbers");

    let stories = Stories::open();
    let lrsa = Lrsa::new(4, 8, 0.5).unwrap();
    let tokenizer = stories.files.tokenizer().unwrap();
    let map = kept_map(device, &mut loaded.model, tokenizer, &ids[0], lrsa).unwrap();
    assert_eq!((map.kept.len(), map.n_heads()), (5, 2));
    assert_eq!(map.compressed_layers().collect::<Vec<_>>(), COMPRESSED);
    assert!(COMPRESSED.iter().all(|&layer| map.kept[layer].iter().all(|head| head.len() == 6 * 4)));
}
