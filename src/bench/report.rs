//! The benchmark report and its JSON, which later runs are compared with.

use serde::{Deserialize, Serialize};

use super::measure::{Runs, Samples};
use super::roofline::Roofline;
use crate::attention::{Attention, cache_name};
use crate::error::{Error, Result};
use crate::gpu::Work;

/// The result of one kernel in one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelRow {
    /// Label and suffix.
    pub kernel: String,
    /// `reference`, or the features of the variant that ran: `portable`, `subgroups`, …
    #[serde(alias = "form")]
    pub variant: String,
    /// Name of the case.
    pub case: String,
    /// Minimum floating-point operations of a dispatch.
    pub flops: u64,
    /// Minimum bytes that it reads and writes.
    pub bytes: u64,
    /// Shortest time in seconds.
    pub best_seconds: f64,
    /// Median time in seconds.
    pub median_seconds: f64,
    /// 10^9 operations per second, by the best time.
    pub gflop_per_s: f64,
    /// 10^9 bytes per second, by the best time.
    pub gb_per_s: f64,
    /// Roofline time divided by best time. A value above 1 means that the data came from a cache.
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

/// A measured activity of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    /// Attention of one layer, forward and backward.
    Attention,
    /// Optimiser steps of a LoRA adapter.
    TrainLora,
    /// Optimiser steps of every weight.
    TrainFull,
    /// Prefill of a prompt.
    Prefill,
    /// Generation of tokens one by one.
    Decode,
    /// Generation of eight texts at once, each after a cache of made-up keys and values.
    DecodeTogether,
    /// Generation with a cache of made-up keys and values.
    DecodeFilled,
}

impl Activity {
    /// Display name.
    pub fn name(self) -> &'static str {
        match self {
            Activity::Attention => "attention",
            Activity::TrainLora => "train, LoRA",
            Activity::TrainFull => "train, full",
            Activity::Prefill => "prefill",
            Activity::Decode => "decode",
            Activity::DecodeTogether => "decode, 8 sequences",
            Activity::DecodeFilled => "decode, filled cache",
        }
    }
}

/// One activity of a model at one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRow {
    /// The activity.
    pub activity: Activity,
    /// `dense` or `lrsa`; with the keep ratio where it is not the default: `lrsa, keep 0.125`.
    pub attention: String,
    /// Tokens of the sequence; in decode the tokens before the first drawn one.
    pub length: usize,
    /// Tokens that one time covers: all of them; in decode, one of each sequence.
    pub tokens: usize,
    /// Whether the backward pass recomputes activations.
    #[serde(default)]
    pub recompute: bool,
    /// Tokens of a chunk, if the sequence streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<usize>,
    /// Seconds of the first step, including compilation; `None` if only memory was planned.
    pub first_seconds: Option<f64>,
    /// Shortest time of a later step in seconds; `None` if the first step far exceeded the budget.
    pub best_seconds: Option<f64>,
    /// Median time of the later steps, in seconds.
    pub median_seconds: Option<f64>,
    /// Tokens per second, by the median.
    pub tokens_per_s: Option<f64>,
    /// Peak device memory in bytes: weights, cache and everything that lives during a step.
    pub peak_bytes: u64,
    /// Bytes of the KV cache at the end; 0 in training.
    pub kv_bytes: u64,
}

impl ModelRow {
    /// Without `runs` nothing ran and the row holds only memory.
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
            attention: attention_name(attention),
            length,
            tokens,
            recompute: false,
            chunk: None,
            first_seconds: runs.map(|r| r.first),
            best_seconds: steady.map(Samples::best),
            median_seconds: median,
            tokens_per_s: median.map(|s| tokens as f64 / s),
            peak_bytes: 0,
            kv_bytes: 0,
        }
    }

    /// Display name of the activity, with a note if activations are recomputed or the sequence
    /// streams.
    pub fn name(&self) -> String {
        let chunk = self.chunk.map_or(String::new(), |n| format!(", chunks of {n}"));
        format!("{}{}{chunk}", self.activity.name(), if self.recompute { ", recomputed" } else { "" })
    }
}

/// The share of one kernel in a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelShare {
    /// Label and suffix, or the name of another command.
    pub kernel: String,
    /// Number of dispatches.
    pub dispatches: usize,
    /// Total seconds.
    pub seconds: f64,
}

/// The time of a training step by kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The kind of training.
    pub activity: Activity,
    /// `dense` or `lrsa`.
    pub attention: String,
    /// Tokens of the sequence.
    pub length: usize,
    /// Kernels in descending order of time.
    pub kernels: Vec<KernelShare>,
}

/// `dense`, or `lrsa` with the compression, such as `lrsa 4x`.
pub(super) fn attention_name(attention: Attention) -> String {
    match attention {
        Attention::Dense => "dense".to_string(),
        Attention::Lrsa(l) => format!("lrsa {}", cache_name(l.keep())),
    }
}

/// All measurements of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of Longreach.
    pub longreach: String,
    /// Name of the device.
    pub device: String,
    /// The device's peak rates; `None` if no kernels were measured.
    pub roofline: Option<Roofline>,
    /// The kernels.
    pub kernels: Vec<KernelRow>,
    /// Name of the model; empty if none ran.
    pub model: String,
    /// LRSA settings.
    pub lrsa: String,
    /// The rows of the model.
    pub runs: Vec<ModelRow>,
    /// Times of a training step by kernel; empty unless requested.
    pub profiles: Vec<Profile>,
}

impl Report {
    /// An empty report.
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

    /// The report as JSON.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::new(format!("the report cannot be written as JSON: {e}")))
    }

    /// Parses JSON that [`Report::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|e| Error::usage(format!("not the JSON of a benchmark report: {e}; make it anew")))
    }
}
