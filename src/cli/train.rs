//! `longreach train`: flags to a [`TrainJob`], and a progress bar.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use serde_json::json;

use super::args::{AttentionArgs, AttentionName, DeviceArgs, ModelArgs, one_of};
use super::output::{note, print_line};
use super::train_progress::Progress;
use crate::checkpoint::load::Decay;
use crate::checkpoint::record::AttentionRecord;
use crate::error::Result;
use crate::optim::Schedule;
use crate::train::{Method, Summary, TrainJob, run_opened};

/// Flags of `train`.
#[derive(Args, Debug)]
pub struct TrainArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    attention: AttentionArgs,
    /// Folder with train.jsonl and perhaps valid.jsonl; lines hold prompt and completion, messages, text or input_ids
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the adapter or model, metrics.jsonl and eval.jsonl
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Train a low-rank adapter, or every weight
    #[arg(long, default_value = "lora", value_parser = one_of::<Method>(&["lora", "full"]))]
    method: Method,
    /// Rank of a new adapter [default: 16]
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// Alpha of a new adapter, which is scaled by alpha / rank [default: twice the rank]
    #[arg(long, value_name = "A")]
    alpha: Option<f64>,
    /// Probability that an input of the adapter is dropped [default: 0, or the continued adapter's]
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,
    /// Linear maps that get an adapter, such as q_proj,v_proj [default: all]
    #[arg(long, value_name = "LIST|all", value_delimiter = ',')]
    targets: Option<Vec<String>>,
    /// Optimiser steps
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    steps: Option<u64>,
    /// Passes over the data [default: 1]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Sequences that run together
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch_size: usize,
    /// Batches of one optimiser step
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,
    /// Highest learning rate [default: 2e-4 for lora, 2e-5 for full]
    #[arg(long, value_name = "LR")]
    lr: Option<f64>,
    /// What happens to the learning rate after the warm-up
    #[arg(long, default_value = "cosine", value_parser = one_of::<Schedule>(&["constant", "cosine", "linear"]))]
    schedule: Schedule,
    /// Steps of linear warm-up
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup: u64,
    /// AdamW's weight decay
    #[arg(long, value_name = "W", default_value_t = 0.0)]
    weight_decay: f64,
    /// What weight decay applies to: everything, or all but norms and biases
    #[arg(long, default_value = "matrices", value_parser = one_of::<Decay>(&["all", "matrices"]))]
    decay: Decay,
    /// Largest gradient norm, 0 for none
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    clip: f64,
    /// Cut longer examples to this many tokens
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Recompute activations in the backward pass: less memory, more time
    #[arg(long, action = ArgAction::SetTrue)]
    recompute: bool,
    /// Evaluate on valid.jsonl every N steps, 0 for the end only
    #[arg(long, value_name = "N", default_value_t = 0)]
    eval_every: u64,
    /// Save every N steps, 0 for the end only
    #[arg(long, value_name = "N", default_value_t = 200)]
    save_every: u64,
    /// AdamW's betas
    #[arg(long, value_name = "B1,B2", default_value = "0.9,0.999", value_parser = betas)]
    betas: (f64, f64),
    /// AdamW's epsilon
    #[arg(long, value_name = "E", default_value_t = 1e-8)]
    eps: f64,
    /// Seed of the examples' order, the adapter's start and the dropout
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// Two numbers with a comma.
fn betas(text: &str) -> std::result::Result<(f64, f64), String> {
    let parse = |part: &str| part.trim().parse::<f64>().map_err(|_| format!("'{part}' is no number"));
    let (first, second) = text.split_once(',').ok_or("expected two numbers with a comma, such as 0.9,0.999")?;
    Ok((parse(first)?, parse(second)?))
}

impl TrainArgs {
    /// The job and the attention that the flags describe for a model that records none.
    #[cfg(all(test, feature = "app"))]
    pub(crate) fn described(&self) -> (TrainJob, crate::attention::Attention) {
        let attention = self.attention.resolve(None, AttentionName::Lrsa).expect("the flags name an attention");
        (self.job(), attention)
    }

