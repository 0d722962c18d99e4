//! `QueryTile` and `KeyTile`: the table rows that the attention shaders read.

use std::ops::Range;

use crate::table_row;

/// Lanes per attention workgroup. A query tile has at most this many (query, head of the group)
/// pairs.
pub(super) const LANES: usize = 64;

/// The `width` of tiles without a sliding window: half the range of u32, so that wrapped row
/// differences stay above it.
pub(super) const UNLIMITED: u32 = 1 << 31;

/// The `width` of tiles whose queries see at most `window` keys of the recent run.
pub(super) fn width_of(window: usize) -> u32 {
    u32::try_from(window).map_or(UNLIMITED, |w| w.min(UNLIMITED))
}

table_row! {
    /// A run of queries and the keys they see: `shaders/attend/query_tile.wgsl`.
    pub struct QueryTile {
        /// First query row.
        query: u32,
        /// Number of queries.
        n_queries: u32,
        /// First sink row in the recent buffer.
        sink: u32,
        /// Number of sink keys.
        n_sink: u32,
        /// First kept row.
        kept: u32,
        /// Number of kept keys.
        n_kept: u32,
        /// First window row in the recent buffer.
        recent: u32,
        /// Number of window keys that the first query sees, at most `width`. Each later query sees
        /// one more at the end.
        n_recent: u32,
        /// Maximum number of window keys that a query sees: the last ones. `UNLIMITED` without a
        /// sliding window.
        width: u32,
    }
}

table_row! {
    /// A run of keys and the queries that see them: `shaders/attend/key_tiles.wgsl`.
    pub struct KeyTile {
        /// First key row.
        key: u32,
        /// Number of keys.
        n_keys: u32,
        /// First query row of the tile.
        query: u32,
        /// Number of queries before `query` for which the first key was already visible: those of
        /// earlier chunks of a sequence that streams. 0 in a batch.
        before: u32,
        /// End of the query rows (exclusive).
        query_end: u32,
        /// Number of consecutive keys that become visible at the same query: 1 for recent keys, the
        /// kept keys of a partition for kept ones.
        run: u32,
        /// Queries between consecutive runs: key i is visible from query - before + i / run · step
        /// on.
        step: u32,
        /// Maximum number of queries that see a key: the first ones. `UNLIMITED` without a
        /// sliding window.
        width: u32,
    }
}

impl QueryTile {
    /// Number of sink and kept keys, which all queries see.
    fn n_older(&self) -> u32 {
        self.n_sink + self.n_kept
    }

    /// Rows of the recent run that query `i` sees.
    fn seen_of_recent(&self, i: u32) -> Range<u32> {
        let end = self.n_recent + i;
        end.max(self.width) - self.width..end
    }

    /// For query `i` of the tile, over the keys in the order sink, kept, recent: the range of
    /// recent keys before its window, which it does not see, and the end of the keys that it sees.
    pub(super) fn hidden_and_end(&self, i: usize) -> (Range<usize>, usize) {
        let (kept, window) = (self.n_older() as usize, self.seen_of_recent(i as u32));
        (kept..kept + window.start as usize, kept + window.end as usize)
    }

    /// Number of visible (query, key) pairs of the tile, for one head.
    pub fn n_pairs(&self) -> u64 {
        let of_query = |i| u64::from(self.n_older()) + self.seen_of_recent(i).len() as u64;
        (0..self.n_queries).map(of_query).sum()
    }
}

impl KeyTile {
    /// The keys of the tile that a query sees. The query is `later` rows after the first query of
    /// the tile.
    pub(super) fn seen_by(&self, later: usize) -> Range<usize> {
        let [n_keys, run, step, width] = [self.n_keys, self.run, self.step, self.width].map(|x| x as usize);
        let later = later + self.before as usize;
        let first = run * (later + 1).saturating_sub(width).div_ceil(step);
        first.min(n_keys)..(run * (later / step + 1)).min(n_keys)
    }

    /// Number of visible (query, key) pairs of the tile, for one head.
    pub fn n_pairs(&self) -> u64 {
        let of_key = |i| {
            let [first, query, end] =
                [i / self.run * self.step, self.before, self.before + self.query_end - self.query];
            u64::from(end.min(first.saturating_add(self.width)).saturating_sub(query.max(first)))
        };
        (0..self.n_keys).map(of_key).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_sees_at_most_the_width_of_its_window() {
        let tile = QueryTile { n_queries: 4, n_sink: 2, n_kept: 1, n_recent: 3, width: 4, ..zeroed() };
        assert_eq!([0, 1, 2, 3].map(|i| tile.hidden_and_end(i)), [(3..3, 6), (3..3, 7), (3..4, 8), (3..5, 9)]);
        assert_eq!(tile.n_pairs(), 4 * 3 + 3 + 4 + 4 + 4);
        let all = QueryTile { width: UNLIMITED, ..tile };
        assert_eq!((all.hidden_and_end(3), all.n_pairs()), ((3..3, 9), 4 * 3 + 3 + 4 + 5 + 6));
    }

    #[test]
    fn a_key_is_seen_by_at_most_the_width_of_its_window() {
        let tile = KeyTile { key: 5, n_keys: 3, query: 7, before: 0, query_end: 12, run: 1, step: 1, width: 2 };
        assert_eq!([0, 1, 2, 3].map(|later| tile.seen_by(later)), [0..1, 0..2, 1..3, 2..3]);
        assert_eq!(tile.n_pairs(), 6);
        let kept = KeyTile { n_keys: 5, run: 2, step: 3, query_end: 20, width: UNLIMITED, ..tile };
        assert_eq!([0, 2, 3, 6, 12].map(|later| kept.seen_by(later)), [0..2, 0..2, 0..4, 0..5, 0..5]);
        assert_eq!(kept.n_pairs(), 2 * 13 + 2 * 10 + 7);
    }

    #[test]
    fn keys_of_earlier_chunks_are_seen_from_before_the_tile() {
        let tile = KeyTile { key: 5, n_keys: 4, query: 0, before: 2, query_end: 6, run: 1, step: 1, width: 4 };
        assert_eq!([0, 1, 2, 3, 4].map(|later| tile.seen_by(later)), [0..3, 0..4, 1..4, 2..4, 3..4]);
        assert_eq!(tile.n_pairs(), 2 + 3 + 4 + 4);
        let all = KeyTile { width: UNLIMITED, ..tile };
        assert_eq!((all.seen_by(0), all.seen_by(1), all.n_pairs()), (0..3, 0..4, 6 + 6 + 6 + 5));
    }

    fn zeroed() -> QueryTile {
        bytemuck::Zeroable::zeroed()
    }
}
