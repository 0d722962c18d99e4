//! `longreach.json`: which attention a model or an adapter was trained with, kept beside its weights.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::attention::{Attention, Lrsa};
use crate::error::{Context, Result};
use crate::small_file;

/// Name of the file.
pub const FILE: &str = "longreach.json";

/// Content of the file.
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
        /// r, as it was written.
        keep: f64,
    },
}

impl AttentionRecord {
    /// What to write for an attention.
    pub fn of(attention: Attention) -> Self {
        match attention {
            Attention::Dense => Self::Dense,
            Attention::Lrsa(l) => Self::Lrsa { sink: l.sink(), lag: l.lag(), keep: l.keep() },
        }
    }

    /// The attention that the record names.
    pub fn attention(&self) -> Result<Attention> {
        match *self {
            Self::Dense => Ok(Attention::Dense),
            Self::Lrsa { sink, lag, keep } => Ok(Attention::Lrsa(Lrsa::new(sink, lag, keep)?)),
        }
    }

    /// The record beside the weights in `dir`, if there is one.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = small_file::read_text(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is not a record of an attention", path.display()))
    }

    /// Its text.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}
