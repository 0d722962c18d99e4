//! Texts of single tokens for reports of probabilities, in OpenAI's two forms.

use serde_json::{Map, Value as Json, json};

use crate::serve::job::TokenLogprob;

/// The bytes of each token of the vocabulary.
#[derive(Debug, Default)]
pub struct TokenTable {
    bytes: Vec<Vec<u8>>,
    /// Ids of special tokens, in ascending order. Their bytes are names, which are no text.
    special: Vec<u32>,
}

impl TokenTable {
    /// A table of tokens, of which `is_special` says whether they are special.
    pub fn new(bytes: Vec<Vec<u8>>, is_special: impl Fn(u32) -> bool) -> Self {
        let special = (0..bytes.len() as u32).filter(|&id| is_special(id)).collect();
        Self { bytes, special }
    }

    /// The bytes of a token; none for an id without a token.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The text of a token. A part of a character is `bytes:` with its bytes, as in OpenAI's older
    /// interface, so that different tokens keep different names.
    pub fn text(&self, id: u32) -> String {
        let bytes = self.bytes(id);
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}")),
        }
    }

    /// Number of characters of a text that begin in a token: none for a special token.
    pub fn characters(&self, id: u32) -> usize {
        if self.special.binary_search(&id).is_ok() {
            return 0;
        }
        self.bytes(id).iter().filter(|byte| **byte & 0xC0 != 0x80).count()
    }

    /// An entry of `logprobs.content` of a chat completion.
    pub fn chat_entry(&self, token: &TokenLogprob) -> Json {
        let entry = |id: u32, logprob: f32| {
            let bytes = self.bytes(id);
            json!({"token": String::from_utf8_lossy(bytes), "logprob": finite(logprob), "bytes": bytes})
        };
        let mut whole = entry(token.id, token.logprob);
        whole["top_logprobs"] = token.top.iter().map(|&(id, logprob)| entry(id, logprob)).collect();
        whole
    }

    /// An entry of `top_logprobs` of a text completion: the most likely tokens, and the one that came.
    /// Of tokens with the same text the most likely one counts.
    pub fn top(&self, token: &TokenLogprob) -> Json {
        let mut top = Map::new();
        for &(id, logprob) in token.top.iter().chain([&(token.id, token.logprob)]) {
            top.entry(self.text(id)).or_insert_with(|| finite(logprob));
        }
        Json::Object(top)
    }
}

/// A logarithm as JSON can write it: a probability of 0 has OpenAI's stand-in. An f32 is written
/// with its own digits.
pub fn finite(logprob: f32) -> Json {
    let shown = if logprob.is_finite() { logprob.max(-9999.0) } else { -9999.0 };
    let digits: Option<f64> = shown.to_string().parse().ok();
    json!(digits.unwrap_or(f64::from(shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_characters_keep_their_bytes() {
        let table = TokenTable::new(vec![b" a".to_vec(), vec![0xF0, 0x9F], vec![0xA6, 0x99], Vec::new()], |_| false);
        let texts: Vec<String> = (0..5).map(|id| table.text(id)).collect();
        assert_eq!(texts, [" a", "bytes:\\xf0\\x9f", "bytes:\\xa6\\x99", "", ""]);
        assert_eq!((0..4).map(|id| table.characters(id)).collect::<Vec<_>>(), [2, 1, 0, 0]);
        let token = TokenLogprob { id: 1, logprob: -0.1, top: vec![(0, -0.05), (1, -0.1), (9, f32::NEG_INFINITY)] };
        let entry = table.chat_entry(&token);
        assert_eq!((&entry["bytes"], &entry["logprob"]), (&json!([0xF0, 0x9F]), &json!(-0.1)));
        assert_eq!(entry["top_logprobs"][2], json!({"token": "", "logprob": -9999.0, "bytes": []}));
    }

    #[test]
    fn special_tokens_have_names_but_no_characters() {
        let table = TokenTable::new(["a", "<pad>", "<b>"].map(|t| t.as_bytes().to_vec()).to_vec(), |id| id == 1);
        assert_eq!([0, 1, 2, 3].map(|id| table.characters(id)), [1, 0, 3, 0]);
        assert_eq!(table.text(1), "<pad>");
    }

    #[test]
    fn the_token_that_came_is_among_the_top_ones() {
        let table = TokenTable::new([" a", "b", "b"].map(|t| t.as_bytes().to_vec()).to_vec(), |_| false);
        let token = TokenLogprob { id: 2, logprob: -2.0, top: vec![(1, -0.25)] };
        assert_eq!(table.top(&token), json!({"b": -0.25}), "a text appears once");
        let token = TokenLogprob { id: 0, logprob: -2.0, top: vec![(1, -0.25)] };
        assert_eq!(table.top(&token), json!({"b": -0.25, " a": -2.0}));
    }
}
