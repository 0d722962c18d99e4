//! The open model of the worker: answers questions and finds the tokens that the cache kept.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::labels::BUNDLED;
use super::message::{Control, Event, ModelCard, ModelChoice, Question};
use super::worker_site::{Open, Tell};
use crate::attention::Attention;
use crate::checkpoint::generation_config::Wished;
use crate::checkpoint::hub::needs_download;
use crate::checkpoint::load::{Loaded, Train, load_watched};
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::rope_override::RopeOverride;
use crate::error::{Context, Error, Result};
use crate::eval::{WATCHED_CHUNK, kept_map_in_chunks};
use crate::generate::{Conversation, Progress, Reply};
use crate::gpu::Device;
use crate::text::chat_template::Message;
use crate::text::question_start::question_start;
use crate::text::tokenizer::Tokenizer;

/// Prompt tokens per prefill chunk. The worker polls the stop flag between chunks.
const CHUNK: usize = 256;

/// Opens the files of a model, or the bundled one. Downloads no model.
pub(super) fn open_files(choice: &ModelChoice) -> Result<ModelFiles> {
    open_scaled_files(choice, None)
}

/// [`open_files`], with a RoPE scaling in place of the model's own.
pub(super) fn open_scaled_files(choice: &ModelChoice, scaling: Option<RopeOverride>) -> Result<ModelFiles> {
    if needs_download(&choice.model)? {
        return Err(Error::usage(format!(
            "{} is not on this machine: type its name on the Models page, which downloads it",
            choice.model
        )));
    }
    match choice.model.as_str() {
        "" => ModelFiles::bundled_scaled(choice.adapter.as_deref(), scaling),
        model => ModelFiles::open_scaled(model, choice.adapter.as_deref(), scaling),
    }
}

/// A model whose files and device are open, and whose weights are not on the device yet.
pub struct Found {
    choice: ModelChoice,
    files: ModelFiles,
    device: Device,
}

impl Found {
    /// Opens the files and the device. Errors of either show before the weights of the model take
    /// memory.
    pub fn open(choice: &ModelChoice, open: &Open) -> Result<Self> {
        let files = open_files(choice)?;
        Ok(Self { choice: choice.clone(), files, device: open(&choice.device)? })
    }
}

/// An open model with its device and conversation.
pub struct Engine {
    choice: ModelChoice,
    files: ModelFiles,
    device: Device,
    loaded: Loaded,
    conversation: Conversation,
}

impl Engine {
    /// Loads the weights of a model, until the user stops it.
    pub fn load(found: Found, control: &Control) -> Result<Self> {
        let Found { choice, files, mut device } = found;
        let (adapter, stops) = (files.adapter.as_ref(), || control.is_ending());
        let loaded = load_watched(&mut *device, &files.source, adapter, Train::Nothing, &stops)?;
        Ok(Self { choice, files, device, loaded, conversation: Conversation::default() })
    }

    /// The tokenizer for another thread, if the model has one.
    pub fn shared_tokenizer(&self) -> Option<Arc<Tokenizer>> {
        self.files.shared_tokenizer()
    }

    /// Properties for display.
    pub fn card(&self) -> ModelCard {
        let config = self.files.config();
        let name = |path: &Path| path.file_name().map_or(String::new(), |n| n.to_string_lossy().into_owned());
        let bundled = self.choice.model.is_empty();
        ModelCard {
            name: if bundled { BUNDLED.into() } else { name(Path::new(&self.choice.model)) },
            adapter: self.choice.adapter.as_deref().map(name),
            device: self.device.name(),
            n_layers: config.n_layers(),
            n_kv_heads: config.n_kv_heads,
            max_positions: config.max_positions,
            has_chat_template: self.files.template.is_some(),
            entry_bytes: (2 * config.n_kv_heads * config.head_dim * config.n_layers() * 4) as u64,
            windows: (0..config.n_layers()).filter_map(|layer| config.window(layer)).collect(),
            recommended: self.files.generation.conversational(&Wished::default()).ok(),
            recorded: match self.files.recorded {
                Some(Attention::Lrsa(l)) => Some((l.sink(), l.lag(), l.keep())),
                _ => None,
            },
        }
    }

