//! Tells whether the output folder of a job holds nothing, the job's unfinished run, or another run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::job::{Method, TrainJob};
use crate::checkpoint::record::AttentionRecord;
use crate::error::{Context, Result};
use crate::small_file;

/// The settings of a run.
pub(super) const JOB: &str = "job.json";
/// The folder of a run's checkpoints.
pub(super) const CHECKPOINTS: &str = "checkpoints";
/// Exists in the folder of checkpoints once the run is finished.
pub(super) const FINISHED: &str = "finished";
/// Holds the reason in the folder of checkpoints, if the run failed.
pub(super) const FAILED: &str = "failed";
/// Locked in the folder of checkpoints while a run writes.
pub(super) const LOCK: &str = "run.lock";
/// The beginning of a checkpoint's name.
pub(super) const STEP: &str = "step-";

/// The fields of a job that change nothing of what is trained: a run may resume with others.
const BESIDE_TRAINING: [&str; 7] =
    ["out", "eval_every", "save_every", "save_minutes", "keep_checkpoints", "early_stop", "recompute"];

/// Content of the folder of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing that a run would replace.
    Nothing,
    /// A run of this job that has not reached its end. A run of the job resumes it.
    Unfinished,
    /// Another run or a finished one, in words. A run replaces it only with the job's `overwrite`.
    Other(String),
}

/// Looks into the folder `out` of a job.
pub fn held(job: &TrainJob) -> Result<Held> {
    let dir = &job.out;
    let (own, own_file) = made_by(job.method);
    let has_result = dir.join(own_file).exists();
    let path = dir.join(JOB);
    if !path.is_file() {
        return Ok(if has_result { Held::Other(format!("{own} ({own_file})")) } else { Held::Nothing });
    }
    let other = match read_job(&path) {
        Err(_) => Some(format!("a run whose {JOB} this version cannot read")),
        Ok(recorded) => match differences(&recorded, job)?.join("; ") {
            settings if settings.is_empty() => None,
            settings => Some(format!("a run with other settings ({settings})")),
        },
    };
    let has_saved = has_result || !steps_in(dir)?.is_empty();
    let is_finished = dir.join(CHECKPOINTS).join(FINISHED).exists();
    Ok(match other {
        _ if !has_saved => Held::Nothing,
        Some(what) => Held::Other(what),
        None if is_finished => Held::Other("this run, which is finished".into()),
        None => Held::Unfinished,
    })
}

pub(super) fn read_job(path: &Path) -> Result<TrainJob> {
    serde_json::from_str(&small_file::read_text(path)?).with_context(|| path.display().to_string())
}

/// The settings in which two jobs would train differently, such as "`lr` 0.001, not 0.0002".
fn differences(recorded: &TrainJob, job: &TrainJob) -> Result<Vec<String>> {
    let (there, here) = (serde_json::to_value(recorded)?, serde_json::to_value(job)?);
    let (Value::Object(there), Value::Object(here)) = (there, here) else { unreachable!("a job is an object") };
    let names: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let differs = |name: &&String| !BESIDE_TRAINING.contains(&name.as_str()) && there.get(*name) != here.get(*name);
    let told = |name: &String| {
        let setting = if name == "keeps" { "keep" } else { name };
        format!("`{setting}` {}, not {}", value_text(name, there.get(name)), value_text(name, here.get(name)))
    };
    Ok(names.into_iter().filter(differs).map(told).collect())
}

/// The value of a setting in words.
fn value_text(name: &str, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "by default".into(),
        Some(Value::String(text)) => text.clone(),
        Some(record) if name == "attention" => match serde_json::from_value::<AttentionRecord>(record.clone()) {
            Ok(read) => read.attention().map_or_else(|_| record.to_string(), |attention| attention.to_string()),
            Err(_) => record.to_string(),
        },
        Some(Value::Array(list)) if list.is_empty() && name == "keeps" => "one value for all steps".into(),
        Some(Value::Array(list)) if list.is_empty() => "none".into(),
        Some(Value::Array(list)) => list.iter().map(|each| value_text(name, Some(each))).collect::<Vec<_>>().join(", "),
        Some(value) => value.to_string(),
    }
}

/// The step of the checkpoint of this name.
pub(super) fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(STEP).and_then(|n| n.parse().ok())
}

/// The steps of the checkpoints in a run's folder, in ascending order.
pub(super) fn steps_in(dir: &Path) -> Result<Vec<u64>> {
    let checkpoints = dir.join(CHECKPOINTS);
    if !checkpoints.is_dir() {
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    for entry in fs::read_dir(&checkpoints).with_context(|| checkpoints.display().to_string())? {
        steps.extend(entry?.file_name().to_str().and_then(step_of));
    }
    steps.sort_unstable();
    Ok(steps)
}

/// The result of a method: its name, and the file that identifies it.
pub(super) fn made_by(method: Method) -> (&'static str, &'static str) {
    match method {
        Method::Lora => ("an adapter", "adapter_config.json"),
        Method::Full => ("a model", "config.json"),
    }
}
