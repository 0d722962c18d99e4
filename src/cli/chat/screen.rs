//! Where a conversation is shown: the standard streams, in colour on a terminal and plain elsewhere.

use std::io::IsTerminal;

use super::signals;
use crate::cli::output::{note, print};
use crate::cli::prompt_progress::PromptProgress;
use crate::error::{Error, Result};

const BRIGHT: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// What a conversation needs of a screen.
pub trait Screen {
    /// Shows a piece of the answer as it comes.
    fn say(&mut self, text: &str);
    /// Ends the line of an answer.
    fn end_answer(&mut self);
    /// Shows what a command was asked for.
    fn tell(&mut self, text: &str);
    /// Says something beside the conversation.
    fn note(&mut self, line: &str);
    /// Shows a text whose pieces are kept or dropped.
    fn marked(&mut self, pieces: &[(String, bool)]);
    /// `done` of `total` tokens of the prompt are read.
    fn read(&mut self, done: usize, total: usize);
    /// Whether the user wants the answer to stop.
    fn is_stopped(&self) -> bool;
    /// Whether kept and dropped texts differ in colour.
    fn has_colours(&self) -> bool;
}

/// The standard streams. Answers and what commands show go to stdout, all else to stderr.
pub struct Streams {
    /// Whether stdout is a terminal: what the model says must not control it.
    is_terminal: bool,
    out_colours: bool,
    err_colours: bool,
    progress: Option<PromptProgress>,
    /// Whether the last line of the answer has no line break yet.
    is_line_open: bool,
    /// Why stdout takes no more.
    failed: Option<Error>,
}

/// Whether the environment asks for no colours.
pub fn wants_no_colours() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

impl Streams {
    /// The streams of the program.
    pub fn open() -> Self {
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let colours = !wants_no_colours();
        Self {
            is_terminal: out,
            out_colours: out && colours,
            err_colours: err && colours,
            progress: None,
            is_line_open: false,
            failed: None,
        }
    }

    /// Fails if stdout takes no more.
    pub fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn put(&mut self, text: &str) {
        self.clear_progress();
        if self.failed.is_none() {
            self.failed = print(text).err();
        }
    }

    fn clear_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.bar().finish_and_clear();
        }
    }

    fn shown(&self, text: &str) -> String {
        if self.is_terminal { harmless(text) } else { text.to_string() }
    }
}

/// A text without control characters but line breaks and tabs, so that it cannot control a terminal.
pub fn harmless(text: &str) -> String {
    text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect()
}

impl Screen for Streams {
    fn say(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.is_line_open = !text.ends_with('\n');
        let text = self.shown(text);
        self.put(&text);
    }

    fn end_answer(&mut self) {
        self.clear_progress();
        if std::mem::take(&mut self.is_line_open) {
            self.put("\n");
        }
    }

    fn tell(&mut self, text: &str) {
        let text = self.shown(text);
        self.put(&format!("{text}\n"));
    }

    fn note(&mut self, line: &str) {
        self.clear_progress();
        let line = if self.err_colours { format!("{DIM}{}{RESET}", harmless(line)) } else { line.to_string() };
        note(&line);
    }

    fn marked(&mut self, pieces: &[(String, bool)]) {
        let text: String = pieces
            .iter()
            .map(|(text, is_kept)| match (self.out_colours, is_kept) {
                (true, true) => format!("{BRIGHT}{}{RESET}", self.shown(text)),
                (true, false) => format!("{DIM}{}{RESET}", self.shown(text)),
                (false, true) => self.shown(text),
                (false, false) => format!("[-{}-]", self.shown(text)),
            })
            .collect();
        self.put(&format!("{text}\n"));
    }

    fn read(&mut self, done: usize, total: usize) {
        self.progress.get_or_insert_with(|| PromptProgress::new(total, false)).at(done);
        if done == total {
            self.clear_progress();
        }
    }

    fn is_stopped(&self) -> bool {
        signals::is_stopped() || self.failed.is_some()
    }

    fn has_colours(&self) -> bool {
        self.out_colours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_says_cannot_control_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\r\n\tc\u{9b}31m\u{7f}é🦙"), "a[2Jb\n\tc31mé🦙");
    }
}