    /// The prompt: the conversation up to the start of the answer, or up to what the answer says so
    /// far.
    fn prompt(&self, question: &Question) -> Result<String> {
        let Some(template) = &self.files.template else {
            // A base model without a chat template continues plain text. An answer follows its
            // question as the model said it.
            let mut text = match question.system.as_str() {
                "" => question.document.to_string(),
                system => format!("{system}\n\n{}", question.document),
            };
            for turn in &question.turns {
                let is_apart = text.is_empty() || text.ends_with(char::is_whitespace) || turn.question.is_empty();
                if !is_apart {
                    text.push(' ');
                }
                text += &turn.question;
                text += &turn.answer;
            }
            return Ok(text);
        };
        let mut messages = Vec::new();
        if !question.system.is_empty() {
            messages.push(Message::new("system", question.system.clone()));
        }
        for (i, turn) in question.turns.iter().enumerate() {
            let asked = match i {
                0 if !question.document.is_empty() => format!("{}\n\n{}", question.document, turn.question),
                _ => turn.question.clone(),
            };
            messages.push(Message::new("user", asked));
            if i + 1 < question.turns.len() && !turn.answer.is_empty() {
                messages.push(Message::new("assistant", turn.answer.clone()));
            }
        }
        let said = question.turns.last().map_or("", |turn| &turn.answer);
        Ok(template.render(&messages.into(), true)? + said)
    }

    /// Answers a question and streams the answer as events.
    pub fn answer(&mut self, question: &Question, control: &Control, tell: &Tell) -> Result<()> {
        let prompt = self.prompt(question)?;
        let question_start = question_start(&prompt, |other| self.prompt(&question.asking(other)))?;
        let reply = Reply {
            prompt: &prompt,
            question_start: Some(question_start),
            attention: question.attention,
            sampling: self.files.generation.conversational(&question.sampling)?,
            max_tokens: question.max_tokens,
            chunk: CHUNK,
            add_special: self.files.template.is_none(),
            stop: self.files.stop.ids(),
            stop_texts: &self.files.generation.stop_texts,
            seed: question.seed,
            max_positions: self.files.config().max_positions,
        };
        let mut first_said = None;
        let mut watch = |progress: Progress<'_>| {
            match progress {
                Progress::Fed { done, total } => tell(Event::Fed { done, total }),
                Progress::Said { text, n_tokens } => {
                    first_said.get_or_insert_with(Instant::now);
                    tell(Event::Said(text.to_string()));
                    tell(Event::Grown(n_tokens));
                }
            }
            if control.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (tokenizer, model) = (self.files.tokenizer()?, &mut self.loaded.model);
        let answer = self.conversation.answer(&mut *self.device, model, tokenizer, &reply, &mut watch)?;
        // The first token comes from reading the prompt.
        if let Some(since) = first_said.filter(|_| answer.n_said > 8) {
            tell(Event::Speed((answer.n_said - 1) as f64 / since.elapsed().as_secs_f64().max(1e-9)));
        }
        tell(Event::Answered(answer));
        Ok(())
    }

    /// Sends the tokens that the question's attention keeps of a conversation. The conversation may be
    /// another than the one in the cache: the app may have restored it.
    pub fn kept(&mut self, question: &Question, control: &Control, tell: &Tell) -> Result<()> {
        let Attention::Lrsa(lrsa) = question.attention else {
            return Err(Error::usage("the dense cache keeps every token: choose a compression first"));
        };
        let prompt = self.prompt(question)?;
        let tokenizer = self.files.tokenizer()?;
        let ids = match self.files.template {
            _ if self.conversation.text() == prompt => self.conversation.ids().to_vec(),
            Some(_) => tokenizer.encode(&prompt, false)?,
            None => tokenizer.encode_prompt(&prompt)?,
        };
        let mut watch = |done| {
            tell(Event::KeptSoFar { done, total: ids.len() });
            if control.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (device, model) = (&mut *self.device, &mut self.loaded.model);
        let map = kept_map_in_chunks(device, model, tokenizer, &ids, lrsa, WATCHED_CHUNK, &mut watch)
            .context("finding the tokens that the cache kept")?;
        tell(map.map_or(Event::Stopped, |map| Event::Kept(Box::new(map))));
        Ok(())
    }
}
