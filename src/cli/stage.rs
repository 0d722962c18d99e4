//! Stages: what a program is busy with where nothing else moves, such as loading a model.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::amounts::rough_duration;
use super::output::note;

/// How long a stage lasts before the first plain line names it. Later lines come after twice the time
/// each.
const SILENCE: Duration = Duration::from_secs(5);

/// A stage that runs until it is dropped. A terminal shows it at once with a clock. Elsewhere a line
/// appears if it takes long.
pub struct Stage {
    bar: ProgressBar,
    /// Ends the thread that writes plain lines when it is dropped.
    _end: Option<Sender<()>>,
}

impl Stage {
    /// Begins a stage, such as "loading the model".
    pub fn begin(what: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), _end: Some(say_if_long(what.to_string(), SILENCE, note)) };
        }
        let bar = ProgressBar::new_spinner().with_message(what.to_string());
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, _end: None }
    }

    /// Runs `write`, which writes to stderr, while the stage is off the screen.
    pub fn suspend(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Says what takes long, until the sender is dropped.
fn say_if_long(what: String, silence: Duration, say: impl Fn(&str) + Send + 'static) -> Sender<()> {
    let (end, ended) = channel();
    let begun = Instant::now();
    std::thread::spawn(move || {
        let mut next = silence;
        while ended.recv_timeout(next.saturating_sub(begun.elapsed())) == Err(RecvTimeoutError::Timeout) {
            say(&format!("{what} ({} so far)", rough_duration(begun.elapsed().as_secs_f64())));
            next *= 2;
        }
    });
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_stage_is_named() {
        let (said, lines) = channel();
        let stage = |silence| {
            let said = said.clone();
            let what = "loading the model".to_string();
            say_if_long(what, silence, move |line: &str| said.send(line.to_string()).unwrap())
        };
        drop(stage(Duration::from_secs(3600)));
        let long = stage(Duration::from_millis(1));
        let line = lines.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(line.starts_with("loading the model (") && line.ends_with("so far)"), "{line}");
        drop(long);
    }
}
