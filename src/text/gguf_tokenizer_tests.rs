//! Tests of the tokenizers rebuilt from GGUF metadata.

use crate::formats::gguf::{Gguf, Metadata, Value};
use crate::text::chat_template::{ChatTemplate, Message};
use crate::text::stop::StopTokens;
use crate::text::test_tokenizers::{STORIES, stories};
use crate::text::tokenizer::Tokenizer;
use std::collections::HashMap;
use std::path::Path;

const TEXTS: [&str; 8] = [
    "Once upon a time, there was a little girl named Lily.",
    "  Two  spaces, a tab\tand\n\nlines   ",
    "naïve café 🦙 日本語 cafe\u{301}",
    "I'LL say it's 1234567 or 3.14159; don't!",
    "aaaaaaaaaaaaaaaa -------- ======= ....",
    "camelCase HTTPServer x_1 == y[2] // comment\r\n",
    "",
    "<s> looks special, <|im_start|>user\nhello<|im_end|>\n",
];

fn strings<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    Value::Array(values.into_iter().map(|s| Value::String(s.to_owned())).collect())
}

/// The bundled tokenizer as GGUF metadata: no merges, and a score per piece that is higher the
/// earlier its merge comes.
fn sentence_piece_metadata() -> Metadata {
    let file: serde_json::Value = serde_json::from_slice(STORIES).unwrap();
    let mut tokens = vec![String::new(); 512];
    for (token, id) in file["model"]["vocab"].as_object().unwrap() {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let mut scores: HashMap<String, f64> = HashMap::new();
    for (rank, merge) in file["model"]["merges"].as_array().unwrap().iter().enumerate() {
        let piece: String = merge.as_array().unwrap().iter().map(|half| half.as_str().unwrap()).collect();
        scores.entry(piece).or_insert(-(rank as f64));
    }
    let kind = |id: usize| match id {
        0 => 2,
        1 | 2 => 3,
        3..=258 => 6,
        _ => 1,
    };
    let mut m = Metadata::default();
    m.insert("tokenizer.ggml.model", Value::String("llama".into()));
    m.insert("tokenizer.ggml.tokens", strings(tokens.iter().map(String::as_str)));
    let score = |t: &String| Value::F64(scores.get(t).copied().unwrap_or(-1e6));
    m.insert("tokenizer.ggml.scores", Value::Array(tokens.iter().map(score).collect()));
    m.insert("tokenizer.ggml.token_type", Value::Array((0..512).map(|id| Value::I64(kind(id))).collect()));
    for (key, id) in [("bos", 1), ("eos", 2), ("unknown", 0)] {
        m.insert(format!("tokenizer.ggml.{key}_token_id"), Value::U64(id));
    }
    m
}

#[test]
fn scores_alone_give_the_sentence_piece_tokens() {
    let rebuilt = Tokenizer::from_gguf(&sentence_piece_metadata()).unwrap();
    let real = stories();
    let moby = include_str!("../../assets/moby-dick.txt");
    for text in TEXTS.iter().copied().chain([&moby[..20_000]]) {
        let ids = rebuilt.encode(text, true).unwrap();
        assert_eq!(ids, real.encode(text, true).unwrap(), "{:.60}", text);
        assert_eq!(rebuilt.decode(&ids, true).unwrap(), real.decode(&ids, true).unwrap());
    }
    assert_eq!((rebuilt.bos(), rebuilt.eos()), (Some(1), Some(2)));
    assert!(rebuilt.is_special(2));
}

#[test]
fn flags_of_the_file_are_obeyed() {
    let mut m = sentence_piece_metadata();
    m.insert("tokenizer.ggml.add_bos_token", Value::Bool(false));
    m.insert("tokenizer.ggml.add_eos_token", Value::Bool(true));
    m.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let t = Tokenizer::from_gguf(&m).unwrap();
    let ids = t.encode("ab", true).unwrap();
    assert_eq!(ids.last(), Some(&2));
    let names: Vec<_> = ids.iter().map(|&id| t.id_to_token(id).unwrap()).collect();
    assert_eq!(names, ["a", "b", "</s>"]);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let edits: [(&str, Value, &str); 6] = [
        ("tokenizer.ggml.model", Value::String("bert".into()), "'bert'"),
        ("tokenizer.ggml.scores", Value::Array(vec![Value::F64(0.0)]), "1 entries for 512"),
        ("tokenizer.ggml.token_type", Value::Array(vec![]), "0 entries for 512"),
        ("tokenizer.ggml.bos_token_id", Value::U64(512), "bos_token_id"),
        ("tokenizer.ggml.tokens", strings((0..512).map(|_| "same")), "\"same\""),
        ("tokenizer.ggml.tokens", Value::U64(1), "tokenizer.ggml.tokens"),
    ];
    for (key, value, words) in edits {
        let mut m = sentence_piece_metadata();
        m.insert(key, value);
        let e = Tokenizer::from_gguf(&m).err().unwrap().to_string();
        assert!(e.contains(words), "{e}");
    }
    let mut m = sentence_piece_metadata();
    m.insert("tokenizer.ggml.model", Value::String("gpt2".into()));
    m.insert("tokenizer.ggml.merges", strings(["zz qq"]));
    m.insert("tokenizer.ggml.pre", Value::String("martian".into()));
    let e = Tokenizer::from_gguf(&m).err().unwrap().to_string();
    assert!(e.contains("'martian'") && e.contains("llama-bpe"), "{e}");
    m.insert("tokenizer.ggml.pre", Value::String("qwen2".into()));
    let e = Tokenizer::from_gguf(&m).err().unwrap().to_string();
    assert!(e.contains("zz"), "{e}");
}

/// A byte-level BPE `tokenizer.json` as GGUF metadata.
fn byte_level_metadata(file: &serde_json::Value, pre: &str) -> Metadata {
    let mut tokens: Vec<(u64, String, i64)> = Vec::new();
    for (token, id) in file["model"]["vocab"].as_object().unwrap() {
        tokens.push((id.as_u64().unwrap(), token.clone(), 1));
    }
    for added in file["added_tokens"].as_array().unwrap() {
        let kind = if added["special"].as_bool().unwrap() { 3 } else { 4 };
        tokens.push((added["id"].as_u64().unwrap(), added["content"].as_str().unwrap().to_owned(), kind));
    }
    tokens.sort();
    let merges = file["model"]["merges"].as_array().unwrap().iter().map(|m| match m.as_str() {
        Some(line) => line.to_owned(),
        None => format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()),
    });
    let mut m = Metadata::default();
    m.insert("tokenizer.ggml.model", Value::String("gpt2".into()));
    m.insert("tokenizer.ggml.pre", Value::String(pre.into()));
    m.insert("tokenizer.ggml.merges", Value::Array(merges.map(Value::String).collect()));
    m.insert("tokenizer.ggml.token_type", Value::Array(tokens.iter().map(|t| Value::I64(t.2)).collect()));
    m.insert("tokenizer.ggml.tokens", strings(tokens.iter().map(|t| t.1.as_str())));
    if let Some(id) = tokens.iter().position(|t| t.1 == "<|begin_of_text|>") {
        m.insert("tokenizer.ggml.bos_token_id", Value::U64(id as u64));
    }
    m
}

