//! Shared parts of the `longreach eval` tasks: flags, loading a model, and reports.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;

use super::args::{ComputeArgs, ModelArgs};
use super::interrupt;
use super::output::{note, print, print_line, read_text_file, shell_word, spinner};
use super::stage::Stage;
use crate::atomic_file::{check_target, write_file};
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::bundled::MOBY_DICK;
use crate::checkpoint::load::{Loaded, Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Error, ErrorKind, Result};
use crate::eval::{EvalReport, Policy, Sample, Subject, plots};
use crate::generate::{DEFAULT_BATCH, DEFAULT_CHUNK};
use crate::gpu::Device;

/// The report that programs read.
const REPORT: &str = "report.json";

/// Flags that the tasks share.
#[derive(Args, Debug)]
pub struct CommonArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub device: ComputeArgs,
    /// Caches to compare: dense, 4x (LRSA with keep 1/4; any factor), and for the same size
    /// random-4x (random selection) or window-4x (sink and recent tokens only)
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "dense,2x,4x,8x")]
    pub attentions: Vec<String>,
    /// S: sink tokens, visible to every query [default: recorded with the model or adapter, else 16]
    #[arg(long, value_name = "S")]
    sink: Option<usize>,
    /// L: tokens per partition [default: recorded with the model or adapter, else 128]
    #[arg(long, value_name = "L")]
    lag: Option<usize>,
    /// Seed of texts, positions and keys
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Prompt tokens per chunk
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CHUNK, value_parser = at_least_one)]
    pub chunk: usize,
    /// Use plain text prompts even if the model has a chat template
    #[arg(long)]
    pub no_chat_template: bool,
    /// Folder for report.json, report.md and plots as SVG and PNG
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the report as a JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Flag of the tasks that generate.
#[derive(Args, Debug)]
pub struct BatchArgs {
    /// Maximum number of answers to generate at once; fewer where memory is short
    #[arg(long, value_name = "N", default_value_t = DEFAULT_BATCH, value_parser = at_least_one)]
    pub batch: usize,
}

/// Parses a number that must be at least 1.
pub fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("expected a number".into()),
    }
}

/// Flags that select the text.
#[derive(Args, Debug)]
pub struct TextArgs {
    /// Text file [default: chapters 1 to 41 of Moby Dick, bundled]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
}

impl TextArgs {
    /// The text.
    pub fn read(&self) -> Result<String> {
        self.text.as_deref().map_or(Ok(MOBY_DICK.to_string()), read_text_file)
    }
}

/// A model on a device, ready for evaluation.
pub struct Opened {
    pub files: ModelFiles,
    pub device: Device,
    pub loaded: Loaded,
}

impl CommonArgs {
    /// Opens the model files only, after a look at the output folder.
    pub fn files(&self) -> Result<ModelFiles> {
        self.out.iter().try_for_each(|dir| check_target(&dir.join(REPORT)))?;
        for name in &self.attentions {
            Policy::parse(name, Lrsa::DEFAULT_SINK, Lrsa::DEFAULT_LAG, self.seed)?; // before a model is downloaded
        }
        self.model.open()
    }

    /// S and L: of the flags, else of the attention that is recorded with the model or adapter.
    pub fn sink_and_lag(&self, files: &ModelFiles) -> (usize, usize) {
        let recorded = match files.recorded {
            Some(Attention::Lrsa(lrsa)) => (lrsa.sink(), lrsa.lag()),
            _ => (Lrsa::DEFAULT_SINK, Lrsa::DEFAULT_LAG),
        };
        (self.sink.unwrap_or(recorded.0), self.lag.unwrap_or(recorded.1))
    }

    /// Loads the model onto the device.
    pub fn open(&self, files: ModelFiles) -> Result<Opened> {
        let mut device = self.device.open(&files.source)?;
        let loading = Stage::begin("loading the model");
        let loaded = load(&mut *device, &files.source, files.adapter.as_ref(), Train::Nothing)?;
        drop(loading);
        note(&format!("evaluating on {}", device.name()));
        Ok(Opened { files, device, loaded })
    }

    /// The policies in `--attentions`.
    pub fn policies(&self, files: &ModelFiles) -> Result<Vec<Policy>> {
        let (sink, lag) = self.sink_and_lag(files);
        self.attentions.iter().map(|name| Policy::parse(name, sink, lag, self.seed)).collect()
    }

