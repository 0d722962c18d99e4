//! Safety checks of a `tokenizer.json` before the `tokenizers` library reads it.
//!
//! The library trusts its file, so a damaged or hostile one could make it panic or make a short
//! text grow without bound. This file checks the kinds of parts and their number, how much they can
//! lengthen a text, the size of patterns, and references: merges to tokens, templates to special
//! tokens. It builds nothing. The limits are far above those of any published model.

use crate::error::{Context, Result};
use serde_json::{Map, Value as Json};

/// Largest file in bytes. The largest known ones are half as long.
pub const MAX_BYTES: usize = 64 << 20;
/// Most parts in one list of normalizers, pre-tokenizers, processors or decoders, including nested
/// lists.
const MAX_PARTS: usize = 64;
/// Deepest nesting of lists.
const MAX_DEPTH: usize = 4;
/// Most bytes of all patterns in one list.
const MAX_PATTERN_BYTES: usize = 4096;
/// Largest product of all repeat counts, as in `\p{N}{1,3}`, of one pattern.
const MAX_REPEATS: u64 = 1000;
/// Most bytes that one byte of text may become.
const MAX_GROWTH: f64 = 1000.0;
/// Longest word that WordPiece tries to split, in characters. Its time grows with the cube.
const MAX_WORD_CHARS: u64 = 1000;
/// Most unused ids in a vocabulary.
const MAX_ID_GAPS: u64 = 1 << 20;
/// Most ids that a template may add around a text.
const MAX_TEMPLATE_IDS: usize = 1024;

/// One of the four pipeline stages of a tokenizer.
struct Place {
    /// Key in the file.
    key: &'static str,
    /// Key of the inner list of a `Sequence`.
    list: &'static str,
    /// Supported types, besides `Sequence`.
    types: &'static [&'static str],
}

const PLACES: [Place; 4] = [
    Place {
        key: "normalizer",
        list: "normalizers",
        types: &[
            "BertNormalizer",
            "ByteLevel",
            "Lowercase",
            "NFC",
            "NFD",
            "NFKC",
            "NFKD",
            "Nmt",
            "Prepend",
            "Replace",
            "Strip",
            "StripAccents",
        ],
    },
    Place {
        key: "pre_tokenizer",
        list: "pretokenizers",
        types: &[
            "BertPreTokenizer",
            "ByteLevel",
            "Digits",
            "FixedLength",
            "Metaspace",
            "Punctuation",
            "Split",
            "UnicodeScripts",
            "Whitespace",
            "WhitespaceSplit",
        ],
    },
    Place {
        key: "post_processor",
        list: "processors",
        types: &["BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"],
    },
    Place {
        key: "decoder",
        list: "decoders",
        types: &["ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"],
    },
];

/// Rejects a file that is unsafe for the library.
pub fn check(file: &Json) -> Result<()> {
    let Json::Object(file) = file else { crate::bail!("expected an object with the key \"model\"") };
    check_parts(file)?;
    check_added(file.get("added_tokens").unwrap_or(&Json::Null)).context("added_tokens")?;
    match file.get("model") {
        Some(Json::Object(model)) => check_model(model).context("model"),
        _ => crate::bail!("\"model\" is missing"),
    }
}

/// Rejects normalizers, pre-tokenizers, processors and decoders that are unsupported or unsafe.
///
/// Call it with the file, and again with the parts that the library built: the library may parse a
/// malformed part as another type.
pub fn check_parts(file: &Map<String, Json>) -> Result<()> {
    let mut growth = 1.0;
    for place in &PLACES {
        let mut parts = Vec::new();
        flatten(place, file.get(place.key).unwrap_or(&Json::Null), 0, &mut parts).context(place.key)?;
        check_place(&parts).context(place.key)?;
        if place.key == "decoder" {
            growth = 1.0; // decoding starts again from tokens
        }
        growth *= parts.iter().map(|part| growth_of(part)).product::<f64>();
        if growth > MAX_GROWTH {
            crate::bail!(
                "{}: its parts can make a text {growth:.0} times as long; the limit is {MAX_GROWTH:.0}",
                place.key
            );
        }
    }
    Ok(())
}

/// Collects the parts of a stage, with nested lists flattened.
fn flatten<'a>(place: &Place, value: &'a Json, depth: usize, parts: &mut Vec<&'a Map<String, Json>>) -> Result<()> {
    let part = match value {
        Json::Null => return Ok(()),
        Json::Object(part) => part,
        _ => crate::bail!("expected an object or null"),
    };
    let kind = text(part, "type").unwrap_or("without a type");
    if kind == "Sequence" {
        crate::ensure!(depth < MAX_DEPTH, "lists nested more than {MAX_DEPTH} deep");
        let Some(Json::Array(list)) = part.get(place.list) else { crate::bail!("a Sequence without {}", place.list) };
        return list.iter().try_for_each(|inner| flatten(place, inner, depth + 1, parts));
    }
    crate::ensure!(
        place.types.contains(&kind),
        "'{kind}' is not supported; supported are Sequence, {}",
        place.types.join(", ")
    );
    crate::ensure!(parts.len() < MAX_PARTS, "more than {MAX_PARTS} parts");
    parts.push(part);
    Ok(())
}

