//! Runs on disk, read from their folders: settings, logs, how far each came, and its best checkpoint.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::held::{CHECKPOINTS, FAILED, FINISHED, JOB, LOCK, STEP, made_by, read_job, steps_in};
use super::job::TrainJob;
use super::observer::{EvalLine, best_of};
use super::run_log::{EVAL, Logs, METRICS};
use crate::error::Result;

/// Levels of folders in which runs are looked for.
const MAX_DEPTH: usize = 2;
/// Most folders that are looked into.
const MAX_FOLDERS: usize = 10_000;

/// How far a run came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PastState {
    Finished,
    /// A run writes to the folder.
    Running,
    /// It was stopped or killed.
    Stopped,
    /// It failed for this reason.
    Failed(String),
}

/// A run on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct PastRun {
    /// Its settings; `out` is its folder.
    pub job: TrainJob,
    pub state: PastState,
    pub logs: Logs,
    /// The step of the last checkpoint, from which an unfinished run resumes.
    pub saved_at: Option<u64>,
    /// Whether the folder holds an adapter or a model.
    pub has_result: bool,
    /// The evaluation with the lowest loss.
    pub best: Option<EvalLine>,
    /// The folder of the checkpoint of that evaluation, if it is there.
    pub best_checkpoint: Option<PathBuf>,
    /// When it last wrote something, in seconds since 1970.
    pub changed: u64,
}

impl PastRun {
    /// Reads the run in a folder. `None` if there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(JOB);
        if !path.is_file() {
            return Ok(None);
        }
        let job = TrainJob { out: dir.to_path_buf(), ..read_job(&path)? };
        let logs = Logs::read(dir)?;
        let best = best_of(&logs.evaluations);
        let checkpoints = dir.join(CHECKPOINTS);
        let best_checkpoint = best.map(|best| checkpoints.join(format!("{STEP}{}", best.step)));
        let has_result = dir.join(made_by(job.method).1).exists();
        Ok(Some(Self {
            job,
            state: state_of(&checkpoints),
            logs,
            saved_at: steps_in(dir)?.pop(),
            has_result,
            best,
            best_checkpoint: best_checkpoint.filter(|folder| folder.is_dir()),
            changed: [JOB, METRICS, EVAL].iter().filter_map(|name| written(&dir.join(name))).max().unwrap_or(0),
        }))
    }

    /// The runs in some folders and in the folders in them, the newest first, and `most` at most. Leaves
    /// out what cannot be read.
    pub fn find(folders: &[PathBuf], most: usize) -> Vec<Self> {
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        for folder in folders {
            look(folder, 0, &mut seen, &mut found);
        }
        found.sort_by(|a, b| b.changed.cmp(&a.changed).then_with(|| a.job.out.cmp(&b.job.out)));
        found.truncate(most);
        found
    }

    /// Steps done.
    pub fn n_steps(&self) -> u64 {
        self.logs.steps.last().map_or(0, |line| line.step)
    }

    /// Whether it can be resumed.
    pub fn is_resumable(&self) -> bool {
        matches!(self.state, PastState::Stopped | PastState::Failed(_)) && self.saved_at.is_some()
    }
}

fn state_of(checkpoints: &Path) -> PastState {
    let lock = File::options().write(true).open(checkpoints.join(LOCK));
    match lock.map(|lock| lock.try_lock()) {
        Ok(Err(TryLockError::WouldBlock)) => PastState::Running,
        _ if checkpoints.join(FINISHED).exists() => PastState::Finished,
        _ => fs::read_to_string(checkpoints.join(FAILED)).map_or(PastState::Stopped, PastState::Failed),
    }
}

