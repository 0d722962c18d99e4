//! The description of a training run, one struct for the command line, the app and the library.
//!
//! `TrainJob` holds the settings with their defaults and rejects invalid ones; [`super::run`] runs
//! it. The command line derives its flags, help and defaults from the fields: a flag is the field's
//! name with dashes, and `-h` shows the first paragraph of the field's documentation.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::chunk_length::ChunkLength;
use super::distill::{Distill, Teacher};
use super::keep::Keep;
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::adapter_targets::{LayerList, ModuleSet, Targets};
use crate::checkpoint::load::Decay;
use crate::checkpoint::record::AttentionRecord;
use crate::checkpoint::weight_names::linears;
use crate::data::rng::seeded;
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::optim::{OptimizerKind, OptimizerSettings, Schedule, UpdateRule, at_least_zero, below_one, require};

/// Default rank of a new adapter; the default alpha is twice the rank.
pub const DEFAULT_RANK: usize = 16;

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
    /// Folder with a Hugging Face model, GGUF file, or hub id such as org/name
    #[arg(long, short, value_name = "DIR|FILE.gguf|HUB-ID")]
    pub model: String,
    /// Folder with a LoRA adapter in PEFT format to continue training
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Maximum sequence length, instead of the model's limit; leaves RoPE unchanged
    #[arg(long, value_name = "N")]
    pub max_positions: Option<usize>,
    /// Folder with train.jsonl and optionally valid.jsonl (or .json, .csv, .tsv, .parquet), a folder
    /// of texts, or one file; `longreach data` shows what a model learns of it
    #[arg(long, value_name = "DIR|FILE")]
    pub data: PathBuf,
    /// Output folder for the adapter or model, metrics.jsonl and eval.jsonl
    #[arg(long, alias = "output-dir", value_name = "DIR")]
    pub out: PathBuf,
    /// Train a LoRA adapter or all weights
    #[arg(long, value_enum, default_value_t = DEFAULT.method)]
    pub method: Method,
    /// LoRA rank of a new adapter [default: 16]
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
    /// LoRA alpha of a new adapter; its output is scaled by alpha / rank [default: twice the rank]
    #[arg(long, value_name = "A")]
    pub alpha: Option<f64>,
    /// Dropout probability of the adapter's inputs [default: 0, or the continued adapter's]
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
    /// Scale a new adapter's output by alpha / √rank (rsLoRA)
    #[arg(long, action = ArgAction::SetTrue)]
    pub rslora: bool,
    /// Train the magnitudes of the adapted weights' rows too (DoRA)
    #[arg(long, action = ArgAction::SetTrue)]
    pub dora: bool,
    /// Optimiser steps
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    pub steps: Option<u64>,
    /// Epochs: passes over the training data [default: 1]
    #[arg(long, value_name = "N")]
    pub epochs: Option<u64>,
    /// Sequences per batch, concatenated without padding
    #[arg(long, value_name = "N", default_value_t = DEFAULT.batch_size)]
    pub batch_size: usize,
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
    /// Weight decay
    #[arg(long, value_name = "W", default_value_t = DEFAULT.weight_decay)]
    pub weight_decay: f64,
    /// Parameters that weight decay applies to
    #[arg(long, value_enum, default_value_t = DEFAULT.decay)]
    pub decay: Decay,
    /// Clip gradients to this global norm; 0 disables it
    #[arg(long, value_name = "N", default_value_t = DEFAULT.clip)]
    pub clip: f64,
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
    /// Truncate longer examples to this many tokens
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
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
    /// Save every N steps, when the run is stopped, and at the end; 0 for the last two only
    #[arg(long, alias = "save-steps", value_name = "N", default_value_t = DEFAULT.save_every)]
    pub save_every: u64,
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
    /// Seed of the data order, the adapter's initial weights and dropout
    #[arg(long, value_name = "N", default_value_t = DEFAULT.seed)]
    pub seed: u64,
    /// Attention to train with [default: recorded with the adapter or model, else LRSA's defaults].
    #[arg(skip)]
    pub attention: Option<AttentionRecord>,
    /// Keep ratios of LRSA: each step draws one, so that the model learns to work with all of them.
    /// One that anneals gives its r at that step. If empty, every step uses the attention's own r.
    /// Evaluations use the attention's own r, and it is the recorded one.
    #[arg(skip)]
    pub keeps: Vec<Keep>,
}

