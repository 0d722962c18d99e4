//! The chat page's state: a document, a conversation about it, and what the cache keeps of both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::message::{ModelCard, ModelChoice, Question, Turn};
use crate::attention::{Attention, LayerAttention, Lrsa};
use crate::eval::KeptMap;

/// A document that questions are about.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub name: String,
    pub text: Arc<str>,
}

/// A model that is closed for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    pub choice: ModelChoice,
    /// S, L and r that its adapter was trained with.
    pub recorded: Option<(usize, usize, f64)>,
}

/// The page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    pub model: Option<ModelCard>,
    pub document: Option<Document>,
    pub turns: Vec<Turn>,
    /// What is being typed.
    pub draft: String,
    /// Tokens of the prompt read so far, of how many, while it is read.
    pub fed: Option<(usize, usize)>,
    /// The attention of the last question.
    pub asked: Option<Attention>,
    /// Tokens of the conversation, entries of one head's cache, and bytes of all.
    pub context: Option<(usize, usize, u64)>,
    pub kept: Option<KeptMap>,
    /// Which layer and head the kept tokens are shown of.
    pub layer: Option<usize>,
    pub head: Option<usize>,
    /// Whether the kept tokens are shown instead of the conversation.
    pub shows_kept: bool,
    /// Size of the text of the kept view.
    pub text_size: f32,
    /// What is open, or was at last.
    pub choice: ModelChoice,
    /// The model that was closed for a training run and is to be opened after it.
    pub closed: Option<Closed>,
    /// The one whose opening again goes on.
    pub reopening: Option<Closed>,
    /// Path of a document, as it is typed.
    pub path: String,
    /// How often the last question was asked again.
    pub n_again: u64,
}

/// The compressions of the dials, and their names.
pub const FACTORS: [(u32, &str); 4] = [(1, "dense"), (2, "2x"), (4, "4x"), (8, "8x")];

/// The attention for a compression factor, 1 for dense.
pub fn attention(sink: usize, lag: usize, factor: u32) -> crate::error::Result<Attention> {
    if factor <= 1 {
        return Ok(Attention::Dense);
    }
    Ok(Attention::Lrsa(Lrsa::new(sink, lag, 1.0 / f64::from(factor))?))
}

impl Chat {
    /// Begins a turn with what is typed: the question to ask. None where nothing is typed.
    pub fn ask(&mut self, attention: Attention, max_tokens: usize) -> Option<Question> {
        let question = self.draft.trim().to_string();
        if question.is_empty() {
            return None;
        }
        self.draft.clear();
        self.n_again = 0;
        self.turns.push(Turn { question, ..Turn::default() });
        Some(self.question(attention, max_tokens))
    }

    /// Takes the last answer back: the question to ask again, for an answer that is drawn.
    pub fn regenerate(&mut self, attention: Attention, max_tokens: usize) -> Option<Question> {
        let turn = self.turns.last_mut()?;
        turn.answer.clear();
        turn.is_cut = false;
        self.n_again += 1;
        Some(self.question(attention, max_tokens))
    }

    fn question(&mut self, attention: Attention, max_tokens: usize) -> Question {
        (self.kept, self.shows_kept, self.fed, self.asked) = (None, false, None, Some(attention));
        let document = self.document.as_ref().map_or_else(|| Arc::from(""), |d| d.text.clone());
        Question { document, turns: self.turns.clone(), attention, max_tokens, seed: self.n_again }
    }

    /// Forgets the conversation but not the document.
    pub fn restart(&mut self) {
        self.turns.clear();
        (self.kept, self.shows_kept, self.context, self.fed) = (None, false, None, None);
    }

    /// The model is closed for a while: a run needs its memory, or the engine is started anew.
    pub fn close_for_a_while(&mut self) {
        self.closed = self.model.as_ref().map(|m| Closed { choice: self.choice.clone(), recorded: m.recorded });
        self.close();
    }

    /// The model is closed. The conversation stays: the next one can go on with it, and a failure must not cost it.
    pub fn close(&mut self) {
        (self.model, self.kept, self.shows_kept, self.context) = (None, None, false, None);
    }

    /// The conversation as a text file.
    pub fn transcript(&self) -> String {
        let mut text = String::new();
        if let Some(document) = &self.document {
            text += &format!("Document: {}\n\n", document.name);
        }
        for turn in &self.turns {
            text += &format!("You: {}\n\nModel: {}\n\n", turn.question, turn.answer);
        }
        text
    }

    /// The conversation has so many tokens now.
    pub fn grown(&mut self, n_tokens: usize) {
        if let Some(attention) = self.asked {
            let (entries, bytes) = self.cache_size(attention, n_tokens);
            self.context = Some((n_tokens, entries, bytes));
        }
    }

    /// Entries of one head in a layer with full attention, and bytes of all layers, after so many tokens.
    pub fn cache_size(&self, attention: Attention, n_tokens: usize) -> (usize, u64) {
        let entries = attention.cache_length(n_tokens);
        let Some(model) = &self.model else { return (entries, 0) };
        let n_full = model.n_layers - model.windows.len();
        let of_windows: usize = model.windows.iter().map(|&w| LayerAttention::Window(w).cache_length(n_tokens)).sum();
        let of_layers = (n_full * entries + of_windows) as u64;
        (entries, of_layers * model.entry_bytes / model.n_layers.max(1) as u64)
    }
}

/// Largest document that is taken in.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Reads a document: text in UTF-8.
pub fn read_document(path: &Path) -> crate::error::Result<Document> {
    use crate::error::{Context, Error};
    let show = || format!("opening {}", path.display());
    let size = std::fs::metadata(path).with_context(show)?.len();
    if size > MAX_DOCUMENT {
        return Err(Error::usage(format!(
            "{} has {} MiB; a document may have {} MiB of text",
            path.display(),
            size >> 20,
            MAX_DOCUMENT >> 20
        )));
    }
    let bytes = std::fs::read(path).with_context(show)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::usage(format!("{} is not text in UTF-8: save it as plain text first", path.display())))?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
    Ok(Document { name, text: text.into() })
}

/// Whether a dropped path is a model rather than a document.
pub fn is_model(path: &Path) -> bool {
    path.is_dir() && path.join("config.json").exists()
        || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Whether a dropped path is an adapter.
pub fn is_adapter(path: &Path) -> bool {
    path.is_dir() && path.join("adapter_config.json").exists()
}

/// What a dropped path is taken for.
#[derive(Clone, Debug, PartialEq)]
pub enum Dropped {
    Model(PathBuf),
    Adapter(PathBuf),
    Document(PathBuf),
}

/// Tells dropped things apart.
pub fn dropped(path: PathBuf) -> Dropped {
    if is_adapter(&path) {
        Dropped::Adapter(path)
    } else if is_model(&path) {
        Dropped::Model(path)
    } else {
        Dropped::Document(path)
    }
}
