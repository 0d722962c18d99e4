//! State of the chat page: the documents, the conversation and the tokens that the cache kept.

use std::path::{Path, PathBuf};

use super::documents::{Document, joined};
use super::kept::KeptPage;
use super::message::{ModelCard, ModelChoice, Question};
use super::turns::{self, Cut, Turn};
use crate::attention::{Attention, LayerAttention, Lrsa};
use crate::checkpoint::generation_config::Wished;
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
    /// The version that the last turn was in, if another one is being answered.
    pub version: Option<usize>,
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
    /// Instructions that the model reads before the conversation.
    pub system: String,
    /// Sampling values that the user chose. The others are those that the model recommends.
    pub sampling: Wished,
    /// Seed of every answer, if the user chose one.
    pub seed: Option<u64>,
    /// Text in the input field.
    pub draft: String,
    /// The turn whose question the user edits, and its new text.
    pub editing: Option<(usize, String)>,
    /// Questions to ask when the current answer has ended.
    pub queued: Vec<String>,
    /// What returns if the current answer comes to nothing.
    pub before: Option<Before>,
    /// Whether the input field takes the keyboard focus in the next frame.
    pub wants_focus: bool,
    /// Whether the field for the path of a document does, because what it says could not be read.
    pub wants_path: bool,
    /// During prefill: prompt tokens done and in total.
    pub fed: Option<(usize, usize)>,
    /// Attention of the last question.
    pub asked: Option<Attention>,
    /// Tokens of the conversation, cache entries of one head, and bytes of the whole cache.
    pub context: Option<(usize, usize, u64)>,
    /// While the kept tokens are found: tokens looked at and in total.
    pub kept_so_far: Option<(usize, usize)>,
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
    /// The number of answers asked for so far, from which their seeds follow.
    pub n_asked: u64,
    /// Tokens per second of the last answer.
    pub speed: Option<f64>,
    /// Whether the page shows the instructions and the sampling values.
    pub shows_settings: bool,
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
        self.turns.push(Turn::asked(question));
        Some(self.question(None, attention, max_tokens))
    }

    /// Returns the last question, for another answer. The old answer stays as another version.
    pub fn regenerate(&mut self, attention: Attention, max_tokens: usize) -> Option<Question> {
        let last = self.turns.len().checked_sub(1)?;
        let question = self.turns[last].question.clone();
        Some(self.ask_at(last, &question, attention, max_tokens))
    }

    /// Asks the edited question in place of the old one. The old one stays as another version with
    /// the turns that followed it. `None` if the text is empty or the old one.
    pub fn resend(&mut self, attention: Attention, max_tokens: usize) -> Option<Question> {
        let (i, text) = self.editing.take()?;
        let text = text.trim();
        let is_new = self.turns.get(i).is_some_and(|turn| turn.question != text);
        (is_new && !text.is_empty()).then(|| self.ask_at(i, text, attention, max_tokens))
    }

    fn ask_at(&mut self, i: usize, question: &str, attention: Attention, max_tokens: usize) -> Question {
        let version = self.turns[i].at;
        turns::branch(&mut self.turns, i, Turn::asked(question));
        self.question(Some(version), attention, max_tokens)
    }

    /// Shows another version of a turn. The next question continues from there.
    pub fn show_version(&mut self, i: usize, to: usize) {
        turns::show(&mut self.turns, i, to);
        (self.kept, self.shows_kept, self.context, self.editing) = (None, false, None, None);
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
        // An edited question stays, and an old answer returns.
        let is_edited = |version| turn.other(version).is_some_and(|old| old.question != turn.question);
        if is_nothing && let Some(version) = before.version.filter(|version| !is_edited(*version)) {
            self.drop_version(version);
            self.context = before.context;
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
        if let Some(version) = before.version {
            let question = self.drop_version(version);
            let is_same = self.turns.last().is_some_and(|turn| turn.question == question);
            typed.extend(Some(question).filter(|_| !is_same));
            self.context = before.context;
        } else if self.turns.last().is_some_and(|turn| turn.answer.is_empty()) {
            typed.extend(self.turns.pop().map(|turn| turn.question));
            self.context = before.context;
        }
        typed.append(&mut self.queued);
        for text in typed.into_iter().rev() {
            self.put_back(&text);
        }
    }

    /// Removes the last turn, which is a new version, and shows the old one. Returns its question.
    fn drop_version(&mut self, version: usize) -> String {
        let last = self.turns.len().saturating_sub(1);
        let removed = turns::remove(&mut self.turns, last, version);
        removed.into_iter().next().map_or_else(String::new, |turn| turn.question)
    }

    /// Puts a text in front of the one in the input field.
    pub fn put_back(&mut self, text: &str) {
        self.draft = match self.draft.trim() {
            "" => text.to_string(),
            _ => format!("{text}\n{}", self.draft),
        };
    }

    /// Puts the queued questions in front of the text in the input field.
    pub fn unqueue_all(&mut self) {
        for question in std::mem::take(&mut self.queued).into_iter().rev() {
            self.put_back(&question);
        }
    }

    fn question(&mut self, version: Option<usize>, attention: Attention, max_tokens: usize) -> Question {
        let n_said = self.turns.last().map_or(0, |turn| turn.answer.len());
        self.before = Some(Before { version, n_said, context: self.context });
        (self.kept, self.shows_kept, self.fed, self.asked) = (None, false, None, Some(attention));
        (self.editing, self.speed) = (None, None);
        self.n_asked += 1;
        self.as_question(attention, max_tokens)
    }

    /// The conversation with its last answer as far as it goes.
    pub fn as_question(&self, attention: Attention, max_tokens: usize) -> Question {
        Question {
            system: self.system.trim().to_string(),
            document: joined(&self.documents),
            turns: self.turns.iter().map(Turn::alone).collect(),
            attention,
            max_tokens,
            sampling: self.sampling,
            seed: self.seed.unwrap_or(self.n_asked),
        }
    }

    /// Whether the open model was trained without compression, as far as its files say.
    pub fn is_untrained(&self) -> bool {
        self.model.as_ref().is_some_and(|model| model.recorded.is_none())
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
