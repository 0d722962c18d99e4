//! A mark at a place of a text, to which its session goes back in the same cache.
//!
//! The cache still has most of what it had at the place, so a mark holds only what later tokens
//! overwrite: the rings of the cache, and the logits. Its size does not depend on the length of the
//! text.

use std::iter::once;

use super::session::Session;
use crate::attention::CacheEntries;
use crate::error::Result;
use crate::gpu::Executor;

/// Most marks of a text.
const MAX_MARKS: usize = 4;

/// Most bytes of the marks of a text, on the host.
const MAX_BYTES: u64 = 1 << 30;

/// The state with which a session goes back to a place that it has passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Tokens of the text up to the place.
    pub n_tokens: usize,
    /// The entries of the cache that later tokens overwrite.
    pub rings: CacheEntries,
    /// Length of the text that RoPE reckoned with.
    pub length: usize,
    /// The logits of the next token.
    pub logits: Vec<f32>,
}

impl Mark {
    /// A mark where the session is.
    pub(super) fn of(session: &Session, device: &mut dyn Executor) -> Result<Self> {
        Ok(Self {
            n_tokens: session.cache.n_tokens(),
            rings: session.cache.rings(device)?,
            length: session.length(),
            logits: session.logits().read(device)?,
        })
    }

    /// Whether a mark where the session is takes no more memory than all marks may.
    pub(super) fn is_small_at(session: &Session) -> bool {
        session.cache.ring_bytes() + session.logits().len() as u64 * 4 <= MAX_BYTES
    }

    /// Fails if it cannot be a mark of what the session has read.
    pub(super) fn check(&self, session: &Session) -> Result<()> {
        crate::ensure!(self.n_tokens > 0, "a mark lies before the first token");
        crate::ensure!(self.length <= session.length(), "a mark reckons with {} tokens", self.length);
        crate::ensure!(self.logits.len() == session.logits().len(), "a mark has {} logits", self.logits.len());
        session.cache.check_rings(self.n_tokens, &self.rings)
    }

    /// Takes the session back to the mark. `ids` are the tokens up to it.
    pub(super) fn go_back(&self, device: &mut dyn Executor, session: &mut Session, ids: &[u32]) -> Result<()> {
        assert_eq!(ids.len(), self.n_tokens, "the tokens up to the mark");
        session.cache.rewind(device, self.n_tokens, &self.rings)?;
        session.resume_at(ids, self.length.max(ids.len()));
        session.logits().write(device, &self.logits)
    }

    fn n_bytes(&self) -> u64 {
        let rings: usize = self.rings.iter().map(|(_, tensor)| tensor.bytes.len()).sum();
        (rings + self.logits.len() * 4) as u64
    }
}

/// Drops marks until the rest are few and small enough.
pub(super) fn thin(marks: &mut Vec<Mark>) {
    thin_to(marks, MAX_MARKS, MAX_BYTES);
}

/// Drops one mark after the other: each time the one that saves the fewest tokens, since the mark
/// before it is near. The two newest stay if there are only too many.
fn thin_to(marks: &mut Vec<Mark>, most: usize, most_bytes: u64) {
    while marks.len() > most.max(2) {
        let n = marks.len() - 2;
        drop_least(marks, n);
    }
    while marks.iter().map(Mark::n_bytes).sum::<u64>() > most_bytes {
        let n = marks.len();
        drop_least(marks, n);
    }
}

/// Drops the one of the first `n` marks that saves the fewest tokens.
fn drop_least(marks: &mut Vec<Mark>, n: usize) {
    let starts = once(0).chain(marks.iter().map(|mark| mark.n_tokens));
    let saved = marks.iter().zip(starts).map(|(mark, start)| mark.n_tokens - start);
    if let Some((least, _)) = saved.take(n).enumerate().min_by_key(|(_, saved)| *saved) {
        marks.remove(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(places: &[usize]) -> Vec<Mark> {
        let mark = |&n_tokens: &usize| Mark { n_tokens, rings: vec![], length: n_tokens, logits: vec![0.0] };
        places.iter().map(mark).collect()
    }

    #[test]
    fn the_end_of_the_document_and_the_two_newest_marks_stay() {
        let places = |marks: &[Mark]| marks.iter().map(|mark| mark.n_tokens).collect::<Vec<_>>();
        let mut kept = marks(&[100_000, 100_020]);
        thin(&mut kept);
        assert_eq!(places(&kept), [100_000, 100_020]);
        // Two marks for each further turn: where its prompt begins, and where it ends.
        for turn in 1..9 {
            for place in [100_000 + 500 * turn, 100_030 + 500 * turn] {
                kept.extend(marks(&[place]));
                thin(&mut kept);
                assert_eq!((kept.len() <= MAX_MARKS, kept[0].n_tokens), (true, 100_000));
                assert_eq!(kept.last().unwrap().n_tokens, place);
            }
            // The turn before can be taken back.
            assert_eq!(kept[kept.len() - 2].n_tokens, 100_000 + 500 * turn, "{:?}", places(&kept));
        }
    }

    #[test]
    fn large_marks_are_dropped_down_to_the_one_that_saves_most() {
        // Each has one logit, which is four bytes.
        let left = |most_bytes: u64| {
            let mut kept = marks(&[9000, 9020, 9500]);
            thin_to(&mut kept, MAX_MARKS, most_bytes);
            kept.iter().map(|mark| mark.n_tokens).collect::<Vec<_>>()
        };
        assert_eq!([12, 11, 7, 3].map(left), [vec![9000, 9020, 9500], vec![9000, 9500], vec![9000], vec![]]);
    }
}
