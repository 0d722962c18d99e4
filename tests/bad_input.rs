//! Bad input to the program: each case gives a clear error and exit status 1 or 2, and leaves no
//! files.

mod program;

use std::path::Path;

use longreach::formats::host_tensor::HostTensor;
use longreach::formats::safetensors_write::write_safetensors;
use program::{arg, copy_model, golden, project, run, tensors, write_lists};

/// Runs `args`; expects exit status `code`, every part of `said` on stderr, and nothing on stdout.
fn refused(args: &[&str], code: i32, said: &[&str]) {
    let got = run(args);
    assert_eq!(got.code, code, "{args:?}: {got:?}");
    assert!(got.stdout.is_empty(), "{args:?}: {got:?}");
    for part in said {
        assert!(got.stderr.contains(part), "{args:?}: {part:?} is not in: {}", got.stderr);
    }
}

/// Runs `probe` and `generate` on three ids with a model that must be rejected.
fn refused_model(dir: &Path, model: &Path, said: &[&str]) {
    let ids = write_lists(dir, "three.json", &[vec![1, 5, 9]]);
    let out = dir.join("never.safetensors");
    let common = ["--device", "cpu", "--model", arg(model), "--ids", arg(&ids)];
    refused(&[&["probe", "--out", arg(&out)], &common[..]].concat(), 1, said);
    refused(&[&["generate"], &common[..]].concat(), 1, said);
    let left = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().to_string_lossy().contains("never");
    assert!(!std::fs::read_dir(dir).unwrap().any(left), "nothing is half-written");
}

#[test]
fn damaged_models_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy_model(dir.path());
    let (config, weights) = (model.join("config.json"), model.join("model.safetensors"));
    let good = std::fs::read_to_string(&config).unwrap();
    let bytes = std::fs::read(&weights).unwrap();

    std::fs::write(&config, good.replace("\"llama\"", "\"mamba\"").replace("LlamaFor", "MambaFor")).unwrap();
    refused_model(dir.path(), &model, &["config.json", "mamba"]);
    std::fs::write(&config, &good[..good.len() / 2]).unwrap();
    refused_model(dir.path(), &model, &["config.json"]);
    std::fs::write(&config, &good).unwrap();

    for n in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&weights, &bytes[..n]).unwrap();
        refused_model(dir.path(), &model, &["model.safetensors"]);
    }

    let name = "model.layers.1.mlp.up_proj.weight";
    let all = tensors(&golden("llama-gqa").join("model.safetensors"));
    let without: Vec<(String, HostTensor)> =
        all.iter().filter(|(n, _)| *n != name).map(|(n, t)| (n.clone(), t.clone())).collect();
    write_safetensors(&weights, &without, &[]).unwrap();
    refused_model(dir.path(), &model, &[name, "missing", "[160, 64]"]);
    let turned = HostTensor { shape: vec![64, 160], ..all[name].clone() };
    write_safetensors(&weights, &[without, vec![(name.to_string(), turned)]].concat(), &[]).unwrap();
    refused_model(dir.path(), &model, &[name, "expected shape [160, 64]", "[64, 160]"]);
    std::fs::remove_file(&weights).unwrap();
    refused_model(dir.path(), &model, &["model.safetensors"]);
}

#[test]
fn damaged_gguf_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.gguf");
    // Magic, version 3, one tensor, two keys; the file ends within the first key.
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(2u64.to_le_bytes());
    bytes.extend(20u64.to_le_bytes());
    bytes.extend(b"general.arch");
    for n in [0, 3, 10, 24, bytes.len()] {
        std::fs::write(&model, &bytes[..n]).unwrap();
        refused_model(dir.path(), &model, &["m.gguf"]);
    }
    std::fs::write(&model, b"PK\x03\x04 this is a zip file, not a model").unwrap();
    refused_model(dir.path(), &model, &["m.gguf", "GGUF"]);
}

#[test]
fn adapters_of_other_models_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ids = write_lists(dir.path(), "ids.json", &[vec![1, 5, 9]]);
    let (model, other) = (golden("llama-gqa"), golden("qwen2-bias-tied").join("lora"));
    let args = ["generate", "--device", "cpu", "--model", arg(&model), "--ids", arg(&ids), "--adapter"];
    refused(&[&args[..], &[arg(&other)]].concat(), 1, &["adapter", "lora"]);
    refused(&[&args[..], &["/no/such/adapter"]].concat(), 1, &["/no/such/adapter"]);
}

