//! What is saved of a conversation, its entry in the list, and its text as Markdown.

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

/// A conversation in the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub id: String,
    pub title: String,
    /// The texts that a search looks at, in lower case.
    pub words: String,
    /// When it was changed, in seconds since 1970.
    pub changed: u64,
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

/// Whether two conversations would be saved alike.
pub fn is_same(a: &Conversation, b: &Conversation) -> bool {
    let texts = |c: &Conversation| c.documents.iter().map(|d| (d.name.clone(), d.text.as_ptr())).collect::<Vec<_>>();
    texts(a) == texts(b)
        && a.turns == b.turns
        && (&a.name, &a.system, &a.draft, &a.model, &a.adapter) == (&b.name, &b.system, &b.draft, &b.model, &b.adapter)
        && (a.sink, a.lag, a.factor, a.sampling, a.seed) == (b.sink, b.lag, b.factor, b.sampling, b.seed)
}

/// The name of the file that an export suggests.
pub fn export_path(title: &str) -> PathBuf {
    let plain: String = title.chars().map(|c| if c.is_alphanumeric() || " -_".contains(c) { c } else { ' ' }).collect();
    let name = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    PathBuf::from(format!("{}.md", if name.is_empty() { "chat" } else { &name }))
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
