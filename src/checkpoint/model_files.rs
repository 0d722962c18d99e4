//! Everything that belongs to a model besides its device tensors: weights on disk, tokenizer, chat template, stop tokens, the
//! adapter and the attention it was trained with. One opening for the command line, the app and the library.

use std::path::Path;

use crate::attention::Attention;
use crate::checkpoint::adapter_file::{Adapter, read_adapter};
use crate::checkpoint::hub;
use crate::checkpoint::record::AttentionRecord;
use crate::checkpoint::weights::WeightSource;
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::text::chat_template::{ChatTemplate, Message};
use crate::text::stop::StopTokens;
use crate::text::tokenizer::Tokenizer;

/// A model's files, opened and checked.
pub struct ModelFiles {
    /// Weights and configuration.
    pub source: WeightSource,
    /// Why there is no tokenizer, where there is none: token ids still work.
    tokenizer: std::result::Result<Tokenizer, String>,
    /// The chat template, if the model has one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end a text.
    pub stop: StopTokens,
    /// The adapter.
    pub adapter: Option<Adapter>,
    /// What `longreach.json` beside the adapter, or else beside the model, records.
    pub recorded: Option<Attention>,
}

impl ModelFiles {
    /// Opens `model` (a folder, a GGUF file or a hub id) and the adapter folder.
    pub fn open(model: &str, adapter: Option<&Path>) -> Result<Self> {
        let path = hub::resolve(model)?;
        let source = WeightSource::open(&path)?;
        let (tokenizer, template, stop) = match (source.gguf_metadata(), source.dir()) {
            (Some(metadata), _) => {
                let tokenizer = Tokenizer::from_gguf(metadata)?;
                let stop = StopTokens::from_gguf(metadata, &tokenizer)?;
                (Ok(tokenizer), ChatTemplate::from_gguf(metadata)?, stop)
            }
            (None, dir) => {
                let dir = dir.unwrap_or(&path);
                let tokenizer = if has_tokenizer(dir) {
                    Ok(Tokenizer::from_dir(dir)?)
                } else {
                    Err(format!("{} holds no tokenizer.json", dir.display()))
                };
                let stop = StopTokens::from_dir(dir, tokenizer.as_ref().ok())?;
                (tokenizer, ChatTemplate::from_dir(dir)?, stop)
            }
        };
        let adapter_host = adapter.map(|dir| read_adapter(dir, source.config())).transpose()?;
        let record = match (adapter, source.dir()) {
            (Some(dir), _) | (None, Some(dir)) => AttentionRecord::read(dir)?,
            (None, None) => None,
        };
        let recorded = record.map(|r| r.attention()).transpose()?;
        Ok(Self { source, tokenizer, template, stop, adapter: adapter_host, recorded })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        self.source.config()
    }

    /// The tokenizer, or why there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let why =
            |why: &String| Error::new(format!("{why}: text needs a tokenizer; token ids (`ids`) work without one"));
        self.tokenizer.as_ref().map_err(why)
    }

    /// Token ids of a prompt: as one turn of the user where the model has a chat template and `chat` is set, else as it stands.
    pub fn prompt_ids(&self, text: &str, chat: bool) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        let ids = match &self.template {
            Some(template) if chat => {
                let turn = template.render(&[Message::new("user", text)], true)?;
                tokenizer.encode(&turn, false)? // the template wrote BOS where the model wants it
            }
            _ => tokenizer.encode(text, true)?,
        };
        let vocab = self.config().vocab;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            crate::bail!("the tokenizer does not belong to this model: it gave token {id}, the model has {vocab}");
        }
        if ids.is_empty() {
            return Err(Error::usage("the prompt has no tokens: this tokenizer drops all of its text"));
        }
        Ok(ids)
    }
}

fn has_tokenizer(dir: &Path) -> bool {
    ["tokenizer.json", "tokenizer.model"].iter().any(|f| dir.join(f).is_file())
}
