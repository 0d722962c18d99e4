//! What is saved of a conversation, and its text as Markdown.

use std::path::PathBuf;

use crate::app::documents::Document;
use crate::app::turns::{Cut, Turn};
use crate::checkpoint::generation_config::Wished;

/// All that is saved of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    pub id: String,
    /// The name that the user gave it. Without one it is called by its first question.
    pub name: String,
    /// Folder, GGUF file or hub id of the model; empty for the bundled one.
    pub model: String,
    pub adapter: Option<PathBuf>,
    pub sink: usize,
    pub lag: usize,
    /// Compression factor; 1 means dense.
    pub factor: u32,
    pub system: String,
    pub sampling: Wished,
    pub seed: Option<u64>,
    pub n_asked: u64,
    /// A question that was typed and not asked.
    pub draft: String,
    pub documents: Vec<Document>,
    pub turns: Vec<Turn>,
}

/// Most characters of a title.
const MAX_TITLE: usize = 60;

impl Conversation {
    /// Whether there is anything to lose.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.documents.is_empty() && self.draft.trim().is_empty() && self.name.is_empty()
    }

    /// What the list calls it.
    pub fn title(&self) -> String {
        let first = self.turns.first().map(|turn| turn.question.as_str());
        let document = self.documents.first().map(|document| document.name.as_str());
        let names = [Some(self.name.as_str()), first, document, Some(self.draft.as_str())];
        let name = names.into_iter().flatten().find(|name| !name.trim().is_empty()).unwrap_or("New chat");
        let words: String = name.split_whitespace().collect::<Vec<_>>().join(" ");
        match words.char_indices().nth(MAX_TITLE) {
            Some((end, _)) => format!("{}…", words[..end].trim_end()),
            None => words,
        }
    }

    /// The texts that a search looks at, in lower case.
    pub fn words(&self) -> String {
        let mut text = self.title();
        for turn in &self.turns {
            text.extend(["\n", &turn.question, "\n", &turn.answer]);
        }
        text.to_lowercase()
    }
}

/// The conversation as Markdown, with the documents by name.
pub fn markdown(conversation: &Conversation) -> String {
    let mut text = format!("# {}\n\n", conversation.title());
    if !conversation.system.trim().is_empty() {
        text += &format!("**Instructions**\n\n{}\n\n", conversation.system.trim());
    }
    if !conversation.documents.is_empty() {
        let names: Vec<&str> = conversation.documents.iter().map(|d| d.name.as_str()).collect();
        text += &format!("**Documents**: {}\n\n", names.join(", "));
    }
    for turn in &conversation.turns {
        text += &format!("## You\n\n{}\n\n## Model\n\n{}\n\n", turn.question, turn.answer.trim());
        match turn.cut {
            Some(Cut::Stopped(n)) => text += &format!("*Stopped after {n} tokens.*\n\n"),
            Some(Cut::Limit(n)) => text += &format!("*Cut at {n} tokens.*\n\n"),
            None => {}
        }
    }
    text
}