#[test]
fn prompts_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (stories, no_text) = (project("assets/stories260k"), golden("llama-gqa"));
    let empty = dir.path().join("empty.txt");
    std::fs::write(&empty, "\n").unwrap();
    let with = |more: &[&str], code: i32, said: &[&str]| {
        refused(&[&["generate", "--device", "cpu", "--model", arg(&stories)], more].concat(), code, said);
    };
    with(&["--prompt", ""], 2, &["prompt is empty"]);
    with(&["--prompt", "-"], 2, &["prompt is empty"]);
    with(&["--prompt-file", arg(&empty)], 2, &["prompt is empty"]);
    with(&["--prompt-file", "/no/such/file"], 1, &["/no/such/file"]);
    with(&[], 2, &["--prompt"]);
    with(&["--prompt", "a", "--prompt-file", arg(&empty)], 2, &["cannot be used with"]);
    for (text, said) in
        [("[[1, 512]]", "row 0, element 1"), ("[[1], [2]]", "exactly one"), ("[1]", "row 0"), ("[[1", "JSON")]
    {
        let ids = dir.path().join("ids.json");
        std::fs::write(&ids, text).unwrap();
        with(&["--ids", arg(&ids)], 2, &["ids.json", said]);
    }
    with(&["--prompt", "a", "--attention", "lrsa", "--lag", "10", "--keep", "0.05"], 2, &["K = 0", "--keep"]);
    with(&["--prompt", "a", "--attention", "dense", "--lag", "10"], 2, &["--lag"]);
    with(&["--prompt", "a", "--temp", "-1"], 2, &["--temp"]);
    with(&["--prompt", "a", "--top-p", "0"], 2, &["--top-p"]);
    with(&["--prompt", "a", "--max-tokens", "0"], 2, &["--max-tokens"]);
    with(&["--prompt", "a", "--chunk", "0"], 2, &["--chunk"]);
    let args = ["generate", "--device", "cpu", "--model", arg(&no_text), "--prompt", "a"];
    refused(&args, 1, &["tokenizer.json", "--ids"]);
    let no_device = ["generate", "--model", arg(&stories), "--prompt", "a", "--device", "nonesuch"];
    let got = run(&no_device);
    assert!((1..=2).contains(&got.code) && got.stderr.contains("nonesuch"), "{got:?}");
    refused(&["generate", "--prompt", "a", "--model", "no such model"], 2, &["no such model"]);
    // What no model makes right is known before one is opened.
    let both = ["--model", "no such model", "--attention", "4x", "--keep", "0.5"];
    refused(&[&["generate", "--prompt", "a"], &both[..]].concat(), 2, &["--attention 4x and --keep"]);
    refused(&[&["chat"], &both[..]].concat(), 2, &["--attention 4x and --keep"]);
}

#[test]
fn labels_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (golden("llama-gqa"), dir.path().join("out.safetensors"));
    let ids = write_lists(dir.path(), "ids.json", &[vec![1, 5, 9], vec![2, 3]]);
    let base = ["probe", "--device", "cpu", "--model", arg(&model), "--ids", arg(&ids)];
    refused(&base, 2, &["--out"]);
    refused(&[&base[..], &["--out", arg(&out), "--grads"]].concat(), 2, &["--labels"]);
    for (labels, said) in [
        (vec![vec![1, 5, 9]], "1 rows"),
        (vec![vec![1, 5, 9], vec![2, 3, 4]], "row 1"),
        (vec![vec![1, 5, 320], vec![2, 3]], "row 0, element 2"),
        (vec![vec![7, -100, -100], vec![7, -100]], "no loss"),
    ] {
        let labels = write_lists(dir.path(), "labels.json", &labels);
        refused(&[&base[..], &["--out", arg(&out), "--labels", arg(&labels)]].concat(), 2, &["labels.json", said]);
    }
    assert!(!out.exists());
    let text = dir.path().join("text");
    std::fs::write(&text, "a").unwrap();
    refused(&["probe", "--model", arg(&model), "--text", arg(&text)], 1, &["tokenizer.json"]);
    refused(&["probe", "--model", arg(&model), "--text", arg(&text), "--out", arg(&out)], 2, &["--out"]);
    std::fs::write(&text, "").unwrap();
    let stories = project("assets/stories260k");
    refused(&["probe", "--model", arg(&stories), "--text", arg(&text)], 2, &["at least 2"]);
}

#[test]
fn positions_beyond_the_models_need_a_flag_that_says_what_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden("llama-gqa"); // 512 positions
    let ids = write_lists(dir.path(), "long.json", &[(0..600).map(|i| i % 300).collect()]);
    let out = dir.path().join("out.safetensors");
    let probe = ["probe", "--device", "cpu", "--model", arg(&model), "--ids", arg(&ids), "--out", arg(&out)];
    refused(&probe, 2, &["600 tokens", "512", "--max-positions 600", "RoPE"]);
    refused(&[&probe[..], &["--max-positions", "599"]].concat(), 2, &["599"]);
    assert!(!out.exists());
    let lifted = run(&[&probe[..], &["--max-positions", "600"]].concat());
    assert!(lifted.code == 0 && lifted.stderr.contains("RoPE unchanged"), "{lifted:?}");
    assert_eq!(tensors(&out)["logits"].shape, [1, 600, 320]);

    let generate = ["generate", "--device", "cpu", "--model", arg(&model), "--ids", arg(&ids)];
    refused(&generate, 2, &["prompt of 600 tokens", "512", "--max-positions"]);
    let lifted = run(&[&generate[..], &["--max-positions", "610", "--max-tokens", "4", "--json"]].concat());
    assert!(lifted.code == 0 && lifted.stderr.contains("RoPE unchanged"), "{lifted:?}");
    let short = write_lists(dir.path(), "short.json", &[(0..509).map(|i| i % 300).collect()]);
    let generate =
        ["generate", "--device", "cpu", "--ignore-eos", "--json", "--model", arg(&model), "--ids", arg(&short)];
    refused(&[&generate[..], &["--max-tokens", "4"]].concat(), 2, &["509 tokens", "3 would fit"]);
    assert_eq!(run(&generate).json()["generated_tokens"], 3, "without --max-tokens, what fits");
}