fn check_place(parts: &[&Map<String, Json>]) -> Result<()> {
    let (mut pattern_bytes, mut n_around) = (0, 0);
    for part in parts {
        let kind = text(part, "type").unwrap_or_default();
        if let Some(regex) = part.get("pattern").and_then(|p| p.get("Regex")).and_then(Json::as_str) {
            pattern_bytes += regex.len();
            let repeats = repeats(regex);
            crate::ensure!(
                repeats <= MAX_REPEATS,
                "the pattern {regex:?} repeats its parts {repeats} times; the limit is {MAX_REPEATS}"
            );
        }
        match kind {
            "FixedLength" => {
                let length = part.get("length").map_or(Some(1), Json::as_u64);
                crate::ensure!(length.is_some_and(|n| n > 0), "FixedLength: expected a length of at least 1");
            }
            // The library trims the end without checking the length of the token.
            "Strip" if part.contains_key("stop") => {
                crate::ensure!(part["stop"] == 0, "Strip: \"stop\" is {}, expected 0", part["stop"]);
            }
            // After an empty match the library's offsets are wrong, and it panics later.
            "Replace" => {
                crate::ensure!(replaced(part).is_some(), "Replace: expected a non-empty text as the pattern")
            }
            "TemplateProcessing" => check_template(part).context("TemplateProcessing")?,
            _ => {}
        }
        n_around += usize::from(matches!(kind, "TemplateProcessing" | "BertProcessing" | "RobertaProcessing"));
    }
    crate::ensure!(
        pattern_bytes <= MAX_PATTERN_BYTES,
        "its patterns have {pattern_bytes} bytes; the limit is {MAX_PATTERN_BYTES}"
    );
    crate::ensure!(n_around <= 1, "{n_around} parts add tokens around a text; expected at most one");
    Ok(())
}

/// The text that a `Replace` searches for, if it is a non-empty string.
fn replaced(part: &Map<String, Json>) -> Option<&str> {
    part.get("pattern")?.get("String")?.as_str().filter(|pattern| !pattern.is_empty())
}

/// Upper bound of the bytes that a part makes from one byte.
fn growth_of(part: &Map<String, Json>) -> f64 {
    let flag = |key: &str| part.get(key).is_some_and(|v| *v != Json::Bool(false));
    let content = text(part, "content").map_or(0, str::len) as f64;
    match text(part, "type").unwrap_or_default() {
        "Replace" => (content / replaced(part).map_or(1, str::len) as f64).max(1.0),
        "Prepend" => 1.0 + text(part, "prepend").map_or(0, str::len) as f64,
        "NFC" => 3.0,
        "NFD" | "NFKC" | "NFKD" | "BertNormalizer" => 12.0,
        "Lowercase" | "WordPiece" => 2.0,
        "ByteLevel" if flag("add_prefix_space") && flag("use_regex") => 4.0,
        "ByteLevel" => 2.0,
        "ByteFallback" => 3.0,
        "Metaspace" => 8.0,
        _ => 1.0,
    }
}

/// The product of the repeat counts in braces.
fn repeats(regex: &str) -> u64 {
    let counts = regex.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(inside, _)| {
        let largest = inside.split(',').filter_map(|n| n.trim().parse::<u64>().ok()).max();
        // Digits that overflow u64 count as too large. A name, as in \p{L}, is not a count.
        let digits = !inside.is_empty() && inside.bytes().all(|b| b.is_ascii_digit() || b == b',');
        largest.unwrap_or(if digits { u64::MAX } else { 1 }).max(1)
    });
    counts.fold(1, u64::saturating_mul)
}

