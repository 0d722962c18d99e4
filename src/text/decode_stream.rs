//! Incremental decoding: text from tokens that arrive one by one, never with half a character.
//!
//! A token may end inside a UTF-8 character, and some decoders treat the first token of a text
//! differently. So each piece is decoded together with the tokens before it. An incomplete
//! character is held back until a later token completes it or until [`DecodeStream::finish`]. The
//! pieces add up to the text of all tokens. See [`super::tokenizer`].

use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Number of prompt tokens kept as context for the first new tokens.
const CONTEXT_TOKENS: usize = 8;
/// Most tokens to hold back. No character has that many tokens, so the stream then emits the text
/// as it is.
const MAX_PENDING: usize = 64;
/// What decoders emit for invalid or incomplete characters.
const REPLACEMENT: char = '\u{FFFD}';

/// Incremental decoder that skips special tokens. Made by [`Tokenizer::stream`].
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens whose text is already out, decoded again in front of the pending ones.
    context: Vec<u32>,
    pending: Vec<u32>,
    /// The part of the pending tokens' text that is already out.
    shown: String,
}

impl Tokenizer {
    /// Decoder of a text that arrives token by token. It skips special tokens.
    pub fn stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self, &[])
    }

    /// Like [`Tokenizer::stream`], for tokens that continue a prompt: the first word keeps the
    /// space before it.
    pub fn stream_after(&self, prompt: &[u32]) -> DecodeStream<'_> {
        DecodeStream::new(self, prompt)
    }
}

impl<'a> DecodeStream<'a> {
    fn new(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Self {
        let known: Vec<u32> = prompt.iter().copied().filter(|&id| tokenizer.id_to_token(id).is_some()).collect();
        let context = known[known.len().saturating_sub(CONTEXT_TOKENS)..].to_vec();
        Self { tokenizer, context, pending: Vec::new(), shown: String::new() }
    }

    /// Takes the next token and returns the newly completed text, if any. An id outside the
    /// vocabulary is an error.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        crate::ensure!(
            self.tokenizer.id_to_token(id).is_some(),
            "token id {id} is not in the vocabulary of {} tokens",
            self.tokenizer.vocab_size()
        );
        if self.tokenizer.is_special(id) {
            return Ok(None);
        }
        self.pending.push(id);
        let text = self.pending_text()?;
        let complete = text.trim_end_matches(REPLACEMENT);
        let done = complete.len() == text.len() || self.pending.len() >= MAX_PENDING;
        let piece = self.show(if done { &text } else { complete });
        if done {
            self.context = std::mem::take(&mut self.pending);
            self.shown.clear();
        }
        Ok(piece)
    }

    /// The text still held back at the end, as it is.
    pub fn finish(mut self) -> Result<Option<String>> {
        let text = self.pending_text()?;
        Ok(self.show(&text))
    }

    /// The text of the pending tokens in their context.
    fn pending_text(&self) -> Result<String> {
        let before = self.tokenizer.decode_known(&self.context, true)?;
        let all: Vec<u32> = self.context.iter().chain(&self.pending).copied().collect();
        let all = self.tokenizer.decode_known(&all, true)?;
        match all.strip_prefix(&before) {
            Some(text) => Ok(text.to_owned()),
            // The pending byte tokens change a character that is already out: decode them alone.
            None => self.tokenizer.decode_known(&self.pending, true),
        }
    }

    /// Returns the part of `text` that is not out yet.
    fn show(&mut self, text: &str) -> Option<String> {
        let piece = text.strip_prefix(self.shown.as_str()).unwrap_or_default().to_owned();
        if piece.is_empty() {
            return None;
        }
        self.shown.push_str(&piece);
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use crate::text::test_tokenizers::{byte_level, stories};

    const TEXT: &str = "Tim saw a naïve 🦙 and 日本語 text.\n  Twice  \u{FFFD} spaced.";

    #[test]
    fn pieces_are_valid_and_add_up() {
        for tokenizer in [byte_level(), stories()] {
            let ids = tokenizer.encode(TEXT, true).unwrap();
            let mut stream = tokenizer.stream();
            let mut pieces = Vec::new();
            for &id in &ids {
                pieces.extend(stream.push(id).unwrap());
            }
            pieces.extend(stream.finish().unwrap());
            assert_eq!(pieces.concat(), TEXT);
            assert!(pieces.iter().any(|p| p.contains('🦙')), "the character came in one piece");
            assert!(pieces.iter().all(|p| !p.contains(super::REPLACEMENT) || p.contains("\u{FFFD} ")), "{pieces:?}");
        }
    }

    #[test]
    fn a_continuation_keeps_its_first_space() {
        let tokenizer = stories();
        let all = tokenizer.encode("Once upon a time there was", true).unwrap();
        let (prompt, rest) = all.split_at(5);
        let mut stream = tokenizer.stream_after(prompt);
        let mut text = tokenizer.decode(prompt, true).unwrap();
        for &id in rest {
            text.extend(stream.push(id).unwrap());
        }
        assert_eq!(text, "Once upon a time there was");
    }

    #[test]
    fn half_a_character_is_held_back_and_shown_at_the_end() {
        let tokenizer = byte_level();
        let llama = tokenizer.encode("🦙", false).unwrap();
        assert_eq!(llama.len(), 4);
        let mut stream = tokenizer.stream();
        assert!(llama[..3].iter().all(|&id| stream.push(id).unwrap().is_none()));
        assert_eq!(stream.finish().unwrap().as_deref(), Some("\u{FFFD}"));
        assert!(tokenizer.stream().push(u32::MAX).is_err());
    }

    #[test]
    fn tokens_that_never_make_a_character_do_not_pile_up() {
        let tokenizer = byte_level();
        let half = tokenizer.encode("🦙", false).unwrap()[0];
        let mut stream = tokenizer.stream();
        let shown: usize = (0..200).filter_map(|_| stream.push(half).unwrap()).map(|p| p.chars().count()).sum();
        assert!(shown >= 128, "{shown} of 200 shown");
    }
}
