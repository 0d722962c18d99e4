//! Flags that several subcommands share.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::output::note;
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::adapter_file::Adapter;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::rope_override::RopeOverride;
use crate::checkpoint::weights::WeightSource;
use crate::error::{Error, Result};
use crate::eval::Policy;
use crate::gpu::{Activations, Device, open_device};
use crate::train::Keep;

/// Flags that select the model.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// Folder with a Hugging Face model, GGUF file, hub id such as org/name, or stories260k, the
    /// bundled model
    #[arg(long, short, value_name = "DIR|FILE.gguf|HUB-ID")]
    pub model: String,
    /// LoRA adapter: a folder in PEFT format, a GGUF file, or a hub id
    #[arg(long, value_name = "DIR|HUB-ID")]
    pub adapter: Option<PathBuf>,
    /// Maximum sequence length, instead of the model's limit; leaves RoPE unchanged
    #[arg(long, value_name = "N")]
    pub max_positions: Option<usize>,
    /// RoPE scaling in place of the model's own, as in transformers and llama.cpp: yarn:4 takes four
    /// times the original positions; or linear:2, dynamic:2, none [default: recorded with the adapter,
    /// else the model's]
    #[arg(long, value_name = "KIND:FACTOR")]
    pub rope_scaling: Option<RopeOverride>,
}

impl ModelArgs {
    /// Opens the model files.
    pub fn open(&self) -> Result<ModelFiles> {
        self.open_beside(|_, _| Ok(())).map(|(files, ())| files)
    }

    /// Opens the model files, and does the work with weights and adapter while the tokenizer is built.
    pub fn open_beside<R>(
        &self,
        work: impl FnOnce(&WeightSource, Option<&Adapter>) -> Result<R>,
    ) -> Result<(ModelFiles, R)> {
        let (files, done) = ModelFiles::open_beside(&self.model, self.adapter.as_deref(), self.rope_scaling, work)?;
        files.notes().iter().for_each(|text| note(&format!("note: {text}")));
        Ok((files, done))
    }

    /// Rejects sequences longer than the model's positions, unless `--max-positions` allows them.
    pub fn check_length(&self, files: &ModelFiles, n_tokens: usize) -> Result<()> {
        let limit = self.max_positions.unwrap_or(files.config().max_positions);
        if n_tokens > limit {
            return Err(Error::usage(format!(
                "{n_tokens} tokens exceed the {limit} positions that {} allows: shorten the input, or {}",
                if self.max_positions.is_some() { "`max_positions`" } else { "the model" },
                files.length_advice(n_tokens, self.max_positions.is_none())
            )));
        }
        files.length_note(n_tokens).iter().for_each(|text| note(&format!("note: {text}")));
        Ok(())
    }
}

/// Flags that select the device.
#[derive(Args, Clone, Debug)]
pub struct DeviceArgs {
    /// auto, cpu, an index of `longreach info`, or part of an adapter's name; a prefix vulkan:,
    /// gl:, metal: or dx12: selects the backend
    #[arg(long, default_value = "auto", value_name = "auto|cpu|INDEX|NAME")]
    pub device: String,
}

impl DeviceArgs {
    /// Opens the device.
    pub fn open(&self) -> Result<Device> {
        open_device(&self.device)
    }
}

/// Flags that select the device of a program that only runs the model, and how it computes.
#[derive(Args, Clone, Debug)]
pub struct ComputeArgs {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    activations: ActivationArgs,
}

/// The flag for rounded activations.
#[derive(Args, Clone, Debug)]
pub struct ActivationArgs {
    /// Activations in products with quantised weights; only the CPU rounds them, and training never
    /// does. `eval perplexity --activations q8` measures what rounding costs
    #[arg(long, value_enum, default_value = "f32")]
    activations: Activations,
}

impl ComputeArgs {
    /// Opens the device for a model. Says so if nothing is rounded.
    pub fn open(&self, model: &WeightSource) -> Result<Device> {
        self.activations.open(&self.device.device, model)
    }

    /// Whether products round their activations.
    pub fn is_rounded(&self) -> bool {
        self.activations.is_rounded()
    }
}

