//! Cells of a study: the result of one model with one attention, each in a small file.
//!
//! A study that was interrupted continues with the missing cells.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::StudyPlan;
use super::recipe::{BASE, display_name};
use super::test_set::Test;
use crate::atomic_file::write_file;
use crate::error::{Context, Result};
use crate::small_file::read_text;

/// Identifies one of the models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelName {
    /// Name of the recipe, or [`BASE`].
    pub arm: String,
    /// Seed of the training; `None` for the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Identifies a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellName {
    #[serde(flatten)]
    pub model: ModelName,
    pub attention: String,
    /// The test, if it is not the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
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
    #[serde(flatten)]
    pub model: ModelName,
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

impl ModelName {
    /// The unchanged model.
    pub fn base() -> Self {
        Self { arm: BASE.into(), seed: None }
    }

    /// A recipe's model.
    pub fn trained(recipe: &str, seed: u64) -> Self {
        Self { arm: recipe.into(), seed: Some(seed) }
    }
}

impl fmt::Display for ModelName {
    /// `LRSA-tuned-seed-0`, also the name of its files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&display_name(&self.arm))?;
        self.seed.map_or(Ok(()), |seed| write!(f, "-seed-{seed}"))
    }
}

impl CellName {
    /// The cells of a model in the order of computation.
    pub fn of_model(plan: &StudyPlan, model: &ModelName) -> Vec<Self> {
        let tests = std::iter::once(None).chain(plan.also.iter().copied().map(Some));
        let of = |test| {
            let name = move |attention: &String| Self { model: model.clone(), attention: attention.clone(), test };
            plan.attentions.iter().map(name)
        };
        tests.flat_map(of).collect()
    }

    /// All cells of a study in the order of computation. Cells to compare are close together.
    pub fn all(plan: &StudyPlan) -> Vec<Self> {
        let mut all = Self::of_model(plan, &ModelName::base());
        for &seed in &plan.seeds {
            for recipe in &plan.recipes {
                all.extend(Self::of_model(plan, &ModelName::trained(&recipe.name, seed)));
            }
        }
        all
    }

    fn path(&self, dir: &Path) -> PathBuf {
        dir.join("cells").join(format!("{self}.json"))
    }

    /// Reads the cell from a study's folder, if it exists.
    pub fn read(&self, dir: &Path) -> Result<Option<Cell>> {
        read_json(&self.path(dir))
    }
}

impl fmt::Display for CellName {
    /// `LRSA-tuned-seed-0-4x-needle-4000`, also the name of its file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.model, self.attention)?;
        self.test.map_or(Ok(()), |test| write!(f, "-{test}"))
    }
}

impl Cell {
    /// Writes the cell to a study's folder.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&self.name.path(dir), self)
    }
}

impl TrainingRecord {
    fn path(dir: &Path, model: &ModelName) -> PathBuf {
        dir.join("training").join(format!("{model}.json"))
    }

    /// Reads the record from a study's folder, if it exists.
    pub fn read(dir: &Path, model: &ModelName) -> Result<Option<Self>> {
        read_json(&Self::path(dir, model))
    }

    /// Writes the record to a study's folder.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&Self::path(dir, &self.model), self)
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
