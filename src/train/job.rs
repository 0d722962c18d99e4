//! The description of a training run, one struct for the command line, the app and the library.
//!
//! `TrainJob` holds the settings with their defaults; `job_rules.rs` rejects invalid ones, and
//! [`super::run`] runs it. The command line derives its flags, help and defaults from the fields: a flag is the field's
//! name with dashes, and `-h` shows the first paragraph of the field's documentation.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::chunk_length::ChunkLength;
use super::distill::Teacher;
use super::keep::Keep;
use super::preference::ObjectiveKind;
use crate::checkpoint::adapter_targets::{LayerList, ModuleSet};
use crate::checkpoint::load::Decay;
use crate::checkpoint::record::AttentionRecord;
use crate::checkpoint::rope_override::RopeOverride;
use crate::data::long::Long;
use crate::data::sampler::Order;
use crate::data::token_count::TokenCount;
use crate::optim::{OptimizerKind, Schedule};

/// Default rank of a new adapter; the default alpha is twice the rank.
pub const DEFAULT_RANK: usize = 16;

/// Default fraction of all steps over which the schedule wsd decays.
pub const DEFAULT_DECAY_RATIO: f64 = 0.2;

/// The parameters to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A LoRA adapter; the model is frozen
    #[default]
    Lora,
    /// All weights, in f32
    Full,
}

