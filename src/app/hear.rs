//! The state machine's other ear: what the worker says.

use super::devices::CheckResult;
use super::message::Event;
use super::state::{App, Busy, Effect};
use super::tune::RunState;
use crate::generate::Answer;

impl App {
    /// Takes in what the worker says.
    pub fn hear(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Adapters(list) => self.devices.adapters = Some(list),
            Event::Opened(card) => {
                self.busy = None;
                if let Some((sink, lag, keep)) = card.recorded {
                    (self.settings.sink, self.settings.lag) = (sink, lag);
                    self.settings.factor = (1.0 / keep).round().clamp(1.0, 64.0) as u32;
                }
                self.chat.model = Some(card);
            }
            Event::Fed { done, total } => self.chat.fed = Some((done, total)),
            Event::Said(text) => {
                self.chat.fed = None;
                if let Some(turn) = self.chat.turns.last_mut() {
                    turn.answer += &text;
                }
            }
            Event::Answered(answer) => self.answered(answer),
            Event::Kept(map) => {
                self.busy = None;
                self.chat.kept = Some(*map);
                self.chat.shows_kept = true;
            }
            Event::Preview(examples) => {
                self.busy = None;
                self.tune.preview = examples;
            }
            Event::Estimated(bytes) => {
                self.busy = None;
                self.tune.estimate = Some(bytes);
            }
            Event::TrainStarted { steps, .. } => self.tune.total_steps = steps,
            Event::TrainStep(line) => self.tune.steps.push(line),
            Event::TrainEvaluated(line) => self.tune.evaluations.push(line),
            Event::TrainSaved(step) => self.tune.notes.push(format!("saved after step {step}")),
            Event::Note(text) => self.tune.notes.push(text),
            Event::Trained(summary) => {
                self.busy = None;
                self.tune.run = RunState::Done(summary);
            }
            Event::Checked(line) => self.devices.lines.push(*line),
            Event::CheckDone { passed, failed, report } => {
                self.busy = None;
                self.devices.result = Some(CheckResult { passed, failed, report });
            }
            Event::Failed(why) => self.failed(why),
            Event::Restarted(why) => {
                let was_opening = self.busy == Some(Busy::Opening);
                self.failed(why);
                self.chat.model = None;
                // A model that the engine fails on while it is opened would fail again.
                return if was_opening { vec![] } else { self.open_model() };
            }
        }
        vec![]
    }

    fn answered(&mut self, answer: Answer) {
        self.busy = None;
        self.chat.fed = None;
        self.chat.context = Some((answer.n_tokens, answer.kv_entries, answer.kv_bytes));
        if let Some(turn) = self.chat.turns.last_mut() {
            turn.answer = answer.text;
            turn.is_cut = answer.is_stopped;
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
            // The question goes back to where it was typed, so that it is not lost.
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
