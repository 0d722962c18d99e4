//! Where the user says something: the editor on a terminal, or standard input.

use std::io::BufRead;

use super::editor::LineEditor;
use super::lines::{Lines, Said};
use crate::error::Result;

/// The source of what the user says.
pub enum Input {
    Editor(Box<LineEditor>),
    Lines(Lines<Box<dyn BufRead>>),
}

impl Input {
    /// Waits for the next text.
    pub fn next(&mut self) -> Result<Said> {
        match self {
            Self::Editor(editor) => editor.next(),
            Self::Lines(lines) => lines.next(),
        }
    }

    /// Whether a person types it.
    pub fn is_editor(&self) -> bool {
        matches!(self, Self::Editor(_))
    }
}
