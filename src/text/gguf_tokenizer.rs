//! Rebuilds a tokenizer from the `tokenizer.ggml.*` keys of a GGUF file.
//!
//! Two kinds are supported: `gpt2`, byte-level BPE with merges (Llama 3, Qwen, SmolLM), and
//! `llama`, SentencePiece BPE with a score per piece and no merges (Llama 2, Mistral 7B). The file
//! gives only the name of its pre-tokenizer; [`super::pre_tokenizer`] has the patterns.
//! [`super::tokenizer`] wraps the result.

use super::pre_tokenizer::{self, PreTokenizer};
use super::special_tokens::{SpecialTokens, around};
use crate::error::{Context, Error, Result};
use crate::formats::gguf::{Metadata, Value};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer as Inner};

/// SentencePiece's character for a space.
pub(super) const SPACE: &str = "\u{2581}";

/// Names of end-of-turn tokens. GGUF files rarely have a key for them, and some give them the type of
/// ordinary tokens (Phi 3's do): llama.cpp and this program take them for control tokens anyway.
pub(super) const END_OF_TURN_NAMES: [&str; 8] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
];

/// The GGUF token types that need special treatment. All others are plain pieces.
pub(super) const UNKNOWN: i64 = 2;
pub(super) const CONTROL: i64 = 3;
pub(super) const USER_DEFINED: i64 = 4;
pub(super) const BYTE: i64 = 6;

/// Longest piece of a SentencePiece vocabulary, in bytes. Its trainer stops at 16 characters by
/// default, and at a few dozen if configured so.
const MAX_PIECE_BYTES: usize = 512;
/// Most merges per piece on average. Known vocabularies have two.
const MAX_MERGES_A_PIECE: usize = 8;

/// Roles of special tokens, their names in keys, and the ids that llama.cpp takes for SentencePiece
/// vocabularies without the key. (Its BOS and EOS of other vocabularies, 11, belong to one model
/// and do not count here.)
pub(super) const ROLE_KEYS: [(&str, &str, Option<u32>); 7] = [
    ("bos_token", "bos", Some(1)),
    ("eos_token", "eos", Some(2)),
    ("unk_token", "unknown", Some(0)),
    ("sep_token", "seperator", None),
    ("pad_token", "padding", None),
    ("cls_token", "cls", None),
    ("mask_token", "mask", None),
];

/// The tokenizer keys of a GGUF file.
pub struct Vocabulary {
    kind: Kind,
    /// Names by id. A token that repeats an earlier name gets one that no text contains.
    tokens: Vec<String>,
    types: Vec<i64>,
    /// Ids of repeated tokens, and the ids of the first ones. The first one stands for the text.
    pub repeated: HashMap<u32, u32>,
    /// The special tokens by role.
    pub special: SpecialTokens,
    add_bos: bool,
    add_eos: bool,
    /// Whether special tokens swallow the spaces after them, as those of Phi-3 do. The format has
    /// no key for it.
    takes_spaces: bool,
}

/// Special tokens of Phi-3 that leave the spaces after them.
const PHI3_PLAIN: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

