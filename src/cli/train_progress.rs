//! Progress of `train` on stderr: a bar on a terminal, periodic lines elsewhere.

use std::io::IsTerminal;

use indicatif::ProgressBar;

use super::flags::with_flags;
use super::forecast_table;
use super::interrupt;
use super::output::{bar, note};
use crate::error::Error;
use crate::train::{EvalLine, Forecast, Observer, PairStats, StepLine};

/// Approximate number of plain lines per run.
const PLAIN_LINES: u64 = 20;
/// Weight of the newest step in the displayed speed.
const SMOOTHING: f64 = 0.2;

/// Displays the progress of a run.
#[derive(Default)]
pub struct Progress {
    /// `None` if stderr is not a terminal.
    bar: Option<ProgressBar>,
    total: u64,
    tokens_per_s: Option<f64>,
}

impl Progress {
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(with_flags(text)),
            None => note(text),
        }
    }
}

impl Observer for Progress {
    fn note(&mut self, text: &str) {
        self.say(&format!("note: {text}"));
    }

    fn forecast(&mut self, forecast: &Forecast) {
        forecast_table::tell(forecast);
    }

    fn started(&mut self, total_steps: u64, n_examples: usize) {
        self.total = total_steps;
        self.say(&format!("{total_steps} steps on {n_examples} examples"));
        if std::io::stderr().is_terminal() {
            self.bar = Some(bar(total_steps));
        }
    }

    fn step(&mut self, line: &StepLine) {
        let now = line.tokens as f64 / line.seconds.max(1e-9);
        let speed = self.tokens_per_s.map_or(now, |before| before + SMOOTHING * (now - before));
        self.tokens_per_s = Some(speed);
        let kl = line.kl.map_or(String::new(), |kl| format!(" (kl {kl:.4})"));
        let pairs = line.pairs.map_or(String::new(), |p| pairs_text(&p));
        let text = format!("loss {:.4}{kl}{pairs}  lr {:.2e}  {speed:.0} tokens/s", line.loss, line.lr);
        if let Some(bar) = &self.bar {
            bar.set_position(line.step);
            bar.set_message(text);
            if line.step == self.total {
                bar.abandon(); // the finished bar stays on the screen
            }
        } else if line.step == 1
            || line.step == self.total
            || line.step.is_multiple_of((self.total / PLAIN_LINES).max(1))
        {
            note(&format!("step {}/{}  {text}", line.step, self.total));
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::is_asked()
    }

    fn retries_save(&mut self, why: &Error) -> bool {
        if !std::io::stdin().is_terminal() {
            return false;
        }
        self.say(&format!(
            "{why}\nFree disk space and press Enter to try again, or type no to discard the trained weights:"
        ));
        let mut answer = String::new();
        matches!(std::io::stdin().read_line(&mut answer), Ok(n) if n > 0) && answer.trim().is_empty()
    }

    fn evaluated(&mut self, line: &EvalLine) {
        let perplexity = line.perplexity.map_or(String::new(), |p| format!(", perplexity {p:.3}"));
        let pairs = line.pairs.map_or(String::new(), |p| pairs_text(&p));
        self.say(&format!("step {}: validation loss {:.4}{perplexity}{pairs}", line.step, line.loss));
    }
}

/// How the chosen answers of preference pairs compare with the rejected ones.
fn pairs_text(pairs: &PairStats) -> String {
    format!(" (margin {:.4}, accuracy {:.2})", pairs.margin, pairs.accuracy)
}
