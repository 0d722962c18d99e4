//! Tokens are those of transformers: for real tokenizers of eight families on 200 texts, from
//! `tokenizer.json` and from GGUF keys, and for the rules of the files beside `tokenizer.json`.
//!
//! `tests/tokenizers` holds the texts and what transformers 4.57 makes of them, with the scripts that
//! wrote the files. Six families bring their tokenizer, cut down to what the texts reach. With
//! `scripts/fetch-tokenizers DIR` and `LONGREACH_TOKENIZERS=DIR`, the tests read the whole ones of
//! all eight, and a book besides. `LONGREACH_GEMMA3_GGUF` names a GGUF file of Gemma 3.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longreach::formats::gguf::{Gguf, Metadata, Value};
use longreach::text::tokenizer::Tokenizer;
use serde_json::Value as Json;

/// The families with the name of the pre-tokenizer in a GGUF file, or none for SentencePiece.
const FAMILIES: [(&str, Option<&str>); 8] = [
    ("llama2", None),
    ("llama3_1", Some("llama-bpe")),
    ("qwen3", Some("qwen2")),
    ("gemma3", None),
    ("gpt35turbo", Some("dbrx")),
    ("gpt4o", Some("gpt-4o")),
    ("gptoss", Some("gpt-4o")),
    ("deepseek_v3", Some("deepseek-v3")),
];

fn stored(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list(value: &Json) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap()
}

/// What transformers makes of the texts with one tokenizer.
struct Answers {
    family: &'static str,
    stored: Json,
    texts: Vec<String>,
    /// Whether the tokenizer is the whole one.
    whole: bool,
    file: Json,
    config: Json,
}

/// The answers of all families whose tokenizers are there.
fn families() -> Vec<(Answers, Option<&'static str>)> {
    let texts: Vec<String> = stored("texts.json").as_array().unwrap().iter().map(|t| text(t).to_owned()).collect();
    assert_eq!(texts.len(), 200);
    let folder = std::env::var_os("LONGREACH_TOKENIZERS").map(PathBuf::from);
    let mut all = Vec::new();
    for (family, pre) in FAMILIES {
        let answers = stored(&format!("{family}.json"));
        let read = |name: &str| -> Json {
            let path = folder.as_ref().unwrap().join(family).join(name);
            serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
        };
        let (file, config) = match folder {
            Some(_) => (read("tokenizer.json"), read("tokenizer_config.json")),
            None if answers["tokenizer"].is_null() => continue,
            None => (answers["tokenizer"].clone(), answers["config"].clone()),
        };
        let texts = texts.clone();
        all.push((Answers { family, stored: answers, texts, whole: folder.is_some(), file, config }, pre));
    }
    assert!(all.len() >= 6);
    all
}

impl Answers {
    /// Compares the tokens of all texts. `of` and `to` turn ids of transformers into ids of the
    /// tokenizer and back.
    fn compare(&self, t: &Tokenizer, of: impl Fn(u32) -> u32) {
        let map = |ids: Vec<u32>| -> Vec<u32> { ids.into_iter().map(&of).collect() };
        let (before, after) = (map(list(&self.stored["before"])), map(list(&self.stored["after"])));
        for (i, (text, ids)) in self.texts.iter().zip(self.stored["ids"].as_array().unwrap()).enumerate() {
            let at = format!("{}, text {i}, {text:?}", self.family);
            let ids = map(list(ids));
            assert_eq!(t.encode(text, false).unwrap(), ids, "{at}");
            // The one difference: a text that begins with BOS gets no second one.
            let doubled = !before.is_empty() && before.last() == ids.first();
            let front = if doubled { &before[..before.len() - 1] } else { &before };
            assert_eq!(t.encode_prompt(text).unwrap(), [front, &ids].concat(), "{at}");
            assert_eq!(t.encode(text, true).unwrap(), [front, &ids, &after].concat(), "{at}");
            let decoded = self.stored["decoded"].get(i.to_string());
            for (skip, key) in [(false, 0), (true, 1)] {
                let right = decoded.map_or(text.as_str(), |both| both[key].as_str().unwrap());
                assert_eq!(t.decode(&ids, skip).unwrap(), right, "{at}, special tokens left out: {skip}");
            }
        }
    }

    /// Compares the tokens of a book, if the tokenizer is the whole one.
    fn compare_book(&self, t: &Tokenizer) {
        let ids = t.encode(include_str!("../assets/moby-dick.txt"), false).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let got = [ids.len() as u64, u64::from(crc32fast::hash(&bytes))];
        let right: Vec<u64> = self.stored["book"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!(got.as_slice(), right, "{}: number of tokens of the book, and their CRC", self.family);
    }
}

#[test]
fn texts_become_the_tokens_of_transformers() {
    for (answers, _) in families() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), answers.file.to_string()).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), answers.config.to_string()).unwrap();
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        answers.compare(&tokenizer, |id| id);
        if answers.whole {
            answers.compare_book(&tokenizer);
        }
    }
}

