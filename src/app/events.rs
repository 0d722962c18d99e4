//! Updates of the app's state on events from the worker.

use super::devices::CheckResult;
use super::message::Event;
use super::state::{App, Busy, Effect, Page};
use super::tune::RunState;
use crate::generate::{Answer, StoppedBy};

impl App {
    /// Updates the state for an event from the worker and returns the effects to carry out.
    pub fn on_event(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Adapters(list) => self.devices.adapters = Some(list),
            Event::Opened(card) => {
                self.busy = None;
                // A model that opens again keeps the user's settings, unless its adapter was
                // meanwhile trained with others.
                let before = self.chat.reopening.take();
                let is_new = before.is_none_or(|closed| closed.recorded != card.recorded);
                if let Some((sink, lag, keep)) = card.recorded.filter(|_| is_new) {
                    (self.settings.sink, self.settings.lag) = (sink, lag);
                    self.settings.factor = (1.0 / keep).round().clamp(1.0, 64.0) as u32;
                }
                self.chat.model = Some(card);
            }
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
            Event::Answered(answer) => self.answered(answer),
            Event::Kept(map) => {
                self.busy = None;
                self.chat.kept = Some(*map);
                self.chat.shows_kept = true;
            }
            Event::Preview(examples) => {
                self.busy = None;
                self.tune.preview.examples = examples;
            }
            Event::Estimated(bytes) => {
                self.busy = None;
                self.tune.estimate.bytes = Some(bytes);
            }
            Event::WouldReplace(folder) => {
                self.busy = None;
                self.tune.would_replace = Some(folder);
            }
            Event::TrainBegan(job) => {
                self.tune.begin(&job);
                self.chat.close_for_a_while();
            }
            Event::TrainStarted { steps, .. } => self.tune.total_steps = steps,
            Event::TrainStep(line) => self.tune.steps.push(line),
            Event::TrainEvaluated(line) => self.tune.evaluations.push(line),
            Event::TrainSaved(step) => self.tune.notes.push(format!("saved after step {step}")),
            Event::SaveFailed(why) => {
                if self.page != Page::Tune {
                    self.error("The trained weights could not be saved. The Fine-tune page asks what to do.");
                }
                self.tune.save_failed = Some(why);
            }
            Event::Note(text) => self.tune.notes.push(text),
            Event::Trained(summary) => {
                self.busy = None;
                self.tune.run = RunState::Done(summary);
                return self.reopen();
            }
            Event::Checked(line) => self.devices.lines.push(*line),
            Event::CheckDone { passed, failed, is_complete, report } => {
                self.busy = None;
                self.devices.result = Some(CheckResult { passed, failed, is_complete, report });
            }
            Event::Failed(why) => {
                self.failed(why);
                return self.reopen();
            }
            Event::Restarted(why) => {
                let was_opening = self.busy == Some(Busy::Opening);
                self.failed(why);
                // Opening the same model again would only fail again.
                if was_opening {
                    return vec![];
                }
                if self.chat.closed.is_none() {
                    self.chat.close_for_a_while();
                }
                return self.reopen();
            }
        }
        vec![]
    }

    /// Opens the temporarily closed model again, if there is one. If that fails, it does not try
    /// again.
    fn reopen(&mut self) -> Vec<Effect> {
        let Some(closed) = self.chat.closed.take() else { return vec![] };
        let effects = self.open(closed.choice.clone());
        self.chat.reopening = Some(closed);
        effects
    }

    fn answered(&mut self, answer: Answer) {
        self.busy = None;
        self.chat.fed = None;
        self.chat.context = Some((answer.n_tokens, answer.kv_entries, answer.kv_bytes));
        if let Some(turn) = self.chat.turns.last_mut() {
            turn.answer = answer.text;
            turn.is_cut = answer.stopped_by == StoppedBy::Caller;
        }
    }

    fn failed(&mut self, why: String) {
        if self.busy == Some(Busy::Training) {
            self.tune.run = RunState::Failed(why.clone());
        }
        if self.busy == Some(Busy::Answering)
            && let Some(turn) = self.chat.turns.last()
            && turn.answer.is_empty()
        {
            // Put the question back into the input field, so that the user does not lose it.
            let turn = self.chat.turns.pop().unwrap_or_default();
            if self.chat.draft.trim().is_empty() {
                self.chat.draft = turn.question;
            } else {
                self.chat.draft = format!("{}\n{}", turn.question, self.chat.draft);
            }
        }
        self.chat.fed = None;
        self.busy = None;
        self.error(why);
    }
}
