//! The tasks of `longreach eval`: their flags and samples.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::eval_common::{BatchArgs, CommonArgs, TextArgs, Watcher, at_least_one, write_samples};
use super::output::{note, print_line};
use crate::atomic_file::write_file;
use crate::attention::Lrsa;
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Error, Result};
use crate::eval::{
    AGREEMENT_METRICS, AgreementRequest, Haystack, NeedleGrid, PerplexityRequest, QaFile, QuestionGrid,
    ROUNDING_METRICS, RulerTask, Sample, Task, agreement, answer_all, kept_map, needle_samples, perplexity, qa_samples,
    rounding_cost, ruler_samples,
};

/// Flags of the question tasks.
#[derive(Args, Debug)]
struct QuestionArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Maximum tokens of a prompt
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "1000", value_parser = at_least_one)]
    lengths: Vec<usize>,
    #[command(flatten)]
    batch: BatchArgs,
    /// Write the questions to this file, one JSON object per line, and evaluate nothing
    #[arg(long, value_name = "FILE.jsonl")]
    samples_out: Option<PathBuf>,
}

impl QuestionArgs {
    /// Evaluates the samples and reports, or writes the questions to a file.
    fn ask(&self, name: &str, task: Task, files: ModelFiles, samples: &[Sample]) -> Result<()> {
        if let Some(path) = &self.samples_out {
            return write_samples(path, samples);
        }
        let policies = self.common.policies(&files)?;
        let mut opened = self.common.open(files)?;
        let mut report = self.common.report(name, &task.metrics(), &opened);
        let mut watcher = Watcher::new(self.common.json, "answers")?;
        let mut watch = |done, total| watcher.at(done, total);
        let mut subject = self.common.subject(&mut opened, self.batch.batch);
        let outcomes = answer_all(&mut subject, task, samples, &policies, &mut watch)?;
        report.add_outcomes(&policies, outcomes);
        self.common.finish(report, &watcher)
    }
}

/// Flags of `eval needle`.
#[derive(Args, Debug)]
pub struct NeedleArgs {
    #[command(flatten)]
    questions: QuestionArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Positions of the key: 0 is the start of the text, 1 its end
    #[arg(long, value_name = "D,D,…", value_delimiter = ',', default_value = "0,0.25,0.5,0.75,1")]
    depths: Vec<f64>,
    /// Questions per length and depth
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    samples: usize,
}

impl NeedleArgs {
    pub fn run(&self) -> Result<()> {
        let QuestionArgs { common, lengths, .. } = &self.questions;
        let files = common.files()?;
        let haystack = Haystack::new(&self.text.read()?, &files)?;
        let grid = NeedleGrid {
            lengths: lengths.clone(),
            depths: self.depths.clone(),
            n_samples: self.samples,
            seed: common.seed,
        };
        let samples = needle_samples(&files, &haystack, &grid)?;
        self.questions.ask("needle", Task::Needle, files, &samples)
    }
}

/// Tasks of `eval ruler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RulerName {
    /// One code
    Single,
    /// One code among four with other names
    MultiKey,
    /// Four codes with the same name
    MultiValue,
    /// Chains of names that refer to one number
    VariableTracking,
}

/// Flags of `eval ruler`.
#[derive(Args, Debug)]
pub struct RulerArgs {
    #[command(flatten)]
    questions: QuestionArgs,
    #[command(flatten)]
    text: TextArgs,
    /// RULER task
    #[arg(long, value_enum, default_value = "multi-key")]
    hidden: RulerName,
    /// Questions per length
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    samples: usize,
    /// Maximum questions per text, for multi-key up to 4; a text is fed once for all its questions
    #[arg(long = "questions", value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    per_text: usize,
}

impl RulerArgs {
    pub fn run(&self) -> Result<()> {
        let QuestionArgs { common, lengths, .. } = &self.questions;
        let files = common.files()?;
        let haystack = Haystack::new(&self.text.read()?, &files)?;
        let task = match self.hidden {
            RulerName::Single => RulerTask::Single,
            RulerName::MultiKey => RulerTask::MultiKey,
            RulerName::MultiValue => RulerTask::MultiValue,
            RulerName::VariableTracking => RulerTask::VariableTracking,
        };
        let grid = QuestionGrid {
            lengths: lengths.clone(),
            n_samples: self.samples,
            per_text: self.per_text,
            seed: common.seed,
        };
        let samples = ruler_samples(&files, &haystack, task, &grid)?;
        self.questions.ask(&format!("ruler-{}", task.name()), Task::Ruler, files, &samples)
    }
}

/// Flags of `eval qa`.
#[derive(Args, Debug)]
pub struct QaArgs {
    #[command(flatten)]
    questions: QuestionArgs,
    /// File in SQuAD (1 or 2) or HotpotQA format; scripts/fetch-data downloads one of each
    #[arg(long, value_name = "FILE.json")]
    data: PathBuf,
    /// Questions per length, from the articles in the last two fifths of the file
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    samples: usize,
    /// Maximum questions per document; a document is fed once for all its questions
    #[arg(long = "questions", value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    per_document: usize,
}

