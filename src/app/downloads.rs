//! State of a download: the offer with its size, then the progress, until the model opens.

use std::path::PathBuf;

use crate::checkpoint::hub_survey::Survey;

/// A model that is not on this machine, and what the hub says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The name as it was typed.
    pub model: String,
    /// The adapter to open with it.
    pub adapter: Option<PathBuf>,
    /// `None` until the hub answers. An error says what to do.
    pub answer: Option<Result<Survey, String>>,
}

/// Where a download stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The file that comes now.
    pub file: String,
    /// Files that are whole, and all files.
    pub files: (usize, usize),
    /// Bytes that are there, and all bytes.
    pub bytes: (u64, u64),
    /// Over the last seconds, once known.
    pub bytes_per_s: Option<f64>,
    /// What it waits for, or does beside loading.
    pub note: Option<String>,
}

impl Progress {
    /// Seconds left at the present speed.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self.bytes.1.saturating_sub(self.bytes.0) as f64;
        self.bytes_per_s.filter(|speed| *speed > 0.0).map(|speed| left / speed)
    }

    /// The share that is there, from 0 to 1.
    pub fn share(&self) -> f32 {
        if self.bytes.1 == 0 { 0.0 } else { (self.bytes.0 as f64 / self.bytes.1 as f64) as f32 }
    }
}

/// What a download does.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DownloadState {
    #[default]
    Running,
    Paused,
    /// Why it ended. It can be continued.
    Failed(String),
}

/// A download in progress.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Download {
    /// Distinguishes the reports of its thread from those of earlier ones.
    pub id: u64,
    pub survey: Survey,
    /// The adapter to open with the model.
    pub adapter: Option<PathBuf>,
    pub state: DownloadState,
    pub progress: Progress,
}

impl Download {
    /// Takes a state in which nothing comes, so there is no speed.
    pub fn end(&mut self, state: DownloadState) {
        self.state = state;
        (self.progress.bytes_per_s, self.progress.note) = (None, None);
    }
}

/// What the thread of a download reports.
#[derive(Clone, Debug, PartialEq)]
pub enum DownloadEvent {
    Progress(Progress),
    /// All files are in the cache. So many were compared with their SHA-256.
    Done {
        n_checked: usize,
    },
    /// It was paused or stopped. What came stays in the cache.
    Ended,
    Failed(String),
}
