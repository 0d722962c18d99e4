//! The tokenizer: text to token ids and back, from a `tokenizer.json` or a GGUF file.
//!
//! This file wraps the `tokenizers` crate: truncation and padding are off, offsets are exact byte
//! ranges of the given text, ids outside the vocabulary are errors, and panics of the crate become
//! errors. [`super::decode_stream`] decodes tokens one by one. [`super::gguf_tokenizer`] rebuilds a
//! tokenizer from GGUF metadata. `tokenizer_check.rs` rejects unsafe files. Chat templates are in
//! [`super::chat_template`], stop tokens in [`super::stop`].

use super::special_tokens::SpecialTokens;
use super::tokenizer_config::TokenizerConfig;
use super::{gguf_tokenizer, tokenizer_check};
use crate::error::{Context, Error, Result};
use crate::formats::gguf::Metadata;
use crate::small_file;
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use tokenizers::models::ModelWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer as Inner};

/// A model's tokenizer.
pub struct Tokenizer {
    inner: Inner,
    /// Whether encoding adds a space at the start of a text, as SentencePiece models do.
    prepends_space: bool,
    /// The tokens that the model needs before and after a text.
    before: Vec<u32>,
    after: Vec<u32>,
    special: SpecialTokens,
    /// Ids whose token has the text of another id, with that id. Only GGUF files have such tokens.
    repeated: HashMap<u32, u32>,
    /// [`DOUBLED`] after a text with its own BOS, [`TOLD`] after [`Tokenizer::take_note`].
    note: AtomicU8,
}

const DOUBLED: u8 = 1;
const TOLD: u8 = 2;

