//! What a `tokenizer.json` must not say: the library behind [`super::tokenizer`] believes its file, so that a damaged or
//! hostile one could make it panic, or make a small text grow without end.
//!
//! Checked are the kinds of parts and how many there are, how much they can lengthen a text, the size of patterns, and what
//! refers to what: merges to tokens, templates to special tokens. It does not build anything. The numbers are far above
//! those of any published model.

use crate::error::{Context, Result};
use serde_json::{Map, Value as Json};

/// Largest file that is read; the largest known are half as long.
pub const MAX_BYTES: usize = 64 << 20;
/// Parts of one list of normalisers, pre-tokenizers, processors or decoders, those of inner lists included.
const MAX_PARTS: usize = 64;
/// Lists in lists.
const MAX_DEPTH: usize = 4;
/// Bytes of all patterns of one such list.
const MAX_PATTERN_BYTES: usize = 4096;
/// Product of all counts, as in `\p{N}{1,3}`, of one pattern.
const MAX_REPEATS: u64 = 1000;
/// Most bytes that one byte of text may become.
const MAX_GROWTH: f64 = 1000.0;
/// Longest word that WordPiece tries to cut, in characters: its time grows with the cube.
const MAX_WORD_CHARS: u64 = 1000;
/// Ids of a vocabulary that belong to no token.
const MAX_ID_GAPS: u64 = 1 << 20;
/// Ids that a template may put around a text.
const MAX_TEMPLATE_IDS: usize = 1024;

/// One of the four kinds of parts.
struct Place {
    /// Key of the file.
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

/// Refuses a file that the library cannot be trusted with.
pub fn check(file: &Json) -> Result<()> {
    let Json::Object(file) = file else { crate::bail!("expected an object with the key \"model\"") };
    check_parts(file)?;
    check_added(file.get("added_tokens").unwrap_or(&Json::Null)).context("added_tokens")?;
    match file.get("model") {
        Some(Json::Object(model)) => check_model(model).context("model"),
        _ => crate::bail!("\"model\" is missing"),
    }
}

/// Refuses normalisers, pre-tokenizers, processors and decoders that are not supported or not safe.
///
/// To be called with the file, and again with what the library made of it: a part that does not fit its type may be taken
/// for one of another type.
pub fn check_parts(file: &Map<String, Json>) -> Result<()> {
    let mut growth = 1.0;
    for place in &PLACES {
        let mut parts = Vec::new();
        flatten(place, file.get(place.key).unwrap_or(&Json::Null), 0, &mut parts).context(place.key)?;
        check_place(&parts).context(place.key)?;
        if place.key == "decoder" {
            growth = 1.0; // decoding begins anew with tokens
        }
        growth *= parts.iter().map(|part| growth_of(part)).product::<f64>();
        if growth > MAX_GROWTH {
            crate::bail!("{}: its parts can make a text {growth:.0} times as long, which no model's do", place.key);
        }
    }
    Ok(())
}

/// Lists the parts of a place, inner lists resolved.
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
            crate::ensure!(repeats <= MAX_REPEATS, "the pattern {regex:?} repeats its parts {repeats} times");
        }
        match kind {
            "FixedLength" => {
                let length = part.get("length").map_or(Some(1), Json::as_u64);
                crate::ensure!(length.is_some_and(|n| n > 0), "FixedLength: expected a length of at least 1");
            }
            // The library cuts the end off without looking how long the token is.
            "Strip" if part.contains_key("stop") => {
                crate::ensure!(part["stop"] == 0, "Strip: \"stop\" is {}, expected 0", part["stop"]);
            }
            // The library loses count of the text where a pattern matches nothing, and so panics later.
            "Replace" => {
                crate::ensure!(replaced(part).is_some(), "Replace: expected a text as the pattern that is not empty")
            }
            "TemplateProcessing" => check_template(part).context("TemplateProcessing")?,
            _ => {}
        }
        n_around += usize::from(matches!(kind, "TemplateProcessing" | "BertProcessing" | "RobertaProcessing"));
    }
    crate::ensure!(pattern_bytes <= MAX_PATTERN_BYTES, "its patterns have {pattern_bytes} bytes");
    crate::ensure!(n_around <= 1, "{n_around} parts want to put tokens around a text; expected one");
    Ok(())
}

/// The text that a `Replace` looks for, if it is one.
fn replaced(part: &Map<String, Json>) -> Option<&str> {
    part.get("pattern")?.get("String")?.as_str().filter(|pattern| !pattern.is_empty())
}

/// Most bytes that a part makes of one byte.
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

/// The product of the counts in braces.
fn repeats(regex: &str) -> u64 {
    let counts = regex.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(inside, _)| {
        let largest = inside.split(',').filter_map(|n| n.trim().parse::<u64>().ok()).max();
        // Too large to be a number at all is too large; a name, as in \p{L}, is no count.
        let digits = !inside.is_empty() && inside.bytes().all(|b| b.is_ascii_digit() || b == b',');
        largest.unwrap_or(if digits { u64::MAX } else { 1 }).max(1)
    });
    counts.fold(1, u64::saturating_mul)
}

/// A template for one text must hold it at least once and no second one, and name only special tokens that it explains.
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
            crate::ensure!(ids.is_some() && ids == names, "the special token {name:?} is not explained");
            n_ids += ids.unwrap_or(0);
            continue;
        }
        let sequence = piece.get("Sequence").and_then(|s| s.get("id")).and_then(Json::as_str);
        crate::ensure!(sequence == Some("A"), "\"single\" holds {piece}; expected the text A or a special token");
        n_texts += 1;
    }
    crate::ensure!(n_texts == 1, "\"single\" holds the text {n_texts} times; expected once");
    crate::ensure!(n_ids <= MAX_TEMPLATE_IDS, "\"single\" adds {n_ids} tokens to a text");
    Ok(())
}

/// Two tokens that both take the spaces between them would make the library cut a text backwards.
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
        crate::bail!("{} takes spaces before it and may begin with one, while others take spaces after them", token)
    }
    Ok(())
}

fn check_model(model: &Map<String, Json>) -> Result<()> {
    // Files of the first years have no type; they are BPE.
    let kind = text(model, "type").unwrap_or(if model.contains_key("merges") { "BPE" } else { "without a type" });
    if let Some(Json::Object(vocab)) = model.get("vocab") {
        // The library counts through all ids when it writes a vocabulary, those that nobody has included.
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

/// Every merge joins two tokens to a third.
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
        crate::ensure!(known, "merge {i}: {a:?} and {b:?}, or what they make, are not among the tokens");
    }
    Ok(())
}

fn text<'a>(object: &'a Map<String, Json>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}
