//! What the server asks of the engine, and what the engine tells it.

use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use crate::attention::Attention;
use crate::generate::Constraint;
use crate::kernels::sample::Sampling;

/// One request: a prompt, and how its answers are drawn.
pub struct Job {
    /// Number of the model among those that are served: 0 is the base, the adapters follow.
    pub model: usize,
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// Maximum tokens of each answer. 0 only together with `prompt_logprobs`.
    pub max_tokens: usize,
    /// Number of answers, at least 1. Answer i draws with `seed` + i.
    pub n: usize,
    /// Attention of the cache.
    pub attention: Attention,
    /// How each token is chosen.
    pub draw: Draw,
    /// Seed of the sampler.
    pub seed: u64,
    /// Tokens that end an answer.
    pub stop: Vec<u32>,
    /// Texts that end an answer; they are not part of it.
    pub stop_texts: Vec<String>,
    /// Special tokens whose names are part of the text, such as the marks of tool calls.
    pub shown: Vec<u32>,
    /// Report the logarithm of the probability of each generated token, and of so many most likely ones.
    pub logprobs: Option<usize>,
    /// Report them for the tokens of the prompt too.
    pub prompt_logprobs: bool,
    /// What limits the tokens, for answers in a given form.
    pub constraint: Option<Box<dyn Constraint>>,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
    /// Where events go. The engine drops the request when the other side is closed.
    pub events: UnboundedSender<Event>,
}

/// How each token is chosen.
#[derive(Clone, Debug, Default)]
pub struct Draw {
    /// Temperature, filters and penalties.
    pub sampling: Sampling,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

/// What happens to a job. An answer is a number below [`Job::n`].
#[derive(Clone, Debug)]
pub enum Event {
    /// It left the queue; so many tokens of its prompt were read before for another request.
    Started { cached_tokens: usize },
    /// The prompt's tokens, in order. The first has no probability.
    Prompt(Vec<Option<TokenLogprob>>),
    /// A token of an answer. `text` is what it completes: empty within a character, within what may
    /// be a stop text, and for tokens without text.
    Token { answer: usize, id: u32, text: String, logprob: Option<TokenLogprob> },
    /// An answer has ended. After the last one nothing follows.
    Ended { answer: usize, finish: Finish, generated_tokens: usize },
    /// The job has ended without (all of) its answers. Nothing follows.
    Failed(Failure),
}

/// The probability of a token, and of the most likely tokens in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub id: u32,
    /// Natural logarithm of the model's probability at temperature 1, before filters, penalties and
    /// biases.
    pub logprob: f32,
    /// The most likely tokens, in descending order.
    pub top: Vec<(u32, f32)>,
}

/// What ended an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token, a stop text, or the end of the given form.
    Stop,
    /// The maximum number of tokens.
    Length,
}

/// Why a job ended without its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its cache does not fit in the memory for caches, even with nothing beside it.
    TooLarge(String),
    /// Its deadline passed.
    Deadline,
    /// The server is stopping.
    Stopping,
    /// The device failed, or the model cannot do what is asked.
    Engine(String),
}

#[cfg(test)]
pub mod testing {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    /// A job that nobody waits for, to vary.
    pub fn job(prompt: Vec<u32>, max_tokens: usize, attention: Attention) -> Job {
        Job {
            model: 0,
            prompt,
            max_tokens,
            n: 1,
            attention,
            draw: Draw::default(),
            seed: 0,
            stop: vec![],
            stop_texts: vec![],
            shown: vec![],
            logprobs: None,
            prompt_logprobs: false,
            constraint: None,
            deadline: None,
            events: unbounded_channel().0,
        }
    }
}
