//! Where a prompt is cut while it is read, and where its cache is stored on the way.
//!
//! A prompt is read in steps whose ends depend on nothing but their place, the attention and the
//! size of a step. A cache is stored at ends of steps only. So whoever continues it reads on in the
//! same steps, and gets the same bits.

use std::iter::successors;

use crate::attention::Attention;

/// Caches are stored close together up to so many tokens: system messages and short conversations.
const CLOSE: usize = 2048;
/// Beyond, places are so many times as far apart as a cache has recent rows that each place stores anew.
const TIMES_RECENT: usize = 8;
/// And the text grows by at least one part in so many from place to place.
const GROWTH: usize = 8;
/// A question behind a document, with what the chat template adds, is rarely longer.
const QUESTION: usize = 256;

/// The places of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    step: usize,
    /// Sink and lag of a compressed cache.
    partitions: Option<(usize, usize)>,
    /// The longest sliding window of a layer; 0 if none has one.
    window: usize,
}

impl Places {
    /// Steps of at most `step` tokens, some of which end where partitions do. `window` is the longest
    /// sliding window of a layer.
    pub fn new(step: usize, attention: Attention, window: Option<usize>) -> Self {
        let partitions = match attention {
            Attention::Dense => None,
            Attention::Lrsa(l) => Some((l.sink(), l.lag())),
        };
        Self { step: step.max(1), partitions, window: window.unwrap_or(0) }
    }

    /// The end of the step that begins at a token.
    pub fn step_end(&self, from: usize) -> usize {
        let most = from + self.step;
        let Some((sink, lag)) = self.partitions.filter(|(sink, lag)| most >= sink + lag) else { return most };
        let last = sink + (most - sink) / lag * lag; // the last end of a partition that the step reaches
        if last > from { last } else { most }
    }

    /// Whether the cache after so many tokens can be stored: compressed caches are at the ends of
    /// partitions, where they hold the least.
    fn can_store(&self, n: usize) -> bool {
        self.partitions.is_none_or(|(sink, lag)| n >= sink + lag && (n - sink).is_multiple_of(lag))
    }

    /// The least distance from one regular place to the next. A dense cache without windows has no
    /// recent rows, and costs the same however often it is stored.
    fn distance(&self, from: usize) -> usize {
        let lag = self.partitions.map_or(0, |(_, lag)| lag);
        match lag.max(self.window) {
            0 => 0,
            _ if from < CLOSE => self.window.min(from) / 4,
            recent => (TIMES_RECENT * recent).max(from / GROWTH),
        }
    }

