//! Progress of `train` on stderr: a bar on a terminal, periodic lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::amounts::{rough_duration, size, token_speed};
use super::flags::with_flags;
use super::forecast_table;
use super::interrupt;
use super::output::note;
use super::stage::Stage;
use crate::error::Error;
use crate::train::{EvalLine, Forecast, Observer, PairStats, StepLine};

/// Approximate number of plain lines per run.
const PLAIN_LINES: u64 = 20;
/// Most seconds between two plain lines, if the steps are shorter.
const MOST_SILENCE: Duration = Duration::from_secs(60);
/// Weight of the newest step in the displayed speed.
const SMOOTHING: f64 = 0.2;

/// Displays the progress of a run.
#[derive(Default)]
pub struct Progress {
    /// `None` before the first step, and if stderr is not a terminal.
    bar: Option<ProgressBar>,
    stage: Option<Stage>,
    total: u64,
    tokens_per_s: Option<f64>,
    /// The first finished step, and when it was finished.
    first: Option<(u64, Instant)>,
    /// When the last plain line of a step was written.
    said: Option<Instant>,
}

impl Progress {
    fn say(&self, text: &str) {
        match (&self.bar, &self.stage) {
            (Some(bar), _) => bar.println(with_flags(text)),
            (None, Some(stage)) => stage.suspend(|| note(text)),
            (None, None) => note(text),
        }
    }

    /// Whether the run has got as far as its steps.
    pub fn has_begun(&self) -> bool {
        self.total > 0
    }

    /// Leaves the bar on the screen as it is.
    fn release_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }

    /// Seconds until the last step, by the time between the steps so far.
    fn seconds_left(&mut self, line: &StepLine) -> f64 {
        let (first, at) = *self.first.get_or_insert((line.step, Instant::now()));
        let each = match line.step - first {
            0 => line.seconds,
            n => at.elapsed().as_secs_f64() / n as f64,
        };
        each * self.total.saturating_sub(line.step) as f64
    }

    /// The values of a step in one line.
    fn described(&mut self, line: &StepLine) -> String {
        let now = line.tokens as f64 / line.seconds.max(1e-9);
        let smoothed = self.tokens_per_s.map_or(now, |before| before + SMOOTHING * (now - before));
        self.tokens_per_s = Some(smoothed);
        let kl = line.kl.map_or(String::new(), |kl| format!(" (kl {kl:.4})"));
        let pairs = line.pairs.map_or(String::new(), |p| pairs_text(&p));
        let speed = token_speed(smoothed, 1.0).map_or(String::new(), |speed| format!("  {speed}"));
        let left = match self.seconds_left(line) {
            0.0 => String::new(),
            seconds => format!("  {} left", rough_duration(seconds)),
        };
        // The most wanted first: a narrow terminal cuts the end off.
        format!("loss {}{kl}{pairs}{left}{speed}  {}  lr {:.2e}", line.loss_text(), size(line.bytes), line.lr)
    }

    /// Whether a step gets a plain line.
    fn is_due(&self, step: u64) -> bool {
        let is_turn = step == 1 || step == self.total || step.is_multiple_of((self.total / PLAIN_LINES).max(1));
        is_turn || self.said.is_none_or(|said| said.elapsed() >= MOST_SILENCE)
    }
}

impl Observer for Progress {
    fn note(&mut self, text: &str) {
        self.say(&format!("note: {text}"));
    }

    fn stage(&mut self, what: &str) {
        self.stage = None;
        match &self.bar {
            Some(bar) => bar.set_message(what.to_string()),
            None => self.stage = Some(Stage::begin(what)),
        }
    }

    fn forecast(&mut self, forecast: &Forecast) {
        self.stage = None;
        forecast_table::tell(forecast);
    }

    fn started(&mut self, total_steps: u64, n_examples: usize) {
        self.stage = None;
        self.total = total_steps;
        self.say(&format!("{total_steps} steps on {n_examples} examples"));
        if std::io::stderr().is_terminal() {
            self.bar = Some(step_bar(total_steps));
        }
        self.stage("the first step, which also prepares the kernels");
    }

    fn step(&mut self, line: &StepLine) {
        self.stage = None;
        let text = self.described(line);
        if let Some(bar) = &self.bar {
            bar.set_position(line.step);
            bar.set_message(text);
            if line.step == self.total {
                self.release_bar();
            }
        } else if self.is_due(line.step) {
            note(&format!("step {}/{}  {text}", line.step, self.total));
            self.said = Some(Instant::now());
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::is_asked()
    }

    fn retries_save(&mut self, why: &Error) -> bool {
        if !std::io::stdin().is_terminal() {
            return false;
        }
        self.stage = None;
        self.release_bar();
        self.say(&format!(
            "{why}\nFree disk space and press Enter to try again, or type no to discard the trained weights:"
        ));
        let mut answer = String::new();
        matches!(std::io::stdin().read_line(&mut answer), Ok(n) if n > 0) && answer.trim().is_empty()
    }

    fn evaluated(&mut self, line: &EvalLine) {
        self.stage = None;
        let perplexity = line.perplexity.map_or(String::new(), |p| format!(", perplexity {p:.3}"));
        let pairs = line.pairs.map_or(String::new(), |p| pairs_text(&p));
        self.say(&format!("step {}: validation loss {:.4}{perplexity}{pairs}", line.step, line.loss));
    }

    fn saved(&mut self, _step: u64) {
        self.stage = None;
    }
}

/// A bar that counts steps. Its clock goes on during a long step.
fn step_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{bar:12} {pos}/{len}  {elapsed}  {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// How the chosen answers of preference pairs compare with the rejected ones.
fn pairs_text(pairs: &PairStats) -> String {
    format!(" (margin {:.4}, accuracy {:.2})", pairs.margin, pairs.accuracy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_how_fast_how_much_and_how_long() {
        let line = |step: u64, tokens: usize, seconds: f64| -> StepLine {
            let value = json!({"step": step, "loss": 2.5, "lr": 1e-4, "grad_norm": 1.0, "tokens": tokens,
                               "seconds": seconds, "bytes": 512 << 20});
            serde_json::from_value(value).unwrap()
        };
        let mut progress = Progress { total: 11, ..Progress::default() };
        let text = progress.described(&line(1, 100, 60.0));
        assert_eq!(text, "loss 2.5000  10 min left  1.7 tokens/s  512.0 MiB  lr 1.00e-4");
        let text = |keep, kl| Progress::default().described(&StepLine { keep, kl, ..line(1, 100, 60.0) });
        assert!(text(Some(1.0), None).starts_with("loss 2.5000 dense  "));
        assert!(text(Some(0.25), Some(0.5)).starts_with("loss 2.5000 at 4x (kl 0.5000)  "));
        let mut slow = Progress { total: 1, ..Progress::default() };
        assert_eq!(slow.described(&line(1, 1, 4.0)), "loss 2.5000  4.0 s per token  512.0 MiB  lr 1.00e-4");
    }
}
