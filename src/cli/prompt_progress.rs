//! Progress of reading a prompt, shared by `generate` and `chat`.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::ProgressBar;

use super::output::{bar, note};

/// Shows on stderr how much of a long prompt is read: a bar on a terminal, lines elsewhere.
pub struct PromptProgress {
    /// Hidden unless stderr is a terminal.
    bar: ProgressBar,
    total: usize,
    /// When the last plain line was written, or the reading began.
    said: Instant,
    says: bool,
}

impl PromptProgress {
    /// Seconds between plain lines.
    const EVERY: u64 = 10;

    /// Nothing is read yet.
    pub fn new(total: usize, quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal && !quiet { bar(total as u64) } else { ProgressBar::hidden() };
        bar.set_message("reading the prompt");
        Self { bar, total, said: Instant::now(), says: !is_terminal && !quiet }
    }

    /// The bar, which is to be cleared when the prompt is read.
    pub fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// `n` tokens are read.
    pub fn at(&mut self, n: usize) {
        self.bar.set_position(n as u64);
        self.bar.tick();
        if self.says && self.said.elapsed().as_secs() >= Self::EVERY {
            note(&format!("read {n} of {} prompt tokens", self.total));
            self.said = Instant::now();
        }
    }
}
