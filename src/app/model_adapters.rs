//! Finds LoRA adapters: in the folders of earlier runs, among those opened before, and in the cache.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::labels::in_words;
use super::models::{AdapterEntry, ScanJob};
use crate::checkpoint::adapter_gguf::is_gguf;
use crate::checkpoint::bundled;
use crate::checkpoint::record::Record;
use crate::error::{Context, Result};
use crate::formats::gguf::Gguf;
use crate::small_file;
use crate::train::Logs;

/// Most folders of earlier runs that are looked into.
const MOST_RUNS: usize = 500;
/// Most points of a loss curve.
const MOST_POINTS: usize = 120;
const CONFIG: &str = "adapter_config.json";

/// A model that adapters may belong to.
pub struct Base {
    /// The name that opens it; empty for the bundled model.
    pub model: String,
    pub place: Option<PathBuf>,
    pub fingerprint: Option<String>,
}

impl Base {
    /// Whether the files of an adapter name this model, by its name, its path or its weights.
    fn is_named(&self, name: &str, fingerprint: Option<&str>) -> bool {
        let same_file = |place: &Path| match (place.canonicalize(), Path::new(name).canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        let by_name = if self.model.is_empty() { bundled::is_named(name) } else { self.model == name };
        let by_weights = fingerprint.is_some() && self.fingerprint.as_deref() == fingerprint;
        by_name || by_weights || self.place.as_deref().is_some_and(same_file)
    }
}

/// The adapters that `job` tells where to look for, and those at `more`, with the models that they
/// belong to.
pub fn adapters(job: &ScanJob, more: Vec<PathBuf>, bases: &[Base]) -> Vec<AdapterEntry> {
    let mut paths: Vec<PathBuf> = job.adapters.iter().map(PathBuf::from).chain(more).chain(runs(&job.out)).collect();
    paths.retain(|path| path.join(CONFIG).is_file() || is_gguf(path) && path.is_file());
    let mut seen = Vec::new();
    paths.retain(|path| {
        let canonical = path.canonicalize().unwrap_or_else(|_| path.clone());
        let is_new = !seen.contains(&canonical);
        seen.push(canonical);
        is_new
    });
    paths.iter().map(|path| entry(path, bases)).collect()
}

/// The folder of the last run and its siblings.
fn runs(out: &str) -> Vec<PathBuf> {
    let out = match std::path::absolute(out.trim()) {
        Ok(out) if !out.as_os_str().is_empty() => out,
        _ => return vec![], // an empty path has no absolute one
    };
    let siblings = out.parent().and_then(|parent| parent.read_dir().ok()).into_iter().flatten().flatten();
    let mut found = vec![out.clone()];
    found.extend(siblings.take(MOST_RUNS).map(|entry| entry.path()).filter(|path| *path != out));
    found
}

fn entry(path: &Path, bases: &[Base]) -> AdapterEntry {
    let mut entry = AdapterEntry { path: path.to_path_buf(), changed: changed(path), ..AdapterEntry::default() };
    let read = if is_gguf(path) { read_gguf(path) } else { read_folder(path, &mut entry) };
    let record = read.unwrap_or_else(|e| {
        entry.problem = Some(in_words(&e.to_string()));
        None
    });
    let fingerprint = record.as_ref().and_then(|record| record.base.as_ref()).map(|base| base.fingerprint.clone());
    if let Some(record) = record {
        entry.attention = Some(record.attention);
        entry.base = record.base.map(|base| base.model).or(entry.base);
    }
    if let Some(name) = &entry.base {
        let own = bases.iter().filter(|base| base.is_named(name, fingerprint.as_deref()));
        entry.models = own.map(|base| base.model.clone()).collect();
    }
    entry
}

fn read_folder(dir: &Path, entry: &mut AdapterEntry) -> Result<Option<Record>> {
    let config = small_file::read_text(&dir.join(CONFIG)).and_then(|text| small_file::parse_json(&text));
    let config: Value = config.context(CONFIG)?;
    entry.rank = config["r"].as_u64().and_then(|r| usize::try_from(r).ok());
    entry.base = config["base_model_name_or_path"].as_str().map(str::to_owned).filter(|name| !name.is_empty());
    entry.losses = thinned(&Logs::read(dir).unwrap_or_default());
    Record::read(dir)
}

fn read_gguf(file: &Path) -> Result<Option<Record>> {
    Record::read_gguf(&Gguf::open(file)?.metadata)
}

/// The loss curve of a run with few enough points: means over equal numbers of steps.
fn thinned(logs: &Logs) -> Vec<[f64; 2]> {
    let points: Vec<[f64; 2]> =
        logs.steps.iter().filter(|s| s.loss.is_finite()).map(|s| [s.step as f64, s.loss]).collect();
    let mean = |points: &[[f64; 2]], i: usize| points.iter().map(|p| p[i]).sum::<f64>() / points.len() as f64;
    points.chunks(points.len().div_ceil(MOST_POINTS).max(1)).map(|chunk| [mean(chunk, 0), mean(chunk, 1)]).collect()
}

/// When a file or folder was last written, in seconds since 1970.
pub(super) fn changed(path: &Path) -> Option<u64> {
    path.metadata().and_then(|meta| meta.modified()).ok().and_then(seconds)
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::fingerprint::fingerprint;
    use crate::train::StepLine;

    fn adapter(dir: &Path, name: &str, config: &str, record: Option<&str>) {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        std::fs::write(dir.join(name).join(CONFIG), config).unwrap();
        if let Some(record) = record {
            std::fs::write(dir.join(name).join("longreach.json"), record).unwrap();
        }
    }

    #[test]
    fn adapters_of_earlier_runs_are_found_under_their_base() {
        let dir = tempfile::tempdir().unwrap();
        let own = fingerprint(&bundled::stories().unwrap()).unwrap().unwrap();
        let lrsa = r#""attention": "lrsa", "sink": 4, "lag": 8, "keep": 0.25"#;
        adapter(dir.path(), "a", r#"{"r": 8, "base_model_name_or_path": "org/name"}"#, None);
        let by_weights = format!(r#"{{{lrsa}, "base": {{"model": "elsewhere", "fingerprint": "{own}"}}}}"#);
        adapter(dir.path(), "b", r#"{"r": 4}"#, Some(&by_weights));
        adapter(dir.path(), "c", r#"{"r": 2, "base_model_name_or_path": "unknown"}"#, Some(&format!("{{{lrsa}}}")));
        adapter(dir.path(), "d", "{", None);
        std::fs::create_dir(dir.path().join("no adapter")).unwrap();
        let line = StepLine {
            step: 1,
            loss: 2.5,
            keep: None,
            chunk: None,
            ce: None,
            kl: None,
            pairs: None,
            lr: 0.1,
            grad_norm: 1.0,
            tokens: 1,
            seconds: 1.0,
            bytes: 1,
        };
        let lines: Vec<String> = (1..=3u64)
            .map(|step| serde_json::to_string(&StepLine { step, loss: step as f64, ..line }).unwrap())
            .collect();
        std::fs::write(dir.path().join("a/metrics.jsonl"), lines.join("\n") + "\n").unwrap();
        let bases = [
            Base { model: String::new(), place: None, fingerprint: Some(own) },
            Base { model: "org/name".into(), place: None, fingerprint: None },
        ];
        let job = ScanJob {
            out: dir.path().join("c").display().to_string(),
            adapters: vec![dir.path().join("a").display().to_string()],
            models: vec![],
        };
        let mut found = adapters(&job, vec![dir.path().join("a")], &bases);
        found.sort_by_key(|entry| entry.name());
        let names: Vec<(String, Vec<String>)> = found.iter().map(|e| (e.name(), e.models.clone())).collect();
        let named = |name: &str, models: &[&str]| (name.to_string(), models.iter().map(|m| m.to_string()).collect());
        assert_eq!(names, [named("a", &["org/name"]), named("b", &[""]), named("c", &[]), named("d", &[])]);
        assert_eq!(
            (found[0].losses.clone(), found[0].settings()),
            (vec![[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], "rank 8".into())
        );
        assert_eq!(found[1].settings(), "rank 4, sink 4, lag 8, keep 0.25");
        assert_eq!(found[2].base.as_deref(), Some("unknown"));
        assert!(found[3].problem.as_ref().unwrap().contains(CONFIG), "{:?}", found[3]);
        assert!(adapters(&ScanJob::default(), vec![], &bases).is_empty());
    }

    #[test]
    fn a_long_curve_is_thinned_to_means() {
        let line = |step: u64| {
            let text = format!(
                r#"{{"step": {step}, "loss": {step}, "lr": 0.1, "grad_norm": 1, "tokens": 1, "seconds": 1, "bytes": 1}}"#
            );
            serde_json::from_str::<StepLine>(&text).unwrap()
        };
        let logs = Logs { steps: (1..=240).map(line).collect(), evaluations: vec![] };
        let curve = thinned(&logs);
        assert_eq!((curve.len(), curve[0], curve[119]), (120, [1.5, 1.5], [239.5, 239.5]));
    }
}
