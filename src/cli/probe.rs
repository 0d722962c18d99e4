//! `longreach probe`: writes the tensors of a forward and backward pass, or a text's perplexity.
//!
//! The safetensors file uses Hugging Face's names. [`crate::train::probe`] computes the tensors.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::args::{AttentionArgs, AttentionName, DeviceArgs, ModelArgs};
use super::id_lists::{read_ids, read_labels};
use super::output::{print_line, read_text_file};
use crate::atomic_file::check_target;
use crate::attention::Attention;
use crate::checkpoint::load::{Decay, Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::error::{Error, Result};
use crate::formats::safetensors_write::write_safetensors;
use crate::gpu::Device;
use crate::train::{Distill, GradientStep, ProbeRequest, Teacher, probe};

/// Flags of `probe`.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// JSON file with token ids as a list of lists; rows may differ in length
    #[arg(long, value_name = "IDS.json", conflicts_with = "text", required_unless_present = "text", requires = "out")]
    ids: Option<PathBuf>,
    /// JSON file with labels in the shape of the ids; -100 is ignored, and labels are shifted by
    /// one as in transformers; adds loss
    #[arg(long, value_name = "L.json", conflicts_with = "text")]
    labels: Option<PathBuf>,
    /// Add gradients: of every weight, or with --adapter only of the adapter's tensors (needs
    /// --labels)
    #[arg(long, requires = "labels")]
    grads: bool,
    /// Recompute activations in the backward pass instead of keeping them
    #[arg(long, requires = "grads")]
    recompute: bool,
    /// Stream rows, or a text, longer than a chunk of this many tokens, like train --chunk
    #[arg(long, value_name = "TOKENS")]
    chunk: Option<NonZeroUsize>,
    /// Weight of distillation from the dense model, from 0 to 1: adds ce and kl, and the loss is (1 -
    /// WEIGHT) ce + WEIGHT kl (needs --labels)
    #[arg(long, value_name = "WEIGHT", requires = "labels")]
    distill: Option<f64>,
    /// Teacher of distillation, with dense attention
    #[arg(long, value_enum, default_value_t = Teacher::Base, requires = "distill")]
    teacher: Teacher,
    /// Safetensors file to write: logits, loss, ce, kl, grad.NAME, kept.LAYER
    #[arg(long, value_name = "F.safetensors", conflicts_with = "text")]
    out: Option<PathBuf>,
    /// Print the perplexity of this file's text instead; a final line break is removed
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    #[command(flatten)]
    attention: AttentionArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &ProbeArgs) -> Result<()> {
    let files = args.model.open()?;
    let attention = args.attention.resolve(files.recorded, AttentionName::Dense)?;
    match (&args.text, &args.ids, &args.out) {
        (Some(text), _, _) => perplexity(args, &files, attention, text),
        (None, Some(ids), Some(out)) => write_probe(args, &files, attention, ids, out),
        _ => Err(Error::usage("give --ids IDS.json with --out F.safetensors, or --text FILE")),
    }
}

fn write_probe(args: &ProbeArgs, files: &ModelFiles, attention: Attention, ids: &Path, out: &Path) -> Result<()> {
    check_target(out)?;
    let vocab = files.config().vocab;
    let ids = read_ids(ids, vocab)?;
    let labels = args.labels.as_ref().map(|path| read_labels(path, &ids, vocab)).transpose()?;
    args.model.check_length(files, ids.iter().map(Vec::len).max().unwrap_or(0))?;
    let train = match (args.grads, &files.adapter) {
        (false, _) => Train::Nothing,
        (true, Some(_)) => Train::Adapter(Decay::All),
        (true, None) => Train::All(Decay::All),
    };
    let distill = distillation(args, files)?;
    let mut device = args.device.open()?;
    let mut loaded = load(&mut *device, &files.source, files.adapter.as_ref(), train)?;
    let request = ProbeRequest {
        ids: &ids,
        labels: labels.as_deref(),
        grads: args.grads,
        recompute: args.recompute,
        attention,
        chunk: args.chunk.map(NonZeroUsize::get),
        distill,
    };
    let tensors = probe(&mut *device, &mut loaded, &request)?;
    write_safetensors(out, &tensors, &[])?;
    let loss = tensors.iter().find(|(name, _)| name == "loss").map(|(_, t)| t.to_f32()).transpose()?;
    let loss = loss.and_then(|values| values.first().copied());
    if args.json {
        let object = json!({
            "out": out.display().to_string(),
            "tensors": tensors.len(),
            "loss": loss,
            "tokens": ids.iter().map(Vec::len).sum::<usize>(),
            "attention": attention.to_string(),
            "device": device.name(),
        });
        return print_line(&object.to_string());
    }
    let loss = loss.map_or(String::new(), |loss| format!("loss {loss:.6}; "));
    print_line(&format!("{loss}{} tensors in {} ({attention}, {})", tensors.len(), out.display(), device.name()))
}

/// The distillation that the flags ask for.
fn distillation(args: &ProbeArgs, files: &ModelFiles) -> Result<Option<Distill>> {
    let Some(weight) = args.distill else { return Ok(None) };
    let distill = Distill { weight, teacher: args.teacher };
    distill.check(files.adapter.as_ref().map(|a| &a.config))?;
    Ok(Some(distill))
}

fn perplexity(args: &ProbeArgs, files: &ModelFiles, attention: Attention, path: &Path) -> Result<()> {
    let text = read_text_file(path)?;
    let ids = files.tokenizer()?.encode(&text, true)?;
    if ids.len() < 2 {
        return Err(Error::usage(format!(
            "{}: {} tokens; perplexity needs at least 2, because the first is not predicted",
            path.display(),
            ids.len()
        )));
    }
    args.model.check_length(files, ids.len())?;
    let mut device = args.device.open()?;
    let chunk = args.chunk.map(NonZeroUsize::get);
    let loss = mean_loss(&mut device, files, (attention, chunk), &ids)?;
    if args.json {
        let object = json!({
            "perplexity": loss.exp(),
            "loss": loss,
            "tokens": ids.len(),
            "attention": attention.to_string(),
            "device": device.name(),
        });
        return print_line(&object.to_string());
    }
    print_line(&format!(
        "perplexity {:.4} (loss {loss:.6} over {} predictions of {} tokens; {attention}; {})",
        loss.exp(),
        ids.len() - 1,
        ids.len(),
        device.name()
    ))
}

/// Mean negative log likelihood of all tokens after the first.
fn mean_loss(
    device: &mut Device,
    files: &ModelFiles,
    (attention, chunk): (Attention, Option<usize>),
    ids: &[u32],
) -> Result<f64> {
    let mut loaded = load(&mut **device, &files.source, files.adapter.as_ref(), Train::Nothing)?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= loaded.model.config.vocab) {
        crate::bail!("the tokenizer does not match this model: it produced token {id}, which is not in the vocabulary");
    }
    let labels = ids.iter().map(|&id| id as i32).collect();
    let batch = Batch::new(&[Example { ids: ids.to_vec(), labels, rejected: None }]);
    let step = GradientStep::new(&mut **device, false, chunk)?;
    let (sum, n) = step.evaluate(&mut **device, &mut loaded, &batch, attention)?;
    Ok(sum / n as f64)
}
