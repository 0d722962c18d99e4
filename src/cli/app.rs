//! `longreach app`: the desktop app.

use std::path::PathBuf;

use clap::Args;

use crate::app::{AppOptions, run as run_app};
use crate::error::Result;

/// Flags of `app`; each overrides the app's saved settings.
#[derive(Args, Debug)]
pub struct AppArgs {
    /// Folder with a Hugging Face model, GGUF file, hub id, or stories260k, the bundled model
    /// [default: saved, else stories260k]
    #[arg(long, value_name = "DIR|FILE.gguf|HUB-ID")]
    model: Option<String>,
    /// LoRA adapter: a folder in PEFT format, a GGUF file, or a hub id
    #[arg(long, value_name = "DIR|HUB-ID")]
    adapter: Option<PathBuf>,
    /// auto, cpu, an index of `longreach info`, or part of an adapter's name [default: saved, else
    /// auto]
    #[arg(long, value_name = "auto|cpu|INDEX|NAME")]
    device: Option<String>,
    /// Documents to open: text, Markdown, PDF or DOCX
    #[arg(value_name = "DOCUMENT")]
    documents: Vec<PathBuf>,
    /// Settings file [default: in the platform's configuration folder]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &AppArgs) -> Result<()> {
    run_app(&AppOptions {
        model: args.model.clone(),
        adapter: args.adapter.clone(),
        device: args.device.clone(),
        documents: args.documents.clone(),
        settings: args.settings.clone(),
    })
}