    /// Where the cache of a prompt of `n` tokens is stored, in order.
    ///
    /// - At regular places, which are the same in all prompts. They lie close together up to 2,048
    ///   tokens, and then farther and farther apart.
    /// - At the last place, where a longer conversation goes on, and at the last one that leaves room
    ///   for a question, where another question about the same document begins.
    /// - At the last place within the `n_shared` tokens that the prompt has in common with a stored
    ///   text: others are likely to have them in common too.
    pub fn of_prompt(&self, n: usize, n_shared: usize) -> Vec<usize> {
        let ends = successors(Some(self.step_end(0)), |&at| Some(self.step_end(at))).take_while(|&at| at <= n);
        let possible: Vec<usize> = ends.filter(|&at| self.can_store(at)).collect();
        let mut last = 0;
        let is_regular = |at: &&usize| {
            let is_regular = **at >= last + self.distance(last);
            if is_regular {
                last = **at;
            }
            is_regular
        };
        let mut chosen: Vec<usize> = possible.iter().filter(is_regular).copied().collect();
        let last_within = |most: usize| possible[..possible.partition_point(|&at| at <= most)].last();
        chosen.extend([n, n.saturating_sub(QUESTION), n_shared].into_iter().filter_map(last_within));
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Lrsa;

    fn lrsa(sink: usize, lag: usize) -> Attention {
        Attention::Lrsa(Lrsa::new(sink, lag, 0.25).unwrap())
    }

    /// Regular places of long prompts, up to `n` tokens.
    fn regular(places: Places, n: usize) -> Vec<usize> {
        // The special places of a text that is much longer lie beyond.
        places.of_prompt(4 * n, 0).into_iter().filter(|&at| at <= n).collect()
    }

    #[test]
    fn steps_end_at_partitions_and_depend_on_their_place_alone() {
        let ends = |step, attention, n: usize| {
            let places = Places::new(step, attention, None);
            let mut ends = vec![0];
            while *ends.last().unwrap() < n {
                ends.push(places.step_end(*ends.last().unwrap()));
            }
            let stored: Vec<usize> = ends.iter().copied().filter(|&end| end > 0 && places.can_store(end)).collect();
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
    fn regular_places_are_close_at_first_and_then_farther_and_farther_apart() {
        // Every partition up to 16 + 16 * 128 = 2064, the first end beyond 2048; then every eighth.
        let places = Places::new(64, lrsa(16, 128), None);
        let at = regular(places, 100_000);
        let close: Vec<usize> = (1..=16).map(|i| 16 + 128 * i).collect();
        assert_eq!(at[..16], close);
        assert_eq!(at[16..19], [2064 + 1024, 2064 + 2 * 1024, 2064 + 3 * 1024]);
        for pair in at[15..].windows(2) {
            let (distance, least) = (pair[1] - pair[0], 1024.max(pair[0] / 8));
            assert!((least..least + 128).contains(&distance), "{pair:?}");
        }
        // A dense cache costs the same however often it is stored.
        assert_eq!(
            regular(Places::new(64, Attention::Dense, None), 6400),
            (1..=100).map(|i| 64 * i).collect::<Vec<_>>()
        );
        // A window's ring is stored whole at each place.
        let windowed = regular(Places::new(64, Attention::Dense, Some(512)), 20_000);
        assert_eq!(windowed[..8], [64, 128, 192, 256, 320, 448, 576, 704]);
        let beyond = windowed.iter().position(|&at| at >= 2048).unwrap();
        assert!(windowed[beyond..].windows(2).all(|pair| pair[1] - pair[0] == 4096), "{windowed:?}");
    }

    #[test]
    fn regular_places_are_those_of_every_longer_prompt() {
        for places in [
            Places::new(48, lrsa(4, 128), None),
            Places::new(128, lrsa(16, 64), Some(300)),
            Places::new(64, Attention::Dense, Some(1024)),
        ] {
            let of_long = regular(places, 30_000);
            for n in [1, 100, 2000, 5000, 29_999] {
                let of_short = places.of_prompt(n, 0);
                let expected: Vec<usize> = of_long.iter().copied().filter(|&at| at <= n).collect();
                assert!(expected.iter().all(|at| of_short.contains(at)), "{places:?}, {n}: {of_short:?}");
                assert!(of_short.len() <= expected.len() + 2, "{places:?}, {n}: {of_short:?}");
            }
        }
    }

    #[test]
    fn the_ends_of_a_prompt_and_of_what_it_shares_are_places_too() {
        let places = Places::new(64, lrsa(16, 128), None);
        let regular = regular(places, 10_000);
        let special = |n, n_shared| -> Vec<usize> {
            places.of_prompt(n, n_shared).into_iter().filter(|at| !regular.contains(at)).collect()
        };
        // Partitions end at 9744, 9872 and 10000; 10,000 - 256 is 9744.
        assert_eq!(special(10_000, 0), [9744, 10_000]);
        assert_eq!(special(9_999, 0), [9616, 9872]);
        // Partitions end at 4880 and 5008.
        assert_eq!(special(10_000, 5_007), [4880, 9744, 10_000]);
        assert_eq!(special(10_000, 5_008), [5008, 9744, 10_000]);
        assert_eq!(special(10_000, 20_000), [9744, 10_000]);
        assert!(places.of_prompt(143, 143).is_empty() && places.of_prompt(144, 0) == [144]);
    }

    #[test]
    fn a_stored_prefix_takes_little_more_than_its_cache_the_longer_it_is() {
        // Rows of a layer: the lasting ones of the last place, and the recent ones of all places.
        for (sink, lag, n, most) in [(16, 128, 32_000, 1.6), (16, 128, 131_072, 1.2), (16, 1024, 131_072, 1.5)] {
            let l = Lrsa::new(sink, lag, 0.25).unwrap();
            let stored = Places::new(64, Attention::Lrsa(l), None).of_prompt(n, 0);
            let end = *stored.last().unwrap();
            let rows = l.cache_length(end) - lag + stored.len() * lag;
            let ratio = rows as f64 / l.cache_length(end) as f64;
            assert!((1.0..most).contains(&ratio), "L {lag}, {n} tokens: {ratio}, {} places", stored.len());
            assert!(rows < end / 2, "half of a dense cache");
        }
    }
}
