//! Beginnings of texts that were read before, as parts of their caches.
//!
//! The parts form a tree. Each has the rows that a cache gains after the part before it, so texts
//! with a common beginning share its parts. A text can go on after every part that has its recent
//! rows ([`CachePart::is_whole`]). Where memory is short, a part in the middle loses these first.

use std::collections::HashMap;
use std::iter::successors;

use crate::attention::{Attention, Cache, CachePart};
use crate::error::{ErrorKind, Result};
use crate::gpu::Executor;
use crate::model::config::ModelConfig;
use crate::serve::job::Job;

/// What texts must have in common besides their tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    /// The model, an adapter's included.
    pub model: usize,
    /// The attention.
    pub attention: Attention,
    /// What the RoPE frequencies depend on (`ModelConfig::frequency_lengths`).
    pub frequencies: Vec<usize>,
}

impl Kind {
    /// The kind of a job's prompt. `None` if hardly another text has its RoPE frequencies: those of
    /// dynamic RoPE change with every token beyond the original length.
    pub fn of(job: &Job, config: &ModelConfig) -> Option<Self> {
        let n = job.prompt.len();
        let is_shared = config.ropes.iter().all(|rope| rope.shares_frequencies(n));
        let frequencies = config.frequency_lengths(n);
        is_shared.then_some(Self { model: job.model, attention: job.attention, frequencies })
    }
}

/// The name of a stored beginning.
type Stored = u64;

/// The empty beginning, which all texts have.
const NOTHING: Stored = 0;

/// The stored parts of the beginning of a text, each with the token at which it ends.
#[derive(Clone, Debug, Default)]
pub struct Path(Vec<(Stored, usize)>);

impl Path {
    fn end(&self) -> (Stored, usize) {
        self.0.last().copied().unwrap_or((NOTHING, 0))
    }
}

/// The part of a prompt that is stored.
#[derive(Debug, Default)]
pub struct Found {
    /// The longest beginning after which it can go on.
    pub path: Path,
    /// The parts of that beginning, from the first token on.
    pub parts: Vec<CachePart>,
    /// Tokens that the prompt has in common with a stored text, which may be more.
    pub n_shared: usize,
}

impl Found {
    /// Tokens of that beginning.
    pub fn n_tokens(&self) -> usize {
        self.path.end().1
    }
}

/// Stored beginnings of texts, bounded in bytes.
pub struct Prefixes {
    limit: u64,
    n_bytes: u64,
    /// Counts uses and names beginnings.
    clock: u64,
    stored: HashMap<Stored, Node>,
    /// The beginnings that follow one, in the order in which they were stored.
    following: HashMap<Stored, Vec<Stored>>,
}

struct Node {
    kind: Kind,
    before: Stored,
    tokens: Vec<u32>,
    part: CachePart,
    used: u64,
}

impl Prefixes {
    /// An empty store of at most `limit` bytes; 0 stores nothing.
    pub fn new(limit: u64) -> Self {
        Self { limit, n_bytes: 0, clock: 0, stored: HashMap::new(), following: HashMap::new() }
    }

    /// Whether anything can be stored.
    pub fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Bytes of all parts.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The longest stored beginning of a prompt. It leaves at least one token of the prompt to be
    /// read, which the first draw needs.
    pub fn find(&mut self, kind: &Kind, prompt: &[u32]) -> Found {
        self.clock += 1;
        let (mut best, mut n_shared) = ((NOTHING, 0), 0);
        let mut open = vec![best];
        while let Some((before, at)) = open.pop() {
            for &name in self.following_of(before) {
                let node = &self.stored[&name];
                if node.kind != *kind {
                    continue;
                }
                let same = node.tokens.iter().zip(&prompt[at..]).take_while(|(a, b)| a == b).count();
                let end = at + same;
                n_shared = n_shared.max(end);
                if same == node.tokens.len() && end < prompt.len() {
                    open.push((name, end));
                    if node.part.is_whole() && end > best.1 {
                        best = (name, end);
                    }
                }
            }
        }
        let mut path: Vec<(Stored, usize)> =
            self.before(best.0).map(|(name, node)| (name, node.part.tokens().end)).collect();
        path.reverse();
        let parts: Vec<CachePart> = path.iter().map(|(name, _)| self.stored[name].part.clone()).collect();
        path.iter().for_each(|&(name, _)| self.note_use(name, name == best.0));
        Found { path: Path(path), parts, n_shared }
    }

