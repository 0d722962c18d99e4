//! Finds the thoughts of a reasoning model at the start of an answer that arrives piece by piece.

use std::mem::take;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// The marks of thoughts.
pub const MARKS: [&str; 2] = [OPEN, CLOSE];

/// Whether a prompt ends within thoughts, so that the answer begins with them.
pub fn is_open(prompt: &str) -> bool {
    prompt.trim_end().ends_with(OPEN)
}

/// Splits an answer into thoughts and the rest. Space beside the marks is dropped, and an answer
/// without thoughts comes as it is.
#[derive(Clone, Debug)]
pub struct Thoughts {
    place: Place,
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before anything but space. `is_open` says that the answer is within thoughts also without their mark.
    Start {
        is_open: bool,
    },
    /// Within the thoughts; `has_begun` once there was more than space.
    Within {
        has_begun: bool,
    },
    /// In the space after the thoughts.
    After,
    Rest,
}

impl Thoughts {
    /// For an answer that begins within thoughts, or may begin with their mark.
    pub fn new(is_open: bool) -> Self {
        Self { place: Place::Start { is_open }, held: String::new() }
    }

    /// Takes the next piece; returns more of the thoughts and more of the rest.
    pub fn push(&mut self, piece: &str) -> (String, String) {
        self.held.push_str(piece);
        if let Place::Start { is_open } = self.place {
            let begun = self.held.trim_start();
            if let Some(within) = begun.strip_prefix(OPEN) {
                self.held = within.to_owned();
                self.place = Place::Within { has_begun: false };
            } else if !OPEN.starts_with(begun) {
                self.place = if is_open { Place::Within { has_begun: false } } else { Place::Rest };
            }
        }
        let thoughts = match self.place {
            Place::Within { has_begun } => self.think(has_begun),
            _ => String::new(),
        };
        if self.place == Place::After {
            self.held = self.held.trim_start().to_owned();
            if !self.held.is_empty() {
                self.place = Place::Rest;
            }
        }
        let rest = if self.place == Place::Rest { take(&mut self.held) } else { String::new() };
        (thoughts, rest)
    }

    /// Takes the thoughts from what is held, but for what may be the mark at their end and the space
    /// before it.
    fn think(&mut self, has_begun: bool) -> String {
        let end = self.held.find(CLOSE);
        let may_end = || (1..CLOSE.len()).rev().find(|&n| self.held.ends_with(&CLOSE[..n])).unwrap_or(0);
        let n = end.unwrap_or_else(|| self.held.len() - may_end());
        let free = self.held[..n].trim_end().len();
        let said: String = self.held.drain(..free).collect();
        let said = if has_begun { said } else { said.trim_start().to_owned() };
        self.place = Place::Within { has_begun: has_begun || !said.is_empty() };
        if end.is_some() {
            self.held.drain(..n - free + CLOSE.len());
            self.place = Place::After;
        }
        said
    }

    /// What was held back at the answer's end: of the thoughts, and of the rest.
    pub fn finish(self) -> (String, String) {
        match self.place {
            Place::Start { is_open: false } => (String::new(), self.held),
            Place::Start { is_open: true } => (self.held.trim().to_owned(), String::new()),
            Place::Within { has_begun: true } => (self.held.trim_end().to_owned(), String::new()),
            Place::Within { has_begun: false } => (self.held.trim().to_owned(), String::new()),
            Place::After | Place::Rest => Default::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_found_however_the_answer_is_cut() {
        let cases = [
            (false, "<think>\nWhy? 1 < 2.\n\nSo.\n</think>\n\nYes.\n", "Why? 1 < 2.\n\nSo.", "Yes.\n"),
            (false, " <think></think>Yes </think>", "", "Yes </think>"),
            (false, "Yes, <think>no</think>", "", "Yes, <think>no</think>"),
            (false, "  <thin", "", "  <thin"),
            (false, "<think>cut </thi", "cut </thi", ""),
            (true, "Why?\n</think>\n\nYes.", "Why?", "Yes."),
            (true, "<think>Why?</think>Yes.", "Why?", "Yes."),
            (true, "\n</think>\n", "", ""),
            (true, "cut \n", "cut", ""),
            (true, " <", "<", ""),
        ];
        for (is_open, answer, thought, said) in cases {
            for cut in [1, 2, 5, 1000] {
                let letters: Vec<char> = answer.chars().collect();
                let mut thoughts = Thoughts::new(is_open);
                let pieces = letters.chunks(cut).map(|piece| piece.iter().collect::<String>());
                let mut found: Vec<_> = pieces.map(|piece| thoughts.push(&piece)).collect();
                found.push(thoughts.finish());
                let (thoughts, rest): (Vec<String>, Vec<String>) = found.into_iter().unzip();
                assert_eq!((thoughts.concat(), rest.concat()), (thought.into(), said.into()), "{answer:?} by {cut}");
            }
        }
    }

    #[test]
    fn only_what_may_be_the_mark_is_held_back() {
        let mut thoughts = Thoughts::new(true);
        let mut push = |piece| thoughts.push(piece);
        assert_eq!(push("Is 1 <"), ("Is 1".into(), String::new()));
        assert_eq!(push(" 2?"), (" < 2?".into(), String::new()));
        assert_eq!(push("</think>\nIt"), (String::new(), "It".into()));
        assert_eq!(push(" <think>"), (String::new(), " <think>".into()));
    }

    #[test]
    fn a_prompt_opens_thoughts_with_its_last_mark() {
        for (prompt, expected) in
            [("<|assistant|>\n<think>\n", true), ("<think>\n\n</think>\n\n", false), ("<think> a", false), ("", false)]
        {
            assert_eq!(is_open(prompt), expected, "{prompt:?}");
        }
    }
}
