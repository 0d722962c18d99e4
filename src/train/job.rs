//! The description of a training run: one serialisable struct that drives the command line, the app and the library alike.
//!
//! It holds what was asked for and its defaults, and refuses what no run can mean; running it is [`super::run`]'s matter.
//! Messages name the command line's flags, which are the fields' names with dashes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::attention::{Attention, Lrsa};
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::load::Decay;
use crate::checkpoint::record::AttentionRecord;
use crate::checkpoint::weight_names::linears;
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::optim::{AdamWConfig, Schedule};

/// Rank of a new adapter where none is given; alpha is then twice the rank.
pub const DEFAULT_RANK: usize = 16;
/// Learning rate of an adapter where none is given.
pub const DEFAULT_LR_LORA: f64 = 2e-4;
/// Learning rate of full fine-tuning where none is given.
pub const DEFAULT_LR_FULL: f64 = 2e-5;

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A low-rank adapter beside the frozen model.
    #[default]
    Lora,
    /// Every weight, in f32.
    Full,
}

/// A training run. `..TrainJob::default()` fills in what the command line's defaults are.
///
/// ```
/// use longreach::checkpoint::bundled::StoriesFolder;
/// use longreach::gpu::open_device;
/// use longreach::train::{TrainJob, run};
///
/// let (model, dir) = (StoriesFolder::unpack()?, tempfile::tempdir()?);
/// let line = r#"{"prompt": "The otter had", "completion": " a red kite."}"#;
/// std::fs::write(dir.path().join("train.jsonl"), line)?;
/// let job = TrainJob {
///     model: model.path().display().to_string(),
///     data: dir.path().into(),
///     out: dir.path().join("adapter"),
///     steps: Some(2),
///     ..TrainJob::default()
/// };
/// let done = run(&job, open_device("cpu")?.as_mut(), &mut ())?;
/// assert_eq!(done.steps, 2);
/// assert!(job.out.join("adapter_model.safetensors").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainJob {
    /// Folder, GGUF file or hub id of the model.
    pub model: String,
    /// Folder of an adapter to continue.
    pub adapter: Option<PathBuf>,
    /// Folder with `train.jsonl` and perhaps `valid.jsonl`.
    pub data: PathBuf,
    /// Folder that the adapter or the model, `metrics.jsonl` and `eval.jsonl` go to.
    pub out: PathBuf,
    /// What is trained.
    pub method: Method,
    /// Rank of a new adapter; [`DEFAULT_RANK`].
    pub rank: Option<usize>,
    /// Alpha of a new adapter, which is scaled by alpha / rank; twice the rank.
    pub alpha: Option<f64>,
    /// Probability that an input of the adapter is dropped; 0, or what a continued adapter says.
    pub dropout: Option<f64>,
    /// Linear maps that get an adapter, such as `q_proj`; all seven.
    pub targets: Option<Vec<String>>,
    /// Optimiser steps; excludes `epochs`.
    pub steps: Option<u64>,
    /// Passes over the data; 1 where neither is given.
    pub epochs: Option<u64>,
    /// Sequences that run together, laid flat without padding.
    pub batch_size: usize,
    /// Batches of one optimiser step.
    pub accumulate: usize,
    /// Highest learning rate; [`DEFAULT_LR_LORA`] or [`DEFAULT_LR_FULL`].
    pub lr: Option<f64>,
    /// What happens to it after the warm-up.
    pub schedule: Schedule,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// What it applies to.
    pub decay: Decay,
    /// Largest gradient norm, 0 for none.
    pub clip: f64,
    /// Longer examples lose their end.
    pub max_length: Option<usize>,
    /// Recompute activations in the backward pass: less memory, a third more time.
    pub recompute: bool,
    /// Steps between evaluations on `valid.jsonl`, 0 for the end only. The end is always evaluated.
    pub eval_every: u64,
    /// Steps between saves, 0 for the end only. The end is always saved.
    pub save_every: u64,
    /// AdamW's betas.
    pub betas: (f64, f64),
    /// AdamW's epsilon.
    pub eps: f64,
    /// Seed of the examples' order, the adapter's start and the dropout.
    pub seed: u64,
    /// Attention to train with; what the adapter or model records, else LRSA with its defaults.
    pub attention: Option<AttentionRecord>,
    /// LRSA's r is drawn from these anew for each step, so that a model learns to live with several; empty for the attention's
    /// own r alone, which is also what evaluations use and what is recorded.
    pub keeps: Vec<f64>,
    /// Allows sequences up to this length instead of the model's own limit.
    pub max_positions: Option<usize>,
}

