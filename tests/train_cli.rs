//! `longreach train` through the binary: the golden losses, the saved files, and rejected input.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::golden::{CASES, GoldenFiles};
use longreach::attention::Attention;
use longreach::checkpoint::load::{Train, load};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::gpu::CpuExecutor;
use longreach::train::{ProbeRequest, probe};
use serde_json::Value;

fn train(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longreach")).arg("train").args(["--device", "cpu"]).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The golden recipe: both rows in each step, plain AdamW.
const RECIPE: [&str; 12] = [
    "--schedule",
    "constant",
    "--lr",
    "1e-3",
    "--weight-decay",
    "0.01",
    "--decay",
    "all",
    "--clip",
    "0",
    "--steps",
    "10",
];

fn attention_flags(attention: Attention) -> Vec<String> {
    match attention {
        Attention::Dense => vec!["--attention".into(), "dense".into()],
        Attention::Lrsa(l) => vec![
            "--sink".into(),
            l.sink().to_string(),
            "--lag".into(),
            l.lag().to_string(),
            "--keep".into(),
            l.keep().to_string(),
        ],
    }
}

struct Case {
    golden: GoldenFiles,
    data: PathBuf,
    out: PathBuf,
    _dir: tempfile::TempDir,
}

impl Case {
    fn new(name: &str) -> Self {
        let golden = GoldenFiles::open(name);
        let dir = tempfile::tempdir().unwrap();
        let (data, out) = (dir.path().join("data"), dir.path().join("out"));
        std::fs::create_dir(&data).unwrap();
        for file in ["train.jsonl", "valid.jsonl"] {
            std::fs::write(data.join(file), golden.jsonl()).unwrap();
        }
        Self { golden, data, out, _dir: dir }
    }

    /// Trains with the golden recipe and returns the final JSON object.
    fn train(&self, attention: Attention, lora: bool, more: &[&str]) -> Value {
        let flags = attention_flags(attention);
        let adapter = self.golden.dir.join("lora");
        let mut args =
            vec!["--model", text(&self.golden.dir), "--data", text(&self.data), "--out", text(&self.out), "--json"];
        args.extend(RECIPE);
        args.extend(flags.iter().map(String::as_str));
        match lora {
            true => args.extend(["--adapter", text(&adapter)]),
            false => args.extend(["--method", "full"]),
        }
        args.extend(more);
        let done = train(&args);
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    fn losses(&self) -> Vec<f64> {
        lines(&self.out.join("metrics.jsonl")).iter().map(|l| l["loss"].as_f64().unwrap()).collect()
    }

    /// The loss of the saved model, loaded again.
    fn saved_loss(&self, attention: Attention, lora: bool) -> f64 {
        let (model, adapter) = if lora { (&self.golden.dir, Some(self.out.as_path())) } else { (&self.out, None) };
        let files = ModelFiles::open(text(model), adapter).unwrap();
        assert_eq!(files.recorded, Some(attention), "longreach.json beside the weights");
        let mut device = CpuExecutor::<f32>::new();
        let mut loaded = load(&mut device, &files.source, files.adapter.as_ref(), Train::Nothing).unwrap();
        let (ids, labels) = (self.golden.ids(), self.golden.labels());
        let request = ProbeRequest {
            ids: &ids,
            labels: Some(&labels),
            grads: false,
            recompute: false,
            attention,
            distill: None,
            chunk: None,
        };
        let found = probe(&mut device, &mut loaded, &request).unwrap();
        let loss = found.iter().find(|(name, _)| name == "loss").unwrap();
        f64::from(loss.1.to_f32().unwrap()[0])
    }
}

fn assert_close(got: &[f64], want: &[f64], bound: f64, at: &str) {
    assert_eq!(got.len(), want.len(), "{at}");
    for (step, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() < bound * b.abs(), "{at}, step {}: {a} and {b}", step + 1);
    }
}

fn check_case(name: &str) {
    let case = Case::new(name);
    for (mode, attention) in case.golden.modes.clone() {
        for lora in [false, true] {
            let at = format!("{name} {mode} lora {lora}");
            let summary = case.train(attention, lora, &["--batch-size", "2"]);
            let prefix = if lora { "lora." } else { "" };
            let bound = if attention == Attention::Dense { 1e-5 } else { 1e-4 };
            assert_close(&case.losses(), &case.golden.reals(&format!("{prefix}{mode}.losses")), bound, &at);
            let eval = lines(&case.out.join("eval.jsonl"));
            let (trained, reported) = (eval[0]["loss"].as_f64().unwrap(), summary["eval_loss"].as_f64().unwrap());
            assert_eq!((eval.len(), eval[0]["step"].as_u64(), trained), (1, Some(10), reported), "{at}");
            assert_close(&[case.saved_loss(attention, lora)], &[trained], 2e-6, &at);
            if !lora {
                let config = |dir: &Path| std::fs::read_to_string(dir.join("config.json")).unwrap();
                assert_eq!(config(&case.out), config(&case.golden.dir), "{at}");
                assert!(case.out.join("generation_config.json").is_file());
            }
            std::fs::remove_dir_all(&case.out).unwrap();
        }
    }
}

#[test]
fn the_binary_trains_llama_as_pytorch_does() {
    check_case(CASES[0]);
}

#[test]
fn the_binary_trains_qwen2_as_pytorch_does() {
    check_case(CASES[1]);
}

#[test]
fn the_binary_trains_qwen3_as_pytorch_does() {
    check_case(CASES[2]);
}

#[test]
fn the_binary_trains_llama3_as_pytorch_does() {
    check_case(CASES[3]);
}

#[test]
fn accumulated_batches_are_one_batch_and_saves_keep_the_logs() {
    let case = Case::new(CASES[0]);
    let attention = case.golden.modes.iter().find(|(name, _)| name != "dense").unwrap().1;
    case.train(attention, true, &["--batch-size", "2"]);
    let together = case.losses();
    let summary = case.train(
        attention,
        true,
        &["--accumulate", "2", "--recompute", "--save-every", "3", "--eval-every", "4", "--overwrite"],
    );
    assert_close(&case.losses(), &together, 1e-5, "accumulation");
    let steps: Vec<_> = lines(&case.out.join("eval.jsonl")).iter().map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [4, 8, 10]);
    let files = ["adapter_config.json", "adapter_model.safetensors", "checkpoints", "eval.jsonl", "job.json"];
    let more = ["longreach.json", "metrics.jsonl", "tensorboard", "trainer_state.json"];
    assert_eq!(names(&case.out), [&files[..], &more].concat());
    let n_tokens: usize = case.golden.ids().iter().map(Vec::len).sum();
    assert_eq!(summary["tokens"].as_u64(), Some(10 * n_tokens as u64));
    for key in ["seconds", "tokens_per_s", "peak_bytes"] {
        assert!(summary[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let first = &lines(&case.out.join("metrics.jsonl"))[0];
    for (key, value) in [("step", 1.0), ("lr", 1e-3), ("tokens", n_tokens as f64)] {
        assert_eq!(first[key].as_f64(), Some(value), "{key}");
    }
    assert!(first["grad_norm"].as_f64().unwrap() > 0.0 && first["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_new_adapter_starts_at_the_model_and_learns() {
    let case = Case::new(CASES[1]);
    let (model, data, out) = (text(&case.golden.dir), text(&case.data), text(&case.out));
    let flags = ["--targets", "q_proj,v_proj", "--rank", "4", "--dropout", "0.1", "--lr", "1e-2", "--epochs", "6"];
    let args =
        [&["--model", model, "--data", data, "--out", out, "--batch-size", "2", "--attention", "dense"], &flags[..]];
    let done = train(&args.concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let losses = case.losses();
    assert_eq!(losses.len(), 6);
    // B starts at zero, so the first loss is the model's own, whatever dropout does to A's input.
    assert_close(&losses[..1], &case.golden.reals("dense.loss"), 1e-5, "first loss");
    assert!(losses[5] < losses[0] - 0.01, "{losses:?}");
    let text = std::fs::read_to_string(case.out.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["base_model_name_or_path"], model);
    assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_u64()), (Some(4), Some(8)));
    let eval = lines(&case.out.join("eval.jsonl"))[0]["loss"].as_f64().unwrap();
    assert_close(&[case.saved_loss(Attention::Dense, true)], &[eval], 2e-6, "dropout is off in evaluation");
}

/// Runs with `more` flags on `jsonl` (`None`: no data folder); expects an error that leaves no
/// files.
fn assert_refused(jsonl: Option<&str>, more: &[&str], status: &[i32], words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(CASES[0]);
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    if let Some(jsonl) = jsonl {
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("train.jsonl"), jsonl).unwrap();
    }
    let before = names(dir.path());
    let args = ["--model", text(&model), "--data", text(&data), "--out", text(&out)];
    let done = train(&[&args, more].concat());
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code().is_some_and(|c| status.contains(&c)), "{more:?}: {:?} {stderr}", done.status);
    assert!(!stderr.contains("panicked") && done.stdout.is_empty(), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{more:?}: no '{word}' in: {stderr}");
    }
    assert_eq!(names(dir.path()), before, "{more:?} left something behind");
}

const GOOD: &str = "{\"input_ids\": [1, 2, 3, 4, 5]}\n";

#[test]
fn bad_data_is_refused_with_its_place() {
    assert_refused(Some(&format!("{GOOD}{{\"input_ids\": [1,")), &[], &[1], &["train.jsonl, line 2", "not valid JSON"]);
    assert_refused(Some("{\"input_ids\": [1, 99999]}"), &[], &[1], &["line 1", "99999", "320"]);
    assert_refused(Some("{\"text\": \"hello\"}"), &[], &[1], &["line 1", "no tokenizer", "input_ids"]);
    assert_refused(Some("{\"input_ids\": [1, 2], \"labels\": [-100, -100]}"), &[], &[1], &["trains any token"]);
    assert_refused(Some(""), &[], &[1], &["has no examples"]);
    assert_refused(None, &[], &[2], &["--data", "does not exist"]);
}

#[test]
fn bad_flags_are_refused_before_any_work() {
    assert_refused(Some(GOOD), &["--lag", "10", "--keep", "0.05"], &[2], &["K = 0"]);
    assert_refused(Some(GOOD), &["--targets", "q_proj,lm_head"], &[2], &["lm_head", "--targets", "down_proj"]);
    assert_refused(Some(GOOD), &["--steps", "1", "--epochs", "1"], &[2], &["--epochs"]);
    assert_refused(Some(GOOD), &["--attention", "dense", "--lag", "8"], &[2], &["--lag"]);
    assert_refused(Some(GOOD), &["--lr=-1"], &[2], &["--lr"]);
    assert_refused(Some(GOOD), &["--adapter", "nowhere"], &[1, 2], &["nowhere"]);
    assert_refused(Some(GOOD), &["--method", "full", "--rank", "4"], &[2], &["--rank"]);
}

#[test]
fn objectives_are_refused_with_data_or_settings_that_do_not_fit() {
    let pairs = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    assert_refused(Some(GOOD), &["--objective", "dpo"], &[2], &["--objective dpo", "\"chosen\""]);
    assert_refused(Some(GOOD), &["--beta", "0.5"], &[2], &["--beta", "--objective"]);
    assert_refused(Some(GOOD), &["--objective", "dpo", "--method", "full"], &[2], &["--method lora", "orpo"]);
    assert_refused(Some(pairs), &[], &[1], &["no tokenizer"]);
}

#[test]
fn preference_training_logs_rewards() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |word: &str| {
        format!(r#"{{"prompt": "Once upon a", "chosen": " time there was {word}.", "rejected": " {word} and {word}"}}"#)
    };
    let text_of_pairs = ["Lily", "Tom", "a cat"].map(pair).join("\n");
    for file in ["train.jsonl", "valid.jsonl"] {
        std::fs::write(dir.path().join(file), &text_of_pairs).unwrap();
    }
    let (model, out) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k"), dir.path().join("out"));
    let args = ["--model", text(&model), "--data", text(dir.path()), "--out", text(&out), "--steps", "3", "--json"];
    let refused = train(&args);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && stderr.contains("--objective dpo or orpo"), "{stderr}");
    for (objective, told) in [("dpo", "DPO with beta 0.1 against"), ("orpo", "ORPO with beta 0.1")] {
        let done = train(&[&args[..], &["--objective", objective, "--batch-size", "2", "--overwrite"]].concat());
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && stderr.contains(told) && stderr.contains("accuracy"), "{stderr}");
        let (steps, evaluations) = (lines(&out.join("metrics.jsonl")), lines(&out.join("eval.jsonl")));
        assert_eq!((steps.len(), evaluations.len()), (3, 1));
        for line in steps.iter().chain(&evaluations) {
            let value = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
            let margin = value("rewards_chosen") - value("rewards_rejected");
            assert!((value("margin") - margin).abs() < 1e-9 && (0.0..=1.0).contains(&value("accuracy")), "{line}");
        }
        assert!(evaluations[0].get("perplexity").is_none() && steps[0].get("kl").is_none());
    }
}

