//! Updates of the app's state on events from the worker.

use std::path::Path;

use super::devices::CheckResult;
use super::exporting::ExportState;
use super::message::Event;
use super::state::{About, App, Busy, Effect, Notice, Page};
use super::tune::RunState;

/// Begins the note that a run was saved.
const SAVED: &str = "saved after step ";

impl App {
    /// Updates the state for an event from the worker and returns the effects to carry out.
    pub fn on_event(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.take_event(event);
        if self.closing && !self.must_finish() {
            effects.push(Effect::Close);
        }
        effects
    }

    fn take_event(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Adapters(list) => self.devices.adapters = Some(list),
            Event::Opened(card) => {
                self.busy = None;
                let before = self.chat.reopening.take();
                if before.is_none() {
                    self.forget(About::Opening);
                    self.models.field.clear();
                }
                let keeps = std::mem::take(&mut self.conversations.keeps_settings);
                if let Some(choice) = self.chat.opening.take() {
                    self.chat.choice = choice;
                }
                // A model that opens again keeps the compression that the user chose for it, unless its
                // adapter was meanwhile trained with another one.
                let known = before.map(|b| b.recorded).or(self.chat.model.as_ref().map(|model| model.recorded));
                let is_retrained = known.is_some_and(|recorded| recorded != card.recorded);
                let is_other = self.settings.opens_for(&self.chat.choice);
                if !keeps && (is_other || is_retrained) {
                    self.settings.take_recorded(card.recorded);
                }
                self.chat.model = Some(card);
                self.chat.closed = None;
                self.chat.wants_focus = true;
                let mut effects = [self.count_documents(), self.remember_opened()].concat();
                if is_other && !effects.contains(&Effect::SaveSettings) {
                    effects.push(Effect::SaveSettings);
                }
                return effects;
            }
            Event::NotDownloaded(choice) => {
                self.busy = None;
                return [self.open_last(), self.not_downloaded(choice)].concat();
            }
            Event::Counted(count) => self.counted(&count),
            Event::Closed => self.chat.close_for_a_while(),
            Event::Fed { done, total } => {
                self.chat.fed = Some((done, total));
                self.chat.grown(done);
            }
            Event::Said(text) => {
                self.chat.fed = None;
                if let Some(turn) = self.chat.turns.last_mut() {
                    turn.answer += &text;
                }
            }
            Event::Grown(n_tokens) => self.chat.grown(n_tokens),
            Event::Speed(rate) => self.chat.speed = Some(rate),
            Event::Answered(answer) => {
                self.busy = None;
                self.chat.answered(&answer);
                self.chat.wants_focus = true;
                return self.turn_to_next().unwrap_or_else(|| self.ask_queued());
            }
            Event::KeptSoFar { done, total } => self.chat.kept_so_far = Some((done, total)),
            Event::Stopped => {
                let was_opening = self.busy.take() == Some(Busy::Opening);
                self.chat.kept_so_far = None;
                let turned = self.turn_to_next().unwrap_or_default();
                return [turned, if was_opening { self.open_last() } else { self.reopen() }].concat();
            }
            Event::Kept(map) => {
                self.busy = None;
                self.chat.kept_so_far = None;
                if let Some(effects) = self.turn_to_next() {
                    return effects;
                }
                self.show_map(*map);
            }
            Event::Forecast(found) => {
                self.busy = None;
                self.tune.check.found = Some(found);
                return self.reopen();
            }
            Event::WouldReplace(folder) => {
                self.busy = None;
                self.tune.would_replace = Some(folder);
            }
            Event::WouldContinue(folder) => {
                self.busy = None;
                self.tune.would_continue = Some(folder);
                return self.read_runs(); // its curve so far
            }
            Event::TrainBegan(job) => {
                self.forget(About::Run);
                self.tune.begin(&job);
                self.chat.close_for_a_while();
                self.settings.remember_run(&job.out);
                return vec![Effect::SaveSettings];
            }
            Event::TrainStarted { steps, .. } => self.tune.total_steps = steps,
            Event::TrainStep(line) => self.tune.add_step(line),
            Event::TrainEvaluated(line) => self.tune.add_evaluation(line),
            // Another path may be in the field by now.
            Event::DataCounted(counts) if counts.path != Path::new(self.tune.data.trim()) => {}
            Event::DataCounted(counts) => self.tune.counts = Some(counts),
            Event::TrainSaved(step) => {
                // Only the last one is of use, and the notes of the start stay in sight.
                let notes = &mut self.tune.notes;
                notes.retain(|note| !note.starts_with(SAVED));
                notes.push(format!("{SAVED}{step}"));
            }
            Event::SaveFailed(why) => {
                if self.page != Page::Tune {
                    let text = "The trained weights could not be saved. The Fine-tune page asks what to do.";
                    self.notify(Notice { about: About::Run, ..Notice::error(text) });
                }
                (self.tune.save_failed, self.tune.gives_up, self.closing) = (Some(why), false, false);
            }
            Event::Runs(runs) => self.tune.history.list(runs),
            Event::ExportExists(path) => {
                self.busy = None;
                self.tune.export.state = ExportState::Asks(path);
            }
            Event::Exporting { done, total } => self.tune.export.state = ExportState::Writing(done, total),
            Event::ExportNote(text) => self.tune.export.notes.push(text),
            Event::ExportStopped => {
                self.busy = None;
                self.tune.export.state = ExportState::Stopped;
                return self.reopen();
            }
            Event::Exported { out, exported } => {
                self.busy = None;
                self.tune.export.state = ExportState::Done(out, exported);
                return self.reopen();
            }
            Event::Note(text) => self.tune.notes.push(text),
            Event::Trained(summary) => {
                self.busy = None;
                self.forget(About::Run);
                self.tune.turn(RunState::Done(summary));
                // The run may have made an adapter.
                return [self.reopen(), self.read_runs_again(), self.scan_models()].concat();
            }
            Event::Models(event) => return self.on_model_event(event),
            Event::Checked(line) => self.devices.lines.push(*line),
            Event::CheckDone { passed, failed, is_complete, report } => {
                self.busy = None;
                self.devices.result = Some(CheckResult { passed, failed, is_complete, report });
            }
            Event::Failed(why) => {
                let was_opening = self.busy == Some(Busy::Opening);
                self.failed(why);
                let turned = self.turn_to_next().unwrap_or_default();
                return [turned, if was_opening { self.open_last() } else { self.reopen() }].concat();
            }
            Event::Restarted(why) => {
                let was_opening = self.busy == Some(Busy::Opening);
                self.failed(why);
                if self.chat.closed.is_none() {
                    self.chat.close_for_a_while();
                }
                let turned = self.turn_to_next().unwrap_or_default();
                return [turned, if was_opening { self.open_last() } else { self.reopen() }].concat();
            }
        }
        vec![]
    }

    /// Opens the temporarily closed model again, if there is one, or that of a conversation that was
    /// turned to meanwhile. If that fails, it does not try again.
    fn reopen(&mut self) -> Vec<Effect> {
        if let Some(held) = self.conversations.waits_for.take().filter(|_| self.chat.closed.is_some()) {
            self.settings.name(&held.model, held.adapter.as_deref(), &held.device);
            let effects = self.open(held);
            self.conversations.keeps_settings = true;
            return [effects, vec![Effect::SaveSettings]].concat();
        }
        let Some(closed) = self.chat.closed.take() else { return vec![] };
        let effects = self.open(closed.choice.clone());
        self.chat.reopening = Some(closed);
        effects
    }

    /// After a model could not be opened: names the one that was open before in the fields again, and
    /// opens it if the worker has closed it. It does not try again what has just failed.
    fn open_last(&mut self) -> Vec<Effect> {
        let failed = self.chat.opening.take();
        let last = match &self.chat.closed {
            Some(closed) if self.chat.reopening.is_none() && failed.as_ref() != Some(&closed.choice) => &closed.choice,
            None if self.chat.model.is_some() => &self.chat.choice,
            _ => {
                (self.chat.closed, self.chat.reopening) = (None, None);
                return vec![];
            }
        };
        let mut effects = vec![];
        if failed.is_some_and(|failed| self.choice() == failed) {
            self.settings.name(&last.model, last.adapter.as_deref(), &last.device);
            effects.push(Effect::SaveSettings);
        }
        [self.reopen(), effects].concat()
    }

    fn failed(&mut self, why: String) {
        self.closing = false; // the window shows what failed
        let about = match self.busy.take() {
            Some(Busy::Opening) => About::Opening,
            Some(Busy::Training) => {
                self.tune.turn(RunState::Failed(why.clone()));
                About::Run
            }
            Some(Busy::Exporting) => {
                self.tune.export.state = ExportState::Failed(why.clone());
                About::Other
            }
            Some(Busy::Answering) => {
                self.chat.failed();
                self.chat.wants_focus = true;
                About::Other
            }
            _ => About::Other,
        };
        if about == About::Run && self.page == Page::Tune {
            return self.forget(about); // the page says itself why the run failed
        }
        self.notify(Notice { about, ..Notice::error(why) });
    }
}
