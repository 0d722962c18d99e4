//! The commands that show and change the settings of a conversation.

use super::machine::Chat;
use super::screen::Screen;
use super::settings::{attention, described, wished};
use crate::attention::{Attention, Lrsa};
use crate::error::{Error, Result};

impl Chat {
    /// `/system`
    pub fn set_system(&mut self, text: Option<String>, screen: &mut dyn Screen) -> Result<()> {
        let Some(text) = text else {
            let shown = self.turns.system.clone();
            screen.tell(&shown.unwrap_or_else(|| "there is no system message".into()));
            return Ok(());
        };
        if self.engine.files()?.template.is_none() {
            return Err(Error::usage("a system message is for the chat template, and this model has none"));
        }
        self.turns.system = Some(text).filter(|text| text != "none");
        if !self.turns.turns.is_empty() {
            screen.note("the next question reads the conversation anew, with this system message");
        }
        Ok(())
    }

    /// `/attention`
    pub fn set_attention(&mut self, name: Option<&str>, screen: &mut dyn Screen) -> Result<()> {
        let Some(name) = name else {
            screen.tell(&self.attention.to_string());
            return Ok(());
        };
        let recorded = self.engine.files()?.recorded;
        let base = match (self.attention, recorded) {
            (Attention::Lrsa(lrsa), _) | (_, Some(Attention::Lrsa(lrsa))) => lrsa,
            _ => Lrsa::default(),
        };
        self.attention = attention(name, base)?;
        let anew = if self.engine.n_tokens() > 0 { "; the next question reads the conversation anew" } else { "" };
        screen.note(&format!("attention: {}{anew}", self.attention));
        Ok(())
    }

    /// `/sampling`
    pub fn set_sampling(&mut self, words: &[String], screen: &mut dyn Screen) -> Result<()> {
        let wished = wished(words, self.settings.wished)?;
        let sampling = self.engine.files()?.generation.conversational(&wished)?;
        self.settings.wished = wished;
        screen.tell(&described(&sampling));
        Ok(())
    }

    /// `/seed`
    pub fn set_seed(&mut self, seed: Option<u64>, screen: &mut dyn Screen) {
        if let Some(seed) = seed {
            (self.settings.seed, self.settings.n_answers) = (seed, 0);
        }
        screen.tell(&format!("seed {}", self.settings.seed));
    }
}
