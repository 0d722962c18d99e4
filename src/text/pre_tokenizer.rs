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
    /// Patterns, one after the other: each cuts the pieces of the one before into its matches and
    /// the text between them.
    cuts: &'static [&'static str],
    /// Whether text is first normalised to Unicode NFC.
    pub nfc: bool,
    /// Whether a word that is a token becomes that token without merges.
    pub ignore_merges: bool,
    /// Whether to add BOS if the file does not say.
    pub add_bos: bool,
}

/// GPT-2: words with the space before them, without limits on numbers.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Each digit alone.
const DIGIT: &str = r"\p{N}";
/// Llama 3: numbers in groups of up to three digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2, 2.5 and 3: like Llama 3, but each digit alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral Nemo: also splits words where lower case changes to upper case.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o: like Mistral Nemo, but contractions stay with their word, and numbers are in threes.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek V3, after numbers in threes and runs of Chinese and Japanese: a sign of ASCII starts a
/// word.
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

static TABLE: [PreTokenizer; 10] = [
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cuts: &[LLAMA3],
        nfc: false,
        ignore_merges: true,
        add_bos: true,
    },
    // SmolLM3 and other models with Llama 3's vocabulary and no BOS.
    PreTokenizer { names: &["smaug-bpe"], cuts: &[LLAMA3], nfc: false, ignore_merges: true, add_bos: false },
    // OLMo 2 and 3, Phi-4, Granite 4.
    PreTokenizer { names: &["dbrx"], cuts: &[LLAMA3], nfc: false, ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        cuts: &[QWEN2],
        nfc: true,
        ignore_merges: false,
        add_bos: false,
    },
    // SmolLM, Granite 3 ("refact") and StarCoder 2.
    PreTokenizer {
        names: &["smollm", "refact", "starcoder"],
        cuts: &[DIGIT, GPT2],
        nfc: false,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer { names: &["gpt-2", "gpt2"], cuts: &[GPT2], nfc: false, ignore_merges: false, add_bos: false },
    PreTokenizer { names: &["tekken"], cuts: &[TEKKEN], nfc: false, ignore_merges: true, add_bos: true },
    // Phi-4-mini.
    PreTokenizer { names: &["gpt-4o", "llama4"], cuts: &[GPT4O], nfc: false, ignore_merges: false, add_bos: false },
    PreTokenizer {
        names: &["deepseek-v3"],
        cuts: &[r"\p{N}{1,3}", "[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+", DEEPSEEK3],
        nfc: false,
        ignore_merges: false,
        add_bos: false,
    },
    // What llama.cpp does with files that name no pre-tokenizer: punctuation apart, then GPT-2's
    // words, then digits in threes.
    PreTokenizer {
        names: &[DEFAULT],
        cuts: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        nfc: false,
        ignore_merges: false,
        add_bos: false,
    },
];

/// The name that stands for a missing one.
pub const DEFAULT: &str = "default";

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

/// The name of the pre-tokenizer of a `tokenizer.json`. Fails if llama.cpp has no name for it.
pub fn name_of(tokenizer: &Json) -> Result<&'static str> {
    let cuts = cuts_of(&tokenizer["pre_tokenizer"]);
    let normalizer = &tokenizer["normalizer"];
    let all = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), Vec::as_slice);
    let kinds: Vec<&str> = all.iter().filter_map(|part| part["type"].as_str()).collect();
    let nfc = kinds == ["NFC"];
    let ignore_merges = tokenizer["model"]["ignore_merges"] == true;
    let is_same = |p: &&PreTokenizer| cuts.as_deref().is_some_and(|cuts| p.cuts == cuts) && p.nfc == nfc;
    let same = || TABLE.iter().filter(is_same).filter(|_| nfc || kinds.is_empty());
    // Merges make the words that are tokens in all vocabularies but a few, so cuts alone can decide.
    match same().find(|p| p.ignore_merges == ignore_merges).or(same().next()) {
        Some(found) => Ok(found.names[0]),
        None => crate::bail!(
            "GGUF has no name for this tokenizer's pre-tokenizer, so the tokens would differ: export the model to `to` hf instead"
        ),
    }
}

/// The patterns that a pre-tokenizer cuts by, one after the other; `None` if it does anything else.
fn cuts_of(pre: &Json) -> Option<Vec<String>> {
    // Some files hold the line breaks themselves in place of their escapes.
    let regex = || Some(vec![pre["pattern"]["Regex"].as_str()?.replace('\r', r"\r").replace('\n', r"\n")]);
    Some(match pre["type"].as_str()? {
        "Sequence" => {
            let parts = pre["pretokenizers"].as_array()?.iter().map(cuts_of).collect::<Option<Vec<_>>>()?;
            parts.concat()
        }
        "Split" if pre["behavior"] == "Isolated" && pre["invert"] == false => regex()?,
        // The same cuts as a pattern of the words: what lies between them is empty.
        "Split" if pre["behavior"] == "Removed" && pre["invert"] == true => regex()?,
        "Digits" => vec![if pre["individual_digits"] == true { DIGIT } else { r"\p{N}+" }.into()],
        "ByteLevel" if pre["add_prefix_space"] == true => return None,
        "ByteLevel" if pre["use_regex"] == false => vec![],
        "ByteLevel" => vec![GPT2.into()],
        _ => return None,
    })
}

impl PreTokenizer {
    /// Its JSON as in `tokenizer.json`.
    pub fn json(&self) -> Json {
        let cut = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        let parts: Vec<Json> = self.cuts.iter().map(cut).chain([bytes]).collect();
        json!({"type": "Sequence", "pretokenizers": parts})
    }
}
