//! The report of an evaluation, as JSON and as a Markdown table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use crate::checkpoint::rope_override::RopeOverride;

/// Report of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Version of the program that wrote it.
    pub longreach: String,
    /// The command that it is of, for a POSIX shell. Its flags and the version's defaults decide the rest.
    pub command: String,
    /// Name of the task: `needle`, `qa`, …
    pub task: String,
    pub model: String,
    pub adapter: Option<String>,
    /// The RoPE scaling in place of the model's own, such as `yarn:4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeOverride>,
    pub device: String,
    /// Which layers the attentions apply to, if not to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<String>,
    /// S of the compressed attentions.
    pub sink: usize,
    /// L of the compressed attentions.
    pub lag: usize,
    pub seed: u64,
    /// Names of the metrics, in the order of the table's columns.
    pub metrics: Vec<String>,
    pub rows: Vec<Row>,
    /// Where it was stopped early: after how many answers, of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_after: Option<(usize, usize)>,
    /// All answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
}

/// Mean scores of one attention at one length and depth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the policy.
    pub attention: String,
    /// Compression factor of a partition; 1 for dense.
    pub compression: f64,
    /// Most tokens of a prompt.
    pub length: usize,
    /// Relative position of the answer, 0 to 1. Absent if the answer has no single position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<f64>,
    /// Number of samples.
    pub n: usize,
    /// Mean values by metric.
    pub values: BTreeMap<String, f64>,
    /// Entries of one head's cache in a layer with full attention at the end of the prompt, on
    /// average.
    pub kv_entries: f64,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub attention: String,
    /// Id of the sample.
    pub id: String,
    /// Document of the sample, if several samples share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    pub length: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<f64>,
    pub answer: String,
    /// The right answers.
    pub expected: Vec<String>,
    /// Scores in the order of the report's metrics.
    pub scores: Vec<f64>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Entries of one head's cache in a layer with full attention at the end of the prompt.
    pub kv_entries: usize,
}

impl EvalReport {
    /// Adds a row with means over the samples for each attention, length and depth, in the order of
    /// `policies` and of the samples.
    pub fn add_outcomes(&mut self, policies: &[Policy], outcomes: Vec<Outcome>) {
        for policy in policies {
            let mut cells: Vec<(usize, Option<f64>, Vec<&Outcome>)> = Vec::new();
            for outcome in outcomes.iter().filter(|o| o.attention == policy.name()) {
                // In documents, almost every sample has another depth, so rows per depth would be
                // meaningless.
                let depth = outcome.depth.filter(|_| self.task == "needle");
                match cells.iter_mut().find(|c| (c.0, c.1) == (outcome.length, depth)) {
                    Some(cell) => cell.2.push(outcome),
                    None => cells.push((outcome.length, depth, vec![outcome])),
                }
            }
            for (length, depth, cell) in cells {
                let mean = |f: &dyn Fn(&Outcome) -> f64| cell.iter().map(|o| f(o)).sum::<f64>() / cell.len() as f64;
                let values = self.metrics.iter().enumerate().map(|(i, m)| (m.clone(), mean(&|o| o.scores[i])));
                self.rows.push(Row {
                    attention: policy.name().to_string(),
                    compression: policy.compression(),
                    length,
                    depth,
                    n: cell.len(),
                    values: values.collect(),
                    kv_entries: mean(&|o| o.kv_entries as f64),
                });
            }
        }
        self.outcomes.extend(outcomes);
    }

    /// Names of the attentions, in the order of the rows.
    pub fn attentions(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.attention.as_str()) {
                names.push(&row.attention);
            }
        }
        names
    }

    /// Mean of a metric over all rows of an attention and optionally a length, with the number of
    /// samples.
    pub fn mean(&self, attention: &str, length: Option<usize>, metric: &str) -> Option<(f64, usize)> {
        let (mut sum, mut n) = (0.0, 0);
        for row in &self.rows {
            if row.attention == attention && length.is_none_or(|l| l == row.length) {
                sum += row.values.get(metric)? * row.n as f64;
                n += row.n;
            }
        }
        (n > 0).then(|| (sum / n as f64, n))
    }

    /// The lengths, ascending.
    pub fn lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> = self.rows.iter().map(|r| r.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }

    /// What it is of, and its table.
    pub fn to_document(&self) -> String {
        let Self { task, longreach, device, command, .. } = self;
        let table = self.to_markdown();
        format!("# eval {task}\n\nLongreach {longreach} on {device}:\n\n```sh\n{command}\n```\n\n{table}")
    }

    /// A table with one row per attention and length, averaged over depths. The plots show the
    /// depths.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("| attention | tokens | n | {} | KV entries |\n", self.metrics.join(" | "));
        text += &format!("|---|---:|---:|{}---:|\n", "---:|".repeat(self.metrics.len()));
        for attention in self.attentions() {
            for length in self.lengths() {
                let rows = || self.rows.iter().filter(|r| r.attention == attention && r.length == length);
                let n: usize = rows().map(|r| r.n).sum();
                if n == 0 {
                    continue;
                }
                let entries = rows().map(|r| r.kv_entries * r.n as f64).sum::<f64>() / n as f64;
                let _ = write!(text, "| {attention} | {length} | {n} |");
                for metric in &self.metrics {
                    let mean = self.mean(attention, Some(length), metric).map(|m| m.0);
                    let _ = write!(text, " {} |", mean.map_or("-".to_string(), digits));
                }
                let _ = writeln!(text, " {entries:.0} |");
            }
        }
        if let Some((done, total)) = self.stopped_after {
            let _ = writeln!(text, "\nStopped after {done} of {total}; the table has what every attention has done.");
        }
        if let Some(layers) = &self.layers {
            let _ = writeln!(text, "\nOf the model, {layers}.");
        }
        text
    }
}

/// A number for a table: three decimals, or six below 0.01.
fn digits(x: f64) -> String {
    if x != 0.0 && x.abs() < 0.01 { format!("{x:.6}") } else { format!("{x:.3}") }
}
