//! A model whose layers use different attention: training form, chunked prefill and decode agree.
//!
//! Dispatches equal their f64 references, and only layers with full attention are compressed.

mod common;

use std::ops::ControlFlow;

use common::equality::{self, lrsa, tokens};
use common::layered::{self, COMPRESSED, WINDOWS};
use common::stories::Stories;
use longreach::attention::{Attention, Cache, Lrsa};
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::eval::kept_map;
use longreach::generate::{GenerateRequest, NewToken, Session, generate};
use longreach::gpu::{CpuExecutor, Executor};
use longreach::kernels::sample::Sampling;
use longreach::model::config::BlockNorms;
use longreach::model::rope_config::RopeScaling;
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
    let request = ProbeRequest {
        ids: &ids,
        labels: None,
        grads: false,
        recompute: false,
        attention: lrsa(4, 8, 0.5),
        distill: None,
        chunk: None,
    };
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

/// A model with RoPE of this scaling in all layers with full attention.
fn scaled(device: &mut dyn Executor, scaling: RopeScaling) -> Loaded {
    let mut config = layered::config(BlockNorms::BeforeAndAfter);
    config.ropes[0].scaling = scaling;
    load(device, &WeightSource::random(config, 5).unwrap(), None, Train::Nothing).unwrap()
}

/// Original length of the scalings below.
const ORIGINAL: usize = 64;

fn longrope() -> RopeScaling {
    RopeScaling::LongRope {
        short: vec![1.0, 1.1, 1.3, 1.5],
        long: vec![1.0, 2.0, 5.0, 8.0],
        original_max_positions: ORIGINAL,
        attention_factor: 1.1,
    }
}

fn dynamic() -> RopeScaling {
    RopeScaling::Dynamic { factor: 4.0, original_max_positions: ORIGINAL }
}

/// Logits of the training form of one text.
fn trained(device: &mut dyn Executor, loaded: &mut Loaded, ids: &[u32], attention: Attention) -> Vec<f32> {
    let ids = [ids.to_vec()];
    let request =
        ProbeRequest { ids: &ids, labels: None, grads: false, recompute: false, attention, distill: None, chunk: None };
    probe(device, loaded, &request).unwrap().remove(0).1.to_f32().unwrap()
}