impl ActivationArgs {
    /// Whether products round their activations.
    pub fn is_rounded(&self) -> bool {
        self.activations != Activations::F32
    }

    /// Opens a device that computes so, for a model. Says so if nothing is rounded.
    pub fn open(&self, device: &str, model: &WeightSource) -> Result<Device> {
        if self.is_rounded() && !model.has_quantised() {
            note("note: --activations q8 rounds nothing, because no weight of this model is quantised");
        }
        self.open_any(device)
    }

    /// Opens a device that computes so.
    pub fn open_any(&self, device: &str) -> Result<Device> {
        let mut device = open_device(device)?;
        device.set_activations(self.activations)?;
        Ok(device)
    }
}

/// Names of the attention types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttentionName {
    /// Full causal attention.
    Dense,
    /// Lag-Relative Sparse Attention.
    Lrsa,
    /// LRSA with this r, written as its inverse: 4x.
    Compressed(f64),
}

impl FromStr for AttentionName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "dense" => Ok(Self::Dense),
            "lrsa" => Ok(Self::Lrsa),
            _ => Policy::factor(text).map(|factor| Self::Compressed(1.0 / factor)).ok_or_else(|| {
                Error::usage(format!(
                    "'{text}' is no attention: give dense, lrsa, or a compression such as 4x (lrsa with r = 1/4)"
                ))
            }),
        }
    }
}

/// Flags that select the attention.
#[derive(Args, Clone, Debug)]
pub struct AttentionArgs {
    /// Attention: dense is full causal attention, lrsa is Lag-Relative Sparse Attention, 4x is lrsa
    /// with r = 1/4 [default: from longreach.json next to the adapter or model, else lrsa for train
    /// and dense otherwise]
    #[arg(long, value_name = "dense|lrsa|4x")]
    pub attention: Option<AttentionName>,
    /// S: sink tokens, visible to every query [default: recorded, else 16]
    #[arg(long, value_name = "S")]
    pub sink: Option<usize>,
    /// L: tokens per partition [default: recorded, else 128; use 1024 for 7B-class models]
    #[arg(long, value_name = "L")]
    pub lag: Option<usize>,
    /// r: fraction of each partition to keep; 0.25 compresses 4x [default: recorded, else 0.25].
    /// train also takes a list such as 0.25,0.5,0.125: each step draws one value; the first is
    /// recorded and used in evaluation. A range such as 0.5..0.125 changes r over the steps of train
    /// and counts as its end. Without --keep, the steps of train take r, r/2, 1, 1 in random order, or
    /// r, r/2, 2r if a text is longer than 8,192 tokens
    #[arg(long, value_name = "R", value_delimiter = ',')]
    pub keep: Option<Vec<Keep>>,
}

impl AttentionArgs {
    /// Fails on flags that no model makes right, so that nobody waits for one to learn of them. For
    /// subcommands that use one attention.
    pub fn check(&self) -> Result<()> {
        // With a recorded lag as large, only a lag of the flags can be too short for their keep.
        let base = Lrsa::new(0, self.lag.unwrap_or(1 << 24), 1.0)?;
        self.resolve(Some(Attention::Lrsa(base)), AttentionName::Dense).map(|_| ())
    }

    /// [`AttentionArgs::resolve_list`] for subcommands that use one attention.
    pub fn resolve(&self, recorded: Option<Attention>, default: AttentionName) -> Result<Attention> {
        let (attention, keeps) = self.resolve_list(recorded, default)?;
        if !matches!(keeps[..], [] | [Keep::Fixed(_)]) {
            return Err(Error::usage("--keep takes one number here; only train takes a list or a range"));
        }
        Ok(attention)
    }

