//! The equalities that every model must satisfy, as checks of a loaded model.

use longreach::attention::{Attention, Cache, Lrsa};
use longreach::autograd::Tape;
use longreach::checkpoint::load::Loaded;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::generate::Session;
use longreach::gpu::{Executor, Recording};
use longreach::kernels::embedding::TokenIndex;
use longreach::kernels::sample::Sampling;
use longreach::tensor::{Format, Tensor};
use longreach::train::{Objective, ProbeRequest, UploadedBatch, probe};
use longreach::verify::walk;

/// `n` token ids; each seed gives another text.
pub fn tokens(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % vocab) as u32).collect()
}

/// LRSA with these settings.
pub fn lrsa(sink: usize, lag: usize, keep: f64) -> Attention {
    Attention::Lrsa(Lrsa::new(sink, lag, keep).unwrap())
}

/// The logits of each sequence from the training form, with all sequences in one flat batch, must
/// equal those of cached feeding to `tolerance`. `also` looks at the fed cache and the expected
/// logits.
pub fn check_cached_equals_training(
    device: &mut dyn Executor,
    loaded: &mut Loaded,
    (what, attention): (&str, Attention),
    (lengths, chunks): (&[usize], &[usize]),
    tolerance: f32,
    also: impl Fn(&Cache, &[f32]),
) {
    let vocab = loaded.model.config.vocab;
    let ids: Vec<Vec<u32>> = lengths.iter().enumerate().map(|(i, &n)| tokens(n, vocab, i)).collect();
    let request =
        ProbeRequest { ids: &ids, labels: None, grads: false, recompute: false, attention, distill: None, chunk: None };
    let trained = probe(device, loaded, &request).unwrap();
    let all = trained.iter().find(|(name, _)| name == "logits").unwrap().1.to_f32().unwrap();
    let longest = lengths.iter().max().unwrap();
    for (row, sequence) in ids.iter().enumerate() {
        let n = sequence.len();
        let want = &all[row * longest * vocab..][..n * vocab];
        for &chunk in chunks {
            let mut session =
                Session::new(device, &mut loaded.model, attention, n, chunk, Sampling::default(), 0).unwrap();
            let got = session.feed_all_logits(device, &loaded.model, sequence).unwrap();
            let worst = got.iter().zip(want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < tolerance, "{what} {attention} n {n} chunk {chunk}: logits differ by {worst:e}");
            assert_eq!(session.cache.n_entries(), attention.cache_length(n));
            also(&session.cache, want);
        }
    }
}

/// Every dispatch of a recording must equal its f64 reference.
pub fn check_walk(device: &mut dyn Executor, rec: &Recording, what: &str) {
    let differences = walk::compare(device, rec).unwrap();
    assert!(differences.len() > 20, "{what}: {} dispatches were compared", differences.len());
    for d in &differences {
        assert!(d.max_abs <= 1e-6 + 2e-5 * d.scale, "{what}: first wrong kernel: {d}");
    }
}

/// Walks a training step with recomputation of a model whose weights are all trained.
pub fn check_training_step(device: &mut dyn Executor, loaded: &mut Loaded, lengths: &[usize]) {
    let vocab = loaded.model.config.vocab;
    let example = |(seed, &n): (usize, &usize)| {
        let ids = tokens(n, vocab, seed);
        Example { labels: ids.iter().map(|&i| i as i32).collect(), ids, rejected: None }
    };
    let batch = Batch::new(&lengths.iter().enumerate().map(example).collect::<Vec<_>>());
    let objective = Objective {
        attention: lrsa(3, 10, 0.4),
        scale: 0.01,
        dropout: None,
        distill: None,
        preference: None,
        kept: None,
    };
    let uploaded = UploadedBatch::new(device, &mut loaded.model, &batch, &objective).unwrap();
    let max_elements = device.limits().max_elements();
    let one = Tensor::persistent("one", Format::F32, 1, 1, &device.limits()).unwrap();
    one.write(device, &[1.0]).unwrap();
    let mut tape = Tape::training(true);
    loaded.arena.as_ref().unwrap().clear_grads(&mut tape.rec);
    let hidden = uploaded.hidden(&mut tape, &loaded.model).unwrap();
    let loss = uploaded.loss(&mut tape, &loaded.model, &hidden, 0.01, max_elements).unwrap();
    tape.backward(&loss, &one).unwrap();
    check_walk(device, &tape.rec, "training step");
}

/// Walks prefill and decode of `n` tokens; `next` gives the length of the next chunk after so many
/// tokens.
pub fn check_prefill_and_decode(
    device: &mut dyn Executor,
    loaded: &Loaded,
    cache: &mut Cache,
    n: usize,
    next: impl Fn(&Cache, usize) -> usize,
) {
    let ids = tokens(n, loaded.model.config.vocab, 5);
    let mut fed = 0;
    while fed < ids.len() {
        let n = next(cache, fed);
        let step = cache.begin(device, n).unwrap();
        let index = TokenIndex::upload(device, &ids[fed..fed + n], false).unwrap();
        let mut tape = Tape::inference();
        loaded.model.forward_cached(&mut tape, &index, cache, &step).unwrap();
        check_walk(device, &tape.rec, &format!("tokens {fed} to {}", fed + n));
        cache.commit(&step);
        fed += n;
    }
}
