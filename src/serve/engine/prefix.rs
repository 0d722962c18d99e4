//! Beginnings of texts that were read before, as parts of their caches.
//!
//! Prompts are read in the same steps from their first token on ([`Steps`]), so a text that continues
//! a stored beginning has the bits that it would have without the store.

use std::collections::HashMap;

use crate::attention::{Attention, CachePart};

/// Where a prompt is cut while it is read. The places depend on nothing but the attention and the
/// size of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    step: usize,
    /// Sink and lag of a compressed cache.
    partitions: Option<(usize, usize)>,
}

impl Steps {
    /// Steps of at most `step` tokens, some of which end where partitions do.
    pub fn new(step: usize, attention: Attention) -> Self {
        let partitions = match attention {
            Attention::Dense => None,
            Attention::Lrsa(l) => Some((l.sink(), l.lag())),
        };
        Self { step: step.max(1), partitions }
    }

    /// The end of the step that begins at a token.
    pub fn end(&self, from: usize) -> usize {
        let most = from + self.step;
        let Some((sink, lag)) = self.partitions.filter(|(sink, lag)| most >= sink + lag) else { return most };
        let last = sink + (most - sink) / lag * lag; // the last end of a partition that the step reaches
        if last > from { last } else { most }
    }

    /// Whether the cache after so many tokens can be stored: compressed caches are at the ends of
    /// partitions, where they hold the least.
    pub fn can_store(&self, n: usize) -> bool {
        self.partitions.is_none_or(|(sink, lag)| n >= sink + lag && (n - sink).is_multiple_of(lag))
    }

    /// The next place after `from` where a cache can be stored.
    fn store_end(&self, from: usize) -> usize {
        let mut at = self.end(from);
        while !self.can_store(at) {
            at = self.end(at);
        }
        at
    }
}

/// What texts must have in common besides their tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kind {
    /// The model, an adapter's included.
    pub model: usize,
    /// The attention.
    pub attention: Attention,
}

/// The name of a stored beginning.
pub type Stored = u64;

/// The empty beginning of every kind.
pub const NOTHING: Stored = 0;

/// Stored beginnings of texts, bounded in bytes. Each is a part that follows another one.
pub struct Prefixes {
    limit: u64,
    n_bytes: u64,
    /// Counts uses and names beginnings.
    clock: u64,
    stored: HashMap<Stored, Node>,
    /// The beginnings that follow one, by kind and tokens.
    following: HashMap<(Stored, Vec<u32>), Vec<Stored>>,
}

struct Node {
    kind: Kind,
    before: Stored,
    tokens: Vec<u32>,
    part: CachePart,
    used: u64,
    n_following: usize,
}

impl Prefixes {
    /// An empty store of at most `limit` bytes; 0 stores nothing.
    pub fn new(limit: u64) -> Self {
        Self { limit, n_bytes: 0, clock: 0, stored: HashMap::new(), following: HashMap::new() }
    }

    /// Most bytes of all parts.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes of all parts.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The longest stored beginning of a prompt, with its parts from the first token on. It leaves at
    /// least one token of the prompt to be read, which the first draw needs.
    pub fn find(&mut self, kind: Kind, steps: Steps, prompt: &[u32]) -> (Stored, Vec<CachePart>) {
        let (mut last, mut at, mut parts) = (NOTHING, 0, Vec::new());
        self.clock += 1;
        loop {
            let end = steps.store_end(at);
            if end >= prompt.len() {
                return (last, parts);
            }
            let Some(next) = self.next(kind, last, &prompt[at..end]) else { return (last, parts) };
            let stored = self.stored.get_mut(&next).expect("a beginning that follows is stored");
            stored.used = self.clock;
            parts.push(stored.part.clone());
            (last, at) = (next, end);
        }
    }

    fn next(&self, kind: Kind, before: Stored, tokens: &[u32]) -> Option<Stored> {
        let following = self.following.get(&(before, tokens.to_vec()))?;
        following.iter().copied().find(|next| self.stored[next].kind == kind)
    }

    /// Stores what follows a beginning, and returns the longer one. `None` if it does not fit, or if
    /// the beginning itself is no longer stored.
    pub fn store(&mut self, kind: Kind, before: Stored, tokens: &[u32], part: &CachePart) -> Option<Stored> {
        self.clock += 1;
        if before != NOTHING {
            self.stored.get_mut(&before)?.used = self.clock;
        }
        if let Some(known) = self.next(kind, before, tokens) {
            self.stored.get_mut(&known)?.used = self.clock;
            return Some(known);
        }
        self.make_room(part.n_bytes(), before)?;
        let name = self.clock;
        if let Some(stored) = self.stored.get_mut(&before) {
            stored.n_following += 1;
        }
        let (part, tokens) = (part.clone(), tokens.to_vec());
        self.n_bytes += part.n_bytes();
        self.following.entry((before, tokens.clone())).or_default().push(name);
        let stored = Node { kind, before, tokens, part, used: self.clock, n_following: 0 };
        self.stored.insert(name, stored);
        Some(name)
    }

    /// Drops beginnings that nothing follows, the longest unused first, until `n_bytes` more fit.
    /// Keeps `needed`.
    fn make_room(&mut self, n_bytes: u64, needed: Stored) -> Option<()> {
        if n_bytes > self.limit {
            return None;
        }
        while self.n_bytes + n_bytes > self.limit {
            let ends = self.stored.iter().filter(|(name, stored)| stored.n_following == 0 && **name != needed);
            let (&oldest, _) = ends.min_by_key(|(_, stored)| stored.used)?;
            self.drop_beginning(oldest);
        }
        Some(())
    }

