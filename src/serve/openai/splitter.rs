//! Splits an answer that arrives piece by piece into thoughts, text and tool calls.

use super::thoughts::Thoughts;
use super::tools::{Part, Scanner};

/// What splits an answer. The default takes everything for text.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    /// Finds thoughts, if the model has any.
    pub thoughts: Option<Thoughts>,
    /// Finds tool calls, if the request has tools.
    pub calls: Option<Scanner>,
}

impl Splitter {
    /// Takes the next piece.
    pub fn push(&mut self, piece: &str) -> Vec<Part> {
        let (thought, rest) = match &mut self.thoughts {
            Some(thoughts) => thoughts.push(piece),
            None => (String::new(), piece.to_owned()),
        };
        self.parts(thought, rest)
    }

    /// Whether the answer has ended with its first call, and the rest is left out.
    pub fn is_over(&self) -> bool {
        self.calls.as_ref().is_some_and(Scanner::is_over)
    }

    /// What was held back at the answer's end.
    pub fn finish(mut self) -> Vec<Part> {
        let (thought, rest) = self.thoughts.take().map(Thoughts::finish).unwrap_or_default();
        let mut parts = self.parts(thought, rest);
        parts.extend(self.calls.map(Scanner::finish).unwrap_or_default());
        parts
    }

    fn parts(&mut self, thought: String, rest: String) -> Vec<Part> {
        let mut parts: Vec<_> = (!thought.is_empty()).then_some(Part::Thought(thought)).into_iter().collect();
        match &mut self.calls {
            Some(calls) => parts.extend(calls.push(&rest)),
            None if rest.is_empty() => {}
            None => parts.push(Part::Text(rest)),
        }
        parts
    }
}
