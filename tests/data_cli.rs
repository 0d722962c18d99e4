//! `longreach data` through the binary: what it shows of good and bad data, as text and as JSON.

mod program;

use std::path::Path;

use program::{arg, project, run};

fn data(folder: &Path, more: &[&str]) -> program::Run {
    let model = project("assets/stories260k");
    let args = ["data", "--model", arg(&model), "--data", arg(folder)];
    run(&[&args, more].concat())
}

#[test]
fn examples_are_shown_with_their_learnt_parts() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"prompt\": \"Once upon\", \"completion\": \" a time\"}\n{\"text\": \"Lily ran.\"}\n";
    std::fs::write(dir.path().join("train.jsonl"), lines).unwrap();
    std::fs::write(dir.path().join("validation.csv"), "text\nTom ran.\n").unwrap();
    let shown = data(dir.path(), &[]);
    assert_eq!(shown.code, 0, "{shown:?}");
    for words in [
        "train: 2 examples in",
        "1 prompt and completion, 1 text",
        "<s>Once upon⟦ a time</s>⟧",
        "<s>⟦Lily ran.</s>⟧",
        "valid: 1 examples in",
    ] {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    assert!(!shown.stdout.contains('\u{1b}'), "colours are for terminals");
    let json = data(dir.path(), &["--json", "--examples", "1", "--max-length", "3"]).json();
    let train = &json["parts"][0];
    assert_eq!(
        (&train["name"], &train["tokens"]["max"], &train["cut"]["count"]),
        (&"train".into(), &3.into(), &2.into())
    );
    assert_eq!(json["parts"][1]["name"], "valid");
    assert_eq!(train["shown"].as_array().unwrap().len(), 1);
    let whole = data(dir.path(), &["--json"]).json();
    let example = &whole["parts"][0]["shown"][0];
    let (ids, labels) = (example["input_ids"].as_array().unwrap(), example["labels"].as_array().unwrap());
    assert_eq!((ids.len(), labels.len()), (example["tokens"].as_u64().unwrap() as usize, ids.len()));
    let prompt = ids.len() - example["learnt"].as_u64().unwrap() as usize;
    assert!(prompt > 1 && prompt < ids.len(), "{example}");
    assert!(labels[..prompt].iter().all(|label| *label == -100) && labels[prompt..] == ids[prompt..], "{example}");
}

#[test]
fn pairs_are_shown_with_both_answers() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"prompt": "Once upon", "chosen": " a time", "rejected": " a cat sat"}"#,
        r#"{"chosen": "Lily ran home.", "rejected": "Lily ran fast."}"#,
        r#"{"text": "Tom ran.", "chosen": "a", "rejected": "b"}"#,
    ];
    std::fs::write(dir.path().join("train.jsonl"), lines[..2].join("\n")).unwrap();
    let shown = data(dir.path(), &[]);
    for words in [
        "train: 2 examples in",
        "2 chosen and rejected",
        "<s>Once upon⟦ a time</s>⟧",
        "rejected: ",
        "<s>Once upon⟦ a cat sat</s>⟧",
        "<s>Lily ran⟦ home.</s>⟧",
        "<s>Lily ran⟦ fast.</s>⟧",
    ] {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    let json = data(dir.path(), &["--json"]).json();
    assert_eq!(json["parts"][0]["examples"], 2);
    assert!(json["parts"][0]["shown"][0]["rejected"]["learnt"].as_u64().unwrap() > 1, "{json}");
    // A line with another form is a pair only for an objective that learns from pairs.
    std::fs::write(dir.path().join("train.jsonl"), lines[2]).unwrap();
    let form = |more: &[&str]| data(dir.path(), more).stdout.contains("1 chosen and rejected");
    assert!(!form(&[]) && form(&["--objective", "dpo"]) && form(&["--objective", "orpo"]));
}

#[test]
fn lines_that_cannot_be_read_are_all_listed() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"text\": \"a\"}\n{\"text\": null}\n\n{\"question\": \"a\"}\n";
    std::fs::write(dir.path().join("train.jsonl"), lines).unwrap();
    let shown = data(dir.path(), &[]);
    assert_eq!(shown.code, 1, "{shown:?}");
    for words in
        ["refused: 2", "train.jsonl, line 2: the field \"text\" is null", "train.jsonl, line 4: found an object"]
    {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    assert!(shown.stderr.contains("records that training refuses: 2, the first of them"), "{}", shown.stderr);
    assert_eq!(data(&dir.path().join("absent"), &[]).code, 2);
}

#[test]
fn held_out_examples_windows_and_batches_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let text = |i: usize| format!("{{\"text\": \"{}\"}}\n", "Lily ran home. ".repeat(1 + 3 * i));
    std::fs::write(dir.path().join("train.jsonl"), (0..6).map(text).collect::<String>()).unwrap();
    let flags = ["--max-length", "32", "--long", "window", "--valid-fraction", "0.3", "--batch-tokens", "64"];
    let shown = data(dir.path(), &[&flags[..], &["--sink", "2", "--lag", "8"]].concat());
    assert_eq!(shown.code, 0, "{shown:?}");
    for words in ["examples in", "examples held out of", "cut into windows", "more than S + 2L = 18", "without padding"]
    {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    let json = data(dir.path(), &[&flags[..], &["--json"]].concat()).json();
    let (train, valid) = (&json["parts"][0], &json["parts"][1]);
    assert_eq!((&train["held_out"], &valid["held_out"]), (&false.into(), &true.into()));
    let records = |part: &serde_json::Value| part["forms"]["text"].as_u64().unwrap();
    assert_eq!((records(train), records(valid)), (4, 2));
    let windowed = train["windowed"]["count"].as_u64().unwrap() + valid["windowed"]["count"].as_u64().unwrap();
    assert!(windowed >= 4 && train["tokens"]["max"] == 32, "{json}");
    let training = &json["training"];
    assert_eq!((&training["examples"], &training["tokens"]), (&train["examples"], &train["tokens"]["total"]));
    assert!(training["batches"].as_u64() < train["examples"].as_u64(), "{json}");
    let refused = data(dir.path(), &["--max-length", "32", "--long", "whole"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stdout.contains("--long whole cuts none"), "{}", refused.stdout);
    assert_eq!(data(dir.path(), &["--long", "window"]).code, 2);
}
