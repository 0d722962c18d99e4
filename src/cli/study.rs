//! `longreach study`: trains models by several recipes, evaluates all of them, and reports.

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::args::{DeviceArgs, one_of};
use super::eval_common::BatchArgs;
use super::output::{bar, note, print, print_line};
use crate::error::{Error, Result};
use crate::study::{Recipe, StudyObserver, StudyPlan, StudyTask, Test, read_plan, run as run_study, write_report};
use crate::train::{ChunkLength, Keep};

/// Flags of `study`.
#[derive(Args, Debug)]
pub struct StudyArgs {
    /// Folder of the study: settings, results and report. An existing study continues with its
    /// settings, and takes more recipes, seeds, attentions and tests
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder for adapters and training data [default: OUT/work]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Only write the report of the existing results
    #[arg(long)]
    report: bool,
    /// Folder with a Hugging Face model, GGUF file, or hub id
    #[arg(long, value_name = "DIR|FILE.gguf|HUB-ID")]
    model: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Task: pass keys (needle), questions about documents (qa), or pass keys with training on codes
    /// among others too (retrieval) [default: needle]
    #[arg(long, value_parser = one_of::<StudyTask>(&["needle", "qa", "retrieval"]))]
    task: Option<StudyTask>,
    /// Text to hide the keys in [default: the bundled chapters of Moby Dick]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Questions in SQuAD or HotpotQA format, for --task qa
    #[arg(long, value_name = "FILE.json")]
    data: Option<PathBuf>,
    /// Maximum tokens of a prompt [default: 1000]
    #[arg(long, value_name = "N")]
    length: Option<usize>,
    /// Held-out questions of each test [default: 64]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Questions per document, in evaluation and in each training step, for --task qa; questions per
    /// text of codes, up to 4, for --task retrieval [default: 1]
    #[arg(long, value_name = "N")]
    questions: Option<usize>,
    /// Seed of the held-out questions [default: 1000000]
    #[arg(long, value_name = "N")]
    eval_seed: Option<u64>,
    /// Seeds of the training runs [default: 0,1,2]
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// Optimiser steps, each on one text [default: 60]
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// LoRA rank of the adapters [default: 16]
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Peak learning rate [default: 5e-4]
    #[arg(long, value_name = "LR")]
    lr: Option<f64>,
    /// S: sink tokens [default: 16]
    #[arg(long, value_name = "S")]
    sink: Option<usize>,
    /// L: tokens per partition [default: 64]
    #[arg(long, value_name = "L")]
    lag: Option<usize>,
    /// r: keep ratios of LRSA training; each step draws one, and 0.5..0.125 changes over the steps
    /// [default: 0.5,0.25,0.125]
    #[arg(long, value_name = "R,R,…", value_delimiter = ',')]
    keep: Option<Vec<Keep>>,
    /// A model to train, with the settings that differ, such as
    /// lrsa-base:distill=0.5,teacher=base,keep=1,0.5..0.125 (also attention, loss, steps, lr); give
    /// one flag for each model; an existing study keeps its own too [default: dense-tuned and
    /// lrsa-tuned]
    #[arg(long, value_name = "NAME[:SETTING=VALUE,…]")]
    recipe: Option<Vec<Recipe>>,
    /// Caches to evaluate each model with [default: dense,2x,4x,8x]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    attentions: Option<Vec<String>>,
    /// More tests, each a kind and a length, such as multi-key-4000: needle, single, multi-key,
    /// multi-value, variable-tracking, perplexity, agreement
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    also: Option<Vec<Test>>,
    /// Held-out text for perplexity and agreement [default: the held-out part of the text]
    #[arg(long, value_name = "FILE")]
    book: Option<PathBuf>,
    /// Windows of that text [default: 16]
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Recompute activations in the backward pass: less memory, more time
    #[arg(long)]
    recompute: bool,
    /// Train on long texts in chunks of this many tokens, like train --chunk [default: auto]
    #[arg(long, value_name = "TOKENS|auto")]
    chunk: Option<ChunkLength>,
    #[command(flatten)]
    batch: BatchArgs,
    /// Print a JSON object at the end instead of the report
    #[arg(long)]
    json: bool,
}

impl StudyArgs {
    /// The plan: the folder's settings or the defaults, overridden by the flags.
    fn plan(&self) -> Result<StudyPlan> {
        fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                field.clone_from(value);
            }
        }
        let kept = read_plan(&self.out)?;
        let is_new = kept.is_none();
        let mut plan = kept.unwrap_or_default();
        set(&mut plan.model, &self.model);
        set(&mut plan.task, &self.task);
        set(&mut plan.length, &self.length);
        set(&mut plan.samples, &self.samples);
        set(&mut plan.questions, &self.questions);
        set(&mut plan.eval_seed, &self.eval_seed);
        set(&mut plan.seeds, &self.seeds);
        set(&mut plan.steps, &self.steps);
        set(&mut plan.rank, &self.rank);
        set(&mut plan.lr, &self.lr);
        set(&mut plan.sink, &self.sink);
        set(&mut plan.lag, &self.lag);
        set(&mut plan.keeps, &self.keep);
        self.add_recipes(&mut plan, is_new);
        set(&mut plan.attentions, &self.attentions);
        set(&mut plan.also, &self.also);
        set(&mut plan.chunk, &self.chunk);
        set(&mut plan.windows, &self.windows);
        plan.book = self.book.clone().or(plan.book);
        plan.text = self.text.clone().or(plan.text);
        plan.data = self.data.clone().or(plan.data);
        plan.recompute |= self.recompute;
        if plan.model.is_empty() {
            return Err(Error::usage("give --model: a new study needs a model"));
        }
        plan.validate()?;
        Ok(plan)
    }

    /// The recipes of the flags: all of a new study, and more of an existing one.
    fn add_recipes(&self, plan: &mut StudyPlan, is_new: bool) {
        let Some(given) = &self.recipe else { return };
        if is_new {
            plan.recipes.clear();
        }
        let kept = plan.recipes.clone();
        plan.recipes.extend(given.iter().filter(|recipe| !kept.contains(recipe)).cloned());
    }
}

/// Runs the command.
pub fn run(args: &StudyArgs) -> Result<()> {
    let plan = args.plan()?;
    let work = args.work.clone().unwrap_or_else(|| args.out.join("work"));
    if args.report && read_plan(&args.out)?.is_some_and(|kept| kept != plan) {
        return Err(Error::usage(format!(
            "{} holds a study with other settings: leave out the settings to report on it",
            args.out.display()
        )));
    }
    if !args.report {
        let mut device = args.device.open()?;
        note(&format!("on {}; results go to {}", device.name(), args.out.display()));
        let batch = args.batch.batch;
        run_study(&plan, &args.out, &work, batch, &mut *device, &mut Progress::default())?;
    }
    let command = format!("longreach study --out {} --device {}", args.out.display(), args.device.device);
    let files = write_report(&plan, &args.out, &command)?;
    if args.json {
        let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        return print_line(&json!({ "out": args.out.display().to_string(), "files": files }).to_string());
    }
    print(&std::fs::read_to_string(args.out.join("report.md"))?)
}

/// Prints a line per finished part, and a progress bar for the running one.
#[derive(Default)]
struct Progress {
    bar: Option<ProgressBar>,
}

impl StudyObserver for Progress {
    fn started(&mut self, what: &str) {
        self.bar = Some(bar(0).with_message(what.to_string()));
    }

    fn progress(&mut self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    }

    fn finished(&mut self, what: &str) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        note(what);
    }
}