/// A training run. `TrainJob::default()` has the same defaults as the command line.
///
/// ```
/// use longreach::checkpoint::model_files::ModelFiles;
/// use longreach::gpu::open_device;
/// use longreach::train::{TrainJob, run_opened};
///
/// let (model, dir) = (ModelFiles::bundled(None)?, tempfile::tempdir()?);
/// let line = r#"{"prompt": "The otter had", "completion": " a red kite."}"#;
/// std::fs::write(dir.path().join("train.jsonl"), line)?;
/// let job = TrainJob {
///     data: dir.path().into(),
///     out: dir.path().join("adapter"),
///     steps: Some(2),
///     ..TrainJob::default()
/// };
/// let done = run_opened(&job, &model, open_device("cpu")?.as_mut(), &mut ())?;
/// assert_eq!(done.steps, 2);
/// assert!(job.out.join("adapter_model.safetensors").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
pub struct TrainJob {
    /// Folder with a Hugging Face model, GGUF file, hub id such as org/name, or stories260k, the
    /// bundled model
    #[arg(long, short, value_name = "DIR|FILE.gguf|HUB-ID")]
    pub model: String,
    /// LoRA adapter to continue training: a folder in PEFT format, a GGUF file, or a hub id
    #[arg(long, value_name = "DIR|HUB-ID")]
    pub adapter: Option<PathBuf>,
    /// Maximum sequence length, instead of the model's limit; leaves RoPE unchanged
    #[arg(long, value_name = "N")]
    pub max_positions: Option<usize>,
    /// RoPE scaling in place of the model's own, recorded with the adapter: yarn:4 takes four times the
    /// original positions; or linear:2, dynamic:2, none [default: recorded with the continued adapter,
    /// else the model's]
    #[arg(long, value_name = "KIND:FACTOR")]
    pub rope_scaling: Option<RopeOverride>,
    /// Folder with train.jsonl and optionally valid.jsonl (or .json, .csv, .tsv, .parquet), a folder
    /// of texts, one file, or moby-dick, the bundled example data; `longreach data` shows what a model
    /// learns of it
    #[arg(long, value_name = "DIR|FILE")]
    pub data: PathBuf,
    /// Without validation data, hold out this fraction of the training examples for it, drawn with
    /// the seed
    #[arg(long, value_name = "F")]
    pub valid_fraction: Option<f64>,
    /// Output folder for the adapter or model, metrics.jsonl and eval.jsonl
    #[arg(long, alias = "output-dir", value_name = "DIR")]
    pub out: PathBuf,
    /// Train a LoRA adapter or all weights
    #[arg(long, value_enum, default_value_t = DEFAULT.method)]
    pub method: Method,
    /// What to learn from: labelled tokens, or preference pairs
    #[arg(long, value_enum, default_value_t = DEFAULT.objective)]
    pub objective: ObjectiveKind,
    /// Strength of the preference in dpo and orpo [default: 0.1]
    #[arg(long, value_name = "B")]
    pub beta: Option<f64>,
    /// LoRA rank of a new adapter [default: 16]
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
    /// LoRA alpha of a new adapter; its output is scaled by alpha / rank [default: twice the rank]
    #[arg(long, value_name = "A")]
    pub alpha: Option<f64>,
    /// Dropout probability of the adapter's inputs [default: 0, or the continued adapter's
    /// in sft]
    #[arg(long, value_name = "P")]
    pub dropout: Option<f64>,
    /// Linear layers to adapt, such as q_proj,v_proj, or a regular expression of their paths
    /// [default: all]
    #[arg(long, value_name = "LIST|all|REGEX", value_parser = ModuleSet::parse)]
    pub targets: Option<ModuleSet>,
    /// Layers to adapt, such as 0,8-15 [default: all]
    #[arg(long, value_name = "LIST", value_parser = LayerList::parse)]
    pub layers: Option<LayerList>,
    /// Modules to train and save whole beside the adapter, such as embed_tokens,lm_head
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_name)]
    pub modules_to_save: Vec<String>,
    /// Rank of the modules whose path, or end of it, a regular expression matches, such as
    /// down_proj=32 or layers\.0\..*=4; repeatable, the first match counts
    #[arg(long, value_name = "REGEX=R", value_parser = parse_pattern::<usize>)]
    pub rank_pattern: Vec<(String, usize)>,
    /// Alpha of modules, in the same way
    #[arg(long, value_name = "REGEX=A", value_parser = parse_pattern::<f64>)]
    pub alpha_pattern: Vec<(String, f64)>,
    /// Scale a new adapter's output by alpha / √rank (rsLoRA)
    #[arg(long, action = ArgAction::SetTrue)]
    pub rslora: bool,
    /// Train the magnitudes of the adapted weights' rows too (DoRA)
    #[arg(long, action = ArgAction::SetTrue)]
    pub dora: bool,
    /// Multiply the learning rate of the adapter's B matrices by this ratio (LoRA+) [default: 1]
    #[arg(long, value_name = "RATIO")]
    pub lora_plus: Option<f64>,
    /// Optimiser steps
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    pub steps: Option<u64>,
    /// Epochs: passes over the training data [default: 1]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u64>,
    /// Examples per batch, concatenated without padding; a preference pair is one example of two
    /// sequences
    #[arg(long, value_name = "N", default_value_t = DEFAULT.batch_size)]
    pub batch_size: usize,
    /// Fill batches with whole examples of up to N tokens together, instead of --batch-size; a longer
    /// example is a batch of its own. auto takes the length of the longest example, but at least 512
    /// and at most 1024
    #[arg(long, value_name = "N|auto")]
    pub batch_tokens: Option<TokenCount>,
    /// Order of the examples in an epoch
    #[arg(long, value_enum, default_value_t = DEFAULT.order)]
    pub order: Order,
    /// Gradient accumulation: batches per optimiser step
    #[arg(long, alias = "gradient-accumulation-steps", value_name = "N", default_value_t = DEFAULT.accumulate)]
    pub accumulate: usize,
    /// Optimiser; --help lists the defaults of each
    #[arg(long, value_enum, default_value_t = DEFAULT.optimizer)]
    pub optimizer: OptimizerKind,
    /// Peak learning rate [default: the optimizer's]
    #[arg(long, alias = "learning-rate", value_name = "LR")]
    pub lr: Option<f64>,
    /// Learning-rate schedule after the warm-up
    #[arg(long, value_enum, default_value_t = DEFAULT.schedule)]
    pub schedule: Schedule,
    /// Warm-up steps, with a linearly rising learning rate
    #[arg(long, value_name = "N", default_value_t = DEFAULT.warmup)]
    pub warmup: u64,
    /// Warm-up as a fraction of all steps, instead of a number of steps
    #[arg(long, value_name = "R", conflicts_with = "warmup")]
    pub warmup_ratio: Option<f64>,
    /// Fraction of all steps over which the schedule wsd decays [default: 0.2]
    #[arg(long, value_name = "R")]
    pub decay_ratio: Option<f64>,
    /// Weight decay
    #[arg(long, value_name = "W", default_value_t = DEFAULT.weight_decay)]
    pub weight_decay: f64,
    /// Parameters that weight decay applies to
    #[arg(long, value_enum, default_value_t = DEFAULT.decay)]
    pub decay: Decay,
    /// Clip gradients to this global norm; 0 disables it
    #[arg(long, value_name = "N", default_value_t = DEFAULT.clip)]
    pub clip: f64,
    /// Add uniform noise of this strength to the embeddings in training (NEFTune); 0 adds none
    ///
    /// Each element of a sequence of L tokens gets noise from ±ALPHA / √(L · hidden size).
    #[arg(long, alias = "neftune-noise-alpha", value_name = "ALPHA", default_value_t = DEFAULT.neftune)]
    pub neftune: f64,
    /// Weight of distillation from the dense model, from 0 (learn from the labels alone) to 1 (from the
    /// teacher alone)
    ///
    /// loss = (1 - WEIGHT) · cross-entropy over the labelled tokens + WEIGHT · KL(teacher ‖ student)
    /// over every token that has a next one.
    #[arg(long, value_name = "WEIGHT", default_value_t = DEFAULT.distill)]
    pub distill: f64,
    /// Teacher of distillation, with dense attention
    #[arg(long, value_enum, default_value_t = DEFAULT.teacher)]
    pub teacher: Teacher,
    /// Most tokens of an example; --long says what becomes of longer ones
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// What becomes of examples longer than --max-length
    ///
    /// A window begins with the last --overlap tokens of the one before, and with BOS if the
    /// tokenizer puts it in front of a text and the example begins with it. Each token is learnt
    /// once, in the window where it occurs first. A window without a token to learn is left out.
    #[arg(long, value_enum, default_value_t = DEFAULT.long)]
    pub long: Long,
    /// Tokens that a window repeats from the one before, with --long window [default: an eighth of
    /// --max-length]
    #[arg(long, value_name = "N")]
    pub overlap: Option<usize>,
    /// Recompute activations in the backward pass: less memory, a third more time
    #[arg(long, action = ArgAction::SetTrue)]
    pub recompute: bool,
    /// Stream sequences that are longer than a chunk of this many tokens: less memory, one more
    /// forward pass; auto streams what does not fit
    #[arg(long, value_name = "TOKENS|auto", default_value_t)]
    pub chunk: ChunkLength,
    /// Evaluate on the validation data every N steps and at the end; 0 for the end only
    #[arg(long, alias = "eval-steps", value_name = "N", default_value_t = DEFAULT.eval_every)]
    pub eval_every: u64,
    /// Stop after this many evaluations in a row without a lower loss
    #[arg(long, value_name = "N", requires = "eval_every")]
    pub early_stop: Option<u64>,
    /// Save every N steps, 0 for none of these; a run also saves when it is stopped and at the end
    #[arg(long, alias = "save-steps", value_name = "N", default_value_t = DEFAULT.save_every)]
    pub save_every: u64,
    /// Save too when this many minutes have passed since the last save, so that long steps lose little;
    /// 0 to save by steps only
    #[arg(long, value_name = "M", default_value_t = DEFAULT.save_minutes)]
    pub save_minutes: f64,
    /// Keep the last N checkpoints, beside the one with the lowest validation loss
    #[arg(long, value_name = "N", default_value_t = DEFAULT.keep_checkpoints)]
    pub keep_checkpoints: usize,
    /// Resume the unfinished run in the output folder; fails if there is none
    ///
    /// The same command without this flag resumes too, and starts a run where there is none.
    #[serde(skip)]
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace the run that the output folder holds
    #[serde(skip)]
    #[arg(long, action = ArgAction::SetTrue)]
    pub overwrite: bool,
    /// Decay rates of the optimizer's running means [default: the optimizer's]
    #[arg(long, value_name = "B1,B2", value_parser = parse_betas)]
    pub betas: Option<(f64, f64)>,
    /// Epsilon, added to the denominator of the update [default: the optimizer's]
    #[arg(long, value_name = "E")]
    pub eps: Option<f64>,
    /// Momentum factor [default: the optimizer's]
    #[arg(long, value_name = "M")]
    pub momentum: Option<f64>,
    /// Seed of the data order, the held-out examples, the adapter's initial weights, dropout and noise
    #[arg(long, value_name = "N", default_value_t = DEFAULT.seed)]
    pub seed: u64,
    /// Attention to train with [default: recorded with the adapter or model, else LRSA's defaults].
    #[arg(skip)]
    pub attention: Option<AttentionRecord>,
    /// Keep ratios of LRSA: each step draws one, so that the model learns to work with all of them.
    /// One that anneals gives its r at that step. If empty, every step uses the attention's own r.
    /// Without a list, steps take r from [`Draws::usual`](super::Draws::usual) for their longest text. Evaluations use the
    /// attention's own r, and it is the recorded one.
    #[arg(skip)]
    pub keeps: Option<Vec<Keep>>,
}

