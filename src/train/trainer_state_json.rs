//! `trainer_state.json`: the progress of a run as `TrainerState` of transformers reads it.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::job::TrainJob;
use super::log_values::{eval_values, step_values};
use super::observer::best_of;
use super::run_log::Logs;
use crate::error::Result;

/// Name of the file.
pub(super) const FILE: &str = "trainer_state.json";

/// The length of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// Optimiser steps of the whole run.
    pub total_steps: u64,
    /// Optimiser steps of a pass over the training data.
    pub steps_per_epoch: u64,
}

impl Course {
    /// Passes over the training data after so many steps.
    fn epochs(&self, step: u64) -> f64 {
        step as f64 / self.steps_per_epoch.max(1) as f64
    }
}

/// The text of the file after a step. `checkpoint` gives the folder of a step's checkpoint, if it is
/// there.
pub(super) fn trainer_state_json(
    job: &TrainJob,
    course: Course,
    step: u64,
    logs: &Logs,
    checkpoint: impl Fn(u64) -> Option<PathBuf>,
) -> Result<String> {
    let best = best_of(&logs.evaluations);
    let best_checkpoint = best.and_then(|best| checkpoint(best.step));
    let value = json!({
        "best_global_step": best.map(|best| best.step),
        "best_metric": best.map(|best| best.loss),
        "best_model_checkpoint": best_checkpoint.map(|path| path.display().to_string()),
        "epoch": course.epochs(step),
        "eval_steps": job.eval_every,
        "global_step": step,
        "is_hyper_param_search": false,
        "is_local_process_zero": true,
        "is_world_process_zero": true,
        "log_history": history(course, logs)?,
        "logging_steps": 1,
        "max_steps": course.total_steps,
        "num_input_tokens_seen": logs.steps.iter().map(|line| line.tokens).sum::<usize>(),
        "num_train_epochs": match (job.steps, job.epochs) {
            (None, Some(epochs)) => epochs,
            _ => course.total_steps.div_ceil(course.steps_per_epoch.max(1)),
        },
        "save_steps": job.save_every,
        "stateful_callbacks": {},
        "total_flos": 0.0,
        "train_batch_size": job.batch_size,
        "trial_name": null,
        "trial_params": null,
    });
    Ok(serde_json::to_string(&value)? + "\n")
}

/// One object for each line of the logs, by step; an evaluation comes after its step.
fn history(course: Course, logs: &Logs) -> Result<Vec<Value>> {
    let mut entries = Vec::new();
    for line in &logs.steps {
        entries.push((line.step, entry(course, line.step, step_values(line)?, "")));
    }
    for line in &logs.evaluations {
        entries.push((line.step, entry(course, line.step, eval_values(line)?, "eval_")));
    }
    entries.sort_by_key(|(step, _)| *step); // stable
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn entry(course: Course, step: u64, values: Vec<(String, f64)>, prefix: &str) -> Value {
    let mut fields = Map::from_iter([("epoch".to_string(), json!(course.epochs(step)))]);
    fields.extend(values.into_iter().map(|(name, value)| (format!("{prefix}{name}"), json!(value))));
    fields.insert("step".to_string(), json!(step));
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::super::observer::{EvalLine, StepLine};
    use super::*;

    #[test]
    fn the_state_has_the_fields_of_transformers() {
        let step = |step: u64, loss: f64| -> StepLine {
            let value = json!({"step": step, "loss": loss, "lr": 0.5, "grad_norm": null, "tokens": 7, "seconds": 1.0,
                               "bytes": 1});
            serde_json::from_value(value).unwrap()
        };
        let eval = |step, loss: f64| EvalLine { step, loss, perplexity: Some(loss.exp()), tokens: 3, pairs: None };
        let logs = Logs {
            steps: vec![step(1, 3.0), step(2, 2.0), step(3, 2.5)],
            evaluations: vec![eval(2, 1.0), eval(3, 1.5)],
        };
        let course = Course { total_steps: 10, steps_per_epoch: 4 };
        let there = |step| (step == 2).then(|| PathBuf::from("out/step-2"));
        let text = trainer_state_json(&TrainJob::default(), course, 3, &logs, there).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap();
        // The names of the fields of `transformers.TrainerState`, which takes no others.
        let names = "best_global_step best_metric best_model_checkpoint epoch eval_steps global_step \
                     is_hyper_param_search is_local_process_zero is_world_process_zero log_history logging_steps \
                     max_steps num_input_tokens_seen num_train_epochs save_steps stateful_callbacks total_flos \
                     train_batch_size trial_name trial_params";
        assert_eq!(state.as_object().unwrap().keys().collect::<Vec<_>>(), names.split(' ').collect::<Vec<_>>());
        for (name, value) in [
            ("global_step", json!(3)),
            ("max_steps", json!(10)),
            ("epoch", json!(0.75)),
            ("num_train_epochs", json!(3)),
            ("num_input_tokens_seen", json!(21)),
            ("best_metric", json!(1.0)),
            ("best_global_step", json!(2)),
            ("best_model_checkpoint", json!("out/step-2")),
        ] {
            assert_eq!(state[name], value, "{name}");
        }
        let history = state["log_history"].as_array().unwrap();
        assert_eq!(history.len(), 5);
        assert_eq!(history[1], json!({"epoch": 0.5, "loss": 2.0, "learning_rate": 0.5, "grad_norm": null, "step": 2}));
        assert_eq!(history[2]["eval_loss"], 1.0);
        assert_eq!((&history[4]["step"], &history[4]["eval_loss"]), (&json!(3), &json!(1.5)));
    }
}
