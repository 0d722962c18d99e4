//! A RoPE scaling in place of the model's own, through the binary: the bits that the same scaling in
//! the model's files gives, and the record of it with what is trained.

mod program;

use std::path::{Path, PathBuf};

use longreach::checkpoint::model_files::ModelFiles;
use longreach::formats::host_tensor::HostTensor;
use program::{Run, arg, copy_model, golden, run, tensors, write_lists};
use serde_json::{Value, json};

/// Runs `probe` on a text of 600 tokens, which are more than the 512 positions of the golden model.
fn probe(dir: &Path, model: &Path, flags: &[&str]) -> (Run, PathBuf) {
    let ids = write_lists(dir, "ids.json", &[(0..600).map(|i| i * 7 % 300).collect()]);
    let out = tempfile::tempdir_in(dir).unwrap().keep().join("out.safetensors");
    let probe = ["probe", "--device", "cpu", "--attention", "dense", "--model", arg(model), "--ids", arg(&ids)];
    (run(&[&probe[..], &["--out", arg(&out)], flags].concat()), out)
}

/// The logits of that text, of which no note says that it is too long.
fn logits(dir: &Path, model: &Path, flags: &[&str]) -> HostTensor {
    let (done, out) = probe(dir, model, flags);
    assert!(done.code == 0 && !done.stderr.contains("useless"), "{flags:?}: {done:?}");
    tensors(&out).remove("logits").unwrap()
}

