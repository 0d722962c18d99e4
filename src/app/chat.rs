//! State of the chat page: the documents, the conversation and the tokens that the cache kept.

use std::path::{Path, PathBuf};

use super::documents::{Document, joined};
use super::kept::KeptPage;
use super::message::{Cut, ModelCard, ModelChoice, Question, Turn};
use crate::attention::{Attention, LayerAttention, Lrsa};
use crate::eval::KeptMap;
use crate::generate::{Answer, StoppedBy};

/// A model that the app closed temporarily and opens again later.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    pub choice: ModelChoice,
    /// S, L and r of the adapter's training run.
    pub recorded: Option<(usize, usize, f64)>,
}

/// The state to return to if the current answer comes to nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Before {
    /// The last turn, if its answer is generated again.
    pub turn: Option<Turn>,
    /// Bytes of the answer, if it is continued.
    pub n_said: usize,
    /// The figures of the cache.
    pub context: Option<(usize, usize, u64)>,
}

/// State of the chat page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    pub model: Option<ModelCard>,
    pub documents: Vec<Document>,
    /// How often a model has opened.
    pub n_opened: u64,
    pub turns: Vec<Turn>,
    /// Text in the input field.
    pub draft: String,
    /// Questions to ask when the current answer has ended.
    pub queued: Vec<String>,
    /// What returns if the current answer comes to nothing.
    pub before: Option<Before>,
    /// Whether the input field takes the keyboard focus in the next frame.
    pub wants_focus: bool,
    /// During prefill: prompt tokens done and in total.
    pub fed: Option<(usize, usize)>,
    /// Attention of the last question.
    pub asked: Option<Attention>,
    /// Tokens of the conversation, cache entries of one head, and bytes of the whole cache.
    pub context: Option<(usize, usize, u64)>,
    pub kept: Option<KeptMap>,
    pub kept_page: KeptPage,
    /// Layer selected in the view of kept tokens; `None` for all layers.
    pub layer: Option<usize>,
    /// KV head selected in the view of kept tokens; `None` for all heads.
    pub head: Option<usize>,
    /// Whether the page shows the kept tokens instead of the conversation.
    pub shows_kept: bool,
    /// Font size of the view of kept tokens.
    pub text_size: f32,
    /// The model that is open, or the last one that was.
    pub choice: ModelChoice,
    /// The model that the worker is opening.
    pub opening: Option<ModelChoice>,
    /// The model to open again, for example after a training run.
    pub closed: Option<Closed>,
    /// The model that the worker is opening again.
    pub reopening: Option<Closed>,
    /// Path in the document field.
    pub path: String,
    /// How often the user regenerated the last answer.
    pub n_again: u64,
}

/// Compression factors on offer, with their labels.
pub const FACTORS: [(u32, &str); 4] = [(1, "dense"), (2, "2x"), (4, "4x"), (8, "8x")];

/// The attention for a compression factor; 1 means dense.
pub fn attention(sink: usize, lag: usize, factor: u32) -> crate::error::Result<Attention> {
    if factor <= 1 {
        return Ok(Attention::Dense);
    }
    Ok(Attention::Lrsa(Lrsa::new(sink, lag, 1.0 / f64::from(factor))?))
}

impl Chat {
    /// Starts a turn with the text of the input field and returns the question to send. `None` if
    /// the field is empty.
    pub fn ask(&mut self, attention: Attention, max_tokens: usize) -> Option<Question> {
        let question = self.draft.trim().to_string();
        if question.is_empty() {
            return None;
        }
        self.draft.clear();
        self.n_again = 0;
        self.turns.push(Turn { question, ..Turn::default() });
        Some(self.question(None, attention, max_tokens))
    }

    /// Returns the last question with a new seed, for a sampled answer. The old answer returns if the
    /// new one comes to nothing.
    pub fn regenerate(&mut self, attention: Attention, max_tokens: usize) -> Option<Question> {
        let turn = self.turns.last_mut()?;
        let question = turn.question.clone();
        let old = std::mem::replace(turn, Turn { question, ..Turn::default() });
        self.n_again += 1;
        Some(self.question(Some(old), attention, max_tokens))
    }

    /// Returns the last question with the beginning of its answer, which the model continues. `None`
    /// if nothing cut the answer.
    pub fn go_on(&mut self, attention: Attention, max_tokens: usize) -> Option<Question> {
        self.can_continue().then(|| self.question(None, attention, max_tokens))
    }

    /// Whether the last answer was cut and the model has room for more of it.
    pub fn can_continue(&self) -> bool {
        self.turns.last().is_some_and(|turn| turn.cut.is_some() && !turn.answer.is_empty()) && self.has_room()
    }

    /// Whether the conversation is shorter than the model allows.
    pub fn has_room(&self) -> bool {
        let limit = self.model.as_ref().map_or(0, |model| model.max_positions);
        self.context.is_none_or(|(n_tokens, ..)| n_tokens < limit)
    }