/// Compares with real tokenizers. `LONGREACH_TOKENIZERS` names a folder with
/// `qwen2/tokenizer.json`, `llama-bpe/tokenizer.json` and so on. The folder name up to its first
/// dot is the pre-tokenizer name in GGUF files.
#[test]
#[ignore = "needs tokenizers that we may not redistribute: LONGREACH_TOKENIZERS names their folder"]
fn byte_level_tokenizers_equal_their_originals() {
    let root = std::env::var("LONGREACH_TOKENIZERS").expect("LONGREACH_TOKENIZERS names a folder");
    let moby = include_str!("../../assets/moby-dick.txt");
    for folder in std::fs::read_dir(Path::new(&root)).unwrap().flatten() {
        let pre = folder.file_name().into_string().unwrap();
        let bytes = std::fs::read(folder.path().join("tokenizer.json")).unwrap();
        let real = Tokenizer::from_json_bytes(&bytes).unwrap();
        let metadata = byte_level_metadata(&serde_json::from_slice(&bytes).unwrap(), pre.split('.').next().unwrap());
        let rebuilt = Tokenizer::from_gguf(&metadata).unwrap();
        for text in TEXTS.iter().copied().chain([&moby[..100_000]]) {
            let ids = rebuilt.encode(text, true).unwrap();
            assert_eq!(ids, real.encode(text, true).unwrap(), "{pre}: {:.60}", text);
            assert_eq!(rebuilt.decode(&ids, true).unwrap(), real.decode(&ids, true).unwrap());
        }
    }
}

/// Tests tokenizer, stop tokens and chat template of a real file. `LONGREACH_SMOLLM2_GGUF` is the
/// path of SmolLM2-135M-Instruct, which `scripts/fetch-models` downloads.
#[test]
#[ignore = "needs a file of 98 MB: LONGREACH_SMOLLM2_GGUF is its path"]
fn a_real_gguf_file_tokenizes_as_its_original() {
    let path = std::env::var("LONGREACH_SMOLLM2_GGUF").expect("LONGREACH_SMOLLM2_GGUF is a path");
    let file = Gguf::open(Path::new(&path)).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file.metadata).unwrap();
    let text = "The sun rises in the east and sets in the west. Every morning, people wake up, drink coffee and go to work, \
                while children walk to school with their friends. In the evening, families cook dinner together and talk \
                about what happened during the day before they go to bed.";
    let ids = tokenizer.encode(text, true).unwrap();
    assert_eq!(ids.len(), 57, "transformers makes 57 tokens of it");
    for text in TEXTS {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
    assert_eq!(tokenizer.encode("x 1234", false).unwrap().len(), 6, "digits stand alone");
    let stop = StopTokens::from_gguf(&file.metadata, Some(&tokenizer)).unwrap();
    assert_eq!(stop.first(), tokenizer.token_to_id("<|im_end|>"));
    let template = ChatTemplate::from_gguf(&file.metadata).unwrap().unwrap();
    let messages = [Message::new("user", "Hi."), Message::new("assistant", "Hello.")];
    let (text, spans) = template.render_with_assistant_spans(&messages.to_vec().into()).unwrap();
    assert!(text.starts_with("<|im_start|>system\n"), "{text}");
    assert_eq!(spans.into_iter().map(|s| &text[s]).collect::<Vec<_>>(), ["Hello.<|im_end|>"]);
}