enum Kind {
    ByteLevel { merges: Vec<(String, String)>, pre_tokenizer: &'static PreTokenizer },
    SentencePiece { scores: Vec<f64>, add_space_prefix: bool },
}

impl Vocabulary {
    /// Reads the keys. Fails on an unsupported kind or pre-tokenizer, and on lists of different
    /// lengths.
    pub fn read(metadata: &Metadata) -> Result<Self> {
        let mut tokens: Vec<String> =
            metadata.strings("tokenizer.ggml.tokens")?.into_iter().map(str::to_owned).collect();
        let mut kind = match metadata.str("tokenizer.ggml.model")? {
            "gpt2" => read_byte_level(metadata)?,
            "llama" => read_sentence_piece(metadata, tokens.len())?,
            other => crate::bail!("the GGUF tokenizer kind '{other}' is not supported; supported are gpt2 and llama"),
        };
        let mut types = match metadata.contains("tokenizer.ggml.token_type") {
            true => metadata.i64s("tokenizer.ggml.token_type")?,
            false => vec![1; tokens.len()],
        };
        same_length("tokenizer.ggml.token_type", types.len(), tokens.len())?;
        let flag = |key: &str, default| if metadata.contains(key) { metadata.bool(key) } else { Ok(default) };
        let default_bos = match &kind {
            Kind::ByteLevel { pre_tokenizer, .. } => pre_tokenizer.add_bos,
            Kind::SentencePiece { .. } => true,
        };
        if let Kind::SentencePiece { scores, .. } = &mut kind {
            restore_user_defined(&mut tokens, &types, scores);
        }
        for (token, kind) in tokens.iter().zip(&mut types) {
            if END_OF_TURN_NAMES.contains(&token.as_str()) {
                *kind = CONTROL;
            }
        }
        let repeated = rename_repeated(&mut tokens)?;
        let is_phi3 = metadata.get("general.architecture") == Some(&Value::String("phi3".to_owned()));
        Ok(Self {
            takes_spaces: is_phi3 && matches!(kind, Kind::SentencePiece { .. }),
            repeated,
            special: special_tokens(metadata)?,
            add_bos: flag("tokenizer.ggml.add_bos_token", default_bos)?,
            add_eos: flag("tokenizer.ggml.add_eos_token", false)?,
            kind,
            tokens,
            types,
        })
    }
}

/// The special tokens of a GGUF file by role. Works for every kind of vocabulary.
pub fn special_tokens(metadata: &Metadata) -> Result<SpecialTokens> {
    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    let is_sentence_piece = metadata.get("tokenizer.ggml.model") == Some(&Value::String("llama".to_owned()));
    let mut special = SpecialTokens::default();
    for (role, name, default) in ROLE_KEYS {
        let given = token_id(metadata, &format!("tokenizer.ggml.{name}_token_id"), tokens.len())?;
        let id = given.or(default.filter(|_| is_sentence_piece));
        if let Some(token) = id.and_then(|id| tokens.get(id as usize)) {
            special.set(role, token);
        }
    }
    Ok(special)
}

/// Gives user-defined pieces of SentencePiece the names and the score that its model has.
/// llama.cpp's converter writes their spaces as spaces, and -1000 for the score, because it matches
/// these pieces before all others. The score 0 does the same among merges.
fn restore_user_defined(tokens: &mut [String], types: &[i64], scores: &mut [f64]) {
    let known: HashSet<String> = tokens.iter().filter(|token| token.starts_with(SPACE)).cloned().collect();
    for ((token, _), score) in tokens.iter_mut().zip(types).zip(scores).filter(|((_, t), _)| **t == USER_DEFINED) {
        let name = token.replace(' ', SPACE);
        if !known.contains(&name) {
            *token = name;
        }
        *score = 0.0;
    }
}

/// Gives every token that repeats an earlier text a name that no text contains, so that no merge
/// makes it.
/// Returns the ids of such tokens with the ids of the first ones.
fn rename_repeated(tokens: &mut [String]) -> Result<HashMap<u32, u32>> {
    let (mut first, mut repeated) = (HashMap::with_capacity(tokens.len()), HashMap::new());
    for (id, token) in tokens.iter().enumerate() {
        let id = u32::try_from(id)?;
        let of = *first.entry(token.as_str()).or_insert(id);
        if of != id {
            repeated.insert(id, of);
        }
    }
    for (&id, &of) in &repeated {
        tokens[id as usize] = format!("\0{id} repeats {of}");
    }
    Ok(repeated)
}

fn read_byte_level(metadata: &Metadata) -> Result<Kind> {
    let split = |(i, line): (usize, &str)| {
        // The two halves contain no space, because byte-level BPE writes a space as another
        // character.
        line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).ok_or_else(|| {
            Error::new(format!("tokenizer.ggml.merges: entry {i}, {line:?}, is not two pieces separated by a space"))
        })
    };
    let merges =
        metadata.strings("tokenizer.ggml.merges")?.into_iter().enumerate().map(split).collect::<Result<_>>()?;
    let name = match metadata.contains("tokenizer.ggml.pre") {
        true => metadata.str("tokenizer.ggml.pre")?,
        false => pre_tokenizer::DEFAULT,
    };
    Ok(Kind::ByteLevel { merges, pre_tokenizer: pre_tokenizer::named(name)? })
}

