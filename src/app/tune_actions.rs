//! Actions on the page for fine-tuning.

use std::path::{Path, PathBuf};

use super::checked_run::{CheckedRun, RunCheck};
use super::command_line::command_line;
use super::history::MOST_COMPARED;
use super::message::Command;
use super::state::{About, Action, App, Busy, Effect, Notice, Page};
use super::tune::{RunState, TuneAction};
use crate::checkpoint::bundled;
use crate::checkpoint::record::AttentionRecord;
use crate::error::Result;
use crate::train::{Method, TrainJob};

impl App {
    /// The model that the page trains; empty for the bundled one.
    pub fn tune_model(&self) -> &str {
        self.tune.model.as_deref().unwrap_or(&self.settings.model).trim()
    }

    /// The training run that the page describes.
    pub fn job(&self) -> Result<TrainJob> {
        self.tune.job(self.tune_model(), self.settings.sink, self.settings.lag)
    }

    /// The run that the page describes, whatever its data holds.
    fn described(&self) -> Option<TrainJob> {
        self.tune.described(self.tune_model(), self.settings.sink, self.settings.lag)
    }

    /// Whether the page describes another run than the one whose results it shows.
    pub fn describes_another(&self) -> bool {
        self.described() != self.tune.asked
    }

    /// What the last check found, if it was of the run that the page describes.
    pub fn checked(&self) -> Option<&CheckedRun> {
        let check = &self.tune.check;
        let is_current = check.device == self.settings.device && check.asked == self.described();
        check.found.as_deref().filter(|_| is_current)
    }

    /// The command line of the run that the page describes.
    pub fn command_line(&self) -> Option<String> {
        Some(command_line(&self.job().ok()?, &self.settings.device))
    }

    /// Counts the examples of the data.
    pub(super) fn count_data(&self) -> Vec<Effect> {
        let path = PathBuf::from(self.tune.data.trim());
        let is_counted =
            self.tune.counts.as_ref().is_some_and(|counts| counts.path == path && counts.problem.is_none());
        if path.as_os_str().is_empty() || is_counted { vec![] } else { vec![Effect::CountData(path)] }
    }

    pub(super) fn on_tune(&mut self, action: TuneAction) -> Vec<Effect> {
        match action {
            TuneAction::CountData => self.count_data(),
            TuneAction::ShowRuns(is_shown) => {
                self.tune.history.is_shown = is_shown;
                if is_shown { self.read_runs() } else { vec![] }
            }
            TuneAction::ShowRun(dir) => {
                (self.tune.history.is_shown, self.tune.history.chosen) = (true, Some(dir));
                self.read_runs()
            }
            TuneAction::ReadRuns => self.read_runs(),
            TuneAction::Choose(dir) => {
                let history = &mut self.tune.history;
                history.chosen = (history.chosen.as_ref() != Some(&dir)).then_some(dir);
                vec![]
            }
            TuneAction::Compare(dir, is_compared) => {
                let compared = &mut self.tune.history.compared;
                if !is_compared {
                    compared.remove(&dir);
                } else if compared.len() < MOST_COMPARED {
                    compared.insert(dir);
                }
                vec![]
            }
            TuneAction::Resume(dir) => self.resume(&dir),
            TuneAction::ChatWith(dir, folder) => match self.tune.history.run(&dir).map(|run| run.job.clone()) {
                Some(job) => self.chat_with(&job, &folder),
                None => vec![],
            },
            TuneAction::Export { replace } => self.export(replace),
        }
    }

    /// Reads the runs below all folders that runs were saved to.
    pub(super) fn read_runs(&self) -> Vec<Effect> {
        let mut folders: Vec<PathBuf> = self.settings.runs.iter().map(PathBuf::from).collect();
        for out in [self.settings.out.trim(), self.tune.out.trim()] {
            folders.extend(Path::new(out).parent().map(Path::to_path_buf));
        }
        let mut all: Vec<PathBuf> = Vec::new();
        for folder in folders {
            if !all.contains(&folder) {
                all.push(folder);
            }
        }
        vec![Effect::ReadRuns(all)]
    }

    /// Reads the runs again if they are shown.
    pub(super) fn read_runs_again(&self) -> Vec<Effect> {
        if self.tune.history.is_shown { self.read_runs() } else { vec![] }
    }

