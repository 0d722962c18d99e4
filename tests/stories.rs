//! stories260K: 256 greedy steps reproduce the text that its author published.
//!
//! Runs from the start token alone, on every executor and through the program.

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Command;

use longreach::attention::Attention;
use longreach::checkpoint::load::{Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::generate::{DEFAULT_CHUNK, GenerateRequest, generate};
use longreach::gpu::{CpuExecutor, Executor};
use longreach::kernels::sample::Sampling;
use longreach::text::tokenizer::Tokenizer;

/// The output of the author's program, including its final line break.
const PUBLISHED: &str = include_str!("../assets/stories260k/greedy-256.txt");

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k")
}

fn check(device: &mut dyn Executor) {
    let source = WeightSource::open(&folder()).unwrap();
    let tokenizer = Tokenizer::from_dir(&folder()).unwrap();
    let mut loaded = load(device, &source, None, Train::Nothing).unwrap();
    let request = GenerateRequest {
        prompt_ids: &[1],
        max_tokens: 256,
        sampling: Sampling::default(),
        attention: Attention::Dense,
        chunk: DEFAULT_CHUNK,
        stop: &[2],
        stop_texts: &[],
        shown: &[],
        seed: 0,
    };
    let mut streamed = String::new();
    let mut on_token = |token: longreach::generate::NewToken<'_>| {
        streamed.push_str(token.text);
        ControlFlow::Continue(())
    };
    let got = generate(device, &mut loaded.model, Some(&tokenizer), &request, &mut on_token).unwrap();
    assert_eq!(got.text + "\n", PUBLISHED);
    assert_eq!(streamed + "\n", PUBLISHED);
    assert_eq!((got.prompt_tokens, got.generated_tokens, got.kv_entries), (1, 256, 256));
}

#[test]
fn on_the_cpu_executor() {
    check(&mut CpuExecutor::<f32>::new());
}

#[test]
fn on_a_device() {
    let Some(mut device) = common::software_device() else { return };
    check(&mut device);
}

#[test]
fn through_the_program() {
    let ids = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ids.path(), "[[1]]").unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
        command.args(["generate", "--device", "cpu", "--max-tokens", "256", "--model"]).arg(folder());
        let output = command.arg("--ids").arg(ids.path()).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&[]), PUBLISHED);
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(format!("{}\n", json["text"].as_str().unwrap()), PUBLISHED);
    assert_eq!(json["ids"].as_array().unwrap().len(), 256);
}