impl Tokenizer {
    /// Reads `tokenizer.json` and the files beside it that determine special tokens, as
    /// transformers does: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`
    /// and `config.json`. All but the first are optional.
    ///
    /// Fails if there is no `tokenizer.json`. The error says so if there is only a SentencePiece
    /// `tokenizer.model`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        if !path.exists() {
            return Err(missing(dir));
        }
        let mut config = TokenizerConfig::read(dir)?;
        let mut read = || -> Result<Inner> {
            let mut file = parse(&small_file::read_bytes(&path, tokenizer_check::MAX_BYTES as u64)?)?;
            config.complete(&mut file);
            let mut inner = built(file)?;
            config.surround(&mut inner)?;
            inner.set_encode_special_tokens(config.split_special_tokens);
            Ok(inner)
        };
        let inner = read().with_context(|| format!("reading {}", path.display()))?;
        Self::from_inner(inner, config.special_tokens(), HashMap::new())
    }

    /// Parses the text of a `tokenizer.json`.
    pub fn from_json_bytes(bytes: &[u8]) -> Result<Self> {
        Self::from_inner(built(parse(bytes)?)?, SpecialTokens::default(), HashMap::new())
    }

    /// Rebuilds the tokenizer from the `tokenizer.ggml.*` keys of a GGUF file.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let mut vocabulary = gguf_tokenizer::Vocabulary::read(metadata)?;
        let inner = guarded(|| gguf_tokenizer::build(&mut vocabulary))?;
        Self::from_inner(inner, vocabulary.special, vocabulary.repeated)
    }

    fn from_inner(mut inner: Inner, special: SpecialTokens, repeated: HashMap<u32, u32>) -> Result<Self> {
        inner.with_truncation(None)?.with_padding(None);
        if let Some(mut processor) = inner.get_post_processor().cloned() {
            keep_whole_offsets(&mut processor);
            inner.with_post_processor(Some(processor));
        }
        let around = guarded(|| inner.encode("a", true).context("encoding a text"))?;
        let marks = around.get_special_tokens_mask();
        let is_mark = |mark: &&u32| **mark == 1;
        let n_before = marks.iter().take_while(is_mark).count();
        let n_after = marks[n_before..].iter().rev().take_while(is_mark).count();
        let mut tokenizer = Self {
            before: around.get_ids()[..n_before].to_vec(),
            after: around.get_ids()[marks.len() - n_after..].to_vec(),
            inner,
            prepends_space: false,
            special,
            repeated,
            note: AtomicU8::new(0),
        };
        let alone = tokenizer.encode("a", false)?;
        tokenizer.prepends_space = tokenizer.after_line_break("a")?.is_some_and(|after| after != alone);
        Ok(tokenizer)
    }

    /// Serialises the tokenizer as `tokenizer.json`.
    pub fn to_json(&self) -> Result<String> {
        guarded(|| self.inner.to_string(true).context("writing the tokenizer"))
    }

    /// The ids of a text. `add_special` adds the tokens that the model needs around a text, usually
    /// BOS in front. Names of special tokens in the text become those tokens.
    ///
    /// A text that begins with BOS, or ends with EOS, gets no second one:
    /// [`Tokenizer::take_note`] reports it.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let ids = self.encode_plain(text)?;
        if !add_special {
            return Ok(ids);
        }
        let (before, after) = self.around(ids.first(), ids.last());
        Ok([before, &ids, after].concat())
    }

    /// The ids of a text that the model is to continue: like [`Tokenizer::encode`] with special
    /// tokens, but without those that end a text.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode_plain(text)?;
        let (before, _) = self.around(ids.first(), None);
        Ok([before, &ids].concat())
    }

    fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, false).context("encoding a text"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens to add before and after a text that has these ids at its ends.
    fn around(&self, first: Option<&u32>, last: Option<&u32>) -> (&[u32], &[u32]) {
        let (mut before, mut after) = (self.before.as_slice(), self.after.as_slice());
        if let Some((bos, rest)) = before.split_last()
            && first == Some(bos)
        {
            before = rest;
            _ = self.note.compare_exchange(0, DOUBLED, Ordering::Relaxed, Ordering::Relaxed);
        }
        if let Some((eos, rest)) = after.split_first()
            && last == Some(eos)
        {
            after = rest;
        }
        (before, after)
    }

    /// What the user should know about the texts so far. Returns each note once.
    pub fn take_note(&self) -> Option<String> {
        self.note.compare_exchange(DOUBLED, TOLD, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        let bos = self.before.last().and_then(|&id| self.id_to_token(id)).unwrap_or_default();
        Some(format!(
            "a text begins with {bos}, which the tokenizer also puts in front of every text; such a text gets one {bos}"
        ))
    }

    /// Like [`Tokenizer::encode`], with the byte range of the text for each id.
    ///
    /// Several tokens of one character share its range. A token without text has an empty range.
    pub fn encode_with_offsets(&self, text: &str, add_special: bool) -> Result<Vec<(u32, Range<usize>)>> {
        let encoding = guarded(|| self.inner.encode(text, false).context("encoding a text"))?;
        let ids = encoding.get_ids();
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        let tokens = ids.iter().copied().zip(ranges);
        if !add_special {
            return Ok(tokens.collect());
        }
        let (before, after) = self.around(ids.first(), ids.last());
        let empty = |at: usize| move |&id: &u32| (id, at..at);
        Ok(before.iter().map(empty(0)).chain(tokens).chain(after.iter().map(empty(text.len()))).collect())
    }

    /// The ids of a text that directly follows another one: without special tokens, and without the
    /// space that SentencePiece models add at the start of a text.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        if self.prepends_space
            && let Some(ids) = self.after_line_break(text)?
        {
            return Ok(ids);
        }
        self.encode(text, false)
    }

    /// The ids of `text` after a line break. `None` if a token spans the line break and the text.
    fn after_line_break(&self, text: &str) -> Result<Option<Vec<u32>>> {
        let tokens = self.encode_with_offsets(&format!("\n{text}"), false)?;
        let first = tokens.iter().position(|(_, range)| range.start >= 1).unwrap_or(tokens.len());
        let clean = tokens[..first].iter().all(|(_, range)| range.end <= 1);
        Ok(clean.then(|| tokens[first..].iter().map(|(id, _)| *id).collect()))
    }

    /// The text of each id, special tokens by name. If a character has several tokens, the last one
    /// gets its text.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<String>> {
        let mut stream = self.stream();
        let piece = |&id: &u32| {
            let special = self.is_special(id).then(|| self.id_to_token(id)).flatten();
            let said = stream.push(id)?.unwrap_or_default();
            Ok(special.unwrap_or(said))
        };
        ids.iter().map(piece).collect()
    }

    /// The text of ids. `skip_special` omits BOS, end-of-turn tokens and the like. An id outside
    /// the vocabulary is an error.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| self.id_to_token(id).is_none()) {
            crate::bail!("token id {id} is not in the vocabulary of {} tokens", self.vocab_size());
        }
        self.decode_known(ids, skip_special)
    }

    /// [`Tokenizer::decode`] for ids that are known to exist. Skips unknown ids.
    pub(super) fn decode_known(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let decode = |ids: &[u32]| guarded(|| self.inner.decode(ids, skip_special).context("decoding token ids"));
        if self.repeated.is_empty() {
            return decode(ids);
        }
        decode(&ids.iter().map(|&id| self.first_of(id)).collect::<Vec<_>>())
    }

    /// The decoder as `tokenizer.json` describes it, or null.
    pub(super) fn decoder(&self) -> serde_json::Value {
        serde_json::to_value(self.inner.get_decoder()).unwrap_or_default()
    }

    /// Number of tokens, including added ones. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token by its exact name.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The name of a token in the vocabulary. For its text, see [`Tokenizer::decode`].
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(self.first_of(id))
    }

    /// The id that stands for the text of this one.
    fn first_of(&self, id: u32) -> u32 {
        self.repeated.get(&id).copied().unwrap_or(id)
    }

    /// Whether this is a special token such as BOS or end of turn.
    pub fn is_special(&self, id: u32) -> bool {
        let id = self.first_of(id);
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The special tokens by role.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The id of the token with the role of BOS.
    pub fn bos(&self) -> Option<u32> {
        self.token_to_id(self.special.get("bos_token")?)
    }

    /// The id that the tokenizer puts in front of every text. Unlike [`Tokenizer::bos`] it marks the
    /// beginning of a text for certain: the role of BOS may have a token that begins a turn.
    pub fn added_bos(&self) -> Option<u32> {
        self.before.last().copied()
    }

    /// The id of the token with the role of EOS.
    pub fn eos(&self) -> Option<u32> {
        self.token_to_id(self.special.get("eos_token")?)
    }
}