/// The defaults of [`TrainJob::default`], of fields missing in JSON, and of the flags.
const DEFAULT: TrainJob = TrainJob {
    model: String::new(),
    adapter: None,
    max_positions: None,
    rope_scaling: None,
    data: PathBuf::new(),
    valid_fraction: None,
    out: PathBuf::new(),
    method: Method::Lora,
    objective: ObjectiveKind::Sft,
    beta: None,
    rank: None,
    alpha: None,
    rank_pattern: Vec::new(),
    alpha_pattern: Vec::new(),
    dropout: None,
    targets: None,
    layers: None,
    modules_to_save: Vec::new(),
    rslora: false,
    dora: false,
    lora_plus: None,
    steps: None,
    epochs: None,
    batch_size: 1,
    batch_tokens: None,
    order: Order::Random,
    accumulate: 1,
    optimizer: OptimizerKind::AdamW,
    lr: None,
    schedule: Schedule::Cosine,
    warmup: 0,
    warmup_ratio: None,
    decay_ratio: None,
    weight_decay: 0.0,
    decay: Decay::Matrices,
    clip: 1.0,
    neftune: 0.0,
    distill: 0.0,
    teacher: Teacher::Base,
    max_length: None,
    long: Long::Cut,
    overlap: None,
    recompute: false,
    chunk: ChunkLength::Auto,
    eval_every: 0,
    early_stop: None,
    save_every: 200,
    save_minutes: 15.0,
    keep_checkpoints: 2,
    resume: false,
    overwrite: false,
    betas: None,
    eps: None,
    momentum: None,
    seed: 0,
    attention: None,
    keeps: None,
};

impl Default for TrainJob {
    fn default() -> Self {
        DEFAULT
    }
}

/// Parses a name of a list, with blanks around it.
fn parse_name(text: &str) -> std::result::Result<String, String> {
    let name = text.trim();
    if name.is_empty() { Err("expected names separated by commas".into()) } else { Ok(name.into()) }
}

/// Parses a pattern and its number.
fn parse_pattern<T: FromStr>(text: &str) -> std::result::Result<(String, T), String> {
    let expected = || format!("'{text}' is not a pattern and its number, such as down_proj=32");
    let (pattern, number) = text.rsplit_once('=').ok_or_else(expected)?;
    let number = number.trim().parse().map_err(|_| expected())?;
    if pattern.is_empty() { Err(expected()) } else { Ok((pattern.into(), number)) }
}

/// Parses two numbers separated by a comma.
fn parse_betas(text: &str) -> std::result::Result<(f64, f64), String> {
    let parse = |part: &str| part.trim().parse::<f64>().map_err(|_| format!("'{part}' is not a number"));
    let (first, second) = text.split_once(',').ok_or("expected two numbers separated by a comma, such as 0.9,0.999")?;
    Ok((parse(first)?, parse(second)?))
}