fn refused(done: &Run, words: &[&str]) {
    assert_eq!(done.code, 2, "{done:?}");
    words.iter().for_each(|word| assert!(done.stderr.contains(word), "no '{word}' in {done:?}"));
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_scaling_gives_the_bits_of_the_keys_in_config_json() {
    let dir = tempfile::tempdir().unwrap();
    let plain = golden("llama-gqa");
    let (too_long, _) = probe(dir.path(), &plain, &[]);
    refused(&too_long, &["600 tokens", "--rope-scaling yarn:2", "--max-positions 600", "usually useless"]);
    let (lifted, out) = probe(dir.path(), &plain, &["--max-positions", "600"]);
    assert!(lifted.code == 0 && lifted.stderr.contains("--rope-scaling yarn:2 stretches it"), "{lifted:?}");
    let unscaled = tensors(&out).remove("logits").unwrap();
    let changed = copy_model(dir.path());
    let path = changed.join("config.json");
    let own = read_json(&path);
    for (flag, keys, positions) in [
        ("yarn:2", json!({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 512}), 512),
        ("linear:2", json!({"rope_type": "linear", "factor": 2.0}), 1024),
        ("dynamic:2", json!({"type": "dynamic", "factor": 2.0}), 512),
    ] {
        let mut config = own.clone();
        (config["rope_scaling"], config["max_position_embeddings"]) = (keys, positions.into());
        std::fs::write(&path, config.to_string()).unwrap();
        let flags = ["--rope-scaling", flag];
        let got = logits(dir.path(), &plain, &flags);
        assert_eq!(got, logits(dir.path(), &changed, &[]), "{flag}");
        assert!(got != unscaled, "{flag} changes something");
        let (limited, _) = probe(dir.path(), &plain, &[&flags[..], &["--max-positions", "599"]].concat());
        refused(&limited, &["600 tokens exceed the 599 positions", "--max-positions 600"]);
    }
    let (wrong, _) = probe(dir.path(), &plain, &["--rope-scaling", "yarn:1"]);
    refused(&wrong, &["--rope-scaling", "above 1", "yarn:4"]);
}

#[test]
fn a_scaling_gives_the_bits_of_the_keys_in_a_gguf_file() {
    let dir = tempfile::tempdir().unwrap();
    let export = |name: &str, flags: &[&str]| {
        let (model, out) = (golden("llama-gqa"), dir.path().join(name));
        let export =
            ["export", "--device", "cpu", "--model", arg(&model), "--to", "gguf", "--quantise", "f32", "--out"];
        let done = run(&[&export[..], &[arg(&out)], flags].concat());
        assert_eq!(done.code, 0, "{done:?}");
        out
    };
    let plain = export("plain.gguf", &[]);
    for flag in ["yarn:2", "linear:2"] {
        let written = export(&format!("{}.gguf", &flag[..4]), &["--rope-scaling", flag]);
        let got = logits(dir.path(), &plain, &["--rope-scaling", flag]);
        assert_eq!(got, logits(dir.path(), &written, &[]), "{flag}");
        // The file has it already, so the flag changes nothing.
        assert_eq!(got, logits(dir.path(), &written, &["--rope-scaling", flag]), "{flag}");
    }
    let described = run(&["info", "--json", "--model", arg(&plain), "--rope-scaling", "yarn:4"]).json();
    assert_eq!(described["max_position_embeddings"], 2048);
    let described = run(&["info", "--model", arg(&plain), "--rope-scaling", "yarn:4"]).stdout;
    assert!(described.contains("RoPE     YaRN by 4, from 512 positions"), "{described}");
}

#[test]
fn what_is_trained_carries_its_scaling() {
    let dir = tempfile::tempdir().unwrap();
    let (model, data) = (golden("llama-gqa"), dir.path().join("train.jsonl"));
    let ids: Vec<u32> = (0..600).map(|i| i * 7 % 300).collect();
    std::fs::write(&data, json!({ "input_ids": ids }).to_string()).unwrap();
    let train = |name: &str, flags: &[&str]| {
        let out = dir.path().join(name);
        let train = ["train", "--device", "cpu", "--attention", "dense", "--steps", "1", "--lr", "1e-2", "--schedule"];
        let files = ["constant", "--model", arg(&model), "--data", arg(&data), "--out", arg(&out)];
        (run(&[&train[..], &files, flags].concat()), out)
    };
    let trained = |name: &str, flags: &[&str]| {
        let (done, out) = train(name, flags);
        assert_eq!(done.code, 0, "{done:?}");
        out
    };
    let scaled = ["--rope-scaling", "yarn:2"];
    refused(&train("none", &[]).0, &["600 tokens", "--rope-scaling yarn:2", "--max-positions 600"]);

    // An adapter: the record and the settings of the run have it, and it counts without the flag.
    let adapter = trained("adapter", &scaled);
    let recorded = |dir: &Path, file: &str| read_json(&dir.join(file))["rope_scaling"].clone();
    assert_eq!(recorded(&adapter, "longreach.json"), "yarn:2");
    assert_eq!(recorded(&adapter, "job.json"), "yarn:2");
    let with = ["--adapter", arg(&adapter)];
    let got = logits(dir.path(), &model, &with);
    assert_eq!(got, logits(dir.path(), &model, &[&with[..], &scaled].concat()));
    assert!(got != logits(dir.path(), &model, &scaled), "the adapter changes something");
    let (other, _) = probe(dir.path(), &model, &[&with[..], &["--rope-scaling", "linear:2"]].concat());
    refused(&other, &["trained with --rope-scaling yarn:2, not with linear:2"]);
    let continued = trained("continued", &with);
    assert_eq!(recorded(&continued, "longreach.json"), "yarn:2");
    assert_eq!(recorded(&continued, "job.json"), "yarn:2");

    // Beside other adapters of an open model it needs that model to have it.
    let beside = |scaling: Option<&str>| {
        let scaling = scaling.map(|text| text.parse().unwrap());
        ModelFiles::open_scaled(arg(&model), None, scaling).unwrap().other_adapter(&adapter).err()
    };
    assert!(beside(Some("yarn:2")).is_none());
    let e = beside(None).unwrap().to_string();
    assert!(e.contains("opened without it: give `rope_scaling` yarn:2"), "{e}");

    // Exports: of the adapter alone with its record, and of the merged model with keys of its own.
    let exported = |to: &str, name: &str| {
        let out = dir.path().join(name);
        let export = ["export", "--device", "cpu", "--model", arg(&model), "--to", to, "--out", arg(&out)];
        let done = run(&[&export[..], &with].concat());
        assert_eq!(done.code, 0, "{done:?}");
        out
    };
    let alone = exported("adapter-gguf", "alone.gguf");
    assert_eq!(logits(dir.path(), &model, &["--adapter", arg(&alone)]), got);
    let merged = exported("hf", "merged");
    let config = read_json(&merged.join("config.json"));
    assert_eq!((&config["max_position_embeddings"], &config["pretraining_tp"]), (&json!(1024), &json!(1)));
    let keys = &config["rope_scaling"];
    assert_eq!((&keys["rope_type"], &keys["factor"]), (&json!("yarn"), &json!(2.0)));
    assert_eq!(keys["original_max_position_embeddings"], 512);
    assert_eq!(recorded(&merged, "longreach.json"), Value::Null);
    logits(dir.path(), &merged, &[]);

    // A whole model has it in its configuration.
    let whole = trained("whole", &[&scaled[..], &["--method", "full"]].concat());
    assert_eq!(recorded(&whole, "longreach.json"), Value::Null);
    assert_eq!(read_json(&whole.join("config.json"))["rope_scaling"]["rope_type"], "yarn");
    assert_eq!(logits(dir.path(), &whole, &[]), logits(dir.path(), &whole, &scaled));
}

#[test]
fn models_whose_rope_is_for_long_texts_already_say_what_they_have() {
    for (case, word) in [
        ("llama3-rope", "Llama 3"),
        ("phi4-mini", "LongRoPE"),
        ("ministral3", "queries grow"),
        ("gemma3-linear", "divided by"),
    ] {
        let model = golden(case);
        let done = run(&["info", "--model", arg(&model), "--rope-scaling", "yarn:4"]);
        refused(&done, &["--rope-scaling yarn:4 cannot replace", word, "Leave --rope-scaling out"]);
    }
    refused(&run(&["info", "--rope-scaling", "yarn:4"]), &["--model"]);
}