impl Default for TrainJob {
    fn default() -> Self {
        Self {
            model: String::new(),
            adapter: None,
            data: PathBuf::new(),
            out: PathBuf::new(),
            method: Method::Lora,
            rank: None,
            alpha: None,
            dropout: None,
            targets: None,
            steps: None,
            epochs: None,
            batch_size: 1,
            accumulate: 1,
            lr: None,
            schedule: Schedule::Cosine,
            warmup: 0,
            weight_decay: 0.0,
            decay: Decay::Matrices,
            clip: 1.0,
            max_length: None,
            recompute: false,
            eval_every: 0,
            save_every: 200,
            betas: (0.9, 0.999),
            eps: 1e-8,
            seed: 0,
            attention: None,
            keeps: Vec::new(),
            max_positions: None,
        }
    }
}

fn require(ok: bool, message: impl FnOnce() -> String) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::usage(message())) }
}

impl TrainJob {
    /// Refuses what no run can mean. Paths and the model are looked at when the job runs.
    pub fn validate(&self) -> Result<()> {
        require(!(self.steps.is_some() && self.epochs.is_some()), || {
            "--steps and --epochs say the same thing in two ways: give one of them".into()
        })?;
        for (flag, value) in [
            ("--steps", self.steps.unwrap_or(1)),
            ("--epochs", self.epochs.unwrap_or(1)),
            ("--batch-size", self.batch_size as u64),
            ("--accumulate", self.accumulate as u64),
        ] {
            require(value >= 1, || format!("{flag} {value} trains nothing: give at least 1"))?;
        }
        let short = self.max_length.filter(|&n| n < 2);
        require(short.is_none(), || {
            "--max-length: an example needs 2 tokens at least, one to see and one to say".into()
        })?;
        require(self.max_positions != Some(0), || "--max-positions 0 allows no token at all".into())?;
        self.optimizer().validate()?;
        self.validate_adapter()?;
        if let Some(Attention::Dense) = self.attention.as_ref().map(AttentionRecord::attention).transpose()? {
            require(self.keeps.is_empty(), || "--keep belongs to --attention lrsa, not to dense".into())?;
        }
        let attention = self.attention(None)?;
        self.attentions(attention).map(|_| ())
    }

    fn validate_adapter(&self) -> Result<()> {
        if let Some(rank) = self.rank {
            require(rank >= 1, || "--rank 0 makes no adapter: give at least 1".into())?;
        }
        if let Some(alpha) = self.alpha {
            let usable = alpha.is_finite() && alpha != 0.0;
            require(usable, || format!("--alpha {alpha} is no factor that an adapter can be scaled by"))?;
        }
        if let Some(dropout) = self.dropout {
            require((0.0..1.0).contains(&dropout), || format!("--dropout {dropout} does not lie in [0, 1)"))?;
        }
        let shape =
            [("--rank", self.rank.is_some()), ("--alpha", self.alpha.is_some()), ("--targets", self.targets.is_some())];
        let given = shape.iter().find(|(_, given)| *given).map(|(flag, _)| *flag);
        if self.method == Method::Full {
            let given = given.or(self.dropout.map(|_| "--dropout")).or(self.adapter.as_ref().map(|_| "--adapter"));
            return require(given.is_none(), || {
                format!(
                    "{} belongs to --method lora; --method full trains every weight of the model itself",
                    given.unwrap_or_default()
                )
            });
        }
        require(self.adapter.is_none() || given.is_none(), || {
            format!("{} cannot change the adapter that --adapter continues: leave it out", given.unwrap_or_default())
        })
    }

    /// The optimiser's settings.
    pub fn optimizer(&self) -> AdamWConfig {
        let default = match self.method {
            Method::Lora => DEFAULT_LR_LORA,
            Method::Full => DEFAULT_LR_FULL,
        };
        let lr = self.lr.unwrap_or(default);
        AdamWConfig { lr, betas: self.betas, eps: self.eps, weight_decay: self.weight_decay, clip: self.clip }
    }

    /// The attention to train with, where `recorded` stands beside the model or adapter.
    pub fn attention(&self, recorded: Option<Attention>) -> Result<Attention> {
        match &self.attention {
            Some(record) => record.attention(),
            None => Ok(recorded.unwrap_or(Attention::Lrsa(Lrsa::default()))),
        }
    }

    /// The attentions that steps draw from: `attention` with each r of `keeps`, or alone.
    pub fn attentions(&self, attention: Attention) -> Result<Vec<Attention>> {
        match attention {
            Attention::Lrsa(l) if !self.keeps.is_empty() => {
                let with = |&keep: &f64| Ok(Attention::Lrsa(Lrsa::new(l.sink(), l.lag(), keep)?));
                self.keeps.iter().map(with).collect()
            }
            _ => Ok(vec![attention]),
        }
    }

