//! `longreach demo`: shows LRSA on a real pretrained model in a minute or two, without network.
//!
//! It computes every figure that it prints.

use std::ops::ControlFlow;
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::DeviceArgs;
use super::output::print_line;
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::bundled::MOBY_DICK;
use crate::checkpoint::load::Decay;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::record::AttentionRecord;
use crate::data::dataset::{Dataset, Example, Split};
use crate::error::Result;
use crate::generate::{DEFAULT_CHUNK, GenerateRequest, Generated, generate};
use crate::gpu::Executor;
use crate::kernels::sample::Sampling;
use crate::optim::Schedule;
use crate::train::{Method, Observer, StepLine, Summary, TrainJob, Trainer};

/// Tokens of a sequence: twice the model's maximum.
const SEQUENCE: usize = 1024;
/// Sequences held out from the end of the text.
const N_HELD_OUT: usize = 6;
/// Tokens generated for each text.
const N_GENERATED: usize = 200;
const PROMPT: &str = "One day, a big whale";

/// Flags of `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Optimiser steps, each on one sequence of 1,024 tokens
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    steps: u64,
    /// Seed of the order of the training sequences
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
    /// Print a JSON object instead of the tour
    #[arg(long)]
    json: bool,
}

/// Loss on the held-out text.
#[derive(Clone, Copy)]
struct Losses {
    dense: f64,
    compressed: f64,
}

impl Losses {
    fn gap(&self) -> f64 {
        self.compressed - self.dense
    }

    fn to_json(self) -> Value {
        json!({ "dense": self.dense, "compressed": self.compressed, "gap": self.gap() })
    }
}

struct Demo<'a> {
    device: &'a mut dyn Executor,
    files: &'a ModelFiles,
    trainer: Trainer,
    lrsa: Attention,
    data: Dataset,
    /// Whether to print the tour.
    tells: bool,
}

/// Runs the command.
pub fn run(args: &DemoArgs) -> Result<()> {
    let start = Instant::now();
    let files = ModelFiles::bundled(None)?;
    let mut device = args.device.open()?;
    let lrsa = Attention::Lrsa(Lrsa::new(4, 32, 0.25)?);
    let job = job(args, lrsa);
    let trainer = Trainer::new(device.as_mut(), &files, &job)?;
    let data = sequences(&files)?;
    let mut demo = Demo { device: device.as_mut(), files: &files, trainer, lrsa, data, tells: !args.json };
    let report = demo.tour(&job, start)?;
    if args.json { print_line(&report.to_string()) } else { Ok(()) }
}

fn job(args: &DemoArgs, lrsa: Attention) -> TrainJob {
    TrainJob {
        method: Method::Full,
        steps: Some(args.steps),
        lr: Some(3e-3),
        schedule: Schedule::Cosine,
        warmup: (args.steps / 10).max(1),
        weight_decay: 0.0,
        decay: Decay::All,
        clip: 1.0,
        seed: args.seed,
        attention: Some(AttentionRecord::of(lrsa)),
        keeps: Some(vec![]), // every step is compressed
        max_positions: Some(SEQUENCE),
        ..TrainJob::default()
    }
}

/// The bundled text in sequences of [`SEQUENCE`] tokens; the last ones are held out.
fn sequences(files: &ModelFiles) -> Result<Dataset> {
    let ids = files.tokenizer()?.encode(MOBY_DICK, false)?;
    let example =
        |c: &[u32]| Example { ids: c.to_vec(), labels: c.iter().map(|&i| i as i32).collect(), rejected: None };
    let mut examples: Vec<Example> = ids.chunks_exact(SEQUENCE).map(example).collect();
    let held_out = examples.split_off(examples.len() - N_HELD_OUT);
    let split = |examples| Split { examples, ..Split::default() };
    Ok(Dataset { train: split(examples), valid: Some(split(held_out)) })
}