/// Parses the text of a `tokenizer.json`.
fn parse(bytes: &[u8]) -> Result<serde_json::Value> {
    let most = tokenizer_check::MAX_BYTES;
    crate::ensure!(bytes.len() <= most, "the file has {} bytes; a tokenizer.json may have at most {most}", bytes.len());
    serde_json::from_slice(bytes).context("not a tokenizer.json")
}

/// Checks a parsed `tokenizer.json` and builds its tokenizer.
fn built(file: serde_json::Value) -> Result<Inner> {
    tokenizer_check::check(&file)?;
    guarded(|| assemble(file).context("not a tokenizer.json that the tokenizers library can read"))
}

/// Builds the tokenizer of a checked file, in the library's order but without the model's cache.
/// That cache is per thread and never freed.
fn assemble(mut file: serde_json::Value) -> Result<Inner> {
    let mut model: ModelWrapper = serde_json::from_value(file["model"].take())?;
    model.resize_cache(0);
    let mut inner = Inner::new(model);
    inner.with_normalizer(serde_json::from_value::<Option<NormalizerWrapper>>(file["normalizer"].take())?)?;
    inner.with_pre_tokenizer(serde_json::from_value::<Option<PreTokenizerWrapper>>(file["pre_tokenizer"].take())?);
    inner.with_post_processor(serde_json::from_value::<Option<PostProcessorWrapper>>(file["post_processor"].take())?);
    inner.with_decoder(serde_json::from_value::<Option<DecoderWrapper>>(file["decoder"].take())?);
    let made = serde_json::json!({
        "normalizer": inner.get_normalizer(),
        "pre_tokenizer": inner.get_pre_tokenizer(),
        "post_processor": inner.get_post_processor(),
        "decoder": inner.get_decoder(),
    });
    tokenizer_check::check_parts(made.as_object().expect("an object was made"))?;
    let added: Option<Vec<AddedToken>> = serde_json::from_value(file["added_tokens"].take())?;
    inner.add_tokens(added.unwrap_or_default())?;
    Ok(inner)
}

/// Runs the library and turns a panic, which an inconsistent file can cause, into an error. The
/// library keeps only caches between calls.
fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = catch_unwind(AssertUnwindSafe(run));
    caught.unwrap_or_else(|_| {
        Err(Error::new("the tokenizer is inconsistent: download tokenizer.json from the model's page again"))
    })
}

