//! SmolLM2-135M-Instruct from its GGUF file: perplexity and a passkey.
//!
//! Opt-in: `scripts/fetch-models DIR`, then `LONGREACH_SMOLLM2_GGUF=DIR/smollm2.gguf cargo test
//! --test smollm2 -- --nocapture`.

use std::process::Command;

/// 57 tokens; transformers computes 11.997 on the dequantised weights.
const TEXT: &str = "The sun rises in the east and sets in the west. Every morning, people wake up, drink coffee and go to work, \
                    while children walk to school with their friends. In the evening, families cook dinner together and talk \
                    about what happened during the day before they go to bed.";

/// Runs the program with this model and returns its JSON object.
fn longreach(model: &str, args: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
    let output = command.args(args).args(["--model", model, "--json"]).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn model() -> Option<String> {
    let path = std::env::var("LONGREACH_SMOLLM2_GGUF").ok().filter(|p| !p.is_empty());
    if path.is_none() {
        eprintln!("skipped: set LONGREACH_SMOLLM2_GGUF to the file that scripts/fetch-models brings");
    }
    path
}

#[test]
fn perplexity_is_that_of_transformers() {
    let Some(model) = model() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TEXT).unwrap();
    let got = longreach(&model, &["probe", "--device", "cpu", "--text", file.path().to_str().unwrap()]);
    eprintln!("{got}");
    assert_eq!(got["tokens"], 57);
    let perplexity = got["perplexity"].as_f64().unwrap();
    assert!((perplexity - 12.0).abs() < 0.2, "{perplexity}");
}

#[test]
fn a_passkey_is_found_in_a_thousand_tokens() {
    let Some(model) = model() else { return };
    let book = include_str!("../assets/moby-dick.txt");
    let start = book.find("Call me Ishmael").expect("the book begins as everyone knows");
    let words: Vec<&str> = book[start..].split_whitespace().take(720).collect();
    let (before, after) = words.split_at(300);
    let prompt = format!(
        "{} The special magic number for Chicago is 4815162. {}\n\nWhat is the special magic number for Chicago mentioned in \
         the text above?",
        before.join(" "),
        after.join(" ")
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), prompt).unwrap();
    let path = file.path().to_str().unwrap();
    let args = ["generate", "--device", "cpu", "--prompt-file", path, "--max-tokens", "40"];
    let dense = longreach(&model, &args);
    eprintln!("dense: {dense}");
    let n_prompt = dense["prompt_tokens"].as_u64().unwrap();
    assert!((900..1200).contains(&n_prompt), "{n_prompt} tokens");
    assert!(dense["text"].as_str().unwrap().contains("4815162"), "{}", dense["text"]);
    // The same with the compressed cache, without training for it: it must run with fewer entries,
    // but may miss the number.
    let lrsa = longreach(&model, &[&args[..], &["--attention", "lrsa", "--keep", "0.5"]].concat());
    eprintln!("lrsa: {lrsa}");
    assert!(lrsa["kv_entries"].as_u64() < dense["kv_entries"].as_u64());
}
