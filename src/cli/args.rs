//! Flags that several verbs share, and what follows from them.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::output::note;
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Error, Result};
use crate::gpu::{Device, open_device};

/// Which model.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// Folder with a Hugging Face model, GGUF file, or hub id such as org/name
    #[arg(long, value_name = "DIR|FILE.gguf|HUB-ID")]
    pub model: String,
    /// Folder with a LoRA adapter in PEFT layout
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Longest sequence allowed, in place of the model's own limit; RoPE stays unchanged
    #[arg(long, value_name = "N")]
    pub max_positions: Option<usize>,
}

impl ModelArgs {
    /// Opens the model's files.
    pub fn open(&self) -> Result<ModelFiles> {
        ModelFiles::open(&self.model, self.adapter.as_deref())
    }

    /// Refuses sequences that the model was not made for, unless `--max-positions` allows them.
    pub fn check_length(&self, files: &ModelFiles, n_tokens: usize) -> Result<()> {
        let limit = self.max_positions.unwrap_or(files.config().max_positions);
        if n_tokens > limit {
            return Err(Error::usage(format!(
                "{n_tokens} tokens exceed the {limit} positions that {} allows: shorten the input, or lift the limit with \
                 --max-positions {n_tokens} (RoPE stays unchanged, so quality beyond the limit is not promised)",
                if self.max_positions.is_some() { "--max-positions" } else { "the model" }
            )));
        }
        if n_tokens > files.config().max_positions {
            note(&format!(
                "note: {n_tokens} tokens lie beyond the {} positions that the model was trained for; --max-positions lifts the \
                 limit and leaves RoPE unchanged",
                files.config().max_positions
            ));
        }
        Ok(())
    }
}

/// Which device.
#[derive(Args, Clone, Debug)]
pub struct DeviceArgs {
    /// auto, cpu, an index of `longreach info`, or part of an adapter's name (vulkan:, gl:, metal:, dx12: narrow it)
    #[arg(long, default_value = "auto", value_name = "auto|cpu|INDEX|NAME")]
    pub device: String,
}

impl DeviceArgs {
    /// Opens it.
    pub fn open(&self) -> Result<Device> {
        open_device(&self.device)
    }
}

/// Names of the attentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AttentionName {
    /// Every earlier token
    Dense,
    /// Lag-Relative Sparse Attention
    Lrsa,
}

/// Which attention.
#[derive(Args, Clone, Debug)]
pub struct AttentionArgs {
    /// Attention [default: what longreach.json beside the adapter or model records, else lrsa for train and dense otherwise]
    #[arg(long, value_enum)]
    pub attention: Option<AttentionName>,
    /// S: first tokens that are always visible [default: recorded, else 16]
    #[arg(long, value_name = "S")]
    pub sink: Option<usize>,
    /// L: tokens of a partition [default: recorded, else 128; 1024 for 7B-class models]
    #[arg(long, value_name = "L")]
    pub lag: Option<usize>,
    /// r: fraction of each partition kept, 0.25 for 4x compression [default: recorded, else 0.25]. train takes a list such as
    /// 0.25,0.5,0.125, of which each step draws one; the first is recorded and evaluated with
    #[arg(long, value_name = "R", value_delimiter = ',')]
    pub keep: Option<Vec<f64>>,
}

impl AttentionArgs {
    /// [`AttentionArgs::resolve_list`] for verbs that run with one attention.
    pub fn resolve(&self, recorded: Option<Attention>, default: AttentionName) -> Result<Attention> {
        let (attention, keeps) = self.resolve_list(recorded, default)?;
        if keeps.len() > 1 {
            return Err(Error::usage("--keep takes one number here; a list belongs to train"));
        }
        Ok(attention)
    }

    /// The attention that the flags name, with `recorded` and then `default` where they are silent, and the list of `--keep`, of
    /// which that attention has the first.
    pub fn resolve_list(&self, recorded: Option<Attention>, default: AttentionName) -> Result<(Attention, Vec<f64>)> {
        let lrsa_flags = self.sink.is_some() || self.lag.is_some() || self.keep.is_some();
        let name = match (self.attention, recorded) {
            (Some(name), _) => name,
            (None, Some(Attention::Dense)) if !lrsa_flags => AttentionName::Dense,
            (None, Some(Attention::Lrsa(_))) => AttentionName::Lrsa,
            (None, _) if lrsa_flags => AttentionName::Lrsa,
            (None, _) => default,
        };
        if name == AttentionName::Dense {
            if lrsa_flags {
                return Err(Error::usage("--sink, --lag and --keep belong to --attention lrsa, not to dense"));
            }
            return Ok((Attention::Dense, vec![]));
        }
        let base = match recorded {
            Some(Attention::Lrsa(l)) => l,
            _ => Lrsa::default(),
        };
        let lag = self.lag.unwrap_or(base.lag());
        let keeps = self.keep.clone().unwrap_or_default();
        let keep = keeps.first().copied().unwrap_or(base.keep());
        let lrsa = Lrsa::new(self.sink.unwrap_or(base.sink()), lag, keep)?;
        Ok((Attention::Lrsa(lrsa), keeps))
    }
}

/// A parser of the names that serde gives an enum's values.
pub fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value::<T>(json!(name)))
}