    /// The model to evaluate, with up to `batch` answers at once.
    pub fn subject<'a>(&self, opened: &'a mut Opened, batch: usize) -> Subject<'a> {
        let max_positions = self.model.max_positions.unwrap_or(opened.files.config().max_positions);
        Subject {
            device: &mut *opened.device,
            model: &mut opened.loaded.model,
            files: &opened.files,
            chunk: self.chunk,
            batch,
            chat: !self.no_chat_template,
            max_positions,
        }
    }

    /// An empty report.
    pub fn report(&self, task: &str, metrics: &[&str], opened: &Opened) -> EvalReport {
        let (sink, lag) = self.sink_and_lag(&opened.files);
        EvalReport {
            longreach: env!("CARGO_PKG_VERSION").to_string(),
            command: command(),
            task: task.to_string(),
            model: self.model.model.clone(),
            adapter: self.model.adapter.as_ref().map(|a| a.display().to_string()),
            rope_scaling: opened.files.rope_scaling(),
            device: opened.device.name(),
            layers: opened.files.config().windows_note(),
            sink,
            lag,
            seed: self.seed,
            metrics: metrics.iter().map(|m| m.to_string()).collect(),
            rows: vec![],
            stopped_after: None,
            outcomes: vec![],
        }
    }

    /// Prints a report and writes its files. Fails at the end if the evaluation was stopped.
    pub fn finish(&self, mut report: EvalReport, watcher: &Watcher) -> Result<()> {
        report.stopped_after = watcher.stopped_after;
        let Some((done, total)) = report.stopped_after else { return self.write(&report) };
        let stopped = format!("stopped after {done} of {total} {}", watcher.what);
        if report.rows.is_empty() {
            let why = "before every attention had one: there is nothing to report";
            return Err(Error::of_kind(ErrorKind::Interrupted, format!("{stopped}, {why}")));
        }
        self.write(&report)?;
        Err(Error::of_kind(ErrorKind::Interrupted, format!("{stopped}; the report has those that every attention has")))
    }

    fn write(&self, report: &EvalReport) -> Result<()> {
        if let Some(dir) = &self.out {
            let files = plots(report, dir)?;
            write_file(&dir.join(REPORT), serde_json::to_string_pretty(report)? + "\n")?;
            write_file(&dir.join("report.md"), report.to_document())?;
            note(&format!("wrote report.json, report.md and {} plots to {}", files.len(), dir.display()));
        }
        if self.json {
            return print_line(&serde_json::to_string(report)?);
        }
        print(&report.to_markdown())
    }
}

/// The command that the user gave.
fn command() -> String {
    let given = std::env::args_os().skip(1).map(|word| shell_word(&word.to_string_lossy()));
    ["longreach".to_string()].into_iter().chain(given).collect::<Vec<_>>().join(" ")
}

/// Watches an evaluation: a spinner on a terminal, lines elsewhere, and Ctrl-C, which ends it.
pub struct Watcher {
    bar: ProgressBar,
    /// What is counted, such as "answers".
    what: &'static str,
    /// Whether there are plain lines.
    says: bool,
    /// When the last of them was written.
    said: Option<Instant>,
    /// How much was done of how much when it was stopped.
    stopped_after: Option<(usize, usize)>,
}

impl Watcher {
    /// Seconds between plain lines.
    const EVERY: u64 = 20;

    /// Catches Ctrl-C from now on. Create one in a program.
    pub fn new(quiet: bool, what: &'static str) -> Result<Self> {
        interrupt::catch("stopping, and reporting what is done")?;
        let says = !quiet && !std::io::stderr().is_terminal();
        Ok(Self { bar: spinner(quiet, what), what, says, said: None, stopped_after: None })
    }

    /// So much is done. Breaks once the user has asked for the end.
    pub fn at(&mut self, done: usize, total: usize) -> ControlFlow<()> {
        self.bar.set_position(done as u64);
        self.bar.set_message(format!("of {total}"));
        if self.says && self.said.is_none_or(|said| said.elapsed().as_secs() >= Self::EVERY) {
            note(&format!("{done} of {total} {}", self.what));
            self.said = Some(Instant::now());
        }
        if interrupt::is_asked() && done < total {
            self.bar.finish_and_clear();
            self.stopped_after = Some((done, total));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// Writes samples as JSON lines, for use with other programs.
pub fn write_samples(path: &Path, samples: &[Sample]) -> Result<()> {
    let mut text = String::new();
    for sample in samples {
        text += &(serde_json::to_string(sample)? + "\n");
    }
    write_file(path, text)?;
    note(&format!("wrote {} samples to {}", samples.len(), path.display()));
    Ok(())
}