    /// Optimiser steps of the run when one pass over the data takes `steps_per_epoch`.
    pub fn total_steps(&self, steps_per_epoch: usize) -> u64 {
        self.steps.unwrap_or_else(|| self.epochs.unwrap_or(1).saturating_mul(steps_per_epoch as u64))
    }

    /// The configuration of a new adapter. Fails for targets that the model does not have.
    pub fn new_adapter(&self, model: &ModelConfig) -> Result<AdapterConfig> {
        let r = self.rank.unwrap_or(DEFAULT_RANK);
        let all = || linears(model).map(|l| l.target().to_string()).to_vec();
        let config = AdapterConfig {
            r,
            alpha: self.alpha.unwrap_or(2.0 * r as f64),
            dropout: self.dropout.unwrap_or(0.0),
            targets: self.targets.clone().unwrap_or_else(all),
            use_rslora: false,
            rank_pattern: vec![],
            alpha_pattern: vec![],
            base_model: Some(self.model.clone()),
        };
        config
            .validate(model)
            .map_err(|e| Error::usage(e.to_string()).context("--rank, --alpha, --dropout, --targets"))?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_json_and_unknown_fields_are_named() {
        let job = TrainJob {
            model: "m".into(),
            targets: Some(vec!["q_proj".into()]),
            attention: Some(AttentionRecord::Lrsa { sink: 4, lag: 20, keep: 0.35 }),
            ..TrainJob::default()
        };
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<TrainJob>(&text).unwrap(), job);
        let short: TrainJob = serde_json::from_str(r#"{"model": "m", "schedule": "linear", "decay": "all"}"#).unwrap();
        assert_eq!((short.schedule, short.decay, short.clip), (Schedule::Linear, Decay::All, 1.0));
        let e = serde_json::from_str::<TrainJob>(r#"{"learning_rate": 1}"#).unwrap_err().to_string();
        assert!(e.contains("learning_rate"), "{e}");
    }

    #[test]
    fn what_no_run_can_mean_names_its_flag() {
        type Change = fn(&mut TrainJob);
        let cases: [(&str, Change); 14] = [
            ("--epochs", |j| (j.steps, j.epochs) = (Some(1), Some(1))),
            ("--steps", |j| j.steps = Some(0)),
            ("--batch-size", |j| j.batch_size = 0),
            ("--accumulate", |j| j.accumulate = 0),
            ("--max-length", |j| j.max_length = Some(1)),
            ("--lr", |j| j.lr = Some(f64::NAN)),
            ("--rank", |j| j.rank = Some(0)),
            ("--alpha", |j| j.alpha = Some(f64::INFINITY)),
            ("--dropout", |j| j.dropout = Some(1.0)),
            ("--targets", |j| (j.method, j.targets) = (Method::Full, Some(vec![]))),
            ("--adapter", |j| (j.rank, j.adapter) = (Some(4), Some("a".into()))),
            ("--keep", |j| j.attention = Some(AttentionRecord::Lrsa { sink: 4, lag: 10, keep: 0.01 })),
            ("--keep", |j| j.keeps = vec![0.5, 0.001]),
            ("--keep", |j| (j.attention, j.keeps) = (Some(AttentionRecord::Dense), vec![0.5])),
        ];
        TrainJob::default().validate().unwrap();
        for (flag, change) in cases {
            let mut job = TrainJob::default();
            change(&mut job);
            let e = job.validate().expect_err(flag);
            assert!(e.to_string().contains(flag), "{flag}: {e}");
            assert_eq!(e.kind(), crate::error::ErrorKind::Usage);
        }
    }

    #[test]
    fn defaults_follow_the_method_and_the_rank() {
        let config = crate::model::config::testing::small();
        let job = TrainJob { rank: Some(4), ..TrainJob::default() };
        let adapter = job.new_adapter(&config).unwrap();
        assert_eq!((adapter.r, adapter.alpha, adapter.targets.len()), (4, 8.0, 7));
        assert_eq!(job.optimizer().lr, DEFAULT_LR_LORA);
        assert_eq!(TrainJob { method: Method::Full, ..TrainJob::default() }.optimizer().lr, DEFAULT_LR_FULL);
        assert_eq!((job.total_steps(7), TrainJob { epochs: Some(3), ..job.clone() }.total_steps(7)), (7, 21));
        let unknown = TrainJob { targets: Some(vec!["lm_head".into()]), ..TrainJob::default() };
        assert!(unknown.new_adapter(&config).unwrap_err().to_string().contains("lm_head"));
    }
}