/// Logits of a text fed in parts.
fn fed(session: &mut Session, device: &mut dyn Executor, loaded: &Loaded, parts: &[&[u32]]) -> Vec<f32> {
    let feed = |part: &&[u32]| session.feed_all_logits(device, &loaded.model, part).unwrap();
    parts.iter().flat_map(feed).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

#[test]
fn a_whole_text_has_the_frequencies_of_its_length() {
    let device = &mut CpuExecutor::<f64>::new();
    for scaling in [longrope(), dynamic()] {
        let mut loaded = scaled(device, scaling);
        let lengths = (&[ORIGINAL, ORIGINAL + 1, 40, 130][..], &[1, 7, 1000][..]);
        for n in lengths.0 {
            for attention in [Attention::Dense, lrsa(4, 16, 0.25)] {
                let shape = (&[*n][..], lengths.1);
                equality::check_cached_equals_training(
                    device,
                    &mut loaded,
                    ("lengthwise", attention),
                    shape,
                    1e-6,
                    |_, _| {},
                );
            }
        }
        let ids = tokens(130, 512, 0);
        let long = trained(device, &mut loaded, &ids, Attention::Dense);
        let short = trained(device, &mut loaded, &ids[..ORIGINAL], Attention::Dense);
        assert!(difference(&long[..short.len()], &short) > 1e-2, "a longer text has other frequencies");
    }
}

#[test]
fn longrope_reads_a_text_again_when_it_grows_beyond_the_original_length() {
    let device = &mut CpuExecutor::<f64>::new();
    let mut loaded = scaled(device, longrope());
    let ids = tokens(90, 512, 0);
    for attention in [Attention::Dense, lrsa(4, 16, 0.25)] {
        let new = |device: &mut CpuExecutor<f64>, loaded: &mut Loaded| {
            Session::new(device, &mut loaded.model, attention, 90, 16, Sampling::default(), 0).unwrap()
        };
        let mut session = new(device, &mut loaded);
        let singles: Vec<&[u32]> = ids[30..].chunks(1).collect();
        let parts: Vec<&[u32]> = std::iter::once(&ids[..30]).chain(singles).collect();
        assert!(!session.can_feed_drawn(), "the switch needs every id");
        let logits = fed(&mut session, device, &loaded, &parts);
        assert!(session.can_feed_drawn(), "nothing switches any more");
        let (before, beyond) = logits.split_at(ORIGINAL * 512);
        let short = trained(device, &mut loaded, &ids[..ORIGINAL], attention);
        assert!(difference(before, &short) < 1e-6, "{attention}: up to the original length");
        let long = trained(device, &mut loaded, &ids, attention);
        assert!(difference(beyond, &long[ORIGINAL * 512..]) < 1e-6, "{attention}: beyond the original length");
        assert_eq!(session.cache.n_tokens(), 90);
        // A prefix that is shared before the length of the text is known switches as well.
        let (mut prefix, mut copy) = (new(device, &mut loaded), new(device, &mut loaded));
        fed(&mut prefix, device, &loaded, &[&ids[..50]]);
        prefix.expect(device, &loaded.model, 90).unwrap();
        let rest = fed(&mut prefix, device, &loaded, &[&ids[50..]]);
        assert!(difference(&rest, &long[50 * 512..]) < 1e-6, "{attention}: after a switch");
        let again = fed(&mut copy, device, &loaded, &[&ids[..50], &ids[50..]]);
        assert!(difference(&again[50 * 512..], &rest) < 1e-6);
    }
}

#[test]
fn dynamic_rope_leaves_earlier_keys_their_rotation() {
    let device = &mut CpuExecutor::<f64>::new();
    let mut loaded = scaled(device, dynamic());
    let ids = tokens(90, 512, 0);
    let new = |device: &mut CpuExecutor<f64>, loaded: &mut Loaded| {
        Session::new(device, &mut loaded.model, Attention::Dense, 90, 16, Sampling::default(), 0).unwrap()
    };
    let whole = trained(device, &mut loaded, &ids, Attention::Dense);
    let singles: Vec<&[u32]> = ids.chunks(1).collect();
    let mut session = new(device, &mut loaded);
    let step_by_step = fed(&mut session, device, &loaded, &singles);
    let short = trained(device, &mut loaded, &ids[..ORIGINAL], Attention::Dense);
    assert!(difference(&step_by_step[..ORIGINAL * 512], &short) < 1e-6);
    assert!(difference(&step_by_step, &whole) > 1e-3, "each step rotates its own query and key only");
    assert!(session.can_feed_drawn());
    // With the length known beforehand, all tokens rotate alike.
    let mut session = new(device, &mut loaded);
    session.expect(device, &loaded.model, 90).unwrap();
    assert!(difference(&fed(&mut session, device, &loaded, &singles), &whole) < 1e-6);
}

/// A device queues a step before the last one is done, and each step has tables of its own.
#[test]
fn steps_queued_ahead_have_the_frequencies_of_their_length() {
    let Some(mut device) = common::software_device() else { return };
    for scaling in [longrope(), dynamic()] {
        let mut loaded = scaled(&mut device, scaling);
        for n_prompt in [50, 70] {
            let prompt = tokens(n_prompt, 512, 0);
            let request = GenerateRequest { chunk: 16, ..GenerateRequest::greedy(&prompt, 40) };
            let mut silent = |_: NewToken<'_>| ControlFlow::Continue(());
            let ahead = generate(&mut device, &mut loaded.model, None, &request, &mut silent).unwrap();
            let capacity = prompt.len() + 40;
            let mut session =
                Session::new(&mut device, &mut loaded.model, Attention::Dense, capacity, 16, request.sampling, 0)
                    .unwrap();
            session.feed(&mut device, &loaded.model, &prompt).unwrap();
            for (i, &id) in ahead.ids.iter().enumerate() {
                assert_eq!(session.draw(&mut device).unwrap(), id, "token {i} after {n_prompt}");
                session.feed(&mut device, &loaded.model, &[id]).unwrap();
            }
        }
    }
}