/// The error for a directory without `tokenizer.json`.
fn missing(dir: &Path) -> Error {
    let dir_name = dir.display();
    if dir.join("tokenizer.model").exists() {
        return Error::new(format!(
            "{dir_name} has only a SentencePiece tokenizer.model, which is not supported: create tokenizer.json with \
            transformers, AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        ));
    }
    Error::new(format!(
        "{dir_name} has no tokenizer.json: download it from the model's page, or give token ids instead of text"
    ))
}

/// Keeps byte-level processors from trimming spaces off the offsets, because labels depend on them.
fn keep_whole_offsets(processor: &mut PostProcessorWrapper) {
    match processor {
        PostProcessorWrapper::ByteLevel(level) => level.trim_offsets = false,
        PostProcessorWrapper::Roberta(roberta) => roberta.trim_offsets = false,
        PostProcessorWrapper::Sequence(sequence) => sequence.as_mut().iter_mut().for_each(keep_whole_offsets),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::test_tokenizers::{END, START, STORIES, byte_level, stories};

    #[test]
    fn any_text_comes_back_as_it_was() {
        for tokenizer in [byte_level(), stories()] {
            for text in ["", " ", "hello hello", "  two  spaces\n\n", "naïve 🦙 日本語", "<unk", "\u{0}\u{FFFD}"]
            {
                let ids = tokenizer.encode(text, false).unwrap();
                assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
            }
        }
    }

    #[test]
    fn special_tokens_are_added_marked_and_left_out() {
        let t = stories();
        let ids = t.encode("Once", true).unwrap();
        assert_eq!(ids[0], 1);
        assert!(t.is_special(1) && !t.is_special(ids[1]));
        assert_eq!(t.decode(&ids, true).unwrap(), "Once");
        assert!(t.decode(&ids, false).unwrap().starts_with("<s>"));
        let t = byte_level();
        assert_eq!(
            t.encode("<|im_start|>hello<|im_end|>", false).unwrap(),
            [START, t.token_to_id("hello").unwrap(), END]
        );
    }

    #[test]
    fn a_text_with_its_own_bos_gets_no_second_one_and_a_prompt_no_end() {
        let around = crate::text::special_tokens::around(Some(("<s>", 1)), Some(("</s>", 2))).unwrap();
        let mut inner = stories().inner;
        inner.with_post_processor(Some(around));
        let t = Tokenizer::from_inner(inner, SpecialTokens::default(), HashMap::new()).unwrap();
        let once = t.encode("Once", false).unwrap();
        let around = [&[1][..], &once, &[2]].concat();
        assert_eq!(t.encode("Once", true).unwrap(), around);
        assert_eq!(t.encode_prompt("Once").unwrap(), around[..around.len() - 1]);
        assert_eq!(t.take_note(), None);
        assert_eq!(t.encode("<s>Once</s>", true).unwrap().iter().filter(|&&id| id < 3).count(), 2);
        assert_eq!(t.encode_prompt("<s>Once").unwrap().iter().filter(|&&id| id < 3).count(), 1);
        let note = t.take_note().unwrap();
        assert!(note.contains("gets one <s>"), "{note}");
        t.encode_prompt("<s>").unwrap();
        assert_eq!(t.take_note(), None, "the note comes once");
        let tokens = t.encode_with_offsets("Once", true).unwrap();
        assert_eq!((&tokens[0], tokens.last().unwrap()), (&(1, 0..0), &(2, 4..4)));
    }

    #[test]
    fn offsets_are_byte_ranges_of_the_text_with_its_spaces() {
        let t = byte_level();
        let text = "é hello";
        let tokens = t.encode_with_offsets(text, false).unwrap();
        let hello = t.token_to_id("Ġhello").unwrap();
        assert_eq!(tokens.last(), Some(&(hello, 2..8)), "the space belongs to the token");
        assert!(tokens[..2].iter().all(|(_, range)| *range == (0..2)), "both halves of é have its range: {tokens:?}");
    }

    #[test]
    fn a_continuation_has_no_space_of_its_own() {
        for t in [stories(), byte_level()] {
            for (prompt, completion) in
                [("Once upon", " a time"), ("Once up", "on a"), ("a\n", "\nb"), ("x", ""), ("say", "hello")]
            {
                let mut ids = t.encode(prompt, true).unwrap();
                ids.extend(t.encode_continuation(completion).unwrap());
                assert_eq!(t.decode(&ids, true).unwrap(), format!("{prompt}{completion}"));
            }
        }
        assert!(stories().prepends_space && !byte_level().prepends_space);
    }

    #[test]
    fn unknown_ids_are_errors() {
        let e = stories().decode(&[1, 512], true).unwrap_err().to_string();
        assert!(e.contains("512"), "{e}");
    }

    #[test]
    fn damaged_files_are_errors() {
        assert!(Tokenizer::from_json_bytes(b"{}").is_err());
        assert!(Tokenizer::from_json_bytes(&STORIES[..STORIES.len() / 2]).is_err());
        let text = std::str::from_utf8(STORIES).unwrap();
        let cut = text.find("\"merges\": [").unwrap();
        let impossible = format!("{}\"merges\": [[\"<0x00>\", \"<0x01>\"]]}}}}", &text[..cut]);
        assert!(Tokenizer::from_json_bytes(impossible.as_bytes()).is_err());
    }

    #[test]
    fn a_directory_is_read_with_its_config_and_its_absence_explained() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Tokenizer::from_dir(dir.path()).err().unwrap().to_string();
        assert!(missing.contains("no tokenizer.json"), "{missing}");
        std::fs::write(dir.path().join("tokenizer.model"), b"x").unwrap();
        let sentencepiece = Tokenizer::from_dir(dir.path()).err().unwrap().to_string();
        assert!(sentencepiece.contains("SentencePiece"), "{sentencepiece}");
        std::fs::write(dir.path().join("tokenizer.json"), STORIES).unwrap();
        let config = r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null}"#;
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let t = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!((t.bos(), t.eos(), t.vocab_size()), (Some(1), Some(2), 512));
    }
}