    /// Stores what a cache of these tokens has beyond the end of a path, and moves the path there, unless
    /// it does not fit. Parts that were dropped from the path meanwhile are stored again with it.
    pub fn store(
        &mut self,
        device: &mut dyn Executor,
        kind: &Kind,
        path: &mut Path,
        tokens: &[u32],
        cache: &Cache,
    ) -> Result<()> {
        assert_eq!(cache.n_tokens(), tokens.len(), "the tokens of the cache");
        self.clock += 1;
        while path.0.last().is_some_and(|(name, _)| !self.stored.contains_key(name)) {
            path.0.pop();
        }
        while let Some((name, end)) = self.next(kind, path.end(), tokens) {
            self.note_use(name, end == tokens.len());
            path.0.push((name, end));
        }
        let (before, from) = path.end();
        if from == tokens.len() {
            if !self.stored[&before].part.is_whole()
                && let Some(recent) = self.save(device, cache, from, before)?
                && let Some(node) = self.stored.get_mut(&before)
            {
                self.n_bytes += recent.recent_bytes();
                node.part.take_recent(recent);
            }
            return Ok(());
        }
        if let Some(part) = self.save(device, cache, from, before)? {
            let name = self.clock;
            self.n_bytes += part.n_bytes();
            self.following.entry(before).or_default().push(name);
            let node = Node { kind: kind.clone(), before, tokens: tokens[from..].to_vec(), part, used: name };
            self.stored.insert(name, node);
            path.0.push((name, tokens.len()));
        }
        Ok(())
    }

    /// The longest part with which these tokens go on, if one is stored.
    fn next(&self, kind: &Kind, (before, from): (Stored, usize), tokens: &[u32]) -> Option<(Stored, usize)> {
        let of_text = self.following_of(before).iter().filter(|name| {
            let node = &self.stored[*name];
            node.kind == *kind && tokens[from..].starts_with(&node.tokens)
        });
        let next = of_text.max_by_key(|name| self.stored[*name].tokens.len())?;
        Some((*next, from + self.stored[next].tokens.len()))
    }

    /// The part of a cache after `from` tokens, if there is room for it behind `before`.
    fn save(
        &mut self,
        device: &mut dyn Executor,
        cache: &Cache,
        from: usize,
        before: Stored,
    ) -> Result<Option<CachePart>> {
        let n_bytes = cache.part_bytes(from);
        if n_bytes == 0 || !self.make_room(n_bytes, before) {
            return Ok(None);
        }
        match cache.save_part(device, from) {
            Err(e) if e.kind() == ErrorKind::OutOfMemory => Ok(None), // the prompt goes on without
            saved => saved,
        }
    }

    fn following_of(&self, name: Stored) -> &[Stored] {
        self.following.get(&name).map_or(&[], Vec::as_slice)
    }

    /// A beginning and those before it, up to the first.
    fn before(&self, name: Stored) -> impl Iterator<Item = (Stored, &Node)> {
        let at = move |name: Stored| self.stored.get(&name).map(|node| (name, node));
        successors(at(name), move |(_, node)| at(node.before))
    }

    /// Notes that a text goes on after a part, or passes it. Recent rows are of no use to texts that
    /// pass.
    fn note_use(&mut self, name: Stored, goes_on: bool) {
        if let Some(node) = self.stored.get_mut(&name).filter(|node| goes_on || node.part.recent_bytes() == 0) {
            node.used = self.clock;
        }
    }

    /// Drops what was not used for longest until `n_bytes` more fit: whole parts that nothing follows,
    /// and the recent rows of others. Keeps `needed` and the way to it. False, with nothing dropped, if
    /// that leaves too little.
    fn make_room(&mut self, n_bytes: u64, needed: Stored) -> bool {
        let way: u64 = self.before(needed).map(|(_, node)| node.part.lasting_bytes()).sum();
        if way.saturating_add(n_bytes) > self.limit {
            return false;
        }
        while self.n_bytes + n_bytes > self.limit {
            let can_drop = |(name, node): &(&Stored, &Node)| {
                node.part.recent_bytes() > 0 || (**name != needed && self.following_of(**name).is_empty())
            };
            let oldest = self.stored.iter().filter(can_drop).min_by_key(|(name, node)| (node.used, **name));
            let Some((&oldest, _)) = oldest else { return false };
            self.drop_part(oldest, needed);
        }
        true
    }

    /// Drops a part, or its recent rows if others follow it or it is needed. Parts before it go too
    /// if they lead nowhere now.
    fn drop_part(&mut self, mut name: Stored, needed: Stored) {
        while let Some(node) = self.stored.get_mut(&name) {
            if name == needed || self.following.contains_key(&name) {
                self.n_bytes -= node.part.recent_bytes();
                node.part.drop_recent();
                return;
            }
            let before = node.before;
            self.n_bytes -= node.part.n_bytes();
            self.stored.remove(&name);
            if let Some(following) = self.following.get_mut(&before) {
                following.retain(|next| *next != name);
                if following.is_empty() {
                    self.following.remove(&before);
                }
            }
            if self.stored.get(&before).is_none_or(|node| node.part.is_whole()) {
                return;
            }
            name = before;
        }
    }
}

#[cfg(test)]
#[path = "prefix_tests.rs"]
mod tests;
