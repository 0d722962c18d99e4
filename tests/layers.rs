//! A model whose layers use different attention: training form, chunked prefill and decode agree.
//!
//! Dispatches equal their f64 references, and only layers with full attention are compressed.

mod common;

use common::equality::{self, lrsa, tokens};
use common::layered::{self, COMPRESSED, WINDOWS};
use common::stories::Stories;
use longreach::attention::{Attention, Cache, Lrsa};
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::eval::kept_map;
use longreach::gpu::{CpuExecutor, Executor};
use longreach::model::config::BlockNorms;
use longreach::train::{ProbeRequest, probe};

fn open(device: &mut dyn Executor, norms: BlockNorms, train: Train) -> Loaded {
    load(device, &WeightSource::random(layered::config(norms), 5).unwrap(), None, train).unwrap()
}

/// [`equality::check_cached_equals_training`], with the bytes of the cache layer by layer.
fn check_cached_equals_training(
    device: &mut dyn Executor,
    norms: BlockNorms,
    attention: Attention,
    shape: (&[usize], &[usize]),
    tolerance: f32,
) {
    let mut loaded = open(device, norms, Train::Nothing);
    let what = format!("{norms:?}");
    let check = |cache: &Cache, want: &[f32]| {
        assert!(want.iter().any(|x| x.abs() > 0.5), "the model says something");
        let n = cache.n_tokens();
        let entries = WINDOWS.map(|w| n.min(w)).iter().sum::<usize>() + COMPRESSED.len() * attention.cache_length(n);
        assert_eq!(cache.n_bytes(), (entries * 2 * 2 * 8 * 4) as u64, "2 KV heads of 8, f32");
    };
    equality::check_cached_equals_training(device, &mut loaded, (&what, attention), shape, tolerance, check);
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

#[test]
fn every_dispatch_of_a_training_step_equals_its_reference() {
    let Some(mut device) = common::software_device() else { return };
    let mut loaded = open(&mut device, BlockNorms::BeforeAndAfter, Train::All(Decay::All));
    equality::check_training_step(&mut device, &mut loaded, &[121, 2, 40]);
}

#[test]
fn every_dispatch_of_prefill_and_decode_equals_its_reference() {
    let Some(mut device) = common::software_device() else { return };
    let loaded = open(&mut device, BlockNorms::Before, Train::Nothing);
    let mut cache = loaded.model.cache(lrsa(4, 16, 0.25), 150, 70).unwrap();
    let next = |cache: &Cache, fed: usize| if fed < 140 { cache.chunk(140 - fed) } else { 1 };
    equality::check_prefill_and_decode(&mut device, &loaded, &mut cache, 144, next);
}

#[test]
fn only_layers_with_full_attention_are_compressed() {
    let device = &mut CpuExecutor::<f32>::new();
    let mut loaded = open(device, BlockNorms::Before, Train::Nothing);
    let ids = vec![tokens(60, 512, 1), tokens(31, 512, 2)];
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