    /// Takes the end of an answer. An answer that was stopped before its first text leaves what was
    /// there before.
    pub fn answered(&mut self, answer: &Answer) {
        let before = self.before.take().unwrap_or_default();
        self.fed = None;
        self.context = Some((answer.n_tokens, answer.kv_entries, answer.kv_bytes));
        let Some(turn) = self.turns.last_mut() else { return };
        let is_nothing = answer.stopped_by == StoppedBy::Caller && answer.text.is_empty();
        if is_nothing && let Some(old) = before.turn {
            (*turn, self.context) = (old, before.context);
        } else if !is_nothing || before.n_said == 0 {
            turn.answer.truncate(before.n_said);
            turn.answer += &answer.text;
            let n_tokens = turn.cut.map_or(0, Cut::n_tokens) + answer.n_said;
            turn.cut = match answer.stopped_by {
                StoppedBy::Caller => Some(Cut::Stopped(n_tokens)),
                StoppedBy::MaxTokens => Some(Cut::Limit(n_tokens)),
                StoppedBy::StopToken | StoppedBy::StopText | StoppedBy::Constraint => None,
            };
        }
    }

    /// Takes the failure of an answer. An old answer returns. A question without any answer goes back
    /// to the input field with those that waited, so that the user does not lose them.
    pub fn failed(&mut self) {
        let before = self.before.take().unwrap_or_default();
        self.fed = None;
        let mut typed = Vec::new();
        if let (Some(old), Some(turn)) = (before.turn, self.turns.last_mut()) {
            (*turn, self.context) = (old, before.context);
        } else if self.turns.last().is_some_and(|turn| turn.answer.is_empty()) {
            typed.extend(self.turns.pop().map(|turn| turn.question));
            self.context = before.context;
        }
        typed.append(&mut self.queued);
        for text in typed.into_iter().rev() {
            self.put_back(&text);
        }
    }

    /// Puts a text in front of the one in the input field.
    pub fn put_back(&mut self, text: &str) {
        self.draft = match self.draft.trim() {
            "" => text.to_string(),
            _ => format!("{text}\n{}", self.draft),
        };
    }

    fn question(&mut self, old: Option<Turn>, attention: Attention, max_tokens: usize) -> Question {
        let n_said = self.turns.last().map_or(0, |turn| turn.answer.len());
        self.before = Some(Before { turn: old, n_said, context: self.context });
        (self.kept, self.shows_kept, self.fed, self.asked) = (None, false, None, Some(attention));
        let document = joined(&self.documents);
        Question { document, turns: self.turns.clone(), attention, max_tokens, seed: self.n_again }
    }

    /// Clears the conversation and keeps the documents.
    pub fn restart(&mut self) {
        self.turns.clear();
        (self.kept, self.shows_kept, self.context, self.fed) = (None, false, None, None);
    }

    /// Closes the model temporarily: a training run needs its memory, or the engine restarts.
    pub fn close_for_a_while(&mut self) {
        self.closed = self.model.as_ref().map(|m| Closed { choice: self.choice.clone(), recorded: m.recorded });
        self.close();
    }

    /// Closes the model. The conversation stays, so the next model can continue it and a failure
    /// does not lose it.
    pub fn close(&mut self) {
        (self.model, self.kept, self.shows_kept, self.context) = (None, None, false, None);
    }

    /// The conversation as plain text.
    pub fn transcript(&self) -> String {
        let mut text = String::new();
        for document in &self.documents {
            text += &format!("Document: {}\n", document.name);
        }
        if !self.documents.is_empty() {
            text.push('\n');
        }
        for turn in &self.turns {
            text += &format!("You: {}\n\nModel: {}\n\n", turn.question, turn.answer);
        }
        text
    }

    /// Updates the length of the conversation.
    pub fn grown(&mut self, n_tokens: usize) {
        if let Some(attention) = self.asked {
            let (entries, bytes) = self.cache_size(attention, n_tokens);
            self.context = Some((n_tokens, entries, bytes));
        }
    }

    /// Entries of one head in a layer with full attention, and bytes of all layers, after so many
    /// tokens.
    pub fn cache_size(&self, attention: Attention, n_tokens: usize) -> (usize, u64) {
        let entries = attention.cache_length(n_tokens);
        let Some(model) = &self.model else { return (entries, 0) };
        let n_full = model.n_layers - model.windows.len();
        let of_windows: usize = model.windows.iter().map(|&w| LayerAttention::Window(w).cache_length(n_tokens)).sum();
        let of_layers = (n_full * entries + of_windows) as u64;
        (entries, of_layers * model.entry_bytes / model.n_layers.max(1) as u64)
    }
}

/// Whether a dropped path is a model: a folder with `config.json`, or a GGUF file.
pub fn is_model(path: &Path) -> bool {
    path.is_dir() && path.join("config.json").exists()
        || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Whether a dropped path is an adapter folder.
pub fn is_adapter(path: &Path) -> bool {
    path.is_dir() && path.join("adapter_config.json").exists()
}

/// A path dropped on the window, by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Dropped {
    Model(PathBuf),
    Adapter(PathBuf),
    Document(PathBuf),
}

/// Classifies a dropped path.
pub fn dropped(path: PathBuf) -> Dropped {
    if is_adapter(&path) {
        Dropped::Adapter(path)
    } else if is_model(&path) {
        Dropped::Model(path)
    } else {
        Dropped::Document(path)
    }
}
