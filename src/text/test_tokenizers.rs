//! Small tokenizers for the tests of this folder.

use super::tokenizer::Tokenizer;
use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Ids of the special tokens of [`byte_level`].
pub const START: u32 = 261;
pub const END: u32 = 262;

/// Byte-level BPE like Qwen's: 256 bytes, the merges of " hello", `<|im_start|>`, `<|im_end|>`.
pub fn byte_level() -> Tokenizer {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut vocab: serde_json::Map<_, _> =
        alphabet.iter().enumerate().map(|(i, c)| (c.to_string(), json!(i))).collect();
    for (i, piece) in ["he", "ll", "hell", "hello", "Ġhello"].iter().enumerate() {
        vocab.insert((*piece).to_owned(), json!(256 + i));
    }
    let special = |id: u32, name: &str| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ hello"];
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": {"type": "NFC"},
        "added_tokens": [special(START, "<|im_start|>"), special(END, "<|im_end|>")],
        "pre_tokenizer": level(true), "post_processor": level(false), "decoder": level(false),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "vocab": vocab, "merges": merges},
    });
    Tokenizer::from_json_bytes(file.to_string().as_bytes()).unwrap()
}

/// The bundled SentencePiece tokenizer of stories260K.
pub fn stories() -> Tokenizer {
    Tokenizer::from_json_bytes(STORIES).unwrap()
}

/// The bundled `tokenizer.json`.
pub const STORIES: &[u8] = include_bytes!("../../assets/stories260k/tokenizer.json");
