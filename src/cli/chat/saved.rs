//! The file of a conversation: messages, settings, and the cache from which it continues.
//!
//! It is a safetensors file. `conversation` holds a JSON text in I32 words, padded with blanks. The
//! other tensors are the tokens, the logits and the entries of the cache.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::engine::Identity;
use super::settings::Settings;
use super::turns::Turns;
use crate::attention::CacheEntries;
use crate::checkpoint::record::AttentionRecord;
use crate::error::{Context, Error, Result};
use crate::formats::dtype::DType;
use crate::formats::host_tensor::HostTensor;
use crate::formats::safetensors_file::Checkpoint;
use crate::formats::safetensors_write::write_safetensors;
use crate::generate::{Mark, SavedConversation, Snapshot, TextEnd};

const STATE: &str = "conversation";
const IDS: &str = "ids";
const LOGITS: &str = "logits";
const ENTRIES: &str = "cache.";
const MARK: &str = "mark.";
/// Most bytes of the JSON text.
const MAX_STATE_BYTES: usize = 64 << 20;
/// Most positions that a model may have.
const MAX_TOKENS: usize = 1 << 30;

/// Everything but the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Version of the program. Another one may compute or lay out the cache differently.
    pub program: String,
    pub identity: Identity,
    pub attention: AttentionRecord,
    pub settings: Settings,
    pub turns: Turns,
    /// The text in the cache.
    cache: Option<CacheState>,
}

/// What the cache holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheState {
    text: String,
    n_fed: usize,
    n_prompt: usize,
    attention: AttentionRecord,
    length: usize,
    capacity: usize,
    chunk: usize,
    /// Bytes and tokens up to each end of a prompt or answer.
    ends: Vec<(usize, usize)>,
    marks: Vec<MarkState>,
}

/// A mark of the text without its tensors, whose names begin with [`MARK`] and its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkState {
    n_tokens: usize,
    length: usize,
}

impl Saved {
    /// A conversation without its cache.
    pub fn new(identity: Identity, attention: AttentionRecord, settings: Settings, turns: Turns) -> Self {
        Self { program: program(), identity, attention, settings, turns, cache: None }
    }

    /// Fails if the conversation was held with the same model, and with a RoPE scaling that it does not
    /// have now.
    pub fn check_scaling(&self, identity: &Identity) -> Result<()> {
        let Some(held) = self.identity.rope_scaling.filter(|held| identity.rope_scaling != Some(*held)) else {
            return Ok(());
        };
        if self.identity.weights.is_none() || self.identity.weights != identity.weights {
            return Ok(()); // its messages are for another model
        }
        let now = identity.rope_scaling.map_or("without it".to_string(), |now| format!("with {now}"));
        Err(Error::usage(format!(
            "the conversation was held with `rope_scaling` {held}, and the model is open {now}: start chat with \
             `rope_scaling` {held}"
        )))
    }

    /// Why the cache cannot be used by this program with this model; `None` if it can.
    pub fn mismatch(&self, identity: &Identity) -> Option<String> {
        let Identity { weights, adapter_weights, .. } = &self.identity;
        if self.program != program() {
            return Some(format!("it was saved by {}, and this is {}", self.program, program()));
        }
        if weights.is_none() || *weights != identity.weights {
            return Some(format!("it was held with another model, {}", self.identity.model));
        }
        if *adapter_weights != identity.adapter_weights {
            let adapter = self.identity.adapter.as_ref().map(|path| path.display().to_string());
            let adapter = adapter.map_or("without an adapter".into(), |path| format!("with the adapter {path}"));
            return Some(format!("it was held {adapter}"));
        }
        if self.identity.rope_scaling != identity.rope_scaling {
            let held = self.identity.rope_scaling.map_or("the model's own".into(), |held| held.to_string());
            return Some(format!("it was held with another RoPE scaling, {held}"));
        }
        None
    }
}

fn program() -> String {
    format!("longreach {}", env!("CARGO_PKG_VERSION"))
}

/// Writes a conversation with its cache, if it has one.
pub fn write(path: &Path, mut saved: Saved, read: Option<SavedConversation>) -> Result<()> {
    let mut tensors = Vec::new();
    saved.cache = read.map(|read| put(&mut tensors, read));
    let mut state = serde_json::to_vec(&saved)?;
    state.resize(state.len().next_multiple_of(4), b' ');
    tensors.push((STATE.to_string(), HostTensor::new(DType::I32, vec![state.len() / 4], state)?));
    write_safetensors(path, &tensors, &[])
}

