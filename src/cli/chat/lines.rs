//! What the user says, and the lines of a stream that is no terminal.

use std::io::BufRead;

use super::multiline::{closes_block, continues, opens_block, unfold};
use crate::error::{Error, Result};

/// Most bytes of a question.
const MAX_BYTES: usize = 16 << 20;

/// The next thing that the user said.
#[derive(Debug)]
pub enum Said {
    Text(String),
    /// Something that cannot be used. More may follow.
    Refused(Error),
    /// Nothing, such as an interrupted line.
    Nothing,
    End,
}

/// The lines of a stream, with blocks and continued lines joined.
pub struct Lines<R>(pub R);

impl<R: BufRead> Lines<R> {
    /// The next text.
    pub fn next(&mut self) -> Result<Said> {
        let mut text = String::new();
        let mut is_block = false;
        for n in 0.. {
            let line = match self.line(MAX_BYTES - text.len().min(MAX_BYTES))? {
                Ok(Some(line)) => line,
                Ok(None) if n == 0 => return Ok(Said::End),
                Ok(None) => break,
                Err(e) => return Ok(Said::Refused(e)),
            };
            if n == 0 {
                is_block = opens_block(&line);
            } else {
                text.push('\n');
            }
            let is_open = match is_block {
                true => !closes_block(&line, n == 0),
                false => continues(&line),
            };
            text += &line;
            if !is_open {
                break;
            }
        }
        Ok(Said::Text(unfold(&text)))
    }

    /// The next line without its break; `None` at the end. A line that is too long or no text is
    /// read to its end and refused.
    fn line(&mut self, most: usize) -> Result<Result<Option<String>>> {
        let mut bytes = Vec::new();
        let (mut total, mut is_end) = (0, false);
        while !is_end {
            let buffer = self.0.fill_buf()?;
            let (n, found) = match buffer.iter().position(|&b| b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), false),
            };
            if n == 0 && total == 0 {
                return Ok(Ok(None));
            }
            is_end = found || n == 0;
            total += n;
            if total <= most {
                bytes.extend_from_slice(&buffer[..n]);
            }
            self.0.consume(n);
        }
        if total > most {
            let mib = MAX_BYTES >> 20;
            return Ok(Err(Error::usage(format!("a question has at most {mib} MiB: /document takes long texts"))));
        }
        let is_break = |b: &u8| matches!(b, b'\n' | b'\r');
        while bytes.last().is_some_and(is_break) {
            bytes.pop();
        }
        let text = String::from_utf8(bytes);
        Ok(text.map(Some).map_err(|_| Error::usage("a line is not a text in UTF-8, and was not taken")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines(bytes);
        let mut said = Vec::new();
        loop {
            match lines.next().unwrap() {
                Said::Text(text) => said.push(text),
                Said::Refused(e) => said.push(format!("refused: {e}")),
                Said::Nothing => {}
                Said::End => return said,
            }
        }
    }

    #[test]
    fn lines_blocks_and_continued_lines_are_turns() {
        let text = b"one\r\n\ntwo\\\nthree\n\"\"\"\n/a\n\nb\n\"\"\"\nlast";
        assert_eq!(all(text), ["one", "", "two\nthree", "/a\n\nb", "last"]);
        assert_eq!(all(b"\"\"\"a\"\"\"\nb\n\"\"\"open\nc"), ["a", "b", "open\nc"]);
        assert!(all(b"").is_empty());
    }

    #[test]
    fn what_is_no_text_or_too_long_is_refused_and_the_next_line_counts() {
        let said = all(b"a\n\xff\xfe\nb\n");
        assert_eq!((&said[0][..], &said[2][..], said.len()), ("a", "b", 3));
        assert!(said[1].starts_with("refused: a line is not a text"));
        let long = [vec![b'x'; MAX_BYTES + 1], b"\nb".to_vec()].concat();
        let said = all(&long);
        assert!(said[0].starts_with("refused: a question has at most 16 MiB") && said[1] == "b", "{}", said.len());
        // Many short lines are read in one pass.
        let block = ["\"\"\"\n".to_string(), "x\n".repeat(1 << 20), "\"\"\"".into()].concat();
        assert_eq!(all(block.as_bytes())[0].len(), (1 << 21) - 1);
    }
}