    /// Resumes a run from its last checkpoint, with its own settings.
    fn resume(&mut self, dir: &Path) -> Vec<Effect> {
        let Some(run) = self.tune.history.run(dir) else { return vec![] };
        let job = TrainJob { resume: true, ..run.job.clone() };
        let effects = self.train(job, false);
        if !effects.is_empty() {
            self.tune.asked = None;
            self.tune.history.is_shown = false;
        }
        effects
    }

    /// Exports the chosen run.
    fn export(&mut self, replace: bool) -> Vec<Effect> {
        let Some(run) = self.tune.history.chosen() else { return vec![] };
        let (job, dir) = (self.tune.export.job(run), run.job.out.clone());
        let device = self.settings.device.clone();
        let effects = self.start(Busy::Exporting, Command::Export { job: Box::new(job), device, replace });
        if !effects.is_empty() {
            self.tune.export.begin(&dir);
        }
        effects
    }

    pub(super) fn act_on_tune(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::CheckRun => {
                let Some(job) = self.valid_job() else { return vec![] };
                let device = self.settings.device.clone();
                let check = RunCheck { asked: self.described(), device: device.clone(), found: None };
                let effects = self.start(Busy::Forecasting, Command::Forecast { job: Box::new(job), device });
                if !effects.is_empty() {
                    self.tune.check = check;
                }
                effects
            }
            Action::Train | Action::Replace | Action::ContinueRun => {
                let Some(job) = self.valid_job() else { return vec![] };
                let job = TrainJob { resume: action == Action::ContinueRun, ..job };
                let asked = self.described();
                let effects = self.train(job, action == Action::Replace);
                if effects.is_empty() {
                    return effects;
                }
                self.tune.asked = asked;
                self.settings.data.clone_from(&self.tune.data);
                self.settings.out.clone_from(&self.tune.out);
                self.settings.tune = self.tune.choices();
                [effects, vec![Effect::SaveSettings]].concat()
            }
            Action::Pause(paused) if self.tune.is_running() => {
                self.tune.run = if paused { RunState::Paused } else { RunState::Running };
                vec![Effect::Pause(paused)]
            }
            // It asks again before it discards what a run has learnt.
            Action::SaveAgain(false) if self.tune.save_failed.is_some() && !self.tune.gives_up => {
                self.tune.gives_up = true;
                vec![]
            }
            Action::SaveAgain(again) if self.tune.save_failed.take().is_some() => {
                self.tune.gives_up = false;
                self.forget(About::Run);
                vec![Effect::Answer(again)]
            }
            Action::ChatWithAdapter => {
                let job = self.tune.run_job.clone();
                self.chat_with(&job, &job.out)
            }
            _ => vec![],
        }
    }

    /// The run that the page describes. If there is none, adds a notice.
    fn valid_job(&mut self) -> Option<TrainJob> {
        match self.job() {
            Ok(job) => Some(job),
            Err(e) => {
                self.notify(Notice { about: About::Run, ..Notice::error(super::labels::in_words(&e.to_string())) });
                None
            }
        }
    }

    /// Starts a run, if the worker is free.
    fn train(&mut self, job: TrainJob, replace: bool) -> Vec<Effect> {
        let device = self.settings.device.clone();
        let effects = self.start(Busy::Training, Command::Train { job: Box::new(job), device, replace });
        if !effects.is_empty() {
            (self.tune.would_replace, self.tune.would_continue) = (None, None);
            self.forget(About::Run);
            if matches!(self.tune.run, RunState::Failed(_)) {
                self.tune.run = RunState::Idle;
            }
        }
        effects
    }

    /// Opens what a run has saved in a folder, with the attention of the run, and shows the chat.
    pub(super) fn chat_with(&mut self, job: &TrainJob, folder: &Path) -> Vec<Effect> {
        let begun = if self.chat.turns.is_empty() { vec![] } else { self.on_action(Action::NewChat) };
        let folder = folder.display().to_string();
        (self.settings.model, self.settings.adapter) = match job.method {
            Method::Lora if job.model == bundled::NAME => (String::new(), folder),
            Method::Lora => (job.model.clone(), folder),
            Method::Full => (folder, String::new()),
        };
        match job.attention {
            Some(AttentionRecord::Lrsa { sink, lag, keep }) => self.settings.take_lrsa(sink, lag, keep),
            Some(AttentionRecord::Dense) => self.settings.factor = 1,
            None => {}
        }
        self.page = Page::Chat;
        [begun, self.on_action(Action::OpenModel)].concat()
    }
}