fn read_sentence_piece(metadata: &Metadata, n_tokens: usize) -> Result<Kind> {
    let scores = metadata.f64s("tokenizer.ggml.scores")?;
    same_length("tokenizer.ggml.scores", scores.len(), n_tokens)?;
    crate::ensure!(scores.iter().all(|s| !s.is_nan()), "tokenizer.ggml.scores contains NaN");
    let key = "tokenizer.ggml.add_space_prefix";
    let add_space_prefix = if metadata.contains(key) { metadata.bool(key)? } else { true };
    Ok(Kind::SentencePiece { scores, add_space_prefix })
}

/// A token id from the file, if the key exists. An id outside the vocabulary is none, as in llama.cpp:
/// its own converters have written -1 for tokens that a model lacks.
pub(super) fn token_id(metadata: &Metadata, key: &str, n_tokens: usize) -> Result<Option<u32>> {
    if !metadata.contains(key) {
        return Ok(None);
    }
    let id = metadata.i64(key)?;
    Ok(usize::try_from(id).ok().filter(|&id| id < n_tokens).and_then(|id| u32::try_from(id).ok()))
}

fn same_length(key: &str, found: usize, tokens: usize) -> Result<()> {
    crate::ensure!(found == tokens, "GGUF metadata key '{key}' has {found} entries for {tokens} tokens");
    Ok(())
}

/// Builds the tokenizer that the keys describe, and takes the merges out of them.
pub fn build(vocabulary: &mut Vocabulary) -> Result<Inner> {
    let merges = match &mut vocabulary.kind {
        Kind::ByteLevel { merges, .. } => std::mem::take(merges),
        Kind::SentencePiece { .. } => vec![],
    };
    let vocabulary = &*vocabulary;
    let mut ids = Vocab::with_capacity(vocabulary.tokens.len());
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        ids.insert(token.clone(), u32::try_from(id)?);
    }
    let mut inner = match &vocabulary.kind {
        Kind::ByteLevel { pre_tokenizer, .. } => byte_level(ids, merges, pre_tokenizer)?,
        Kind::SentencePiece { scores, add_space_prefix } => {
            let merges = merges_from_scores(vocabulary, &ids, scores)?;
            sentence_piece(ids, merges, *add_space_prefix, vocabulary.special.get("unk_token"))?
        }
    };
    let token = |wanted: bool, role: &str| {
        let name = vocabulary.special.get(role).filter(|_| wanted)?;
        inner.token_to_id(name).map(|id| (name, id))
    };
    let (bos, eos) = (token(vocabulary.add_bos, "bos_token"), token(vocabulary.add_eos, "eos_token"));
    if bos.is_some() || eos.is_some() {
        let processor = around(bos, eos)?;
        inner.with_post_processor(Some(processor));
    }
    let added = |special: bool, wanted: fn(i64) -> bool| {
        let all = vocabulary.tokens.iter().zip(&vocabulary.types).enumerate();
        let chosen = all.filter(|(id, (_, kind))| wanted(**kind) && !vocabulary.repeated.contains_key(&(*id as u32)));
        let token = |token: &String| {
            let takes_spaces = vocabulary.takes_spaces && !PHI3_PLAIN.contains(&token.as_str());
            AddedToken::from(token.clone(), special).normalized(false).rstrip(takes_spaces)
        };
        chosen.map(|(_, (name, _))| token(name)).collect::<Vec<_>>()
    };
    inner.add_special_tokens(added(true, |t| t == CONTROL || t == UNKNOWN))?;
    inner.add_tokens(added(false, |t| t == USER_DEFINED))?;
    Ok(inner)
}

