//! Cells of a study: the result of one model with one attention, each in a small file.
//!
//! A study that was interrupted continues with the missing cells.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::{Arm, StudyPlan};
use crate::atomic_file::write_file;
use crate::error::{Context, Result};
use crate::small_file::read_text;

/// Identifies a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellName {
    pub arm: Arm,
    /// Seed of the training; `None` for the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    pub attention: String,
}

/// An answer with its scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Id of the sample.
    pub id: String,
    /// Document of the sample, if several samples share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    pub answer: String,
    pub expected: Vec<String>,
    /// Scores in the order of the cell's metrics.
    pub scores: Vec<f64>,
}

/// The result of one model with one attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    #[serde(flatten)]
    pub name: CellName,
    /// Checksum of the adapter; `None` for the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Names of the metrics.
    pub metrics: Vec<String>,
    /// Mean score for each metric.
    pub means: Vec<f64>,
    /// Mean number of entries of one head's cache at the end of a prompt.
    pub kv_entries: f64,
    pub device: String,
    /// Which layers the attention applies to, if not to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<String>,
    pub seconds: f64,
    pub answers: Vec<Answer>,
}

/// Record of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    pub arm: Arm,
    pub seed: u64,
    /// Checksum of the adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    pub steps: u64,
    /// Mean loss of the last ten steps.
    pub last_loss: f64,
    pub tokens: usize,
    pub seconds: f64,
    pub peak_bytes: u64,
    pub device: String,
    /// Loss of each step.
    pub losses: Vec<f64>,
}

impl CellName {
    /// All cells of a study in the order of computation. Cells to compare are close together.
    pub fn all(plan: &StudyPlan) -> Vec<Self> {
        let of = |arm, seed| {
            let name = move |attention: &String| Self { arm, seed, attention: attention.clone() };
            plan.attentions.iter().map(name)
        };
        let mut all: Vec<Self> = of(Arm::Base, None).collect();
        for &seed in &plan.seeds {
            all.extend(of(Arm::LrsaTuned, Some(seed)));
            all.extend(of(Arm::DenseTuned, Some(seed)));
        }
        all
    }

    /// Name of the model: `LRSA-tuned-seed-0`.
    pub fn model(&self) -> String {
        model_name(self.arm, self.seed)
    }

    fn path(&self, dir: &Path) -> PathBuf {
        dir.join("cells").join(format!("{}-{}.json", self.model(), self.attention))
    }

    /// Reads the cell from a study's folder, if it exists.
    pub fn read(&self, dir: &Path) -> Result<Option<Cell>> {
        read_json(&self.path(dir))
    }
}

/// Name of the model with this arm and seed.
pub(super) fn model_name(arm: Arm, seed: Option<u64>) -> String {
    seed.map_or(arm.name().to_string(), |seed| format!("{}-seed-{seed}", arm.name()))
}

impl Cell {
    /// Writes the cell to a study's folder.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&self.name.path(dir), self)
    }
}

impl TrainingRecord {
    fn path(dir: &Path, arm: Arm, seed: u64) -> PathBuf {
        dir.join("training").join(format!("{}.json", model_name(arm, Some(seed))))
    }

    /// Reads the record from a study's folder, if it exists.
    pub fn read(dir: &Path, arm: Arm, seed: u64) -> Result<Option<Self>> {
        read_json(&Self::path(dir, arm, seed))
    }

    /// Writes the record to a study's folder.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&Self::path(dir, self.arm, self.seed), self)
    }
}

/// Checksum that identifies the adapter in a folder.
pub(super) fn checksum(folder: &Path) -> Result<String> {
    let path = folder.join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(format!("crc32 {:08x}", crc32fast::hash(&bytes)))
}

/// Parses a JSON file. `None` if it does not exist.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(path).with_context(|| format!("reading {}", path.display()))?;
    let value = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a valid study file: remove it to compute it again", path.display()))?;
    Ok(Some(value))
}

/// Writes a JSON file atomically. Creates the folder if it is missing.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_file(path, serde_json::to_string_pretty(value)? + "\n")
}