impl Demo<'_> {
    fn tell(&self, line: &str) -> Result<()> {
        if self.tells { print_line(line) } else { Ok(()) }
    }

    fn tour(&mut self, job: &TrainJob, start: Instant) -> Result<Value> {
        let entries = (self.lrsa.cache_length(SEQUENCE), SEQUENCE);
        self.tell(&format!(
            "Longreach demo: stories260K, a real pretrained model of 260 thousand parameters, on {}\n\n\
             A language model caches a key and a value for every token: the KV cache grows with the text.\n\
             {}: the cache keeps the first tokens and the last two partitions whole. Of each older\n\
             partition of L tokens, it keeps the K that score highest against the next partition and drops the rest.\n\
             After {SEQUENCE} tokens it holds {} entries per head instead of {}.\n",
            self.device.name(),
            self.lrsa,
            entries.0,
            entries.1
        ))?;
        self.tell("1. One prompt, two caches, before training\n")?;
        let before_texts = self.both_texts()?;
        self.tell(&format!(
            "2. Training with the compression: {} steps, each on {SEQUENCE} tokens of Moby Dick (the model was trained for 512)\n",
            job.steps.unwrap_or_default()
        ))?;
        let before = self.losses()?;
        let train_start = Instant::now();
        let summary = self.fit()?;
        let train_seconds = train_start.elapsed().as_secs_f64();
        let after = self.losses()?;
        let control = self.control(job)?;
        self.tell_losses([before, after, control], train_seconds)?;
        self.tell("3. The same prompt after training\n")?;
        let after_texts = self.both_texts()?;
        let seconds = start.elapsed().as_secs_f64();
        self.tell(&format!(
            "The demo took {seconds:.0} s. Next, an adapter for the same model and text:\n  longreach train --model \
             stories260k --data moby-dick --steps 100 --out whale"
        ))?;
        Ok(json!({
            "device": self.device.name(),
            "attention": self.lrsa.to_string(),
            "cache_entries": { "tokens": SEQUENCE, "dense": entries.1, "compressed": entries.0 },
            "before": { "loss": before.to_json(), "texts": before_texts },
            "after": { "loss": after.to_json(), "texts": after_texts },
            "control": { "loss": control.to_json() },
            "steps": summary.steps,
            "train_tokens_per_s": summary.tokens_per_s,
            "seconds": seconds,
        }))
    }

    fn fit(&mut self) -> Result<Summary> {
        let data = Dataset { train: self.data.train.clone(), valid: None };
        self.trainer.fit(self.device, &data, None, &mut Bar::new(self.tells))
    }

    /// The losses after the same steps on the same data with dense attention.
    fn control(&mut self, job: &TrainJob) -> Result<Losses> {
        self.tell("   control: the same steps with dense attention, without compression")?;
        let job = TrainJob { attention: Some(AttentionRecord::Dense), ..job.clone() };
        let trainer = Trainer::new(self.device, self.files, &job)?;
        let trained = std::mem::replace(&mut self.trainer, trainer);
        let losses = self.fit().and_then(|_| self.losses());
        self.trainer = trained;
        losses
    }

    fn tell_losses(&self, [before, after, control]: [Losses; 3], seconds: f64) -> Result<()> {
        let row = |name: &str, l: Losses| {
            format!("     {name:<24} {:>7.4}  {:>10.4}  {:>+8.4}\n", l.dense, l.compressed, l.gap())
        };
        self.tell(&format!(
            "\n   loss on {N_HELD_OUT} held-out sequences, nats per token (LRSA training took {seconds:.0} s)\n\n     \
             {:<24} {:>7}  {:>10}  {:>8}\n{}{}{}\n\
             \x20  Both losses fall because the model adapts to the text; any training does that. The gap is the cost of the\n\
             \x20  compressed cache. LRSA training changed it from {:.4} to {:.4}; the control, which only adapted to the\n\
             \x20  text, from {:.4} to {:.4}. The difference between the two is the effect of LRSA training. All gaps are\n\
             \x20  small here, because a model this small makes little use of distant context.\n",
            "",
            "dense",
            "compressed",
            "gap",
            row("before training", before),
            row("after LRSA training", after),
            row("control, trained dense", control),
            before.gap(),
            after.gap(),
            before.gap(),
            control.gap(),
        ))
    }

    fn losses(&mut self) -> Result<Losses> {
        let held_out = self.data.valid.as_ref().map_or(&[][..], |v| &v.examples);
        let dense = self.trainer.evaluate(self.device, held_out, Attention::Dense)?.loss;
        let compressed = self.trainer.evaluate(self.device, held_out, self.lrsa)?.loss;
        Ok(Losses { dense, compressed })
    }

    fn both_texts(&mut self) -> Result<Value> {
        let dense = self.text("dense", Attention::Dense)?;
        let compressed = self.text("compressed", self.lrsa)?;
        let item = |g: &Generated| json!({ "text": g.text, "kv_entries": g.kv_entries, "kv_bytes": g.kv_bytes });
        Ok(json!({ "dense": item(&dense), "compressed": item(&compressed) }))
    }

    fn text(&mut self, name: &str, attention: Attention) -> Result<Generated> {
        let tokenizer = self.files.tokenizer()?;
        let prompt_ids = tokenizer.encode_prompt(PROMPT)?;
        let request = GenerateRequest {
            prompt_ids: &prompt_ids,
            max_tokens: N_GENERATED,
            sampling: Sampling { temperature: 0.7, ..Sampling::default() },
            attention,
            chunk: DEFAULT_CHUNK,
            stop: &[],
            stop_texts: &[],
            shown: &[],
            seed: 0,
        };
        let model = &mut self.trainer.loaded.model;
        let done = generate(self.device, model, Some(tokenizer), &request, &mut |_| ControlFlow::Continue(()))?;
        let text = wrapped(&format!("{PROMPT}{}", done.text), 100);
        self.tell(&format!(
            "   {name} cache: {} entries per head after {} tokens, {:.0} KiB in all\n{text}",
            done.kv_entries,
            prompt_ids.len() + done.generated_tokens - 1,
            done.kv_bytes as f64 / 1024.0
        ))?;
        Ok(done)
    }
}

/// Wraps text to indented lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::new();
    for paragraph in text.lines() {
        let mut line = String::from("    ");
        for word in paragraph.split_whitespace() {
            if line.chars().count() + word.chars().count() >= width && line.trim() != "" {
                out.push_str(&line);
                out.push('\n');
                line = String::from("    ");
            }
            line.push(' ');
            line.push_str(word);
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// Progress of the training on stderr.
struct Bar(ProgressBar);

impl Bar {
    fn new(shows: bool) -> Self {
        let bar = if shows { ProgressBar::new(1) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("   {bar:30} {pos}/{len} steps  {msg}  {eta} left");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }
}

impl Observer for Bar {
    fn started(&mut self, total_steps: u64, _: usize) {
        self.0.set_length(total_steps);
    }

    fn step(&mut self, line: &StepLine) {
        let speed = line.tokens as f64 / line.seconds.max(f64::EPSILON);
        self.0.set_message(format!("loss {:.3}  {speed:.0} tokens/s", line.loss));
        self.0.inc(1);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
