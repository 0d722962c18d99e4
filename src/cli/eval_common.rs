//! What the tasks of `longreach eval` share: flags, opening a model, and the report they end in.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{DeviceArgs, ModelArgs};
use super::output::{note, print, print_line, read_text_file, spinner};
use crate::atomic_file::write_file;
use crate::attention::Lrsa;
use crate::checkpoint::bundled::MOBY_DICK;
use crate::checkpoint::load::{Loaded, Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::error::Result;
use crate::eval::{EvalReport, Policy, Sample, Subject, plots};
use crate::generate::DEFAULT_CHUNK;
use crate::gpu::Device;

/// Flags that the tasks share.
#[derive(Args, Debug)]
pub struct CommonArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// What to compare: dense, 4x for LRSA that keeps 1/4 (any factor), and of the same size random-4x (kept at random) or window-4x
    /// (sink and window alone)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "dense,2x,4x,8x")]
    pub attentions: Vec<String>,
    /// S: first tokens that are always visible
    #[arg(long, value_name = "S", default_value_t = Lrsa::DEFAULT_SINK)]
    pub sink: usize,
    /// L: tokens of a partition
    #[arg(long, value_name = "L", default_value_t = Lrsa::DEFAULT_LAG)]
    pub lag: usize,
    /// Seed of texts, places and keys
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Prompt tokens fed at once
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CHUNK, value_parser = at_least_one)]
    pub chunk: usize,
    /// Ask in plain text even where the model has a chat template
    #[arg(long)]
    pub no_chat_template: bool,
    /// Folder for report.json, report.md and plots as SVG and PNG
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the report as one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A number of things, of which there must be one.
pub fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("expected a number".into()),
    }
}

/// Which text.
#[derive(Args, Debug)]
pub struct TextArgs {
    /// Text file [default: chapters 1 to 41 of Moby Dick, which the program carries]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
}

impl TextArgs {
    /// The text.
    pub fn read(&self) -> Result<String> {
        self.text.as_deref().map_or(Ok(MOBY_DICK.to_string()), read_text_file)
    }
}

/// A model on a device, ready to be asked.
pub struct Opened {
    pub files: ModelFiles,
    pub device: Device,
    pub loaded: Loaded,
}

impl CommonArgs {
    /// Opens the model's files alone.
    pub fn files(&self) -> Result<ModelFiles> {
        self.model.open()
    }

    /// Brings the model to the device.
    pub fn open(&self, files: ModelFiles) -> Result<Opened> {
        let mut device = self.device.open()?;
        let loaded = load(&mut *device, &files.source, files.adapter.as_ref(), Train::Nothing)?;
        note(&format!("evaluating on {}", device.name()));
        Ok(Opened { files, device, loaded })
    }

    /// The policies that `--attentions` names.
    pub fn policies(&self) -> Result<Vec<Policy>> {
        self.attentions.iter().map(|name| Policy::parse(name, self.sink, self.lag, self.seed)).collect()
    }

    /// Who is asked.
    pub fn subject<'a>(&self, opened: &'a mut Opened) -> Subject<'a> {
        let max_positions = self.model.max_positions.unwrap_or(opened.files.config().max_positions);
        Subject {
            device: &mut *opened.device,
            model: &mut opened.loaded.model,
            files: &opened.files,
            chunk: self.chunk,
            chat: !self.no_chat_template,
            max_positions,
        }
    }

    /// A report without rows.
    pub fn report(&self, task: &str, metrics: &[&str], device: &str) -> EvalReport {
        EvalReport {
            longreach: env!("CARGO_PKG_VERSION").to_string(),
            task: task.to_string(),
            model: self.model.model.clone(),
            adapter: self.model.adapter.as_ref().map(|a| a.display().to_string()),
            device: device.to_string(),
            sink: self.sink,
            lag: self.lag,
            seed: self.seed,
            metrics: metrics.iter().map(|m| m.to_string()).collect(),
            rows: vec![],
            outcomes: vec![],
        }
    }

    /// Prints a report and writes its files.
    pub fn finish(&self, report: &EvalReport) -> Result<()> {
        if let Some(dir) = &self.out {
            let files = plots(report, dir)?;
            write_file(&dir.join("report.json"), serde_json::to_string_pretty(report)? + "\n")?;
            write_file(&dir.join("report.md"), report.to_markdown())?;
            note(&format!("wrote report.json, report.md and {} plots to {}", files.len(), dir.display()));
        }
        if self.json {
            return print_line(&serde_json::to_string(report)?);
        }
        print(&report.to_markdown())
    }
}

/// A spinner as a watcher of `done` of `total`.
pub fn watcher(quiet: bool, what: &'static str) -> impl FnMut(usize, usize) -> ControlFlow<()> {
    let bar = spinner(quiet, what);
    move |done, total| {
        bar.set_position(done as u64);
        bar.set_message(format!("of {total}"));
        ControlFlow::Continue(())
    }
}

/// Writes samples as JSON lines, for whoever wants to ask another program.
pub fn write_samples(path: &Path, samples: &[Sample]) -> Result<()> {
    let mut text = String::new();
    for sample in samples {
        text += &(serde_json::to_string(sample)? + "\n");
    }
    write_file(path, text)?;
    note(&format!("wrote {} samples to {}", samples.len(), path.display()));
    Ok(())
}