#[test]
fn sequences_beyond_the_models_positions_need_permission() {
    let long = format!("{{\"input_ids\": {:?}}}\n", (0..600).map(|i| i % 300).collect::<Vec<u32>>());
    assert_refused(Some(&long), &[], &[2], &["600 tokens", "512 positions", "--max-positions 600", "RoPE"]);
    assert_refused(Some(GOOD), &["--max-length", "513"], &[2], &["--max-length 513", "512"]);
    let case = Case::new(CASES[0]);
    std::fs::write(case.data.join("train.jsonl"), &long).unwrap();
    let (model, data, out) = (text(&case.golden.dir), text(&case.data), text(&case.out));
    let args = ["--model", model, "--data", data, "--out", out, "--steps", "1"];
    let done = train(&[&args, &["--max-positions", "600"][..]].concat());
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && stderr.contains("RoPE unchanged"), "{stderr}");
    assert_eq!(lines(&case.out.join("metrics.jsonl"))[0]["tokens"], 600);
    let done = train(&[&args, &["--max-length", "100", "--overwrite"][..]].concat());
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && stderr.contains("are truncated"), "{stderr}");
    let place = ["the longest example", "train.jsonl, line 2", "600 tokens"];
    let two = format!("{GOOD}{long}");
    assert_refused(Some(&two), &[], &[2], &place);
    assert_refused(
        Some(&two),
        &["--max-length", "100", "--long", "whole"],
        &[2],
        &[&place[..], &["--long whole"]].concat(),
    );
    let windows =
        ["--max-length", "100", "--long", "window", "--overlap", "4", "--overwrite", "--batch-tokens", "auto"];
    let done = train(&[&args, &windows[..]].concat());
    let stderr = String::from_utf8_lossy(&done.stderr);
    // 100 tokens, then 96 new ones in each window: 7 windows.
    for words in
        ["1 of 1 training examples are longer", "7 examples and windows in all", "--batch-tokens auto: a batch"]
    {
        assert!(done.status.success() && stderr.contains(words), "{words}: {stderr}");
    }
    // Five whole windows of 100 tokens fit into 512, or four and the last one.
    let tokens = lines(&case.out.join("metrics.jsonl"))[0]["tokens"].as_u64();
    assert!([Some(500), Some(424)].contains(&tokens), "{tokens:?}");
}

