//! Tests of the stored beginnings: what is found, what goes first where memory is short, and the size
//! of a long text.

use super::*;
use crate::attention::{Heads, LayerAttention, Lrsa};
use crate::gpu::CpuExecutor;
use crate::serve::engine::places::Places;

const HEADS: Heads = Heads { queries: 1, keys: 1, dim: 32 };
/// Bytes of a row of [`HEADS`].
const ROW: u64 = 256;

fn kind(attention: Attention) -> Kind {
    Kind { model: 0, attention, frequencies: vec![] }
}

fn dense() -> Kind {
    kind(Attention::Dense)
}

/// K = 4 of 16.
fn lrsa() -> Attention {
    Attention::Lrsa(Lrsa::new(4, 16, 0.25).unwrap())
}

fn text(first: u32, n: usize) -> Vec<u32> {
    (first..first + n as u32).collect()
}

/// A store on a device of its own.
struct Store {
    device: CpuExecutor<f32>,
    prefixes: Prefixes,
}

impl Store {
    fn new(limit: u64) -> Self {
        Self { device: CpuExecutor::new(), prefixes: Prefixes::new(limit) }
    }

    /// Stores the cache of these tokens behind a path. The cache of layers holds random numbers.
    fn store_layers(&mut self, layers: &[LayerAttention], kind: &Kind, path: &mut Path, tokens: &[u32]) {
        let mut cache = Cache::new(layers, HEADS, tokens.len(), 64).unwrap();
        cache.fill_random(&mut self.device, tokens.len(), 0).unwrap();
        self.prefixes.store(&mut self.device, kind, path, tokens, &cache).unwrap();
    }

    /// [`Store::store_layers`] for one layer of full attention.
    fn store(&mut self, kind: &Kind, path: &mut Path, tokens: &[u32]) {
        self.store_layers(&[kind.attention.into()], kind, path, tokens);
    }

    /// Reads a prompt as a server does, with a place at each of `ends`; returns the tokens that were
    /// found.
    fn read(&mut self, kind: &Kind, prompt: &[u32], ends: &[usize]) -> usize {
        let Found { mut path, .. } = self.prefixes.find(kind, prompt);
        let n_found = path.end().1;
        for &end in ends.iter().filter(|&&end| end > n_found) {
            self.store(kind, &mut path, &prompt[..end]);
        }
        n_found
    }

    fn found(&mut self, kind: &Kind, prompt: &[u32]) -> usize {
        self.prefixes.find(kind, prompt).n_tokens()
    }
}

#[test]
fn the_longest_beginning_is_found_and_a_token_is_left() {
    let mut store = Store::new(1 << 20);
    let long = text(0, 35);
    assert_eq!(store.read(&dense(), &long, &[10, 20, 30]), 0);
    assert_eq!(store.found(&dense(), &long), 30);
    assert_eq!(store.found(&dense(), &long[..30]), 20);
    assert_eq!(store.found(&dense(), &long[..10]), 0);
    let mut other = long.clone();
    other[15] = 99;
    let found = store.prefixes.find(&dense(), &other);
    let parts: Vec<_> = found.parts.iter().map(CachePart::tokens).collect();
    assert_eq!((found.n_tokens(), found.n_shared, parts), (10, 15, std::iter::once(0..10).collect::<Vec<_>>()));
    assert_eq!(store.prefixes.find(&dense(), &long).n_shared, 30);
    assert_eq!(store.found(&Kind { model: 1, ..dense() }, &long), 0);
    assert_eq!(store.found(&Kind { frequencies: vec![4096], ..dense() }, &long), 0);
    assert_eq!(store.found(&kind(lrsa()), &long), 0);
}

#[test]
fn parts_of_a_common_beginning_are_stored_once() {
    let mut store = Store::new(1 << 20);
    let first = text(0, 41);
    store.read(&dense(), &first, &[10, 40]);
    let mut second = first.clone();
    second[25] = 99;
    // The second stores what it shares up to 20, and the third finds that.
    assert_eq!(store.read(&dense(), &second, &[20, 40]), 10);
    let mut third = second.clone();
    third[22] = 99;
    assert_eq!(store.read(&dense(), &third, &[]), 20);
    assert_eq!((store.found(&dense(), &first), store.found(&dense(), &second)), (40, 40));
    assert_eq!(store.prefixes.n_bytes(), (10 + 30 + 10 + 20) * ROW);
    // Reading the first again without finding it, as for its probabilities, stores nothing.
    let mut path = Path::default();
    store.store(&dense(), &mut path, &first[..10]);
    store.store(&dense(), &mut path, &first[..40]);
    assert_eq!((store.prefixes.n_bytes(), path.end().1), (70 * ROW, 40));
}

#[test]
fn the_limit_drops_what_was_not_used_for_longest() {
    let mut store = Store::new(30 * ROW);
    let [a, b, c] = [0, 500, 900].map(|first| text(first, 30));
    store.read(&dense(), &a, &[10, 20]);
    store.read(&dense(), &b, &[10]);
    assert_eq!(store.found(&dense(), &a), 20);
    // The text at 500 is the oldest now; then the second part of the first.
    store.read(&dense(), &c, &[10]);
    assert_eq!((store.found(&dense(), &b), store.found(&dense(), &c)), (0, 10));
    store.read(&dense(), &b, &[10]);
    assert_eq!((store.found(&dense(), &a), store.prefixes.n_bytes()), (10, 30 * ROW));
    // What can never fit drops nothing.
    store.read(&dense(), &text(2000, 40), &[31]);
    assert_eq!((store.found(&dense(), &text(2000, 40)), store.prefixes.n_bytes()), (0, 30 * ROW));
}