    /// The attention from the flags, then from `recorded`, then from `default`; and the `--keep`
    /// list. That attention uses the list's first value, or the end of a first range.
    pub fn resolve_list(&self, recorded: Option<Attention>, default: AttentionName) -> Result<(Attention, Vec<Keep>)> {
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
                return Err(Error::usage("--sink, --lag and --keep apply only to --attention lrsa, not to dense"));
            }
            return Ok((Attention::Dense, vec![]));
        }
        let base = match recorded {
            Some(Attention::Lrsa(l)) => l,
            _ => Lrsa::default(),
        };
        let lag = self.lag.unwrap_or(base.lag());
        let keeps = self.keep.clone().unwrap_or_default();
        let keep = match (name, keeps.first()) {
            (AttentionName::Compressed(_), Some(_)) => {
                return Err(Error::usage(
                    "--attention 4x and --keep both set r: leave one out, or give --attention lrsa",
                ));
            }
            (AttentionName::Compressed(keep), None) => keep,
            (_, first) => first.map_or(base.keep(), |keep| keep.end()),
        };
        let lrsa = Lrsa::new(self.sink.unwrap_or(base.sink()), lag, keep)?;
        Ok((Attention::Lrsa(lrsa), keeps))
    }
}

/// A value parser for the serde names of an enum's variants.
pub fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value::<T>(json!(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(
        name: Option<&str>,
        keep: Option<Vec<Keep>>,
        recorded: Option<Attention>,
    ) -> Result<(Attention, usize)> {
        let attention = name.map(str::parse).transpose()?;
        let args = AttentionArgs { attention, sink: Some(4), lag: Some(32), keep };
        args.resolve_list(recorded, AttentionName::Lrsa).map(|(attention, keeps)| (attention, keeps.len()))
    }

    #[test]
    fn a_compression_names_lrsa_and_its_ratio() {
        let lrsa = |keep| Attention::Lrsa(Lrsa::new(4, 32, keep).unwrap());
        let recorded = Some(Attention::Lrsa(Lrsa::new(16, 128, 0.5).unwrap()));
        assert_eq!(resolved(Some("8x"), None, recorded).unwrap(), (lrsa(0.125), 0));
        assert_eq!(resolved(Some("8x"), None, Some(Attention::Dense)).unwrap(), (lrsa(0.125), 0));
        assert_eq!(resolved(Some("lrsa"), None, recorded).unwrap(), (lrsa(0.5), 0));
        assert_eq!(resolved(None, Some(vec![Keep::Fixed(0.25); 2]), recorded).unwrap(), (lrsa(0.25), 2));
        for wrong in ["x", "0x", "0.5x", "nanx", "infx", "4", "Dense", "random-4x", "64x"] {
            assert!(resolved(Some(wrong), None, None).is_err(), "{wrong}");
        }
        let e = resolved(Some("4x"), Some(vec![Keep::Fixed(0.5)]), None).unwrap_err().to_string();
        assert!(e.contains("--keep") && e.contains("--attention"), "{e}");
    }

    #[test]
    fn flags_that_no_model_makes_right_are_known_before_it_is_loaded() {
        let check = |name: Option<&str>, lag, keep: Option<&[f64]>| {
            let attention = name.map(|name| name.parse().unwrap());
            let keep = keep.map(|keeps| keeps.iter().copied().map(Keep::Fixed).collect());
            AttentionArgs { attention, sink: None, lag, keep }.check().map_err(|e| e.to_string())
        };
        for (name, lag, keep) in [
            (None, None, None),
            (Some("4x"), None, None),
            (Some("dense"), None, None),
            (Some("lrsa"), Some(32), Some(&[0.25][..])),
            // The recorded lag may be long enough.
            (None, None, Some(&[0.001][..])),
            (Some("1000x"), None, None),
        ] {
            assert_eq!(check(name, lag, keep), Ok(()), "{name:?} {lag:?} {keep:?}");
        }
        for (name, lag, keep, said) in [
            (Some("4x"), None, Some(&[0.5][..]), "--keep"),
            (Some("dense"), Some(8), None, "--lag"),
            (None, Some(10), Some(&[0.05][..]), "K = 0"),
            (Some("64x"), Some(32), None, "K = 0"),
            (None, None, Some(&[0.25, 0.5][..]), "one number"),
            (None, Some(0), None, "at least 1 token"),
        ] {
            let e = check(name, lag, keep).unwrap_err();
            assert!(e.contains(said), "{name:?} {lag:?} {keep:?}: {e}");
        }
    }
}
