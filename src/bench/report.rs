//! The report of a benchmark, and its JSON, which a later run is compared with.

use serde::{Deserialize, Serialize};

use super::measure::{Runs, Samples};
use super::roofline::Roofline;
use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::gpu::Work;

/// One kernel in one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelRow {
    /// Label and variant.
    pub kernel: String,
    /// `reference`, or the features for which the variant that ran is made: `portable`, `subgroups`, …
    #[serde(alias = "form")]
    pub variant: String,
    /// The case.
    pub case: String,
    /// Least floating-point operations of a dispatch.
    pub flops: u64,
    /// Least bytes that it reads and writes.
    pub bytes: u64,
    /// Shortest time in seconds.
    pub best_seconds: f64,
    /// Median time in seconds.
    pub median_seconds: f64,
    /// 10^9 operations a second, by the best time.
    pub gflop_per_s: f64,
    /// 10^9 bytes a second, by the best time.
    pub gb_per_s: f64,
    /// The time that the roofline allows over the best time. Above 1 the data came from a cache.
    pub of_roofline: f64,
}

impl KernelRow {
    pub(super) fn new(
        kernel: String,
        variant: String,
        case: String,
        work: Work,
        samples: &Samples,
        roofline: &Roofline,
    ) -> Self {
        let best = samples.best();
        Self {
            kernel,
            variant,
            case,
            flops: work.flops,
            bytes: work.bytes,
            best_seconds: best,
            median_seconds: samples.median(),
            gflop_per_s: work.flops as f64 / best / 1e9,
            gb_per_s: work.bytes as f64 / best / 1e9,
            of_roofline: roofline.shortest(work) / best,
        }
    }
}

/// What a model is measured at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// Attention of one layer, forward and backward.
    Attention,
    /// Optimiser steps of a LoRA adapter.
    TrainLora,
    /// Optimiser steps of every weight.
    TrainFull,
    /// Feeding a prompt.
    Prefill,
    /// Drawing and feeding tokens one by one.
    Decode,
    /// The same in a cache that was filled with made-up keys and values.
    DecodeFilled,
}

impl Activity {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Activity::Attention => "attention",
            Activity::TrainLora => "train, LoRA",
            Activity::TrainFull => "train, full",
            Activity::Prefill => "prefill",
            Activity::Decode => "decode",
            Activity::DecodeFilled => "decode, filled cache",
        }
    }
}

/// One activity of a model at one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRow {
    /// What is done.
    pub activity: Activity,
    /// `dense` or `lrsa`; with a filled cache also what is kept: `lrsa, keep 0.25`.
    pub attention: String,
    /// Tokens of the sequence; in decode those before the first that is drawn.
    pub length: usize,
    /// Tokens that one of the times below is for: all of them, 1 in decode.
    pub tokens: usize,
    /// Whether the backward pass computes the activations again.
    #[serde(default)]
    pub recompute: bool,
    /// Seconds of the first step, with compilation of its kernels; none where memory was planned and nothing ran.
    pub first_seconds: Option<f64>,
    /// Shortest time of a later step, in seconds; none where the first alone took far more than the budget.
    pub best_seconds: Option<f64>,
    /// Median time of the later steps, in seconds.
    pub median_seconds: Option<f64>,
    /// Tokens a second, by the median.
    pub tokens_per_s: Option<f64>,
    /// Most memory on the device in bytes: weights, cache and all that lives during a step.
    pub peak_bytes: u64,
    /// Bytes of the KV cache at the end; 0 in training.
    pub kv_bytes: u64,
}

impl ModelRow {
    /// Without `runs` nothing ran and only memory is told.
    pub(super) fn new(
        activity: Activity,
        attention: Attention,
        length: usize,
        tokens: usize,
        runs: Option<&Runs>,
    ) -> Self {
        let steady = runs.and_then(|r| r.steady.as_ref());
        let median = steady.map(Samples::median);
        Self {
            activity,
            attention: attention_name(attention).to_string(),
            length,
            tokens,
            recompute: false,
            first_seconds: runs.map(|r| r.first),
            best_seconds: steady.map(Samples::best),
            median_seconds: median,
            tokens_per_s: median.map(|s| tokens as f64 / s),
            peak_bytes: 0,
            kv_bytes: 0,
        }
    }

    /// The activity in words, and whether activations are computed again.
    pub fn name(&self) -> String {
        format!("{}{}", self.activity.name(), if self.recompute { ", recomputed" } else { "" })
    }
}

/// What one kernel takes of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelShare {
    /// Label and variant, or what else a command does.
    pub kernel: String,
    /// How often it runs.
    pub dispatches: usize,
    /// Seconds of all of these.
    pub seconds: f64,
}

/// Where the time of a training step goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// What is trained.
    pub activity: Activity,
    /// `dense` or `lrsa`.
    pub attention: String,
    /// Tokens of the sequence.
    pub length: usize,
    /// Kernels, the longest first.
    pub kernels: Vec<KernelShare>,
}

/// `dense` or `lrsa`.
pub(super) fn attention_name(attention: Attention) -> &'static str {
    match attention {
        Attention::Dense => "dense",
        Attention::Lrsa(_) => "lrsa",
    }
}

/// All that was measured on one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of Longreach.
    pub longreach: String,
    /// The device.
    pub device: String,
    /// What it can do at best; none where no kernels were measured.
    pub roofline: Option<Roofline>,
    /// The kernels.
    pub kernels: Vec<KernelRow>,
    /// The model that was run; empty where none was.
    pub model: String,
    /// What LRSA was set to.
    pub lrsa: String,
    /// The model's rows.
    pub runs: Vec<ModelRow>,
    /// Where the time goes; empty where nobody asked.
    pub profiles: Vec<Profile>,
}

impl Report {
    /// A report of nothing yet.
    pub fn new(device: String) -> Self {
        Self {
            longreach: env!("CARGO_PKG_VERSION").to_string(),
            device,
            roofline: None,
            kernels: vec![],
            model: String::new(),
            lrsa: String::new(),
            runs: vec![],
            profiles: vec![],
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::new(format!("the report is no JSON: {e}")))
    }

    /// From JSON that [`Report::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|e| Error::usage(format!("not the JSON of a benchmark report: {e}; make it anew")))
    }
}
