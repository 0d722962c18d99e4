//! Tests of the tokenizers rebuilt from GGUF metadata.

use crate::formats::gguf::{Gguf, Metadata, Value};
use crate::text::chat_template::{ChatTemplate, Message};
use crate::text::stop::StopTokens;
use crate::text::test_tokenizers::{STORIES, stories};
use crate::text::tokenizer::Tokenizer;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

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
    let edits: [(&str, Value, &str); 5] = [
        ("tokenizer.ggml.model", Value::String("bert".into()), "'bert'"),
        ("tokenizer.ggml.scores", Value::Array(vec![Value::F64(0.0)]), "1 entries for 512"),
        ("tokenizer.ggml.token_type", Value::Array(vec![]), "0 entries for 512"),
        ("tokenizer.ggml.bos_token_id", Value::Bool(true), "bos_token_id"),
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

/// A byte-level vocabulary: the 256 bytes in the order of [`ByteLevel::alphabet`], then `more`.
fn byte_level_metadata(more: &[&str], merges: &[&str]) -> Metadata {
    let mut alphabet: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    alphabet.sort_unstable();
    let mut m = Metadata::default();
    m.insert("tokenizer.ggml.model", Value::String("gpt2".into()));
    m.insert("tokenizer.ggml.tokens", strings(alphabet.iter().map(String::as_str).chain(more.iter().copied())));
    m.insert("tokenizer.ggml.merges", strings(merges.iter().copied()));
    m
}

fn names(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text, true).unwrap().into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect()
}

#[test]
fn a_missing_pre_tokenizer_cuts_as_llama_cpp_does() {
    let m = byte_level_metadata(&["12", "123", "1234", "Ġ(", "Ġa"], &["1 2", "12 3", "123 4", "Ġ (", "Ġ a"]);
    let t = Tokenizer::from_gguf(&m).unwrap();
    assert_eq!(names(&t, "12345"), ["123", "4", "5"], "digits in threes");
    assert_eq!(names(&t, " a ("), ["Ġa", "Ġ", "("], "punctuation stands apart from the space before it");
    let mut m = m;
    m.insert("tokenizer.ggml.pre", Value::String("gpt-2".into()));
    let t = Tokenizer::from_gguf(&m).unwrap();
    assert_eq!(names(&t, "12345 ("), ["1234", "5", "Ġ("]);
}

#[test]
fn repeated_tokens_are_read_and_the_first_stands_for_the_text() {
    let m = byte_level_metadata(&["he", "he", "", "", "he"], &["h e"]);
    let t = Tokenizer::from_gguf(&m).unwrap();
    assert_eq!(t.encode("he", false).unwrap(), [256]);
    assert_eq!(t.decode(&[256, 257, 258, 259, 260], false).unwrap(), "hehehe");
    assert_eq!((t.vocab_size(), t.id_to_token(260).as_deref()), (261, Some("he")));
    assert!(t.stream().push(257).unwrap().is_some_and(|piece| piece == "he"));
    let json = Tokenizer::from_json_bytes(t.to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(json.vocab_size(), 261, "the saved tokenizer has all ids");
}

#[test]
fn missing_keys_have_the_values_of_llama_cpp() {
    let mut m = Metadata::default();
    for (key, value) in sentence_piece_metadata().iter().filter(|(key, _)| !key.ends_with("_token_id")) {
        m.insert(key, value.clone());
    }
    let t = Tokenizer::from_gguf(&m).unwrap();
    assert_eq!((t.bos(), t.eos(), t.special_tokens().get("unk_token")), (Some(1), Some(2), Some("<unk>")));
    assert_eq!(t.encode("Once", true).unwrap()[0], 1, "SentencePiece texts begin with BOS");
    let t = Tokenizer::from_gguf(&byte_level_metadata(&["<s>"], &[])).unwrap();
    assert_eq!((t.bos(), names(&t, "a")), (None, vec!["a".to_owned()]));
    for (pre, first) in [("llama-bpe", "<s>"), ("tekken", "<s>"), ("smaug-bpe", "a"), ("gpt-4o", "a"), ("qwen2", "a")] {
        let mut m = byte_level_metadata(&["<s>"], &[]);
        m.insert("tokenizer.ggml.pre", Value::String(pre.into()));
        m.insert("tokenizer.ggml.bos_token_id", Value::U64(256));
        assert_eq!(names(&Tokenizer::from_gguf(&m).unwrap(), "a")[0], first, "{pre}");
    }
}

#[test]
fn special_tokens_of_phi_3_swallow_the_spaces_after_them() {
    let mut m = sentence_piece_metadata();
    let names = |m: &Metadata| names(&Tokenizer::from_gguf(m).unwrap(), "a</s>\n b<s> c");
    let plain = names(&m);
    m.insert("general.architecture", Value::String("phi3".into()));
    let phi3 = names(&m);
    assert!(plain.contains(&"<0x0A>".to_owned()) && !phi3.contains(&"<0x0A>".to_owned()), "{plain:?}, {phi3:?}");
    assert_eq!(plain.iter().rev().take(3).collect::<Vec<_>>(), phi3.iter().rev().take(3).collect::<Vec<_>>());
}

#[test]
fn an_end_of_turn_is_a_control_token_whatever_its_type() {
    let mut m = sentence_piece_metadata();
    let Some(Value::Array(mut tokens)) = m.get("tokenizer.ggml.tokens").cloned() else { unreachable!() };
    tokens[300] = Value::String("<|end|>".into());
    m.insert("tokenizer.ggml.tokens", Value::Array(tokens));
    let tokenizer = Tokenizer::from_gguf(&m).unwrap();
    assert!(tokenizer.is_special(300) && tokenizer.encode("a<|end|>", false).unwrap().ends_with(&[300]));
    assert_eq!(StopTokens::from_gguf(&m, Some(&tokenizer)).unwrap().ids(), [2, 300]);
}

#[test]
fn an_id_outside_the_vocabulary_is_no_token() {
    let mut m = sentence_piece_metadata();
    let before = super::special_tokens(&m).unwrap();
    m.insert("tokenizer.ggml.padding_token_id", Value::U64(u64::from(u32::MAX)));
    m.insert("tokenizer.ggml.mask_token_id", Value::I64(-1));
    m.insert("tokenizer.ggml.eot_token_id", Value::I64(-1));
    assert_eq!(super::special_tokens(&m).unwrap(), before);
    let tokenizer = Tokenizer::from_gguf(&m).unwrap();
    assert_eq!(StopTokens::from_gguf(&m, Some(&tokenizer)).unwrap().ids(), [2]);
    m.insert("tokenizer.ggml.padding_token_id", Value::String("0".into()));
    assert!(Tokenizer::from_gguf(&m).is_err());
}

#[test]
fn a_template_sees_the_special_tokens_of_the_keys() {
    let mut m = sentence_piece_metadata();
    m.insert("tokenizer.ggml.padding_token_id", Value::U64(300));
    let special = super::special_tokens(&m).unwrap();
    let pad = Tokenizer::from_gguf(&m).unwrap().id_to_token(300);
    assert_eq!((special.get("pad_token"), special.get("unk_token")), (pad.as_deref(), Some("<unk>")));
    assert_eq!(special.get("mask_token"), None);
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
