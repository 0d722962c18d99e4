//! A parsed template, and its renderings.

use super::ast::Program;
use super::budget::Budget;
use super::interpreter::Interpreter;
use super::parse_statements;
use super::value::Value;
use crate::error::Result;
use serde_json::{Map, Value as Json};
use std::ops::Range;

/// Stack of the thread that parses or runs a template. Its parts nest as deeply as the parser and
/// the budget allow, whatever stack the caller has.
const STACK_BYTES: usize = 64 << 20;

/// A template.
#[derive(Debug)]
pub struct Template {
    source: String,
    program: Program,
}

/// What a template writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// The byte ranges of the text that generation blocks wrote.
    pub generated: Vec<Range<usize>>,
}

impl Template {
    /// Parses a template. Fails with the line of a mistake.
    pub fn parse(source: &str) -> Result<Self> {
        let program = on_own_stack(|| parse_statements::parse(source))?;
        Ok(Self { source: source.to_owned(), program })
    }

    /// The text that was parsed.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders the template with some variables.
    ///
    /// Fails with the line if the template refuses them, makes a mistake, or needs more work,
    /// memory or nesting than the [`Budget`] has.
    pub fn render(&self, variables: &Map<String, Json>) -> Result<Rendered> {
        let markers = if self.program.has_generation { self.free_characters(variables)? } else { ['\0'; 2] };
        let text = on_own_stack(|| {
            let budget = Budget::default();
            let mut values = Vec::new();
            for (name, value) in variables {
                if let Some(number) = self.program.names.iter().position(|n| n == name) {
                    values.push((number as u32, Value::from_json(value, &budget)?));
                }
            }
            let mut interpreter = Interpreter::new(&self.program, values, markers, &budget);
            interpreter.run().map_err(|e| e.context(format!("line {}", interpreter.line)))
        })?;
        if self.program.has_generation {
            take_out(&text, markers)
        } else {
            Ok(Rendered { text, generated: Vec::new() })
        }
    }

    /// Two private-use characters that occur neither in the template nor in the variables.
    fn free_characters(&self, variables: &Map<String, Json>) -> Result<[char; 2]> {
        let mut used = Vec::new();
        private_characters(&self.source, &mut used);
        variables.values().for_each(|value| private_characters_of(value, &mut used));
        used.sort_unstable();
        used.dedup();
        let mut free = ('\u{F0000}'..='\u{FFFFD}').filter(|c| used.binary_search(c).is_err());
        match (free.next(), free.next()) {
            (Some(start), Some(end)) => Ok([start, end]),
            _ => crate::bail!("the conversation holds all private-use characters, so none is left to mark answers"),
        }
    }
}

fn private_characters(text: &str, used: &mut Vec<char>) {
    used.extend(text.chars().filter(|c| ('\u{F0000}'..='\u{FFFFD}').contains(c)));
}

fn private_characters_of(value: &Json, used: &mut Vec<char>) {
    match value {
        Json::String(text) => private_characters(text, used),
        Json::Array(items) => items.iter().for_each(|item| private_characters_of(item, used)),
        Json::Object(map) => map.iter().for_each(|(key, value)| {
            private_characters(key, used);
            private_characters_of(value, used);
        }),
        _ => {}
    }
}

/// The text without the markers, and the byte ranges that they enclosed.
fn take_out(marked: &str, markers: [char; 2]) -> Result<Rendered> {
    let [start, end] = markers;
    let mut text = String::with_capacity(marked.len());
    let (mut generated, mut open) = (Vec::new(), None);
    for piece in marked.split_inclusive(markers) {
        let marker = piece.chars().next_back().filter(|c| markers.contains(c));
        text.push_str(&piece[..piece.len() - marker.map_or(0, char::len_utf8)]);
        match (marker, open) {
            (None, _) => {}
            (Some(c), None) if c == start => open = Some(text.len()),
            (Some(c), Some(from)) if c == end => {
                generated.push(from..text.len());
                open = None;
            }
            _ => crate::bail!("the template has nested or unbalanced {{% generation %}} blocks"),
        }
    }
    Ok(Rendered { text, generated })
}

/// Runs something on a thread with a stack of its own.
fn on_own_stack<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".to_owned()).stack_size(STACK_BYTES);
        match thread.spawn_scoped(scope, run)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