#[test]
fn validation_data_is_held_out_where_there_is_none() {
    let case = Case::new(CASES[0]);
    let lines_of = |n: u32| (0..n).map(|i| format!("{{\"input_ids\": [1, 2, 3, {i}]}}\n")).collect::<String>();
    std::fs::write(case.data.join("train.jsonl"), lines_of(10)).unwrap();
    let (model, data, out) = (text(&case.golden.dir), text(&case.data), text(&case.out));
    let args = ["--model", model, "--data", data, "--out", out, "--valid-fraction", "0.2"];
    let done = train(&args);
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(2) && stderr.contains("valid.jsonl: leave --valid-fraction out"), "{stderr}");
    std::fs::remove_file(case.data.join("valid.jsonl")).unwrap();
    let done = train(&args);
    let stderr = String::from_utf8_lossy(&done.stderr);
    for words in ["2 of 10 training examples are held out", "8 steps on 8 examples", "too few to use a device well"] {
        assert!(done.status.success() && stderr.contains(words), "{words}: {stderr}");
    }
    // Two examples of four tokens, of which the first has no label.
    assert_eq!(lines(&case.out.join("eval.jsonl"))[0]["tokens"], 6);
    std::fs::write(case.data.join("train.jsonl"), lines_of(1)).unwrap();
    let done = train(&[&args[..], &["--overwrite"]].concat());
    assert!(done.status.code() == Some(2) && String::from_utf8_lossy(&done.stderr).contains("at least 2"));
}