    fn drop_beginning(&mut self, name: Stored) {
        let Some(stored) = self.stored.remove(&name) else { return };
        self.n_bytes -= stored.part.n_bytes();
        if let Some(before) = self.stored.get_mut(&stored.before) {
            before.n_following -= 1;
        }
        let key = (stored.before, stored.tokens);
        if let Some(following) = self.following.get_mut(&key) {
            following.retain(|next| *next != name);
            if following.is_empty() {
                self.following.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Cache, Heads, Lrsa};
    use crate::gpu::CpuExecutor;

    const DENSE: Kind = Kind { model: 0, attention: Attention::Dense };

    /// A part for `n` tokens after `from`, of 128 bytes a token.
    fn part(device: &mut CpuExecutor<f32>, from: usize, n: usize) -> CachePart {
        let heads = Heads { queries: 1, keys: 1, dim: 32 };
        let mut cache = Cache::new(&[Attention::Dense.into()], heads, 500, 64).unwrap();
        cache.fill_random(device, from + n, 0).unwrap();
        cache.save_part(device, from).unwrap().unwrap()
    }

    #[test]
    fn steps_end_at_partitions_and_depend_on_their_place_alone() {
        let lrsa = |sink, lag| Attention::Lrsa(Lrsa::new(sink, lag, 0.25).unwrap());
        let ends = |step, attention, n: usize| {
            let steps = Steps::new(step, attention);
            let mut ends = vec![0];
            while *ends.last().unwrap() < n {
                ends.push(steps.end(*ends.last().unwrap()));
            }
            let stored: Vec<usize> = ends.iter().copied().filter(|&end| end > 0 && steps.can_store(end)).collect();
            (ends, stored)
        };
        assert_eq!(ends(64, Attention::Dense, 150), (vec![0, 64, 128, 192], vec![64, 128, 192]));
        assert_eq!(ends(64, lrsa(4, 16), 150), (vec![0, 52, 116, 180], vec![52, 116, 180]));
        // Steps shorter than a partition reach its end in several.
        assert_eq!(ends(48, lrsa(4, 128), 300).0, [0, 48, 96, 132, 180, 228, 260, 308]);
        assert_eq!(ends(48, lrsa(4, 128), 300).1, [132, 260]);
        assert_eq!(ends(8, lrsa(20, 8), 40).0, [0, 8, 16, 24, 28, 36, 44]);
    }

    #[test]
    fn the_longest_beginning_is_found_and_a_token_is_left() {
        let device = &mut CpuExecutor::<f32>::new();
        let mut prefixes = Prefixes::new(1 << 20);
        let steps = Steps::new(10, Attention::Dense);
        let text: Vec<u32> = (0..35).collect();
        let mut before = 0;
        for from in [0, 10, 20] {
            let part = part(device, from, 10);
            before = prefixes.store(DENSE, before, &text[from..from + 10], &part).unwrap();
        }
        let found = |prefixes: &mut Prefixes, kind, prompt: &[u32]| prefixes.find(kind, steps, prompt).1.len();
        assert_eq!(found(&mut prefixes, DENSE, &text), 3);
        assert_eq!(found(&mut prefixes, DENSE, &text[..30]), 2);
        assert_eq!(found(&mut prefixes, DENSE, &text[..10]), 0);
        let mut other = text.clone();
        other[15] = 99;
        assert_eq!(found(&mut prefixes, DENSE, &other), 1);
        assert_eq!(found(&mut prefixes, Kind { model: 1, ..DENSE }, &text), 0);
        let lrsa = Attention::Lrsa(Lrsa::new(2, 8, 0.5).unwrap());
        assert_eq!(found(&mut prefixes, Kind { attention: lrsa, ..DENSE }, &text), 0);
    }

    #[test]
    fn the_limit_drops_what_was_not_used_for_longest() {
        let device = &mut CpuExecutor::<f32>::new();
        let (a, b) = (part(device, 0, 10), part(device, 10, 10));
        let mut prefixes = Prefixes::new(3 * a.n_bytes());
        let steps = Steps::new(10, Attention::Dense);
        let text = |first: u32| -> Vec<u32> { (first..first + 30).collect() };
        let one = prefixes.store(DENSE, 0, &text(0)[..10], &a).unwrap();
        prefixes.store(DENSE, one, &text(0)[10..20], &b).unwrap();
        prefixes.store(DENSE, 0, &text(500)[..10], &a).unwrap();
        assert_eq!(prefixes.find(DENSE, steps, &text(0)).1.len(), 2);
        // The text at 500 is the oldest now; then the second part of the first, never what others follow.
        prefixes.store(DENSE, 0, &text(900)[..10], &a).unwrap();
        assert_eq!(prefixes.find(DENSE, steps, &text(500)).1.len(), 0);
        prefixes.find(DENSE, steps, &text(900));
        prefixes.store(DENSE, 0, &text(700)[..10], &a).unwrap();
        assert_eq!(prefixes.find(DENSE, steps, &text(0)).1.len(), 1);
        assert_eq!(prefixes.n_bytes(), 3 * a.n_bytes());
        assert!(prefixes.store(DENSE, 12345, &text(0)[..10], &a).is_none(), "what it follows is gone");
        assert!(Prefixes::new(10).store(DENSE, 0, &text(0)[..10], &a).is_none());
    }
}
