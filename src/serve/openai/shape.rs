//! What chat and text completions have in common when they are written: the object around the
//! choices.

use std::time::SystemTime;

use rand::random;
use serde_json::{Value as Json, json};

use super::answer::{Step, Whole};
use crate::serve::job::TokenLogprob;

/// Writes the choices of one kind of completion.
pub trait Shape: Send {
    /// The names of a whole answer and of a chunk, and the beginning of their ids.
    fn names(&self) -> Names;

    /// A whole answer as a choice. `prompt` has the probabilities of the prompt's tokens, or nothing.
    fn whole(&self, choice: usize, answer: &Whole, prompt: &[Option<TokenLogprob>]) -> Json;

    /// The choices that a step adds to a stream, each for a chunk of its own.
    fn chunks(&mut self, step: Step) -> Vec<Json>;
}

/// The names of a kind of completion.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub id: &'static str,
    pub whole: &'static str,
    pub chunk: &'static str,
}

/// The object around the choices.
#[derive(Clone, Debug)]
pub struct Envelope {
    id: String,
    created: u64,
    model: String,
    names: Names,
}

impl Envelope {
    /// An envelope with a new id.
    pub fn new(names: Names, model: &str) -> Self {
        Self { id: random_id(names.id), created: now(), model: model.to_owned(), names }
    }

    /// The object of a whole answer.
    pub fn whole(&self, choices: Vec<Json>, usage: Json) -> Json {
        let mut object = self.object(self.names.whole, choices);
        object["usage"] = usage;
        object
    }

    /// The object of a chunk, with the field `usage` if there is one.
    pub fn chunk(&self, choices: Vec<Json>, usage: Option<Json>) -> Json {
        let mut object = self.object(self.names.chunk, choices);
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    }

    fn object(&self, name: &str, choices: Vec<Json>) -> Json {
        json!({
            "id": self.id,
            "object": name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": concat!("longreach-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }
}

/// A name that no other answer has.
pub fn random_id(prefix: &str) -> String {
    format!("{prefix}{:024x}", random::<u128>() >> 32)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