#[test]
fn batches_filled_by_tokens_train_as_batches_of_examples() {
    let case = Case::new(CASES[0]);
    let attention = case.golden.modes.iter().find(|(name, _)| name != "dense").unwrap().1;
    case.train(attention, true, &["--batch-size", "2"]);
    let (together, eval) = (case.losses(), lines(&case.out.join("eval.jsonl")));
    // Both rows in one batch; each in its own; longest first.
    for flags in [
        &["--batch-tokens", "100000"][..],
        &["--batch-tokens", "1", "--accumulate", "2"],
        &["--batch-tokens", "100000", "--order", "length"],
    ] {
        case.train(attention, true, &[flags, &["--overwrite"]].concat());
        assert_close(&case.losses(), &together, 1e-5, flags[0]);
        let loss = |lines: &[Value]| lines[0]["loss"].as_f64().unwrap();
        assert_close(&[loss(&lines(&case.out.join("eval.jsonl")))], &[loss(&eval)], 1e-5, flags[0]);
    }
}

#[test]
fn the_models_own_folder_and_files_are_no_output() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(CASES[0]);
    let before = names(&model);
    for (out, word) in [(model.as_path(), "the model itself"), (file.path(), "is a file")] {
        let case = Case::new(CASES[0]);
        let done = train(&["--model", text(&model), "--data", text(&case.data), "--out", text(out)]);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code() == Some(2) && stderr.contains(word), "{stderr}");
    }
    assert_eq!(names(&model), before);
}