/// Adds the tensors of a conversation; returns the rest of it.
fn put(tensors: &mut Vec<(String, HostTensor)>, read: SavedConversation) -> CacheState {
    let SavedConversation { text, ids, n_fed, n_prompt, attention, snapshot, ends, marks: read_marks } = read;
    let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
    tensors.push((IDS.to_string(), HostTensor::from_i32(&[ids.len()], &ids)));
    let Snapshot { entries, length, capacity, chunk, logits } = snapshot;
    put_cache(tensors, "", entries, &logits);
    let mut marks = Vec::new();
    for (i, Mark { n_tokens, rings, length, logits }) in read_marks.into_iter().enumerate() {
        put_cache(tensors, &mark_prefix(i), rings, &logits);
        marks.push(MarkState { n_tokens, length });
    }
    let ends = ends.iter().map(|end| (end.n_bytes, end.n_tokens)).collect();
    let attention = AttentionRecord::of(attention);
    CacheState { text, n_fed, n_prompt, attention, length, capacity, chunk, ends, marks }
}

fn mark_prefix(i: usize) -> String {
    format!("{MARK}{i}.")
}

/// Adds entries of a cache and logits, with a prefix.
fn put_cache(tensors: &mut Vec<(String, HostTensor)>, prefix: &str, entries: CacheEntries, logits: &[f32]) {
    tensors.push((format!("{prefix}{LOGITS}"), HostTensor::from_f32(&[logits.len()], logits)));
    tensors.extend(entries.into_iter().map(|(name, tensor)| (format!("{prefix}{ENTRIES}{name}"), tensor)));
}

/// Reads a conversation and its cache, if the file has one.
pub fn read(path: &Path) -> Result<(Saved, Option<SavedConversation>)> {
    let read = || -> Result<(Saved, Option<SavedConversation>)> {
        let file = Checkpoint::open(path)?;
        let saved = state(&file)?;
        let cache = saved.cache.as_ref().map(|cache| conversation(&file, cache)).transpose()?;
        Ok((saved, cache))
    };
    read().with_context(|| format!("{} is no saved conversation", path.display()))
}

/// Which model and adapter a conversation was held with.
pub fn identity(path: &Path) -> Result<Identity> {
    let read = || state(&Checkpoint::open(path)?).map(|saved| saved.identity);
    read().with_context(|| format!("{} is no saved conversation", path.display()))
}

/// Everything but the cache.
fn state(file: &Checkpoint) -> Result<Saved> {
    crate::ensure!(file.names().any(|name| name == STATE), "it has no messages: chat did not write it");
    let state = file.bytes(STATE)?;
    crate::ensure!(state.len() <= MAX_STATE_BYTES, "its messages have {} bytes", state.len());
    let saved: Saved = serde_json::from_slice(state).context("its messages")?;
    saved.attention.attention()?;
    Ok(saved)
}

/// The conversation of the tensors.
fn conversation(file: &Checkpoint, cache: &CacheState) -> Result<SavedConversation> {
    let &CacheState { n_fed, n_prompt, length, capacity, chunk, .. } = cache;
    let sizes = [n_fed, n_prompt, length, capacity, chunk];
    crate::ensure!(sizes.iter().all(|&n| n <= MAX_TOKENS) && chunk > 0, "its cache has impossible sizes: {sizes:?}");
    let ids = file.mapped(IDS)?.to_i64()?.into_iter().map(u32::try_from).collect::<std::result::Result<_, _>>()?;
    let (entries, logits) = cache_of(file, "")?;
    let mark = |(i, state): (usize, &MarkState)| -> Result<Mark> {
        let (rings, logits) = cache_of(file, &mark_prefix(i))?;
        Ok(Mark { n_tokens: state.n_tokens, rings, length: state.length, logits })
    };
    let marks = cache.marks.iter().enumerate().map(mark).collect::<Result<_>>()?;
    let ends = cache.ends.iter().map(|&(n_bytes, n_tokens)| TextEnd { n_bytes, n_tokens }).collect();
    let (text, attention) = (cache.text.clone(), cache.attention.attention()?);
    let snapshot = Snapshot { entries, length, capacity, chunk, logits };
    Ok(SavedConversation { text, ids, n_fed, n_prompt, attention, snapshot, ends, marks })
}