/// The keys that llama.cpp's converter writes for a `tokenizer.json`. Ids are counted anew, because
/// a cut vocabulary has gaps.
fn gguf_keys(file: &Json, pre: Option<&str>, before: &[u32]) -> (Metadata, BTreeMap<u32, u32>) {
    const SPACE: &str = "\u{2581}";
    let mut tokens: BTreeMap<u32, (String, i64)> = BTreeMap::new();
    for (token, id) in file["model"]["vocab"].as_object().unwrap() {
        let is_byte = token.len() == 6 && token.starts_with("<0x") && pre.is_none();
        tokens.insert(id.as_u64().unwrap() as u32, (token.clone(), if is_byte { 6 } else { 1 }));
    }
    for added in file["added_tokens"].as_array().unwrap() {
        let (name, special) = (text(&added["content"]), added["special"] == true);
        let token = match special || pre.is_some() {
            true => (name.to_owned(), if special { 3 } else { 4 }),
            false => (name.replace(SPACE, " "), 4), // user-defined ones stand for plain text
        };
        tokens.insert(added["id"].as_u64().unwrap() as u32, token);
    }
    let halves = |merge: &Json| -> (String, String) {
        match merge {
            Json::String(line) => line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap(),
            two => (text(&two[0]).to_owned(), text(&two[1]).to_owned()),
        }
    };
    let merges: Vec<(String, String)> = file["model"]["merges"].as_array().unwrap().iter().map(halves).collect();
    let strings = |all: Vec<String>| Value::Array(all.into_iter().map(Value::String).collect());
    let ids: BTreeMap<u32, u32> = tokens.keys().copied().zip(0..).collect();
    let mut m = Metadata::default();
    match pre {
        Some(pre) => {
            m.insert("tokenizer.ggml.model", Value::String("gpt2".into()));
            m.insert("tokenizer.ggml.pre", Value::String(pre.into()));
            m.insert("tokenizer.ggml.merges", strings(merges.iter().map(|(a, b)| format!("{a} {b}")).collect()));
        }
        None => {
            let mut scores: BTreeMap<String, f64> = BTreeMap::new();
            for (rank, (a, b)) in merges.iter().enumerate() {
                scores.entry(format!("{a}{b}")).or_insert(-(rank as f64));
            }
            let score = |token: &str| Value::F64(scores.get(token).copied().unwrap_or(-1e6));
            m.insert("tokenizer.ggml.model", Value::String("llama".into()));
            m.insert("tokenizer.ggml.scores", Value::Array(tokens.values().map(|(t, _)| score(t)).collect()));
            let prefix = file["normalizer"]["normalizers"][0]["type"] == "Prepend";
            m.insert("tokenizer.ggml.add_space_prefix", Value::Bool(prefix));
            let unknown = tokens.iter().find(|(_, (token, _))| token == "<unk>").unwrap().0;
            m.insert("tokenizer.ggml.unknown_token_id", Value::U64(ids[unknown].into()));
        }
    }
    m.insert("tokenizer.ggml.token_type", Value::Array(tokens.values().map(|(_, kind)| Value::I64(*kind)).collect()));
    m.insert("tokenizer.ggml.tokens", strings(tokens.into_values().map(|(token, _)| token).collect()));
    m.insert("tokenizer.ggml.add_bos_token", Value::Bool(!before.is_empty()));
    if let Some(bos) = before.first() {
        m.insert("tokenizer.ggml.bos_token_id", Value::U64(ids[bos].into()));
    }
    (m, ids)
}

#[test]
fn gguf_keys_give_the_same_tokens() {
    for (answers, pre) in families() {
        let (keys, ids) = gguf_keys(&answers.file, pre, &list(&answers.stored["before"]));
        answers.compare(&Tokenizer::from_gguf(&keys).unwrap(), |id| ids[&id]);
    }
}

#[test]
fn the_gguf_file_of_gemma_3_gives_the_same_tokens() {
    let Some(path) = std::env::var_os("LONGREACH_GEMMA3_GGUF") else {
        eprintln!("skipped: set LONGREACH_GEMMA3_GGUF to a GGUF file of Gemma 3");
        return;
    };
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(Path::new(&path)).unwrap().metadata).unwrap();
    let texts = stored("texts.json").as_array().unwrap().iter().map(|t| text(t).to_owned()).collect();
    let (file, config) = (Json::Null, Json::Null);
    let answers = Answers { family: "gemma3", stored: stored("gemma3.json"), texts, whole: true, file, config };
    answers.compare(&tokenizer, |id| id);
    answers.compare_book(&tokenizer);
}

#[test]
fn the_files_beside_tokenizer_json_decide_as_in_transformers() {
    let all = stored("folders.json");
    let cases = all["cases"].as_array().unwrap();
    assert!(cases.len() >= 48);
    for case in cases {
        let name = text(&case["name"]);
        let dir = tempfile::tempdir().unwrap();
        let mut file = all["tokenizer"].clone();
        for (key, value) in case["tokenizer"].as_object().unwrap() {
            file[key] = value.clone();
        }
        std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
        for (file, content) in case["files"].as_object().unwrap() {
            std::fs::write(dir.path().join(file), content.to_string()).unwrap();
        }
        let t = Tokenizer::from_dir(dir.path()).unwrap();
        let ids = t.encode(text(&case["text"]), true).unwrap();
        assert_eq!(ids, list(&case["ids"]), "{name}");
        assert_eq!(t.decode(&ids, true).unwrap(), text(&case["decoded"]), "{name}");
        let mut special = case["special"].clone();
        // transformers repeats a token that both files list.
        if name == "additional tokens of both files" {
            special["additional_special_tokens"].as_array_mut().unwrap().pop();
        }
        assert_eq!(&special, &Json::Object(t.special_tokens().variables().clone()), "{name}");
    }
}
