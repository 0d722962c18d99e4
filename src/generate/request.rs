//! What to generate, and what was generated.

use super::session::Session;
use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::gpu::Executor;
use crate::kernels::sample::Sampling;
use crate::model::llama::Llama;
use crate::text::tokenizer::Tokenizer;

/// Default number of prompt tokens per chunk.
pub const DEFAULT_CHUNK: usize = 512;

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateRequest<'a> {
    /// The prompt, at least one token.
    pub prompt_ids: &'a [u32],
    /// Maximum number of tokens to generate, at least one.
    pub max_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Dense, or LRSA with its compressed cache.
    pub attention: Attention,
    /// Maximum prompt tokens per chunk. It bounds the memory of prefill and changes results only by
    /// rounding.
    pub chunk: usize,
    /// Tokens that end the text; empty to continue until `max_tokens`.
    pub stop: &'a [u32],
    /// Texts that end the text, also within tokens; the name of a special token stands for it. They
    /// need a tokenizer.
    pub stop_texts: &'a [String],
    /// Special tokens whose names are part of the text, such as the marks of tool calls. The text has
    /// no other special tokens.
    pub shown: &'a [u32],
    /// Seed of the sampler.
    pub seed: u64,
}

impl<'a> GenerateRequest<'a> {
    /// Greedy generation with dense attention, the default chunk and no stop tokens.
    pub fn greedy(prompt_ids: &'a [u32], max_tokens: usize) -> Self {
        Self {
            prompt_ids,
            max_tokens,
            sampling: Sampling::default(),
            attention: Attention::Dense,
            chunk: DEFAULT_CHUNK,
            stop: &[],
            stop_texts: &[],
            shown: &[],
            seed: 0,
        }
    }

    /// Refuses what cannot be generated.
    pub(super) fn check(&self, tokenizer: Option<&Tokenizer>) -> Result<()> {
        if self.prompt_ids.is_empty() {
            return Err(Error::usage("the prompt is empty: a generation starts from at least one token"));
        }
        if self.max_tokens == 0 || self.chunk == 0 {
            return Err(Error::usage("`max_tokens` and `chunk` are at least 1"));
        }
        if self.stop_texts.iter().any(String::is_empty) {
            return Err(Error::usage("`stop` is an empty text, which every text contains: give the text to stop at"));
        }
        if tokenizer.is_none() && !self.stop_texts.is_empty() {
            return Err(Error::usage("`stop` compares texts, and the model has no tokenizer"));
        }
        Ok(())
    }

    /// An empty session with room for the prompt and the answer.
    pub(crate) fn session(&self, device: &mut dyn Executor, model: &mut Llama) -> Result<Session> {
        let Self { sampling, attention, chunk, seed, .. } = *self;
        let capacity = self.prompt_ids.len().saturating_add(self.max_tokens);
        Session::new(device, model, attention, capacity, chunk, sampling, seed)
    }
}

/// A newly generated token.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// Its id.
    pub id: u32,
    /// The text that this token completes; empty within a character, within what may be a stop
    /// text, for special tokens that are not shown, and without a tokenizer.
    pub text: &'a str,
    /// The logits that it was drawn from `[vocabulary]`, before penalties and biases, if the session
    /// keeps them.
    pub logits: Option<&'a [f32]>,
}

/// What ended a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// A token of [`GenerateRequest::stop`]. It is the last id and not part of the text.
    StopToken,
    /// A text of [`GenerateRequest::stop_texts`]. The text ends before it, and the ids with the
    /// token that completed it.
    StopText,
    /// [`GenerateRequest::max_tokens`] was reached.
    MaxTokens,
    /// The callback ended it.
    Caller,
    /// The form of the session's constraint is complete, or the constraint failed ([`super::Constraint`]).
    Constraint,
}

impl StoppedBy {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::StopToken => "stop_token",
            Self::StopText => "stop_text",
            Self::MaxTokens => "max_tokens",
            Self::Caller => "caller",
            Self::Constraint => "constraint",
        }
    }
}

/// The generated tokens, with timings and cache size.
///
/// The last generated token is not fed, since nothing follows it: prompt + generated - 1 tokens
/// count as fed. A GPU may have started another step before the host knew of a stop token, and may
/// still be running it.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Generated ids, including a stop token.
    pub ids: Vec<u32>,
    /// Their text, without special tokens; empty without a tokenizer.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Number of `ids`.
    pub generated_tokens: usize,
    /// Time of prefill.
    pub prefill_seconds: f64,
    /// Time of everything after prefill: drawing the tokens, and feeding all but the last. In a
    /// [`super::Batch`] it is shared with the other sequences.
    pub decode_seconds: f64,
    /// Entries of one head's cache at the end, in a layer with full attention: cache_length(tokens
    /// fed).
    pub kv_entries: usize,
    /// Bytes of these entries in all layers.
    pub kv_bytes: u64,
    /// Why generation ended.
    pub stopped_by: StoppedBy,
    /// What the constraint said, if it failed.
    pub constraint_failure: Option<String>,
}

impl Generated {
    /// Prompt tokens fed per second.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill_seconds.max(f64::EPSILON)
    }

    /// Tokens fed and drawn per second of decode; 0 if only one token was generated.
    pub fn decode_tokens_per_s(&self) -> f64 {
        self.generated_tokens.saturating_sub(1) as f64 / self.decode_seconds.max(f64::EPSILON)
    }
}