/// The entries of a cache and the logits that have a prefix.
fn cache_of(file: &Checkpoint, prefix: &str) -> Result<(CacheEntries, Vec<f32>)> {
    let logits = file.mapped(&format!("{prefix}{LOGITS}"))?.to_f32()?;
    let (mut entries, start) = (Vec::new(), format!("{prefix}{ENTRIES}"));
    for name in file.names() {
        if let Some(part) = name.strip_prefix(&start) {
            entries.push((part.to_string(), file.mapped(name)?));
        }
    }
    Ok((entries, logits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Attention;

    fn saved() -> Saved {
        let identity = Identity {
            model: "m".into(),
            weights: Some("w".into()),
            adapter: None,
            adapter_weights: None,
            rope_scaling: None,
        };
        let turns = Turns { system: Some("é".into()), ..Turns::default() };
        Saved::new(identity, AttentionRecord::Lrsa { sink: 4, lag: 8, keep: 0.25 }, Settings::new(7), turns)
    }

    fn cache() -> SavedConversation {
        let entry = |name: &str| (name.to_string(), HostTensor::from_f32(&[1, 2], &[1.0, -0.0]));
        let entries = vec![entry("0.kept"), entry("0.recent"), entry("10.recent")];
        let mark = |n_tokens, rings| Mark { n_tokens, rings, length: 2, logits: vec![-0.5, 2.0] };
        SavedConversation {
            text: "a b".into(),
            ids: vec![1, 2],
            n_fed: 2,
            n_prompt: 1,
            attention: Attention::Dense,
            snapshot: Snapshot { entries, length: 2, capacity: 1024, chunk: 256, logits: vec![0.5, f32::MIN_POSITIVE] },
            ends: vec![TextEnd { n_bytes: 1, n_tokens: 1 }, TextEnd { n_bytes: 3, n_tokens: 2 }],
            marks: vec![mark(1, vec![]), mark(2, vec![entry("0.recent"), entry("10.recent")])],
        }
    }

    #[test]
    fn a_conversation_reads_back_with_its_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("talk");
        write(&path, saved(), None).unwrap();
        assert_eq!(read(&path).unwrap(), (saved(), None));
        write(&path, saved(), Some(cache())).unwrap();
        let (got, read_back) = read(&path).unwrap();
        assert_eq!(read_back.unwrap(), cache());
        assert_eq!((got.turns, got.settings), (saved().turns, saved().settings));
    }

    #[test]
    fn a_cache_of_another_model_adapter_or_version_is_told_apart() {
        let own = saved().identity;
        assert_eq!(saved().mismatch(&own), None);
        let other = |change: fn(&mut Saved)| {
            let mut saved = saved();
            change(&mut saved);
            saved.mismatch(&own).unwrap()
        };
        assert!(other(|s| s.program = "longreach 0.0.1".into()).contains("0.0.1"));
        assert!(other(|s| s.identity.weights = Some("x".into())).contains("another model, m"));
        assert!(other(|s| s.identity.weights = None).contains("another model"));
        assert!(other(|s| s.identity.adapter_weights = Some("x".into())).contains("without an adapter"));
    }

    #[test]
    fn a_conversation_goes_on_only_with_the_rope_scaling_that_it_was_held_with() {
        let scaled = |text: &str| {
            let mut saved = saved();
            saved.identity.rope_scaling = Some(text.parse().unwrap());
            saved
        };
        let (own, yarn) = (saved().identity, scaled("yarn:4").identity);
        let json = serde_json::to_string(&scaled("yarn:4")).unwrap();
        assert!(json.contains(r#""rope_scaling":"yarn:4""#), "{json}");
        assert_eq!(serde_json::from_str::<Saved>(&json).unwrap(), scaled("yarn:4"));
        scaled("yarn:4").check_scaling(&yarn).unwrap();
        assert_eq!(scaled("yarn:4").mismatch(&yarn), None);
        for (now, word) in [(&own, "open without it"), (&scaled("linear:2").identity, "open with linear:2")] {
            let e = scaled("yarn:4").check_scaling(now).unwrap_err().to_string();
            assert!(e.contains(word) && e.contains("start chat with `rope_scaling` yarn:4"), "{e}");
        }
        // Messages without a scaling are read anew with one, and those for another model with that model.
        saved().check_scaling(&yarn).unwrap();
        assert!(saved().mismatch(&yarn).unwrap().contains("another RoPE scaling, the model's own"));
        let other = Identity { weights: Some("x".into()), ..own };
        scaled("yarn:4").check_scaling(&other).unwrap();
        assert!(scaled("yarn:4").mismatch(&other).unwrap().contains("another model"));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("talk");
        write(&path, saved(), Some(cache())).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for n in 0..whole.len() {
            std::fs::write(&path, &whole[..n]).unwrap();
            assert!(read(&path).is_err(), "cut to {n}");
        }
        for at in 0..whole.len() {
            for change in [0, b'9', 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = change;
                std::fs::write(&path, &bytes).unwrap();
                let _ = read(&path);
            }
        }
        let e = read(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(e.contains("absent"), "{e}");
    }
}
