//! Pre-tokenizers of byte-level BPE, by their names in GGUF files: how text is split into words
//! before BPE.
//!
//! A GGUF file says only `tokenizer.ggml.pre = "qwen2"`. The pattern comes from that model's
//! `tokenizer.json`. Unknown names are errors, because a wrong pattern gives plausible but wrong
//! tokens. [`super::gguf_tokenizer`] uses this file.

use crate::error::Result;
use serde_json::{Value as Json, json};

/// The steps before byte-level BPE.
pub struct PreTokenizer {
    /// Names in `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    cut: Cut,
    /// Whether text is first normalised to Unicode NFC.
    pub nfc: bool,
    /// Whether a word that is a token becomes that token without merges.
    pub ignore_merges: bool,
    /// Whether to add BOS if the file does not say.
    pub add_bos: bool,
}

enum Cut {
    /// Words are the matches of this pattern and the text between them.
    Pattern(&'static str),
    /// GPT-2's pattern.
    Gpt2,
    /// Every digit is split off first, then GPT-2's pattern applies.
    Gpt2Digits,
}

/// Llama 3: numbers in groups of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2, 2.5 and 3: like Llama 3, but each digit alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral Nemo: also splits words where lower case changes to upper case.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

static TABLE: [PreTokenizer; 5] = [
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "smaug-bpe"],
        cut: Cut::Pattern(LLAMA3),
        nfc: false,
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        cut: Cut::Pattern(QWEN2),
        nfc: true,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["smollm"], cut: Cut::Gpt2Digits, nfc: false, ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["default", "gpt-2", "gpt2"],
        cut: Cut::Gpt2,
        nfc: false,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["tekken"], cut: Cut::Pattern(TEKKEN), nfc: false, ignore_merges: true, add_bos: true },
];

/// The pre-tokenizer with this name in `tokenizer.ggml.pre`. Unknown names are errors.
pub fn named(name: &str) -> Result<&'static PreTokenizer> {
    if let Some(found) = TABLE.iter().find(|p| p.names.contains(&name)) {
        return Ok(found);
    }
    let known: Vec<&str> = TABLE.iter().flat_map(|p| p.names).copied().collect();
    crate::bail!(
        "the GGUF file's pre-tokenizer '{name}' is not supported (supported: {}): use the model's Hugging Face directory, \
        whose tokenizer.json contains the pattern",
        known.join(", ")
    );
}

impl PreTokenizer {
    /// Its JSON as in `tokenizer.json`.
    pub fn json(&self) -> Json {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex});
        match self.cut {
            Cut::Gpt2 => bytes(true),
            Cut::Gpt2Digits => {
                let digits = json!({"type": "Digits", "individual_digits": true});
                json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]})
            }
            Cut::Pattern(pattern) => {
                let split =
                    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
                json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
            }
        }
    }
}
