//! The answers to a request: turns the events of its jobs into steps, and counts tokens.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde_json::{Value as Json, json};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt, StreamMap};

use tokio::sync::mpsc::UnboundedReceiver;

use super::splitter::Splitter;
use super::tool_forms::Call;
use super::tools::Part;
use crate::serve::http::failure::ApiError;
use crate::serve::job::{Event, Finish, TokenLogprob};

/// What the engine said, for one answer or prompt. Answers are numbered through all prompts.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The engine took up a prompt.
    Started { prompt: usize },
    /// The probabilities of a prompt's tokens.
    Prompt { prompt: usize, tokens: Vec<Option<TokenLogprob>> },
    /// More of an answer.
    Piece(Piece),
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub choice: usize,
    pub parts: Vec<Part>,
    /// The token of this piece, if probabilities are asked for.
    pub token: Option<TokenLogprob>,
    /// Why the answer ends here, in OpenAI's words.
    pub finish: Option<&'static str>,
}

/// The tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub completion_tokens: usize,
}

impl Usage {
    /// OpenAI's object.
    pub fn object(&self) -> Json {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }
}

/// The running answers of a request. Dropping them tells the engine that nobody waits.
pub struct Answers {
    events: StreamMap<usize, UnboundedReceiverStream<Event>>,
    /// Answers to each prompt.
    n: usize,
    /// What splits each answer, until it has ended.
    splitters: Vec<Option<Splitter>>,
    has_calls: Vec<bool>,
    n_running: usize,
    pub usage: Usage,
}

impl Answers {
    /// The answers that come through these channels, `n` to each.
    pub fn new(channels: Vec<UnboundedReceiver<Event>>, n: usize, splitter: Splitter, prompt_tokens: usize) -> Self {
        let n_running = channels.len() * n;
        Self {
            events: channels.into_iter().map(UnboundedReceiverStream::new).enumerate().collect(),
            n,
            splitters: vec![Some(splitter); n_running],
            has_calls: vec![false; n_running],
            n_running,
            usage: Usage { prompt_tokens, ..Usage::default() },
        }
    }

    fn step(&mut self, prompt: usize, event: Event) -> Result<Step, ApiError> {
        Ok(match event {
            Event::Started { cached_tokens } => {
                self.usage.cached_tokens += cached_tokens;
                Step::Started { prompt }
            }
            Event::Prompt(tokens) => Step::Prompt { prompt, tokens },
            Event::Token { answer, text, logprob, .. } => {
                let choice = prompt * self.n + answer;
                let parts = self.splitters[choice].as_mut().map(|splitter| splitter.push(&text)).unwrap_or_default();
                self.piece(choice, parts, logprob)
            }
            Event::Ended { answer, finish, generated_tokens } => {
                let choice = prompt * self.n + answer;
                self.usage.completion_tokens += generated_tokens;
                self.n_running = self.n_running.saturating_sub(1);
                let splitter = self.splitters[choice].take();
                let is_over = splitter.as_ref().is_some_and(Splitter::is_over);
                let parts = splitter.map(Splitter::finish).unwrap_or_default();
                let Step::Piece(piece) = self.piece(choice, parts, None) else { unreachable!("a piece was made") };
                let finish = match finish {
                    Finish::Stop if self.has_calls[choice] => "tool_calls",
                    Finish::Stop => "stop",
                    Finish::Length if is_over => "tool_calls",
                    Finish::Length => "length",
                };
                Step::Piece(Piece { finish: Some(finish), ..piece })
            }
            Event::Failed(failure) => return Err(failure.into()),
        })
    }

    fn piece(&mut self, choice: usize, parts: Vec<Part>, token: Option<TokenLogprob>) -> Step {
        self.has_calls[choice] |= parts.iter().any(|part| matches!(part, Part::Call(_)));
        Step::Piece(Piece { choice, parts, token, finish: None })
    }
}

impl Stream for Answers {
    type Item = Result<Step, ApiError>;

    /// The next step. After the last answer, or after a failure, there is none.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.n_running == 0 {
            return Poll::Ready(None);
        }
        let step = match ready!(Pin::new(&mut self.events).poll_next(cx)) {
            Some((prompt, event)) => self.step(prompt, event),
            None => Err(ApiError::internal("the engine ended without an answer")),
        };
        if step.is_err() {
            self.n_running = 0;
        }
        Poll::Ready(Some(step))
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    pub thoughts: String,
    pub text: String,
    pub calls: Vec<Call>,
    pub tokens: Vec<TokenLogprob>,
    pub finish: Option<&'static str>,
}

/// All answers of a request, and the probabilities of its prompts where they are asked for.
pub struct Wholes {
    pub answers: Vec<Whole>,
    pub prompts: Vec<Vec<Option<TokenLogprob>>>,
    pub usage: Usage,
}

impl Wholes {
    /// Waits for the last answer.
    pub async fn collect(mut answers: Answers) -> Result<Self, ApiError> {
        let n_answers = answers.splitters.len();
        let mut wholes = vec![Whole::default(); n_answers];
        let mut prompts = vec![Vec::new(); n_answers / answers.n];
        while let Some(step) = answers.next().await {
            match step? {
                Step::Started { .. } => {}
                Step::Prompt { prompt, tokens } => prompts[prompt] = tokens,
                Step::Piece(piece) => {
                    let whole = &mut wholes[piece.choice];
                    for part in piece.parts {
                        match part {
                            Part::Thought(text) => whole.thoughts.push_str(&text),
                            Part::Text(text) => whole.text.push_str(&text),
                            Part::Call(call) => whole.calls.push(call),
                        }
                    }
                    whole.tokens.extend(piece.token);
                    whole.finish = piece.finish.or(whole.finish);
                }
            }
        }
        Ok(Self { answers: wholes, prompts, usage: answers.usage })
    }
}
