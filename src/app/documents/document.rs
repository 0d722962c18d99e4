//! A document that the user asks about, and the text of several together.

use std::sync::Arc;

use crate::app::message::TokenCount;

/// A document that the user asks about.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The name of its file.
    pub name: String,
    pub text: Arc<str>,
    /// Tokens of the text by the model's tokenizer; `None` until they are counted, and without one.
    pub n_tokens: Option<usize>,
    /// Whether the worker is counting them.
    pub is_counting: bool,
    /// What the user should know about the text, such as pages that have none. May be empty.
    pub note: String,
}

impl Document {
    pub fn new(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), text: text.into(), n_tokens: None, is_counting: false, note: String::new() }
    }

    /// Begins a count by the tokenizer of the model with this number.
    pub fn begin_count(&mut self, serial: u64) -> TokenCount {
        (self.n_tokens, self.is_counting) = (None, true);
        TokenCount { serial, text: self.text.clone(), n_tokens: None }
    }

    /// Whether another document says the same under the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.text == other.text
    }
}

/// The text that a question begins with. One document is its text. Each of several follows its name,
/// a colon and a blank line, and blank lines separate them: "a.txt:\n\n…\n\nb.txt:\n\n…".
pub fn joined(documents: &[Document]) -> Arc<str> {
    match documents {
        [] => Arc::from(""),
        [document] => document.text.clone(),
        several => {
            let parts: Vec<String> = several.iter().map(|d| format!("{}:\n\n{}", d.name, d.text.trim_end())).collect();
            parts.join("\n\n").into()
        }
    }
}
