//! The haystack: a long text as sentences, with excerpts of a given length.
//!
//! The first three fifths are for training; the rest is held out.

use std::ops::Range;

use rand::{Rng, RngExt};

use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Error, Result};

/// Longest sentence in bytes. Longer ones are split at a space.
const MAX_SENTENCE: usize = 600;

/// Part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// For training.
    Training,
    /// For evaluation.
    HeldOut,
}

impl Part {
    /// The indices of this part among n items. The first three fifths are for training.
    pub(super) fn range(self, n: usize) -> Range<usize> {
        let cut = n * 3 / 5;
        match self {
            Part::Training => 0..cut,
            Part::HeldOut => cut..n,
        }
    }
}

/// A text as sentences with their token counts.
#[derive(Clone, Debug)]
pub struct Haystack {
    sentences: Vec<(String, usize)>,
}

impl Haystack {
    /// Splits a text into sentences. Fails if there are fewer than ten.
    pub fn new(text: &str, files: &ModelFiles) -> Result<Self> {
        let tokenizer = files.tokenizer()?;
        let mut sentences = Vec::new();
        for sentence in sentences_of(text) {
            let n = tokenizer.encode(&format!(" {sentence}"), false)?.len();
            sentences.push((sentence, n));
        }
        if sentences.len() < 10 {
            return Err(Error::usage(format!(
                "the text has {} sentences, but at least ten are needed: give a longer text",
                sentences.len()
            )));
        }
        Ok(Self { sentences })
    }

    /// All sentences of one part.
    pub fn text(&self, part: Part) -> String {
        let sentences: Vec<&str> = self.sentences[part.range(self.sentences.len())].iter().map(|(s, _)| &**s).collect();
        sentences.join(" ")
    }

    /// Consecutive sentences from a random start, with at most `n_tokens` tokens. At the end of the
    /// part it continues at the start.
    pub fn excerpt(&self, part: Part, n_tokens: usize, rng: &mut impl Rng) -> Vec<&str> {
        let range = part.range(self.sentences.len());
        let mut at = rng.random_range(range.clone());
        let (mut chosen, mut used, mut tried) = (Vec::new(), 0, 0);
        loop {
            let (sentence, n) = &self.sentences[at];
            used += n.max(&1);
            let next = if at + 1 < range.end { at + 1 } else { range.start };
            if used > n_tokens {
                let is_too_long = chosen.is_empty() && tried < range.len();
                if !is_too_long {
                    return chosen;
                }
                // Start at a sentence that fits.
                (used, tried) = (0, tried + 1);
            } else {
                chosen.push(sentence.as_str());
            }
            at = next;
        }
    }
}

/// Splits a text at sentence ends: a full stop, exclamation or question mark, optional quotes, and
/// a space.
fn sentences_of(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut sentences = Vec::new();
    let mut sentence = String::new();
    for word in words {
        if !sentence.is_empty() {
            sentence.push(' ');
        }
        sentence.push_str(word);
        let bare = word.trim_end_matches(['"', '\'', ')', '”', '’']);
        if bare.ends_with(['.', '!', '?']) || sentence.len() > MAX_SENTENCE {
            sentences.push(std::mem::take(&mut sentence));
        }
    }
    if !sentence.is_empty() {
        sentences.push(sentence);
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_readers_stop() {
        let found = sentences_of("Call me Ishmael. \"Why?\" he\nasked.  So be it");
        assert_eq!(found, ["Call me Ishmael.", "\"Why?\"", "he asked.", "So be it"]);
        let long = "word ".repeat(500);
        assert!(sentences_of(&long).iter().all(|s| s.len() <= MAX_SENTENCE + 5));
    }
}
