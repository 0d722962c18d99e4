//! `longreach.json`: records the attention that a model or adapter was trained with, and the base
//! model of an adapter with the RoPE scaling that replaced its own.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::rope_override::RopeOverride;
use crate::attention::{Attention, Lrsa};
use crate::error::{Context, Result};
use crate::formats::gguf::Metadata;
use crate::small_file;

/// Name of the file.
pub const FILE: &str = "longreach.json";

/// The metadata key of GGUF files with the content of the file.
pub const GGUF_KEY: &str = "longreach.record";

/// Content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The attention of the training.
    #[serde(flatten)]
    pub attention: AttentionRecord,
    /// The base model of an adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseRecord>,
    /// The RoPE scaling that replaced the base model's in the training of an adapter. A trained or
    /// exported model has its scaling in its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeOverride>,
}

/// The model that an adapter was trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// Its path or id.
    pub model: String,
    /// Of its weights, as `fingerprint.rs` makes it.
    pub fingerprint: String,
}

/// An attention with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "attention", rename_all = "lowercase")]
pub enum AttentionRecord {
    /// Plain causal attention.
    Dense,
    /// LRSA with S, L and r.
    Lrsa {
        /// S.
        sink: usize,
        /// L.
        lag: usize,
        /// r, as written in the file.
        keep: f64,
    },
}

impl AttentionRecord {
    /// The record of an attention.
    pub fn of(attention: Attention) -> Self {
        match attention {
            Attention::Dense => Self::Dense,
            Attention::Lrsa(l) => Self::Lrsa { sink: l.sink(), lag: l.lag(), keep: l.keep() },
        }
    }

    /// The recorded attention.
    pub fn attention(&self) -> Result<Attention> {
        match *self {
            Self::Dense => Ok(Attention::Dense),
            Self::Lrsa { sink, lag, keep } => Ok(Attention::Lrsa(Lrsa::new(sink, lag, keep)?)),
        }
    }
}

impl Record {
    /// Reads the record in the folder `dir`, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = small_file::read_text(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is not a valid record of a training", path.display()))
    }

    /// Reads the record in the metadata of a GGUF file, if there is one.
    pub fn read_gguf(metadata: &Metadata) -> Result<Option<Self>> {
        if !metadata.contains(GGUF_KEY) {
            return Ok(None);
        }
        let text = metadata.str(GGUF_KEY)?;
        serde_json::from_str(text).map(Some).with_context(|| format!("{GGUF_KEY} is not a valid record of a training"))
    }

    /// The record as JSON.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}
