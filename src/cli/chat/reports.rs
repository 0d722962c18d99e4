//! What a conversation says about itself: the line after an answer, its tokens, and what was kept.

use super::engine::CacheSize;
use crate::cli::amounts::{size, token_speed};
use crate::eval::KeptMap;
use crate::grouped::{grouped, tokens};

/// An answer, for the line after it.
pub struct Told {
    pub n_said: usize,
    /// From the first token of the answer to the last.
    pub decode_seconds: f64,
    /// Tokens of the prompt that were read, and reused.
    pub n_read: usize,
    pub n_reused: usize,
    pub read_seconds: f64,
    pub cache: Option<CacheSize>,
}

/// The line after an answer.
pub fn status(told: &Told) -> String {
    let speed = |n: usize, seconds: f64| token_speed(n as f64, seconds).map_or(String::new(), |s| format!(" at {s}"));
    let said = format!("{}{}", tokens(told.n_said), speed(told.n_said.saturating_sub(1), told.decode_seconds));
    let read = format!("read {}{}", grouped(told.n_read), speed(told.n_read, told.read_seconds));
    let reused = match told.n_reused {
        0 => String::new(),
        n => format!(", reused {}", grouped(n)),
    };
    let cache = told
        .cache
        .map_or(String::new(), |cache| format!("; {} in the cache{}", grouped(cache.n_tokens), stored(&cache)));
    format!("[{said}; {read}{reused}{cache}]")
}

/// The line of `/tokens` about the cache.
pub fn cached(cache: &CacheSize) -> String {
    let dense = match cache.is_compressed() {
        true => format!("; a dense one takes {}", size(cache.dense_bytes)),
        false => String::new(),
    };
    format!("cache: {}{}{dense}", tokens(cache.n_tokens), stored(cache))
}

/// The entries of the cache if it is compressed, and its bytes; follows the number of tokens.
fn stored(cache: &CacheSize) -> String {
    let bytes = size(cache.bytes);
    if !cache.is_compressed() {
        return format!(", {bytes}");
    }
    let ratio = cache.dense_bytes as f64 / cache.bytes.max(1) as f64;
    format!(" as {} ({ratio:.1}x smaller), {bytes}", grouped(cache.entries))
}

/// Runs of the text that are kept or dropped: a token is kept if at least the share r of the heads
/// keeps it, as many as do so on average.
pub fn runs(map: &KeptMap, shares: &[f64]) -> Vec<(String, bool)> {
    let mut runs: Vec<(String, bool)> = Vec::new();
    for (text, share) in map.tokens.iter().zip(shares) {
        let is_kept = *share >= map.keep;
        match runs.last_mut() {
            Some((run, kept)) if *kept == is_kept => run.push_str(text),
            _ => runs.push((text.clone(), is_kept)),
        }
    }
    runs
}

/// The line after the text of [`runs`].
pub fn legend(map: &KeptMap, shares: &[f64], has_colours: bool) -> String {
    let n = map.tokens.len();
    let judged = map.sink..map.recent_start.max(map.sink);
    let kept = shares[judged.clone()].iter().filter(|share| **share >= map.keep).count();
    let mark = if has_colours { "dim" } else { "[-in brackets-]" };
    format!(
        "[{} of {} judged tokens are kept by at least {:.0}% of the heads; the others are {mark}. The first {} and the last {} are \
         always in the cache]",
        grouped(kept),
        grouped(judged.len()),
        map.keep * 100.0,
        grouped(map.sink),
        grouped(n - judged.end)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_after_an_answer_says_what_it_took() {
        let cache = CacheSize { n_tokens: 1204, entries: 311, bytes: 2_831_155, dense_bytes: 10_960_448 };
        let told = Told {
            n_said: 152,
            decode_seconds: 7.1,
            n_read: 45,
            n_reused: 1007,
            read_seconds: 0.5,
            cache: Some(cache),
        };
        assert_eq!(
            status(&told),
            "[152 tokens at 21 tokens/s; read 45 at 90 tokens/s, reused 1,007; 1,204 in the cache as 311 (3.9x smaller), 2.7 MiB]"
        );
        let dense = CacheSize { entries: 1204, bytes: 10_960_448, ..cache };
        let line = status(&Told { cache: Some(dense), n_reused: 0, ..told });
        assert_eq!(line, "[152 tokens at 21 tokens/s; read 45 at 90 tokens/s; 1,204 in the cache, 10.5 MiB]");
        let compressed = "cache: 1,204 tokens as 311 (3.9x smaller), 2.7 MiB; a dense one takes 10.5 MiB";
        assert_eq!([&cache, &dense].map(cached), [compressed, "cache: 1,204 tokens, 10.5 MiB"]);
        let one = Told { n_said: 1, decode_seconds: 0.0, n_read: 7, n_reused: 0, read_seconds: 0.0, cache: None };
        assert_eq!(status(&one), "[1 token; read 7]");
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn runs_join_tokens_of_one_fate() {
        let map = KeptMap {
            tokens: ["a", "b", "c", "d", "e"].map(String::from).into(),
            sink: 1,
            lag: 1,
            keep: 0.5,
            recent_start: 4,
            kept: vec![vec![vec![1, 2], vec![2]]],
        };
        let shares = map.shares(None, None).unwrap();
        assert_eq!(shares, [1.0, 0.5, 1.0, 0.0, 1.0]);
        let expected = [("abc", true), ("d", false), ("e", true)].map(|(text, kept)| (text.to_string(), kept));
        assert_eq!(runs(&map, &shares), expected);
        let legend = legend(&map, &shares, false);
        assert!(legend.starts_with("[2 of 3 judged tokens are kept by at least 50% of the heads"), "{legend}");
        assert!(legend.contains("The first 1 and the last 1 are"), "{legend}");
    }
}