/// When a file was last written.
fn written(path: &Path) -> Option<u64> {
    let at: SystemTime = path.metadata().and_then(|meta| meta.modified()).ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

fn look(folder: &Path, depth: usize, seen: &mut BTreeSet<PathBuf>, found: &mut Vec<PastRun>) {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = fs::read_dir(here) else { return };
    for entry in entries.flatten() {
        let is_hidden = entry.file_name().to_str().is_none_or(|name| name.starts_with('.') || name == CHECKPOINTS);
        let Ok(path) = std::path::absolute(entry.path()) else { continue };
        if is_hidden || !path.is_dir() || seen.len() >= MAX_FOLDERS || !seen.insert(path.clone()) {
            continue;
        }
        match PastRun::read(&path) {
            Ok(Some(run)) => found.push(run),
            Ok(None) if depth + 1 < MAX_DEPTH => look(&path, depth + 1, seen, found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_in(dir: &Path, job: &TrainJob) {
        fs::create_dir_all(dir.join(CHECKPOINTS)).unwrap();
        fs::write(dir.join(JOB), serde_json::to_string(job).unwrap()).unwrap();
        let steps = (1..=5).map(|i| {
            format!("{{\"step\": {i}, \"loss\": 2.0, \"lr\": 0.1, \"grad_norm\": 1, \"tokens\": 7, \"seconds\": 1, \"bytes\": 9}}\n")
        });
        fs::write(dir.join(METRICS), steps.collect::<String>() + "{\"step\": 6").unwrap();
        let lines = [(2, 1.5), (4, 1.25), (5, 1.75)]
            .map(|(step, loss)| format!("{{\"step\": {step}, \"loss\": {loss}, \"tokens\": 3}}\n"));
        fs::write(dir.join(EVAL), lines.concat()).unwrap();
        for step in [4, 5] {
            fs::create_dir(dir.join(CHECKPOINTS).join(format!("{STEP}{step}"))).unwrap();
        }
    }

    #[test]
    fn a_folder_says_how_far_its_run_came() {
        let dir = tempfile::tempdir().unwrap();
        let job = TrainJob { rank: Some(4), steps: Some(9), ..TrainJob::default() };
        assert_eq!(PastRun::read(dir.path()).unwrap(), None);
        run_in(dir.path(), &job);
        let read = || PastRun::read(dir.path()).unwrap().unwrap();
        let run = read();
        assert_eq!(run.job, TrainJob { out: dir.path().into(), ..job });
        assert_eq!((run.n_steps(), run.saved_at, run.has_result), (5, Some(5), false));
        assert_eq!(run.best.map(|best| (best.step, best.loss)), Some((4, 1.25)));
        assert_eq!(run.best_checkpoint, Some(dir.path().join("checkpoints/step-4")));
        assert!(run.state == PastState::Stopped && run.is_resumable() && run.changed > 1_700_000_000);
        fs::remove_dir(dir.path().join("checkpoints/step-4")).unwrap();
        assert_eq!(read().best_checkpoint, None);

        let checkpoints = dir.path().join(CHECKPOINTS);
        fs::write(checkpoints.join(FAILED), "the device was lost").unwrap();
        assert!(read().state == PastState::Failed("the device was lost".into()) && read().is_resumable());
        fs::write(checkpoints.join(FINISHED), "").unwrap();
        assert!(read().state == PastState::Finished && !read().is_resumable());
        let lock = File::create(checkpoints.join(LOCK)).unwrap();
        lock.lock().unwrap();
        assert_eq!(read().state, PastState::Running);
        drop(lock);
        fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
        assert!(read().state == PastState::Finished && read().has_result);
    }

    #[test]
    fn runs_are_found_below_folders_and_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a", "group/b", "group/deep/c", ".hidden"] {
            run_in(&at(name), &TrainJob::default());
        }
        fs::create_dir(at("broken")).unwrap();
        fs::write(at("broken").join(JOB), "{").unwrap();
        let names = |folders: &[PathBuf], most| -> Vec<PathBuf> {
            let mut names: Vec<PathBuf> = PastRun::find(folders, most).into_iter().map(|run| run.job.out).collect();
            names.sort();
            names
        };
        assert_eq!(names(&[dir.path().into(), at("group"), at("missing")], 9), [at("a"), at("group/b")]);
        assert_eq!(names(&[at("group/deep")], 9), [at("group/deep/c")]);
        assert_eq!(names(&[dir.path().into()], 1).len(), 1);
    }
}
