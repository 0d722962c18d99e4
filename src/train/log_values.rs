//! The numbers of a log line under the names that transformers and TensorBoard show.

use serde::Serialize;
use serde_json::Value;

use super::observer::{EvalLine, StepLine};
use crate::error::Result;

/// The numbers of a step that describe learning, such as `loss`, `learning_rate` and `grad_norm`.
pub(super) fn step_values(line: &StepLine) -> Result<Vec<(String, f64)>> {
    numbers(line, &["step", "chunk", "tokens", "seconds", "bytes"])
}

/// The numbers of an evaluation, such as `loss` and `perplexity`.
pub(super) fn eval_values(line: &EvalLine) -> Result<Vec<(String, f64)>> {
    numbers(line, &["step", "tokens"])
}

/// The tokens per second of a step, if its duration is known.
pub(super) fn tokens_per_second(line: &StepLine) -> Option<f64> {
    (line.seconds > 0.0).then(|| line.tokens as f64 / line.seconds)
}

/// The numbers of a line but some. One that is not finite is NaN.
fn numbers(line: &impl Serialize, left_out: &[&str]) -> Result<Vec<(String, f64)>> {
    let Value::Object(fields) = serde_json::to_value(line)? else { unreachable!("a line is an object") };
    let shown = fields.into_iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
    let named = shown.filter_map(|(name, value)| {
        let name = if name == "lr" { "learning_rate".to_string() } else { name };
        match value {
            Value::Null => Some((name, f64::NAN)),
            value => Some((name, value.as_f64()?)),
        }
    });
    Ok(named.collect())
}