    /// The job that the flags describe; the attention is not settled yet, since it may depend on the model's files.
    fn job(&self) -> TrainJob {
        let all = |targets: &Vec<String>| matches!(targets.as_slice(), [one] if one == "all" || one == "all-linear");
        TrainJob {
            model: self.model.model.clone(),
            adapter: self.model.adapter.clone(),
            data: self.data.clone(),
            out: self.out.clone(),
            method: self.method,
            rank: self.rank,
            alpha: self.alpha,
            dropout: self.dropout,
            targets: self.targets.clone().filter(|t| !all(t)),
            steps: self.steps,
            epochs: self.epochs,
            batch_size: self.batch_size,
            accumulate: self.accumulate,
            lr: self.lr,
            schedule: self.schedule,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            decay: self.decay,
            clip: self.clip,
            max_length: self.max_length,
            recompute: self.recompute,
            eval_every: self.eval_every,
            save_every: self.save_every,
            betas: self.betas,
            eps: self.eps,
            seed: self.seed,
            attention: None,
            keeps: Vec::new(),
            max_positions: self.model.max_positions,
        }
    }
}

/// Runs the verb.
pub fn run(args: &TrainArgs) -> Result<()> {
    let mut job = args.job();
    job.validate()?;
    let files = args.model.open()?;
    let (attention, keeps) = args.attention.resolve_list(files.recorded, AttentionName::Lrsa)?;
    job.attention = Some(AttentionRecord::of(attention));
    job.keeps = if keeps.len() > 1 { keeps } else { Vec::new() };
    job.validate()?;
    let mut device = args.device.open()?;
    let drawn = match job.keeps.as_slice() {
        [] => String::new(),
        keeps => format!(", r drawn from {keeps:?} each step"),
    };
    note(&format!("training with {attention}{drawn} on {}", device.name()));
    let mut progress = Progress::default();
    let summary = run_opened(&job, &files, device.as_mut(), &mut progress)?;
    report(args, &summary, &device.name())
}

fn report(args: &TrainArgs, summary: &Summary, device: &str) -> Result<()> {
    let out = args.out.display().to_string();
    if args.json {
        let value = json!({
            "steps": summary.steps,
            "loss": summary.loss,
            "eval_loss": summary.eval_loss,
            "tokens": summary.tokens,
            "seconds": summary.seconds,
            "tokens_per_s": summary.tokens_per_s,
            "peak_bytes": summary.peak_bytes,
            "out": out,
            "device": device,
        });
        return print_line(&value.to_string());
    }
    let loss = |name: &str, loss: Option<f64>| loss.map(|l| format!(", {name} {l:.4}")).unwrap_or_default();
    print_line(&format!(
        "{} steps{}{}, {} tokens in {:.1} s ({:.0} tokens/s), {:.1} MiB of device memory; saved to {out}",
        summary.steps,
        loss("loss", summary.loss),
        loss("validation loss", summary.eval_loss),
        summary.tokens,
        summary.seconds,
        summary.tokens_per_s,
        summary.peak_bytes as f64 / (1 << 20) as f64
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        train: TrainArgs,
    }

    fn parse(more: &[&str]) -> std::result::Result<TrainJob, clap::Error> {
        let line = ["train", "--model", "m", "--data", "d", "--out", "o"];
        Line::try_parse_from(line.iter().chain(more)).map(|l| l.train.job())
    }

    #[test]
    fn the_defaults_of_flags_and_of_the_library_are_the_same() {
        let paths = TrainJob { model: "m".into(), data: "d".into(), out: "o".into(), ..TrainJob::default() };
        assert_eq!(parse(&[]).unwrap(), paths);
        assert_eq!(parse(&["--targets", "all"]).unwrap(), paths);
    }

    #[test]
    fn flags_reach_the_job_and_bad_ones_are_refused() {
        let job =
            parse(&["--targets", "q_proj,v_proj", "--betas", "0.8, 0.95", "--schedule", "linear", "--method", "full"])
                .unwrap();
        assert_eq!(job.targets.unwrap(), ["q_proj", "v_proj"]);
        assert_eq!((job.betas, job.schedule, job.method), ((0.8, 0.95), Schedule::Linear, Method::Full));
        for bad in [&["--steps", "1", "--epochs", "1"][..], &["--betas", "0.9"], &["--schedule", "wave"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
