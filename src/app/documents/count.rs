//! Counts the tokens of documents on threads of their own, so that no answer waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::app::message::{Event, TokenCount};
use crate::error::Result;
use crate::text::tokenizer::Tokenizer;

/// Bytes of text that are counted at once. A longer text is counted in pieces that end at line
/// breaks where there are any, which bounds the memory; a token across the end of a piece counts as
/// two.
const PIECE: usize = 1 << 20;

/// The tokenizer of the open model.
#[derive(Clone, Default)]
pub struct Counter(Arc<Mutex<Option<Arc<Tokenizer>>>>);

impl Counter {
    /// Sets the tokenizer for the counts that follow.
    pub fn set(&self, tokenizer: Option<Arc<Tokenizer>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tokenizer;
    }

    /// Counts on another thread, and sends the count or that there is none.
    pub fn count(&self, mut count: TokenCount, tell: impl FnOnce(Event) + Send + 'static) {
        let tokenizer = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        thread::spawn(move || {
            count.n_tokens = tokenizer.and_then(|tokenizer| n_tokens(&tokenizer, &count.text).ok());
            tell(Event::Counted(count));
        });
    }
}

/// The number of tokens of a text.
fn n_tokens(tokenizer: &Tokenizer, text: &str) -> Result<usize> {
    let (mut n, mut rest) = (0, text);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(end_of_piece(rest, PIECE));
        n += if n == 0 { tokenizer.encode(piece, false)? } else { tokenizer.encode_continuation(piece)? }.len();
        rest = after;
    }
    Ok(n)
}

/// Where the first piece of a text ends: behind the last line break, else at the last letter, within
/// so many bytes.
fn end_of_piece(text: &str, most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    let most = text.floor_char_boundary(most);
    text[..most].rfind('\n').map_or(most, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::model_files::ModelFiles;

    #[test]
    fn pieces_count_like_the_whole() {
        let files = ModelFiles::bundled(None).unwrap();
        let tokenizer = files.shared_tokenizer().unwrap();
        let line = "Once upon a time there was a girl called Lily, who lived by the sea.\n";
        let whole = line.repeat(PIECE / line.len() + 100);
        let of_line =
            tokenizer.encode(&line.repeat(2), false).unwrap().len() - tokenizer.encode(line, false).unwrap().len();
        let n = n_tokens(&tokenizer, &whole).unwrap();
        let first = tokenizer.encode(line, false).unwrap().len();
        assert_eq!(n, first + of_line * (whole.len() / line.len() - 1), "{of_line} tokens a line");
        assert_eq!(n_tokens(&tokenizer, "").unwrap(), 0);
        assert_eq!(end_of_piece("ab\ncd", 4), 3);
        assert_eq!(end_of_piece("aéé", 4), 3, "whole letters");
        assert_eq!(end_of_piece("abc", 3), 3);
    }

    #[test]
    fn without_a_tokenizer_there_is_no_count() {
        let (sender, events) = std::sync::mpsc::channel();
        let count = TokenCount { serial: 3, text: "a b".into(), n_tokens: None };
        Counter::default().count(count.clone(), move |event| sender.send(event).unwrap());
        assert_eq!(events.recv().unwrap(), Event::Counted(count));
    }
}
