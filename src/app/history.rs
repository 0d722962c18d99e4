//! State of the list of runs: those on disk, the chosen one, and those to compare.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::command_line::settings;
use super::labels::label;
use crate::train::PastRun;

/// Most runs in the list.
pub const MOST_RUNS: usize = 200;
/// Most runs to compare at a time.
pub const MOST_COMPARED: usize = 6;

/// State of the list of runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Whether the page shows the list rather than the run to start.
    pub is_shown: bool,
    /// The runs, the newest first; `None` before they are read.
    pub runs: Option<Vec<PastRun>>,
    /// The folder of the chosen run.
    pub chosen: Option<PathBuf>,
    /// The folders of the runs to compare.
    pub compared: BTreeSet<PathBuf>,
}

impl History {
    /// The run in a folder.
    pub fn run(&self, dir: &Path) -> Option<&PastRun> {
        self.runs.iter().flatten().find(|run| run.job.out == dir)
    }

    /// The chosen run.
    pub fn chosen(&self) -> Option<&PastRun> {
        self.run(self.chosen.as_deref()?)
    }

    /// Shows runs that were read anew.
    pub fn list(&mut self, runs: Vec<PastRun>) {
        self.compared.retain(|dir| runs.iter().any(|run| run.job.out == *dir));
        self.runs = Some(runs);
        if self.chosen().is_none() {
            self.chosen = None;
        }
    }

    /// The runs whose curves are drawn: those to compare, or else the chosen one.
    pub fn drawn(&self) -> Vec<&PastRun> {
        let compared: Vec<&PastRun> =
            self.runs.iter().flatten().filter(|run| self.compared.contains(&run.job.out)).collect();
        if compared.is_empty() { self.chosen().into_iter().collect() } else { compared }
    }

    /// The settings in which the runs to compare differ: the label of each, and its text in each run.
    pub fn differences(&self) -> Vec<(String, Vec<String>)> {
        let runs = self.drawn();
        let all: Vec<Vec<(String, String)>> = runs.iter().map(|run| all_settings(run)).collect();
        let mut names: Vec<&String> = Vec::new();
        for (name, _) in all.iter().flatten() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let row = |name: &String| -> Vec<String> {
            let text = |run: &Vec<(String, String)>| {
                let texts: Vec<&str> = run.iter().filter(|(n, _)| n == name).map(|(_, text)| text.as_str()).collect();
                match texts.as_slice() {
                    [] => "default".to_string(),
                    [""] => "on".into(),
                    texts => texts.join(" "),
                }
            };
            all.iter().map(text).collect()
        };
        let rows = names.into_iter().map(|name| (label(name), row(name)));
        rows.filter(|(_, texts)| texts.windows(2).any(|pair| pair[0] != pair[1])).collect()
    }
}

/// The settings of a run with its model and its data.
pub fn all_settings(run: &PastRun) -> Vec<(String, String)> {
    let named = [("model", run.job.model.clone()), ("data", run.job.data.display().to_string())];
    named.map(|(name, text)| (name.to_string(), text)).into_iter().chain(settings(&run.job)).collect()
}
