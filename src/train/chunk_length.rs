//! `ChunkLength`: how many tokens of a long sequence a training step takes at once.

use crate::data::token_count::TokenCount;

/// The longest chunk that is tried after whole batches, and the shortest.
const LONGEST: usize = 16_384;
const SHORTEST: usize = 128;

/// The length of the chunks of long sequences: about this many tokens, because LRSA takes whole
/// partitions. `Auto` takes batches at once if they fit into memory, else the longest chunks that
/// do.
pub type ChunkLength = TokenCount;

/// What to try, in order, for a batch of `n_tokens` whose sequences are cut into whole partitions
/// of `lag` tokens; `None` is the batch at once.
pub(super) fn candidates(chunk: ChunkLength, n_tokens: usize, lag: usize) -> Vec<Option<usize>> {
    if let Some(n) = chunk.given() {
        return vec![Some(n)];
    }
    let halves = std::iter::successors(Some(LONGEST), |n| Some(n / 2)).take_while(|&n| n >= SHORTEST);
    let whole = halves.map(|n| (n / lag).max(1) * lag).filter(|&n| n < n_tokens);
    let mut all: Vec<Option<usize>> = std::iter::once(None).chain(whole.map(Some)).collect();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_tries_batches_at_once_then_ever_shorter_chunks() {
        assert_eq!(candidates(ChunkLength::Auto, 100, 1), [None]);
        assert_eq!(candidates(ChunkLength::Auto, 600, 128), [None, Some(512), Some(256), Some(128)]);
        assert_eq!(candidates(ChunkLength::Auto, 3000, 1000), [None, Some(2000), Some(1000)]);
        assert_eq!(candidates(ChunkLength::Auto, 1 << 20, 64).len(), 9);
        assert_eq!(candidates(ChunkLength::Tokens(40), 600, 64), [Some(40)]);
    }
}
