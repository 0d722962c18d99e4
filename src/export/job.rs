//! The description of an export.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::weight_type::WeightType;
use crate::checkpoint::rope_override::RopeOverride;
use crate::error::{Error, Result};

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A folder in Hugging Face's layout, with the adapter merged (f32, f16 or bf16)
    Hf,
    /// A GGUF file for llama.cpp, with the adapter merged
    Gguf,
    /// The adapter alone as a GGUF file for llama.cpp's --lora (f32, f16 or bf16)
    AdapterGguf,
    /// A folder that MLX loads, with the adapter merged (f32, f16 or bf16)
    Mlx,
}

impl ExportFormat {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hf => "hf",
            Self::Gguf => "gguf",
            Self::AdapterGguf => "adapter-gguf",
            Self::Mlx => "mlx",
        }
    }

    /// Whether the result is one file rather than a folder.
    pub fn is_file(self) -> bool {
        matches!(self, Self::Gguf | Self::AdapterGguf)
    }
}

/// An export.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ExportJob {
    /// Folder with a Hugging Face model, GGUF file, or hub id such as org/name
    #[arg(long, short, value_name = "DIR|FILE.gguf|HUB-ID")]
    pub model: String,
    /// LoRA adapter to merge or convert
    #[arg(long, value_name = "DIR|FILE.gguf")]
    pub adapter: Option<PathBuf>,
    /// RoPE scaling to write in place of the model's own, such as yarn:4 [default: recorded with the
    /// adapter, else the model's]
    #[arg(long, value_name = "KIND:FACTOR")]
    pub rope_scaling: Option<RopeOverride>,
    /// Format to write
    #[arg(long, value_enum)]
    pub to: ExportFormat,
    /// Type of the weights [default: f16 for gguf, f32 for adapter-gguf, else the model's if it is a
    /// plain one, else f16]
    #[arg(long, alias = "quantize", value_enum, value_name = "TYPE")]
    pub quantise: Option<WeightType>,
    /// File or folder to write; it must not exist
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Text on which the result is compared with the model in memory [default: a chapter of Moby Dick]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
}

impl ExportJob {
    /// Rejects what does not go together, before any work.
    pub fn validate(&self) -> Result<()> {
        if self.to == ExportFormat::AdapterGguf && self.adapter.is_none() {
            return Err(Error::usage("`to` adapter-gguf converts an adapter: give one as `adapter`"));
        }
        if self.to == ExportFormat::AdapterGguf && self.rope_scaling.is_some() {
            return Err(Error::usage(
                "`to` adapter-gguf holds an adapter alone, which rotates nothing: leave `rope_scaling` out, and give it \
                 where the adapter is used",
            ));
        }
        if let Some(kind) = self.quantise.filter(|kind| self.to != ExportFormat::Gguf && kind.plain().is_none()) {
            let (to, kind) = (self.to.name(), kind.name());
            return Err(Error::usage(format!("`to` {to} holds f32, f16 and bf16, not `quantise` {kind}")));
        }
        self.check_free()?;
        if self.to.is_file() && self.out.extension().is_none_or(|e| !e.eq_ignore_ascii_case("gguf")) {
            let out = self.out.display();
            return Err(Error::usage(format!("`out` {out}: readers know GGUF files by their ending: give {out}.gguf")));
        }
        Ok(())
    }

    /// Fails if there is something under the name of the result.
    pub(super) fn check_free(&self) -> Result<()> {
        if self.out.symlink_metadata().is_ok() {
            return Err(Error::usage(format!("`out` {} exists: remove it, or give another name", self.out.display())));
        }
        Ok(())
    }
}

/// Watches an export. All methods do nothing by default.
pub trait ExportObserver {
    /// A notice for the user.
    fn note(&mut self, _text: &str) {}
    /// So many of the tensors are written. An error ends the export, and nothing stays.
    fn written(&mut self, _done: usize, _total: usize) -> Result<()> {
        Ok(())
    }
}

impl ExportObserver for () {}
