//! Files of a conversation: documents, models and adapters, and saved conversations.

use std::path::{Path, PathBuf};

use super::machine::Chat;
use super::saved::{self, Saved};
use super::screen::Screen;
use super::settings::DEFAULT_MAX_TOKENS;
use crate::attention::Attention;
use crate::checkpoint::record::AttentionRecord;
use crate::cli::amounts::size;
use crate::cli::output::read_text_file;
use crate::error::{Context, Error, Result};
use crate::generate::SavedConversation;
use crate::grouped::{grouped, tokens};

impl Chat {
    /// `/document`
    pub fn add_document(&mut self, path: &Path, screen: &mut dyn Screen) -> Result<()> {
        let text = read_text_file(path)?;
        if text.trim().is_empty() {
            return Err(Error::usage(format!("{} has no text", path.display())));
        }
        let limit = self.engine.max_positions()?;
        let n = self.engine.files()?.tokenizer()?.encode(&text, false)?.len();
        let share = 100.0 * n as f64 / limit as f64;
        if n >= limit {
            return Err(Error::usage(format!(
                "{} has {}, and the model takes {}: give a part of it, or {}",
                path.display(),
                tokens(n),
                grouped(limit),
                self.engine.length_advice(n.saturating_add(DEFAULT_MAX_TOKENS))?
            )));
        }
        if !self.turns.document.is_empty() {
            self.turns.document.push_str("\n\n");
        }
        self.turns.document += &text;
        screen.note(&format!(
            "{}: {}, {share:.0}% of the {} that the model takes; it goes in front of the next question",
            path.display(),
            tokens(n),
            grouped(limit)
        ));
        Ok(())
    }

    /// `/model`
    pub fn change_model(&mut self, model: Option<String>, screen: &mut dyn Screen) -> Result<()> {
        if model.is_some() {
            self.engine.change(model, None)?;
            self.take_recorded(screen)?;
            let is_plain = self.engine.files()?.template.is_none();
            if is_plain {
                screen.note(super::run::NO_TEMPLATE);
            }
        }
        screen.tell(&format!("{}; {}", self.engine.description()?, self.attention));
        Ok(())
    }

    /// `/adapter`
    pub fn change_adapter(&mut self, adapter: Option<PathBuf>, screen: &mut dyn Screen) -> Result<()> {
        self.engine.change(None, adapter)?;
        self.take_recorded(screen)?;
        screen.tell(&format!("{}; {}", self.engine.description()?, self.attention));
        Ok(())
    }

    /// Takes the attention that the files of a new model or adapter record.
    fn take_recorded(&mut self, screen: &mut dyn Screen) -> Result<()> {
        if let Some(recorded) = self.engine.files()?.recorded {
            self.attention = recorded;
        }
        if !self.turns.turns.is_empty() {
            screen.note("the next question reads the conversation anew");
        }
        Ok(())
    }

    /// `/save`
    pub fn save(&mut self, path: &Path, screen: &mut dyn Screen) -> Result<()> {
        let read = self.engine.save()?;
        let bytes: usize = read.as_ref().map_or(0, |read| read.snapshot.n_bytes());
        let attention = AttentionRecord::of(self.attention);
        let file = Saved::new(self.engine.identity()?, attention, self.settings.clone(), self.turns.clone());
        saved::write(path, file, read)?;
        let n = self.turns.turns.len();
        screen.note(&format!("saved {} and {} of cache to {}", answers(n), size(bytes as u64), path.display()));
        Ok(())
    }

    /// `/load`. A file that is none leaves the conversation as it is.
    pub fn load(&mut self, path: &Path, screen: &mut dyn Screen) -> Result<()> {
        let (file, read) = saved::read(path)?;
        self.engine.files()?.generation.conversational(&file.settings.wished)?;
        let identity = self.engine.identity()?;
        file.check_scaling(&identity).with_context(|| path.display().to_string())?;
        let mismatch = file.mismatch(&identity);
        let attention: Attention = file.attention.attention()?;
        let n = file.turns.turns.len();
        let limit = self.engine.max_positions()?;
        let unused = mismatch.or_else(|| too_large(read.as_ref()?, limit));
        let how = match (read, unused) {
            (Some(read), None) => {
                let n_tokens = read.n_fed;
                self.engine.restore(read).map_err(|e| e.context(format!("the cache in {}", path.display())))?;
                format!("{} in the cache", tokens(n_tokens))
            }
            (_, unused) => {
                self.engine.forget();
                let why = unused.unwrap_or_else(|| "it has no cache".into());
                format!("{why}, so the next question reads its messages anew")
            }
        };
        (self.turns, self.settings, self.attention) = (file.turns, file.settings, attention);
        screen.note(&format!("loaded {} from {}: {how}; attention: {attention}", answers(n), path.display()));
        Ok(())
    }
}

/// Why a cache is too large for the limit on tokens; `None` if it is not.
fn too_large(read: &SavedConversation, limit: usize) -> Option<String> {
    let n = grouped(read.snapshot.capacity);
    (!read.fits(limit)).then(|| format!("its cache has room for {n} tokens, more than the limit of {}", grouped(limit)))
}

fn answers(n: usize) -> String {
    if n == 1 { "1 answer".into() } else { format!("{n} answers") }
}