fn byte_level(ids: Vocab, merges: Vec<(String, String)>, pre: &PreTokenizer) -> Result<Inner> {
    let mut joined = String::new();
    for (a, b) in &merges {
        joined.clear();
        joined.extend([a.as_str(), b]);
        let known = ids.contains_key(a) && ids.contains_key(b) && ids.contains_key(&joined);
        crate::ensure!(known, "tokenizer.ggml.merges: {a:?}, {b:?} or their concatenation is not a token");
    }
    let model = BPE::builder().cache_capacity(0).vocab_and_merges(ids, merges).ignore_merges(pre.ignore_merges);
    let mut inner = Inner::new(model.build().context("building the byte-level vocabulary")?);
    if pre.nfc {
        inner.with_normalizer(Some(part::<NormalizerWrapper>(json!({"type": "NFC"}))?))?;
    }
    inner.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(pre.json())?));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    inner.with_decoder(Some(part::<DecoderWrapper>(decoder)?));
    Ok(inner)
}

/// Merges equivalent to SentencePiece's rule, "join the neighbours whose joint piece has the
/// highest score": every split of a piece into two others, best score first. Splits of one piece
/// tie. Then the longer left half comes first, and then the longer right one, which matches the
/// rule's leftmost-first order on runs of one character.
///
/// Rejects pieces that are too long and vocabularies with too many splits, because time and memory
/// grow with the square of the input.
fn merges_from_scores(vocabulary: &Vocabulary, ids: &Vocab, scores: &[f64]) -> Result<Vec<(String, String)>> {
    let is_piece = |id: usize| !matches!(vocabulary.types[id], UNKNOWN | CONTROL | BYTE);
    let known = |piece: &str| ids.get(piece).is_some_and(|&id| is_piece(id as usize));
    let mut merges = Vec::new();
    let most = MAX_MERGES_A_PIECE * (vocabulary.tokens.len() + 512);
    for (id, token) in vocabulary.tokens.iter().enumerate().filter(|(id, _)| is_piece(*id)) {
        crate::ensure!(
            token.len() <= MAX_PIECE_BYTES,
            "tokenizer.ggml.tokens: token {id} has {} bytes; a SentencePiece token may have at most {MAX_PIECE_BYTES}",
            token.len()
        );
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if known(left) && known(right) {
                merges.push((scores[id], left, right));
            }
        }
        crate::ensure!(merges.len() <= most, "tokenizer.ggml.tokens: the pieces imply more than {most} merges");
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.len().cmp(&a.1.len())).then(b.2.len().cmp(&a.2.len())));
    Ok(merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect())
}

fn sentence_piece(
    ids: Vocab,
    merges: Vec<(String, String)>,
    add_space_prefix: bool,
    unknown: Option<&str>,
) -> Result<Inner> {
    let mut model = BPE::builder().cache_capacity(0).vocab_and_merges(ids, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown.to_owned());
    }
    let mut inner = Inner::new(model.build().context("building the SentencePiece vocabulary")?);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let mut normalizers = vec![replace];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if add_space_prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
    inner.with_normalizer(Some(part::<NormalizerWrapper>(normalizer)?))?;
    inner.with_decoder(Some(part::<DecoderWrapper>(json!({"type": "Sequence", "decoders": decoders}))?));
    Ok(inner)
}

/// Deserialises one part of the tokenizer from its JSON in `tokenizer.json`.
fn part<T: DeserializeOwned>(json: Json) -> Result<T> {
    serde_json::from_value(json).context("building the tokenizer")
}

#[cfg(test)]
#[path = "gguf_tokenizer_tests.rs"]
mod tests;