impl QaArgs {
    pub fn run(&self) -> Result<()> {
        let QuestionArgs { common, lengths, .. } = &self.questions;
        let files = common.files()?;
        let file = QaFile::read(&self.data)?;
        let (lengths, n_samples, per_text) = (lengths.clone(), self.samples, self.per_document);
        let grid = QuestionGrid { lengths, n_samples, per_text, seed: common.seed };
        let samples = qa_samples(&files, &file, &grid)?;
        let (name, task) = if file.is_hotpot { ("hotpotqa", Task::HotpotQa) } else { ("qa", Task::Qa) };
        self.questions.ask(name, task, files, &samples)
    }
}

/// Flags of `eval perplexity`.
#[derive(Args, Debug)]
pub struct PerplexityArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Tokens per window
    #[arg(long, value_name = "N", default_value_t = 2048)]
    length: usize,
    /// Tokens from one window's start to the next [default: half a window]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Maximum number of windows
    #[arg(long, value_name = "N", default_value_t = 8)]
    windows: usize,
}

impl PerplexityArgs {
    pub fn run(&self) -> Result<()> {
        let files = self.common.files()?;
        let policies = self.common.policies(&files)?;
        let ids = files.tokenizer()?.encode(&self.text.read()?, true)?;
        let mut opened = self.common.open(files)?;
        let request = PerplexityRequest {
            ids: &ids,
            length: self.length,
            stride: self.stride.unwrap_or((self.length / 2).max(1)),
            max_windows: self.windows,
        };
        let is_rounded = self.common.device.is_rounded();
        let metrics = if is_rounded { &ROUNDING_METRICS[..] } else { &["perplexity", "loss"] };
        let mut report = self.common.report("perplexity", metrics, &opened);
        let mut watcher = Watcher::new(self.common.json, "windows")?;
        let mut watch = |done, total| watcher.at(done, total);
        let measure = if is_rounded { rounding_cost } else { perplexity };
        report.rows = measure(&mut self.common.subject(&mut opened, 1), &request, &policies, &mut watch)?;
        self.common.finish(report, &watcher)
    }
}

/// Flags of `eval agreement`.
#[derive(Args, Debug)]
pub struct AgreementArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Tokens per prompt
    #[arg(long, value_name = "N", default_value_t = 1024)]
    length: usize,
    /// Number of prompts, evenly spaced over the text
    #[arg(long, value_name = "N", default_value_t = 16)]
    samples: usize,
    /// Tokens per continuation
    #[arg(long, value_name = "N", default_value_t = 32)]
    continued: usize,
    #[command(flatten)]
    batch: BatchArgs,
}

impl AgreementArgs {
    pub fn run(&self) -> Result<()> {
        let files = self.common.files()?;
        let policies = self.common.policies(&files)?;
        let ids = files.tokenizer()?.encode(&self.text.read()?, true)?;
        let mut opened = self.common.open(files)?;
        let request =
            AgreementRequest { ids: &ids, length: self.length, n_samples: self.samples, n_continued: self.continued };
        let mut report = self.common.report("agreement", &AGREEMENT_METRICS, &opened);
        let mut watcher = Watcher::new(self.common.json, "continuations")?;
        let mut watch = |done, total| watcher.at(done, total);
        let mut subject = self.common.subject(&mut opened, self.batch.batch);
        let outcomes = agreement(&mut subject, &request, &policies, &mut watch)?;
        report.add_outcomes(&policies, outcomes);
        self.common.finish(report, &watcher)
    }
}

/// Flags of `eval kept`.
#[derive(Args, Debug)]
pub struct KeptArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Use only the first N tokens of the text
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least_one)]
    tokens: usize,
    /// r: fraction of each partition to keep
    #[arg(long, value_name = "R", default_value_t = Lrsa::DEFAULT_KEEP)]
    keep: f64,
    /// Write an SVG of the text with each token shaded by the share of heads that keep it
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Shade by this layer only
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// Shade by this KV head only
    #[arg(long, value_name = "N")]
    head: Option<usize>,
}

impl KeptArgs {
    pub fn run(&self) -> Result<()> {
        if self.svg.is_none() && !self.common.json {
            return Err(Error::usage("give --svg FILE.svg for an image, or --json for the positions"));
        }
        let files = self.common.files()?;
        let (sink, lag) = self.common.sink_and_lag(&files);
        let lrsa = Lrsa::new(sink, lag, self.keep)?;
        let mut ids = files.tokenizer()?.encode(&self.text.read()?, true)?;
        ids.truncate(self.tokens);
        let mut opened = self.common.open(files)?;
        self.common.model.check_length(&opened.files, ids.len())?;
        let tokenizer = opened.files.tokenizer()?;
        let map = kept_map(&mut *opened.device, &mut opened.loaded.model, tokenizer, &ids, lrsa)?;
        if let Some(path) = &self.svg {
            write_file(path, map.to_svg(self.layer, self.head)?)?;
            note(&format!("wrote {}", path.display()));
        }
        if self.common.json { print_line(&serde_json::to_string(&map)?) } else { Ok(()) }
    }
}