#[test]
fn a_new_long_text_takes_the_place_of_old_ones() {
    let mut store = Store::new(100 * ROW);
    let old: Vec<Vec<u32>> = (0..5).map(|i| text(1000 * i, 30)).collect();
    old.iter().for_each(|text| assert_eq!(store.read(&dense(), text, &[10, 20]), 0));
    let long = text(50_000, 130);
    let ends: Vec<usize> = (1..=13).map(|i| 10 * i).collect();
    store.read(&dense(), &long, &ends);
    // All that fits of it is there, and nothing else.
    assert_eq!((store.found(&dense(), &long), store.prefixes.n_bytes()), (100, 100 * ROW));
    assert!(old.iter().all(|text| store.found(&dense(), text) == 0));
}

#[test]
fn recent_rows_on_the_way_go_before_a_text_ends() {
    // 4 of the sink and 4 of each partition but the last, and 16 recent rows at each place.
    let kind = kind(lrsa());
    let rows = |n_partitions: u64| 4 + 4 * (n_partitions - 1);
    let ends: Vec<usize> = (1..=10).map(|i| 4 + 16 * i).collect();
    let prompt = text(0, 165);
    let mut store = Store::new(1 << 20);
    store.read(&kind, &prompt, &ends);
    assert_eq!(store.prefixes.n_bytes(), (rows(10) + 10 * 16) * ROW);
    // With room for three places, the last three stay.
    let mut store = Store::new((rows(10) + 3 * 16) * ROW);
    store.read(&kind, &prompt, &ends);
    assert_eq!((store.found(&kind, &prompt), store.prefixes.n_bytes()), (164, (rows(10) + 3 * 16) * ROW));
    assert_eq!(store.found(&kind, &prompt[..164]), 148);
    assert_eq!(store.found(&kind, &prompt[..148]), 132);
    let found = store.prefixes.find(&kind, &prompt[..132]);
    assert_eq!((found.n_tokens(), found.n_shared), (0, 132), "the way is known, and no place on it is left");
    // A text that reads there again stores the place again, for the one that was not used for longest.
    store.read(&kind, &prompt[..120], &[116]);
    assert_eq!((store.found(&kind, &prompt[..120]), store.found(&kind, &prompt)), (116, 148));
    assert_eq!(store.prefixes.n_bytes(), (rows(9) + 3 * 16) * ROW);
}

#[test]
fn a_way_that_leads_nowhere_goes_with_its_last_place() {
    let kind = kind(lrsa());
    let mut store = Store::new((4 + 4 * 3 + 16) * ROW);
    // Room for one place after 68 tokens: the others on the way have lost their recent rows.
    let prompt = text(0, 70);
    store.read(&kind, &prompt, &[20, 36, 52, 68]);
    assert_eq!((store.found(&kind, &prompt), store.prefixes.stored.len()), (68, 4));
    let other = text(5000, 25);
    store.read(&kind, &other, &[20]);
    assert_eq!((store.found(&kind, &prompt), store.found(&kind, &other)), (0, 20));
    assert_eq!((store.prefixes.stored.len(), store.prefixes.n_bytes()), (1, (4 + 16) * ROW));
}

#[test]
fn a_path_whose_end_was_dropped_is_stored_again_from_what_is_left() {
    let mut store = Store::new(40 * ROW);
    let (slow, fast) = (text(0, 60), text(1000, 60));
    let mut path = Path::default();
    store.store(&dense(), &mut path, &slow[..10]);
    store.store(&dense(), &mut path, &slow[..20]);
    // Another text takes the memory but for the first part.
    store.read(&dense(), &fast, &[30]);
    assert_eq!(store.prefixes.n_bytes(), 40 * ROW);
    store.store(&dense(), &mut path, &slow[..30]);
    assert_eq!((path.end().1, store.found(&dense(), &slow)), (30, 30));
    let parts = store.prefixes.find(&dense(), &slow).parts;
    assert_eq!(parts.iter().map(CachePart::tokens).collect::<Vec<_>>(), [0..10, 10..30]);
}

#[test]
fn a_long_text_takes_less_than_twice_its_cache_and_fits_into_its_memory() {
    // Two compressed layers and a window, at the places of a server.
    let attention = Attention::Lrsa(Lrsa::new(16, 32, 0.25).unwrap());
    let layers = [attention.into(), attention.into(), LayerAttention::Window(48)];
    let kind = kind(attention);
    let prompt = text(0, 20_000);
    let places = Places::new(64, attention, Some(48)).of_prompt(prompt.len(), 0);
    let end = *places.last().unwrap();
    let cache = layers.iter().map(|layer| layer.cache_length(end) as u64).sum::<u64>() * ROW;
    let mut store = Store::new(u64::MAX);
    let mut path = Path::default();
    places.iter().for_each(|&at| store.store_layers(&layers, &kind, &mut path, &prompt[..at]));
    let stored = store.prefixes.n_bytes();
    // Each place adds two partitions and a window.
    assert_eq!(stored, cache + (places.len() as u64 - 1) * (2 * 32 + 48) * ROW);
    assert!(stored < 2 * cache && stored < 3 * end as u64 * ROW, "{} places, {stored} and {cache}", places.len());
    // In just the memory of the cache, the last place is stored all the same.
    let mut store = Store::new(cache);
    let mut path = Path::default();
    places.iter().for_each(|&at| store.store_layers(&layers, &kind, &mut path, &prompt[..at]));
    assert_eq!((store.found(&kind, &prompt), store.prefixes.n_bytes()), (end, cache));
}
