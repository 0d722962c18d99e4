//! The bytes of each token: what it adds to a text, also where that is a part of a character.
//!
//! Answers in a given form are limited byte by byte, and reports of probabilities name the bytes of
//! a token. [`super::decode_stream`] gives whole characters instead.

use super::tokenizer::Tokenizer;
use crate::error::Result;
use serde_json::Value as Json;
use std::collections::HashMap;

impl Tokenizer {
    /// The bytes that each id below `n_ids` adds within a text. Special tokens have their names.
    /// Ids without a token have no bytes.
    pub fn token_bytes(&self, n_ids: usize) -> Result<Vec<Vec<u8>>> {
        let decoder = self.decoder();
        let level = has_step(&decoder, "ByteLevel").then(byte_of_letter);
        let has_bytes = has_step(&decoder, "ByteFallback");
        // A decoder may treat the first token of a text differently, so each one follows another.
        let before = self.encode("a", false)?.last().copied();
        let before: Vec<u32> = before.into_iter().collect();
        let text_before = self.decode_known(&before, true)?;
        let bytes = |id: u32| -> Result<Vec<u8>> {
            let Some(name) = self.id_to_token(id) else { return Ok(Vec::new()) };
            if self.is_special(id) {
                return Ok(name.into_bytes());
            }
            if let Some(letters) = &level {
                let bytes: Option<Vec<u8>> = name.chars().map(|letter| letters.get(&letter).copied()).collect();
                return Ok(bytes.unwrap_or_else(|| name.into_bytes()));
            }
            if let Some(byte) = fallback_byte(&name).filter(|_| has_bytes) {
                return Ok(vec![byte]);
            }
            let text = self.decode_known(&[before.as_slice(), &[id]].concat(), true)?;
            Ok(text.strip_prefix(&text_before).unwrap_or(&name).as_bytes().to_vec())
        };
        (0..n_ids as u32).map(bytes).collect()
    }
}

/// Whether a decoder, or one of the decoders of a sequence, has this type.
fn has_step(decoder: &Json, kind: &str) -> bool {
    let steps = decoder["decoders"].as_array().into_iter().flatten();
    decoder["type"] == kind || steps.into_iter().any(|step| has_step(step, kind))
}

/// The byte that each letter of byte-level BPE stands for: itself where Latin-1 prints it, and
/// otherwise the letters from U+0100 in the order of the bytes.
fn byte_of_letter() -> HashMap<char, u8> {
    let mut next = 0x100;
    let mut letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).expect("a letter")
        }
    };
    (0..=255).map(|byte| (letter(byte), byte)).collect()
}

/// The byte of a name such as `<0x0A>`.
fn fallback_byte(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use crate::text::test_tokenizers::{START, byte_level, stories};
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_letters_are_those_of_the_library() {
        let letters = super::byte_of_letter();
        assert_eq!(letters.len(), 256);
        assert!(ByteLevel::alphabet().iter().all(|letter| letters.contains_key(letter)));
    }

    #[test]
    fn the_bytes_of_a_text_s_tokens_add_up_to_it() {
        let text = "a naïve 🦙 says  hello\n日本語 \u{1}é";
        for tokenizer in [byte_level(), stories()] {
            let n = tokenizer.vocab_size();
            let bytes = tokenizer.token_bytes(n + 3).unwrap();
            assert_eq!(bytes.len(), n + 3);
            assert!(bytes[n..].iter().all(Vec::is_empty));
            let ids = tokenizer.encode_continuation(text).unwrap();
            let said: Vec<u8> = ids.iter().flat_map(|&id| bytes[id as usize].clone()).collect();
            assert_eq!(String::from_utf8(said).unwrap(), text);
        }
        assert_eq!(byte_level().token_bytes(300).unwrap()[START as usize], b"<|im_start|>");
        assert_eq!(stories().token_bytes(20).unwrap()[3 + 0xA], b"\n", "a byte by its number");
    }
}