/// The defaults of [`TrainJob::default`], of fields missing in JSON, and of the flags.
const DEFAULT: TrainJob = TrainJob {
    model: String::new(),
    adapter: None,
    max_positions: None,
    data: PathBuf::new(),
    out: PathBuf::new(),
    method: Method::Lora,
    rank: None,
    alpha: None,
    dropout: None,
    targets: None,
    layers: None,
    modules_to_save: Vec::new(),
    rslora: false,
    dora: false,
    steps: None,
    epochs: None,
    batch_size: 1,
    accumulate: 1,
    optimizer: OptimizerKind::AdamW,
    lr: None,
    schedule: Schedule::Cosine,
    warmup: 0,
    weight_decay: 0.0,
    decay: Decay::Matrices,
    clip: 1.0,
    distill: 0.0,
    teacher: Teacher::Base,
    max_length: None,
    recompute: false,
    chunk: ChunkLength::Auto,
    eval_every: 0,
    early_stop: None,
    save_every: 200,
    keep_checkpoints: 2,
    resume: false,
    overwrite: false,
    betas: None,
    eps: None,
    momentum: None,
    seed: 0,
    attention: None,
    keeps: Vec::new(),
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

/// Parses two numbers separated by a comma.
fn parse_betas(text: &str) -> std::result::Result<(f64, f64), String> {
    let parse = |part: &str| part.trim().parse::<f64>().map_err(|_| format!("'{part}' is not a number"));
    let (first, second) = text.split_once(',').ok_or("expected two numbers separated by a comma, such as 0.9,0.999")?;
    Ok((parse(first)?, parse(second)?))
}

impl TrainJob {
    /// Rejects invalid settings. Does not check paths or the model; the run does.
    pub fn validate(&self) -> Result<()> {
        require(!(self.steps.is_some() && self.epochs.is_some()), || {
            "`steps` and `epochs` both set the length of the run: give only one".into()
        })?;
        for (field, value) in [
            ("steps", self.steps.unwrap_or(1)),
            ("epochs", self.epochs.unwrap_or(1)),
            ("batch_size", self.batch_size as u64),
            ("accumulate", self.accumulate as u64),
        ] {
            require(value >= 1, || format!("`{field}` {value} trains nothing: give at least 1"))?;
        }
        require(self.keep_checkpoints >= 1, || "`keep_checkpoints` 0: a run needs at least 1 to resume from".into())?;
        require(self.early_stop.is_none() || self.eval_every > 0, || {
            "`early_stop` needs evaluations: give `eval_every`".into()
        })?;
        require(self.early_stop != Some(0), || "`early_stop` 0 stops nothing: give at least 1".into())?;
        require(!(self.resume && self.overwrite), || "`resume` and `overwrite` exclude each other".into())?;
        let short = self.max_length.filter(|&n| n < 2);
        require(short.is_none(), || {
            "`max_length`: an example needs at least 2 tokens, one as input and one to predict".into()
        })?;
        require(self.max_positions != Some(0), || "`max_positions` 0 allows no tokens".into())?;
        at_least_zero("lr", self.learning_rate())?;
        at_least_zero("clip", self.clip)?;
        Distill { weight: self.distill, teacher: self.teacher }.check_weight()?;
        require(self.distill > 0.0 || self.teacher == Teacher::default(), || {
            "`teacher` needs `distill`, its weight in the loss".into()
        })?;
        self.update_rule()?;
        self.validate_adapter()?;
        if let Some(Attention::Dense) = self.attention.as_ref().map(AttentionRecord::attention).transpose()? {
            require(self.keeps.is_empty(), || "`keep` applies only to `attention` lrsa, not to dense".into())?;
        }
        let attention = self.attention(None)?;
        self.extremes(attention).map(|_| ())
    }

    fn validate_adapter(&self) -> Result<()> {
        if let Some(rank) = self.rank {
            require(rank >= 1, || "`rank` 0: an adapter needs at least 1".into())?;
        }
        if let Some(alpha) = self.alpha {
            let usable = alpha.is_finite() && alpha != 0.0;
            require(usable, || format!("`alpha` {alpha} is not a usable scale for an adapter"))?;
        }
        if let Some(dropout) = self.dropout {
            below_one("dropout", dropout)?;
        }
        let shape = [
            ("rank", self.rank.is_some()),
            ("alpha", self.alpha.is_some()),
            ("targets", self.targets.is_some()),
            ("layers", self.layers.is_some()),
            ("modules_to_save", !self.modules_to_save.is_empty()),
            ("rslora", self.rslora),
            ("dora", self.dora),
        ];
        let given = shape.iter().find(|(_, given)| *given).map(|(field, _)| *field);
        if self.method == Method::Full {
            let given = given.or(self.dropout.map(|_| "dropout")).or(self.adapter.as_ref().map(|_| "adapter"));
            require(self.distillation().is_none() || self.teacher != Teacher::Base, || {
                "`teacher` base needs the untouched model, but `method` full trains it: use `teacher` self".into()
            })?;
            return require(given.is_none(), || {
                format!(
                    "`{}` applies only to `method` lora; `method` full trains every weight of the model itself",
                    given.unwrap_or_default()
                )
            });
        }
        if self.distillation().is_some() && self.teacher == Teacher::Base {
            require(self.modules_to_save.is_empty(), || {
                "`teacher` base is the untouched model, but `modules_to_save` replaces parts of it: use `teacher` self"
                    .into()
            })?;
        }
        let is_pattern = matches!(&self.targets, Some(set @ ModuleSet::Pattern(_)) if !set.is_all_linear());
        require(self.layers.is_none() || !is_pattern, || {
            "`layers` needs names in `targets`: name the layers in the regular expression instead".into()
        })?;
        require(self.adapter.is_none() || given.is_none(), || {
            format!("`{}` cannot change the adapter that `adapter` continues: leave it out", given.unwrap_or_default())
        })
    }

    /// Distillation, if its weight is above 0.
    pub fn distillation(&self) -> Option<Distill> {
        (self.distill > 0.0).then_some(Distill { weight: self.distill, teacher: self.teacher })
    }

    /// The peak learning rate: the given one, or the optimiser's default for the method.
    pub fn learning_rate(&self) -> f64 {
        let [lora, full] = self.optimizer.info().default_lr;
        self.lr.unwrap_or(match self.method {
            Method::Lora => lora,
            Method::Full => full,
        })
    }

    /// The optimiser's update rule. Fails for settings that are invalid or that the optimiser
    /// lacks.
    pub fn update_rule(&self) -> Result<Box<dyn UpdateRule>> {
        let Self { weight_decay, betas, eps, momentum, .. } = *self;
        self.optimizer.info().rule(&OptimizerSettings { weight_decay, betas, eps, momentum })
    }

    /// The attention to train with; `recorded` comes from the model or adapter.
    pub fn attention(&self, recorded: Option<Attention>) -> Result<Attention> {
        match &self.attention {
            Some(record) => record.attention(),
            None => Ok(recorded.unwrap_or(Attention::Lrsa(Lrsa::default()))),
        }
    }

    /// The attention of a step of a run of `total` steps: `attention` with the r that the step draws
    /// from `keeps`, or just `attention`. Depends only on the seed, the step and the total.
    pub fn attention_of(&self, attention: Attention, step: u64, total: u64) -> Result<Attention> {
        match attention {
            Attention::Lrsa(l) if !self.keeps.is_empty() => {
                let drawn = seeded(self.seed, step).random_range(0..self.keeps.len());
                Ok(Attention::Lrsa(Lrsa::new(l.sink(), l.lag(), self.keeps[drawn].at(step, total))?))
            }
            _ => Ok(attention),
        }
    }

    /// The attentions with the largest and the smallest r of each of `keeps`: what every step's
    /// attention lies between. Just `attention` if there is no list.
    pub fn extremes(&self, attention: Attention) -> Result<Vec<Attention>> {
        match attention {
            Attention::Lrsa(l) if !self.keeps.is_empty() => {
                let mut ratios: Vec<f64> = self.keeps.iter().flat_map(|keep| keep.ends()).collect();
                ratios.sort_by(f64::total_cmp);
                ratios.dedup();
                let with = |keep: f64| Ok(Attention::Lrsa(Lrsa::new(l.sink(), l.lag(), keep)?));
                ratios.into_iter().map(with).collect()
            }
            _ => Ok(vec![attention]),
        }
    }

    /// Total optimiser steps, given the steps per epoch.
    pub fn total_steps(&self, steps_per_epoch: usize) -> u64 {
        self.steps.unwrap_or_else(|| self.epochs.unwrap_or(1).saturating_mul(steps_per_epoch as u64))
    }

    /// The configuration of a new adapter. Fails for target modules that the model does not have.
    pub fn new_adapter(&self, model: &ModelConfig) -> Result<AdapterConfig> {
        let r = self.rank.unwrap_or(DEFAULT_RANK);
        let all = || ModuleSet::Names(linears(model).iter().map(|l| l.target().to_string()).collect());
        let modules = self.targets.clone().filter(|set| !set.is_all_linear()).unwrap_or_else(all);
        let targets = Targets {
            layers: self.layers.clone().map(|layers| layers.0),
            to_save: self.modules_to_save.clone(),
            // One weight of the model stays one.
            ensure_weight_tying: model.tied && !self.modules_to_save.is_empty(),
            ..Targets::of(modules)
        };
        let config = AdapterConfig {
            dropout: self.dropout.unwrap_or(0.0),
            use_rslora: self.rslora,
            use_dora: self.dora,
            base_model: Some(self.model.clone()),
            ..AdapterConfig::new(r, self.alpha.unwrap_or(2.0 * r as f64), targets)
        };
        let checked = config.targets.check_every_name(model).and_then(|()| config.validate(model));
        checked.map_err(|e| {
            let settings = "`rank`, `alpha`, `dropout`, `targets`, `layers`, `modules_to_save`";
            Error::usage(e.to_string()).context(settings)
        })?;
        Ok(config)
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