#[test]
fn a_failing_run_says_that_the_folder_holds_an_earlier_one() {
    let case = Case::new(CASES[0]);
    let (model, data, out) = (text(&case.golden.dir), text(&case.data), text(&case.out));
    let args = ["--model", model, "--data", data, "--out", out, "--steps", "1", "--attention", "dense"];
    assert!(train(&args).status.success());
    let saved = || std::fs::read(case.out.join("adapter_model.safetensors")).unwrap();
    let before = saved();
    let reckless = ["--lr", "3e38", "--weight-decay", "1e3"];
    let done = train(&[&args[..], &reckless].concat());
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(2) && stderr.contains("--lr by default, not 3e+38"), "{stderr}");
    assert!(stderr.contains("--overwrite") && saved() == before, "{stderr}");
    let done = train(&[&args[..], &reckless, &["--overwrite"]].concat());
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(1) && stderr.contains("is still that of an"), "{stderr}");
    assert!(
        stderr.contains("earlier run, but metrics.jsonl is from this run") && stderr.contains("not finite"),
        "{stderr}"
    );
    assert_eq!(saved(), before);
    let done = train(&[&args[..], &["--method", "full"]].concat());
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(2) && stderr.contains("choose another folder"), "{stderr}");
    assert!(!case.out.join("config.json").exists() && saved() == before);
}
