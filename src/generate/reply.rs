//! What a turn of a conversation asks for, its progress, and the answer.

use super::request::StoppedBy;
use crate::attention::Attention;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::sample::Sampling;
use crate::text::tokenizer::Tokenizer;

/// Minimum capacity of a new cache in tokens, if the model allows as many.
const MIN_CAPACITY: usize = 1024;

/// Capacities up to this many tokens are powers of two.
const MAX_POWER: usize = 16_384;

/// Larger capacities are multiples of this many tokens.
const CAPACITY_STEP: usize = 4096;

/// How to answer.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    /// The whole conversation, up to the start of the answer.
    pub prompt: &'a str,
    /// Where the newest question begins in the prompt, in bytes, if that is known. Another question
    /// in its place reads what precedes it only once.
    pub question_start: Option<usize>,
    pub attention: Attention,
    pub sampling: Sampling,
    /// Maximum tokens of the answer.
    pub max_tokens: usize,
    /// Prompt tokens per chunk; also the interval of progress reports.
    pub chunk: usize,
    /// Whether to prepend the tokenizer's start token; false if the chat template writes it.
    pub add_special: bool,
    /// Tokens that end the answer.
    pub stop: &'a [u32],
    /// Texts that end the answer, also within tokens.
    pub stop_texts: &'a [String],
    /// Seed of the draws of this answer.
    pub seed: u64,
    /// Maximum length of the sequence.
    pub max_positions: usize,
}

/// Progress passed to the callback.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// `done` of the prompt's `total` tokens are fed.
    Fed { done: usize, total: usize },
    /// A token of the answer with the text that it completes; the conversation now has `n_tokens`
    /// tokens.
    Said { text: &'a str, n_tokens: usize },
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    /// Tokens of the conversation, including the answer. Those of a prompt whose reading was stopped
    /// count too.
    pub n_tokens: usize,
    /// Tokens of the answer.
    pub n_said: usize,
    /// Tokens reused from the cache of earlier turns.
    pub n_reused: usize,
    /// Entries of one head's cache in a layer with full attention, and bytes in all layers.
    pub kv_entries: usize,
    pub kv_bytes: u64,
    /// What ended it.
    pub stopped_by: StoppedBy,
}

impl Reply<'_> {
    /// The tokens of a part of the prompt, in bytes. A part that is not at the start continues a text.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, from: usize, to: usize) -> Result<Vec<u32>> {
        let text = &self.prompt[from..to];
        match (from, self.add_special) {
            (0, true) => tokenizer.encode_prompt(text),
            (0, false) => tokenizer.encode(text, false),
            _ => tokenizer.encode_continuation(text),
        }
    }

    /// Tokens of a prompt of `n` tokens with its answer, as far as the limit allows. Fails if it leaves
    /// no room for an answer.
    pub(super) fn room(&self, n: usize) -> Result<usize> {
        if n < self.max_positions {
            return Ok(n.saturating_add(self.max_tokens).min(self.max_positions));
        }
        Err(Error::usage(format!(
            "the conversation has {n} tokens and leaves no room for an answer within the {} that the model was made for: \
             shorten the document, or begin anew",
            self.max_positions
        )))
    }

    /// Capacity of a cache for at least `wanted` tokens, so that it does not have to grow in every turn.
    fn capacity(&self, wanted: usize) -> usize {
        let rounded = match wanted <= MAX_POWER {
            true => wanted.next_power_of_two(),
            false => wanted.checked_next_multiple_of(CAPACITY_STEP).unwrap_or(wanted),
        };
        rounded.max(MIN_CAPACITY).min(self.max_positions)
    }

    /// Calls `make` with the capacity for at least `wanted` tokens, and once more with exactly as many
    /// if there is too little memory for the first.
    pub(super) fn make_room<T>(&self, wanted: usize, mut make: impl FnMut(usize) -> Result<T>) -> Result<T> {
        let capacity = self.capacity(wanted);
        match make(capacity) {
            Err(e) if e.kind() == ErrorKind::OutOfMemory && wanted < capacity => make(wanted),
            made => made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(max_positions: usize) -> Reply<'static> {
        Reply {
            prompt: "",
            question_start: None,
            attention: Attention::Dense,
            sampling: Sampling::default(),
            max_tokens: 2048,
            chunk: 256,
            add_special: true,
            stop: &[],
            stop_texts: &[],
            seed: 0,
            max_positions,
        }
    }

    #[test]
    fn room_is_rounded_up_a_little_and_within_the_limit() {
        let reply_long = reply(1 << 20);
        let capacities = [1, 1025, 9000, 16_384, 16_385, 65_548, 65_536].map(|n| reply_long.capacity(n));
        assert_eq!(capacities, [1024, 2048, 16_384, 16_384, 20_480, 69_632, 65_536]);
        // A document of 63,500 tokens with an answer of up to 2,048.
        assert_eq!(reply_long.capacity(reply_long.room(63_500).unwrap()), 69_632);
        assert_eq!([100, 30_000].map(|n| reply(512).capacity(n)), [512, 512]);
        assert_eq!(reply(40_000).capacity(39_000), 40_000);
        assert_eq!(reply(usize::MAX).capacity(usize::MAX), usize::MAX);
        assert!(reply(512).room(512).unwrap_err().to_string().contains("leaves no room"));
        assert_eq!(reply(512).room(500).unwrap(), 512);
    }

    #[test]
    fn exactly_the_wanted_room_is_tried_before_it_is_refused() {
        let tried = |most: usize, kind: ErrorKind| {
            let mut tried = Vec::new();
            let made = reply(1 << 20).make_room(20_000, |capacity| {
                tried.push(capacity);
                if capacity <= most { Ok(capacity) } else { Err(Error::of_kind(kind, "it does not fit")) }
            });
            (made.ok(), tried)
        };
        assert_eq!(tried(1 << 20, ErrorKind::OutOfMemory), (Some(20_480), vec![20_480]));
        assert_eq!(tried(20_100, ErrorKind::OutOfMemory), (Some(20_000), vec![20_480, 20_000]));
        assert_eq!(tried(19_999, ErrorKind::OutOfMemory), (None, vec![20_480, 20_000]));
        assert_eq!(tried(0, ErrorKind::DeviceLost), (None, vec![20_480]));
    }
}