/// A template for one text must contain the text exactly once, and no second text. It may use only
/// special tokens that it defines.
fn check_template(part: &Map<String, Json>) -> Result<()> {
    let (Some(Json::Array(pieces)), Some(Json::Object(tokens))) = (part.get("single"), part.get("special_tokens"))
    else {
        crate::bail!("\"single\" or \"special_tokens\" is missing")
    };
    let (mut n_texts, mut n_ids) = (0, 0);
    for piece in pieces {
        if let Some(name) = piece.get("SpecialToken").and_then(|t| t.get("id")).and_then(Json::as_str) {
            let count = |key: &str| tokens.get(name).and_then(|t| t.get(key)).and_then(Json::as_array).map(Vec::len);
            let (ids, names) = (count("ids"), count("tokens"));
            crate::ensure!(
                ids.is_some() && ids == names,
                "the special token {name:?} is not defined in \"special_tokens\""
            );
            n_ids += ids.unwrap_or(0);
            continue;
        }
        let sequence = piece.get("Sequence").and_then(|s| s.get("id")).and_then(Json::as_str);
        crate::ensure!(sequence == Some("A"), "\"single\" contains {piece}; expected the text A or a special token");
        n_texts += 1;
    }
    crate::ensure!(n_texts == 1, "\"single\" contains the text {n_texts} times; expected once");
    crate::ensure!(
        n_ids <= MAX_TEMPLATE_IDS,
        "\"single\" adds {n_ids} tokens to a text; the limit is {MAX_TEMPLATE_IDS}"
    );
    Ok(())
}

/// Rejects added tokens that can both claim the same spaces, because the library would then slice a
/// text with its end before its start.
fn check_added(value: &Json) -> Result<()> {
    let tokens = match value {
        Json::Null => return Ok(()),
        Json::Array(tokens) => tokens,
        _ => crate::bail!("expected a list"),
    };
    let flag = |token: &Json, key: &str| token.get(key).is_some_and(|v| *v != Json::Bool(false));
    let takes_after = tokens.iter().any(|t| flag(t, "rstrip"));
    let spaced = |t: &&Json| {
        let content = t.get("content").and_then(Json::as_str).unwrap_or_default();
        flag(t, "lstrip") && (flag(t, "normalized") || content.starts_with(char::is_whitespace))
    };
    if let Some(token) = tokens.iter().find(spaced).filter(|_| takes_after) {
        crate::bail!(
            "{} matches spaces before it and may begin with one, while other tokens match spaces after them",
            token
        )
    }
    Ok(())
}

fn check_model(model: &Map<String, Json>) -> Result<()> {
    // Old files have no type; they are BPE.
    let kind = text(model, "type").unwrap_or(if model.contains_key("merges") { "BPE" } else { "without a type" });
    if let Some(Json::Object(vocab)) = model.get("vocab") {
        // The library iterates over all ids when it writes a vocabulary, including unused ones.
        let fits = |id: &Json| id.as_u64().is_some_and(|id| id < vocab.len() as u64 + MAX_ID_GAPS);
        if let Some((token, id)) = vocab.iter().find(|(_, id)| !fits(id)) {
            crate::bail!("the token {token:?} has the id {id}, but there are only {} tokens", vocab.len());
        }
    }
    if let Some(most) = model.get("max_input_chars_per_word") {
        let fits = most.as_u64().is_some_and(|n| n <= MAX_WORD_CHARS);
        crate::ensure!(fits, "max_input_chars_per_word: expected at most {MAX_WORD_CHARS}, found {most}");
    }
    match kind {
        "BPE" => check_bpe(model),
        "WordPiece" | "WordLevel" | "Unigram" => Ok(()),
        other => crate::bail!("'{other}' is not supported; supported are BPE, WordPiece, WordLevel and Unigram"),
    }
}

/// Checks that every merge joins two tokens into a third.
fn check_bpe(model: &Map<String, Json>) -> Result<()> {
    let prefix = text(model, "continuing_subword_prefix").unwrap_or_default();
    crate::ensure!(prefix.is_empty(), "the continuing_subword_prefix {prefix:?} is not supported; expected none");
    let suffix = text(model, "end_of_word_suffix").unwrap_or_default();
    let fallback = model.get("byte_fallback") == Some(&Json::Bool(true));
    crate::ensure!(suffix.is_empty() || !fallback, "byte_fallback together with end_of_word_suffix is not supported");
    let (Some(Json::Object(vocab)), Some(Json::Array(merges))) = (model.get("vocab"), model.get("merges")) else {
        crate::bail!("\"vocab\" or \"merges\" is missing")
    };
    let mut joined = String::new();
    for (i, merge) in merges.iter().enumerate() {
        let halves = match merge {
            Json::String(line) if line.starts_with("#version") => continue,
            Json::String(line) => line.split_once(' '),
            Json::Array(two) => two.first().and_then(Json::as_str).zip(two.get(1).and_then(Json::as_str)),
            _ => None,
        };
        let Some((a, b)) = halves else { crate::bail!("merge {i}, {merge}, is not two tokens") };
        joined.clear();
        joined.extend([a, b]);
        let known = [a, b, &joined].iter().all(|token| vocab.contains_key(*token));
        crate::ensure!(known, "merge {i}: {a:?}, {b:?} or their concatenation is not a token");
    }
    Ok(())
}

fn text<'a>(object: &'a Map<String, Json>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}
