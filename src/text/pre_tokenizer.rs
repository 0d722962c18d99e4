//! How each family of byte-level tokenizers cuts text into words before BPE, by the name that GGUF files give it.
//!
//! A GGUF file says only `tokenizer.ggml.pre = "qwen2"`; the pattern itself is the one in that model's `tokenizer.json`.
//! A name that is not listed is refused: a wrong pattern gives plausible, wrong tokens. Used by [`super::gguf_tokenizer`].

use crate::error::Result;
use serde_json::{Value as Json, json};

/// What comes before byte-level BPE.
pub struct PreTokenizer {
    /// Names in `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    cut: Cut,
    /// Whether text is first brought to Unicode's composed form.
    pub nfc: bool,
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub ignore_merges: bool,
    /// Whether BOS is put in front where the file does not say.
    pub add_bos: bool,
}

enum Cut {
    /// Words are the matches of this pattern and what lies between them.
    Pattern(&'static str),
    /// GPT-2's own pattern.
    Gpt2,
    /// GPT-2's own pattern after every digit was cut off.
    Gpt2Digits,
}

/// Llama 3: numbers in groups of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2, 2.5 and 3: as Llama 3, numbers digit by digit.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral Nemo: words are also cut where lower case turns to upper case.
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

/// The entry of a name in `tokenizer.ggml.pre`; refuses a name that is not known.
pub fn named(name: &str) -> Result<&'static PreTokenizer> {
    if let Some(found) = TABLE.iter().find(|p| p.names.contains(&name)) {
        return Ok(found);
    }
    let known: Vec<&str> = TABLE.iter().flat_map(|p| p.names).copied().collect();
    crate::bail!(
        "the GGUF file's pre-tokenizer '{name}' is not supported (supported: {}): use the model's Hugging Face directory, \
         whose tokenizer.json holds the rule itself",
        known.join(", ")
    );
}

impl PreTokenizer {
    /// In the form it has in `tokenizer.json`.
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
