//! Evaluations and studies on the bundled model.
//!
//! Questions are built as documented, control policies match their definitions, and figures agree
//! with other computations of the same quantity. Studies resume where they stopped and never mix
//! settings.

mod common;
mod program;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use common::stories::{MODEL, Stories, go_on, policies};
use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::bundled::MOBY_DICK;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::eval::{
    AgreementRequest, Haystack, NeedleGrid, PerplexityRequest, QuestionGrid, RulerTask, Subject, agreement, kept_map,
    kept_map_in_chunks, needle_samples, needle_training, perplexity, ruler_samples, ruler_training,
};
use longreach::train::GradientStep;
use program::{arg, run};

#[test]
fn perplexity_through_the_cache_is_that_of_training() {
    let mut stories = Stories::open();
    let ids = stories.text_ids()[..300].to_vec();
    let request = PerplexityRequest { ids: &ids, length: 300, stride: 300, max_windows: 1 };
    let rows = perplexity(&mut stories.subject(), &request, &policies(&["dense", "4x"]), &mut go_on).unwrap();
    let labels = ids.iter().map(|&id| id as i32).collect();
    let batch = Batch::new(&[Example { ids: ids.clone(), labels, rejected: None }]);
    let step = GradientStep::new(&mut stories.device, false, None).unwrap();
    let lrsa = Attention::Lrsa(Lrsa::new(4, 16, 0.25).unwrap());
    for (row, attention) in rows.iter().zip([Attention::Dense, lrsa]) {
        let (sum, n) = step.evaluate(&mut stories.device, &mut stories.loaded, &batch, attention).unwrap();
        let want = sum / n as f64;
        assert_eq!((row.n, n), (299, 299));
        assert!((row.values["loss"] - want).abs() < 1e-5 * want, "{attention}: {} for {want}", row.values["loss"]);
        assert_eq!(row.kv_entries, attention.cache_length(300) as f64);
    }
    // With overlapping windows every token sees more context than with disjoint ones.
    let loss = |stories: &mut Stories, stride| {
        let request = PerplexityRequest { ids: &ids, length: 60, stride, max_windows: 100 };
        let rows = perplexity(&mut stories.subject(), &request, &policies(&["dense"]), &mut go_on).unwrap();
        (rows[0].values["loss"], rows[0].n)
    };
    let (sliding, jumping) = (loss(&mut stories, 15), loss(&mut stories, 60));
    assert_eq!((sliding.1, jumping.1), (299, 299));
    assert!(sliding.0 < jumping.0, "{sliding:?} {jumping:?}");
}

/// The bundled model's tokenizer puts BOS in front of texts.
#[test]
fn every_window_of_a_text_begins_with_bos() {
    let mut stories = Stories::open();
    let ids = stories.text_ids()[..100].to_vec();
    let bos = ids[0];
    assert_eq!(stories.files.tokenizer().unwrap().added_bos(), Some(bos));
    let step = GradientStep::new(&mut stories.device, false, None).unwrap();
    // Tokens of each window behind BOS, of which those from `first` on are predicted.
    let cases = [
        (20, vec![(1..40, 1), (21..60, 40), (41..80, 60), (61..100, 80)]),
        (40, vec![(1..40, 1), (39..78, 40), (77..100, 78)]),
    ];
    for (stride, windows) in cases {
        let request = PerplexityRequest { ids: &ids, length: 40, stride, max_windows: 100 };
        let rows = perplexity(&mut stories.subject(), &request, &policies(&["dense"]), &mut go_on).unwrap();
        let (mut sum, mut n) = (0.0, 0);
        for (range, first) in windows {
            let label = |i: usize| if i < first { -100 } else { ids[i] as i32 };
            let labels = std::iter::once(-100).chain(range.clone().map(label)).collect();
            let window = std::iter::once(bos).chain(ids[range].iter().copied()).collect();
            let batch = Batch::new(&[Example { ids: window, labels, rejected: None }]);
            let (loss, tokens) =
                step.evaluate(&mut stories.device, &mut stories.loaded, &batch, Attention::Dense).unwrap();
            (sum, n) = (sum + loss, n + tokens);
        }
        let want = sum / n as f64;
        assert_eq!((rows[0].n, n), (99, 99));
        assert!((rows[0].values["loss"] - want).abs() < 1e-5 * want, "{} for {want}", rows[0].values["loss"]);
    }
    // A text that begins without BOS has none in its windows: the second one starts at token 20 of it.
    let bare = &ids[1..61];
    let request = PerplexityRequest { ids: bare, length: 40, stride: 20, max_windows: 100 };
    let rows = perplexity(&mut stories.subject(), &request, &policies(&["dense"]), &mut go_on).unwrap();
    let mut sum = 0.0;
    for (range, first) in [(0..40, 1), (20..60, 40)] {
        let labels = range.clone().map(|i| if i < first { -100 } else { bare[i] as i32 }).collect();
        let batch = Batch::new(&[Example { ids: bare[range].to_vec(), labels, rejected: None }]);
        sum += step.evaluate(&mut stories.device, &mut stories.loaded, &batch, Attention::Dense).unwrap().0;
    }
    assert!((rows[0].values["loss"] - sum / 59.0).abs() < 1e-5 * sum / 59.0);
}

#[test]
fn what_keeps_everything_is_dense() {
    let mut stories = Stories::open();
    let ids = stories.text_ids();
    // A window of 16 and a sink of 4 forget most of 120 tokens. 1x, also at random, and a window as
    // long as the text forget nothing.
    let request = AgreementRequest { ids: &ids, length: 120, n_samples: 4, n_continued: 12 };
    let policies = policies(&["dense", "1x", "random-1x", "window-1x", "16x"]);
    let outcomes = agreement(&mut stories.subject(), &request, &policies, &mut go_on).unwrap();
    assert_eq!(outcomes.len(), 20);
    for outcome in outcomes.iter().filter(|o| o.attention != "16x") {
        assert_eq!(outcome.scores, [1.0, 1.0], "{outcome:?}");
        assert_eq!(outcome.kv_entries, 120, "{outcome:?}");
    }
    for batch in [2, 8] {
        let mut told = Vec::new();
        let mut note = |done: usize, total: usize| {
            told.push((done, total));
            ControlFlow::Continue(())
        };
        let mut subject = Subject { batch, ..stories.subject() };
        let at_once = agreement(&mut subject, &request, &policies, &mut note).unwrap();
        assert_eq!((&at_once, told.last()), (&outcomes, Some(&(20, 20))), "{batch} at once");
        assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0), "{told:?}");
        let mut stop = |done: usize, _: usize| match done > 6 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let mut subject = Subject { batch, ..stories.subject() };
        let some = agreement(&mut subject, &request, &policies, &mut stop).unwrap();
        assert!(some.len() < 20 && some.len().is_multiple_of(5) && some.iter().all(|one| outcomes.contains(one)));
    }
    let compressed = outcomes.iter().filter(|o| o.attention == "16x");
    assert!(compressed.clone().all(|o| o.kv_entries < 50));
    assert!(compressed.map(|o| o.scores[1]).sum::<f64>() < 3.9, "what forgets most goes on otherwise somewhere");
}

#[test]
fn keys_are_hidden_where_they_are_said_to_be() {
    let stories = Stories::open();
    let haystack = Haystack::new(MOBY_DICK, &stories.files).unwrap();
    let grid = NeedleGrid { lengths: vec![200, 400], depths: vec![0.0, 0.5, 1.0], n_samples: 3, seed: 5 };
    let samples = needle_samples(&stories.files, &haystack, &grid).unwrap();
    assert_eq!(samples.len(), 18);
    assert_eq!(samples, needle_samples(&stories.files, &haystack, &grid).unwrap());
    let other = NeedleGrid { seed: 6, ..grid };
    assert_ne!(samples, needle_samples(&stories.files, &haystack, &other).unwrap());
    let ids: BTreeSet<&str> = samples.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids.len(), 18, "names are apart");
    for sample in &samples {
        let n = stories.files.prompt_ids(&sample.prompt, true).unwrap().len();
        assert!(n <= sample.length && n > sample.length * 3 / 5, "{n} tokens for {}", sample.length);
        let (key, depth) = (&sample.answers[0], sample.depth.unwrap());
        let text = sample.prompt.split("\n\n").nth(1).unwrap();
        let needle = format!("The pass key is {key}. Remember it. {key} is the pass key.");
        assert_eq!(text.matches(&needle).count(), 1, "{text}");
        let ends = (text.starts_with(&needle), text.ends_with(&needle));
        // Short texts have few sentences; the middle of two is an end.
        let is_long = sample.length == 400 || depth != 0.5;
        assert!(!is_long || ends == (depth == 0.0, depth == 1.0), "at {depth}: {text}");
    }
    let training = needle_training(&stories.files, &haystack, 400, 20, 5).unwrap();
    let keys = |samples: &[longreach::eval::Sample]| -> BTreeSet<String> {
        samples.iter().map(|s| s.answers[0].clone()).collect()
    };
    assert_eq!(keys(&training).len(), 20);
    assert!(keys(&training).is_disjoint(&keys(&samples)));
    // Held-out and training texts share no sentence.
    let sentences = |samples: &[longreach::eval::Sample]| -> BTreeSet<String> {
        let texts = samples.iter().map(|s| s.prompt.split("\n\n").nth(1).unwrap().to_string());
        texts.flat_map(|t| t.split(". ").filter(|s| s.len() > 60).map(str::to_string).collect::<Vec<_>>()).collect()
    };
    let (held_out, trained) = (sentences(&samples), sentences(&training));
    assert!(held_out.len() > 10 && trained.len() > 10);
    assert!(held_out.is_disjoint(&trained), "{:?}", held_out.intersection(&trained).next());
    for task in RulerTask::ALL {
        let grid = |per_text| QuestionGrid { lengths: vec![300], n_samples: 3, per_text, seed: 1 };
        for per_text in 1..=task.questions() {
            let samples = ruler_samples(&stories.files, &haystack, task, &grid(per_text)).unwrap();
            assert_eq!(samples.len(), 3);
            for sample in samples {
                let n = stories.files.prompt_ids(&sample.prompt, true).unwrap().len();
                assert!(n <= 300 && sample.answers.iter().all(|a| sample.prompt.contains(a)), "{n}: {sample:?}");
                assert_eq!(sample.document.is_some(), per_text > 1);
            }
        }
        assert!(ruler_samples(&stories.files, &haystack, task, &grid(task.questions() + 1)).is_err());
    }
    let conversations = ruler_training(&stories.files, &haystack, RulerTask::MultiKey, (300, 3), 2, 1).unwrap();
    for turns in conversations {
        let (text, question) = turns[0].0.rsplit_once("\n\n").unwrap();
        assert!(question.starts_with("What is the code of the ") && turns.len() == 3, "{turns:?}");
        for (user, code) in &turns {
            let name = user.rsplit_once("the code of the ").unwrap().1.split_once('?').unwrap().0;
            assert!(text.contains(&format!("The code of the {name} is {code}.")), "{turns:?}");
        }
        assert!(turns[1..].iter().all(|(user, _)| user.starts_with("What is the code of the ")), "{turns:?}");
    }
    assert!(needle_samples(&stories.files, &haystack, &NeedleGrid { lengths: vec![20], ..other }).is_err());
}

#[test]
fn what_is_kept_lies_between_sink_and_tail() {
    let mut stories = Stories::open();
    let ids = stories.text_ids()[..150].to_vec();
    let lrsa = Lrsa::new(4, 16, 0.25).unwrap();
    let tokenizer = stories.files.tokenizer().unwrap();
    let map = kept_map(&mut stories.device, &mut stories.loaded.model, tokenizer, &ids, lrsa).unwrap();
    assert_eq!((map.kept.len(), map.kept[0].len(), map.tokens.len()), (5, 4, 150));
    assert_eq!((map.sink, map.recent_start), (4, 4 + 8 * 16), "9 partitions, of which all but the last are judged");
    for head in map.kept.iter().flatten() {
        for partition in 0..8 {
            let range = 4 + partition * 16..4 + (partition + 1) * 16;
            assert_eq!(head.iter().filter(|&&p| range.contains(&p)).count(), 4);
        }
        assert_eq!(head.len() + 4 + (150 - map.recent_start), lrsa.cache_length(150));
    }
    // The text in chunks keeps the same tokens, and can be stopped.
    let (device, model) = (&mut stories.device, &mut stories.loaded.model);
    let mut read = Vec::new();
    let mut watch = |n| {
        read.push(n);
        if read.len() < 6 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let streamed = kept_map_in_chunks(device, model, tokenizer, &ids, lrsa, 40, &mut watch).unwrap();
    assert_eq!(streamed.as_ref(), Some(&map));
    assert_eq!(kept_map_in_chunks(device, model, tokenizer, &ids, lrsa, 40, &mut watch).unwrap(), None);
    assert_eq!(read, [36, 68, 100, 132, 150, 36]);
    let said = map.tokens.concat();
    assert_eq!(said.trim_start_matches("<s>").trim(), tokenizer.decode(&ids, true).unwrap().trim());
}

#[test]
fn the_program_reports_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (MODEL, dir.path().join("out"));
    let common = ["--model", model, "--device", "cpu", "--sink", "4", "--lag", "16"];
    let eval = |task: &str, more: &[&str]| run(&[&["eval", task][..], &common, more].concat());
    let needle = ["--lengths", "150,200", "--depths", "0,1", "--samples", "1", "--attentions", "dense,4x,window-4x"];
    let report = eval("needle", &[&needle[..], &["--json", "--out", arg(&out)]].concat()).json();
    assert_eq!(report["rows"].as_array().unwrap().len(), 3 * 2 * 2);
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 12);
    let kept: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(kept, report);
    for file in ["report.md", "needle-exact.svg", "needle-exact.png", "needle-depth-4x.svg", "needle-depth-dense.png"] {
        assert!(out.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let table = eval("needle", &needle).stdout;
    let document = std::fs::read_to_string(out.join("report.md")).unwrap();
    let (head, found) = document.split_once("```\n\n").unwrap();
    assert_eq!(table, found, "the same again, to the letter");
    assert!(head.contains(report["command"].as_str().unwrap()), "{head}");
    assert!(head.contains("longreach eval needle --model") && head.contains(" --lag 16 --lengths 150,200 "), "{head}");
    assert!(table.contains("| window-4x | 200 | 2 |"), "{table}");
    let one_by_one = eval("needle", &[&needle[..], &["--json", "--batch", "1"]].concat()).json();
    for part in ["rows", "outcomes"] {
        assert_eq!(one_by_one[part], report[part], "several answers at once are those one by one");
    }

    let samples = dir.path().join("samples.jsonl");
    eval("ruler", &["--hidden", "multi-value", "--lengths", "200", "--samples", "3", "--samples-out", arg(&samples)]);
    let text = std::fs::read_to_string(&samples).unwrap();
    assert_eq!(text.lines().count(), 3);
    let ppl = eval("perplexity", &["--length", "100", "--windows", "2", "--json"]).json();
    let value = |i: usize| ppl["rows"][i]["values"]["perplexity"].as_f64().unwrap();
    assert!(value(0) > 1.0 && value(3) > value(0), "{ppl}");
    let svg = dir.path().join("kept.svg");
    let map = eval("kept", &["--tokens", "120", "--svg", arg(&svg), "--layer", "1", "--json"]).json();
    assert_eq!(map["kept"].as_array().unwrap().len(), 5);
    assert!(std::fs::read_to_string(&svg).unwrap().contains("layer 1, 4 heads"));

    for (task, bad, why) in [
        ("needle", &["--attentions", "sparse"][..], "sparse"),
        ("needle", &["--lengths", "30"], "30"),
        ("needle", &["--lengths", "2000"], "--max-positions"),
        ("needle", &["--depths", "2"], "depth"),
        ("needle", &["--batch", "0"], "--batch"),
        ("qa", &["--data", "no-such-file.json"], "no-such-file.json"),
        ("ruler", &["--hidden", "single", "--questions", "2"], "questions"),
        ("perplexity", &["--stride", "0"], "stride"),
        ("kept", &[], "--svg"),
        ("kept", &["--tokens", "99", "--layer", "9", "--svg", arg(&svg)], "layer 9"),
    ] {
        let run = eval(task, bad);
        assert!(run.code != 0 && run.stderr.contains(why), "{task} {bad:?}: {run:?}");
    }
}

#[test]
fn a_study_compares_recipes_in_several_tests() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("study");
    let study = |more: &[&str]| run(&[&["study", "--out", arg(&out), "--device", "cpu"][..], more].concat());
    let settings: Vec<&str> = "--length 200 --samples 2 --seeds 0 --steps 2 --rank 2 --sink 4 --lag 16 --windows 2 \
        --task retrieval --attentions dense,4x --also needle-160,multi-key-300,perplexity-100,agreement-100"
        .split_whitespace()
        .collect();
    let recipes = [
        "dense-tuned",
        "lrsa-tuned",
        "lrsa-annealed:keep=1,0.5..0.125",
        "lrsa-self:distill=0.5,teacher=self",
        "lrsa-all:loss=all,steps=3,lr=1e-3",
    ];
    let recipes: Vec<&str> = recipes.iter().flat_map(|recipe| ["--recipe", *recipe]).collect();
    let first = study(&[&["--model", MODEL], &settings[..], &recipes].concat());
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(files_of(&out.join("cells")).len(), 6 * 5 * 2);
    let report = first.stdout;
    for part in [
        "60 of 60 cells",
        "| LRSA-annealed |",
        "LRSA-all minus dense-tuned (multi-key-300: all found)",
        "LRSA-self minus LRSA-tuned (exact)",
        "## perplexity-100: loss",
        "## agreement-100: continuation",
        "| LRSA-all | 0 | 3 |",
        "\"lrsa-annealed\"",
        "\"0.5..0.125\"",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    for file in ["exact.svg", "needle-160-exact.svg", "multi-key-300-all-found.png", "perplexity-100-loss.svg"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let records: Vec<serde_json::Value> = ["LRSA-tuned", "LRSA-annealed", "LRSA-all", "LRSA-self"]
        .iter()
        .map(|name| std::fs::read_to_string(out.join(format!("training/{name}-seed-0.json"))).unwrap())
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect();
    assert_eq!(records[0]["tokens"], records[1]["tokens"], "the same data");
    assert_eq!((&records[0]["steps"], &records[2]["steps"]), (&2.into(), &3.into()));
    assert_eq!(records[0]["tokens"], records[3]["tokens"], "the same data");
    assert!(records[0]["adapter"] != records[1]["adapter"] && records[0]["adapter"] != records[3]["adapter"]);
    // Complete cells stay, and only the new ones are computed.
    let again = study(&[]);
    assert!(again.code == 0 && !again.stderr.contains("exact"), "{again:?}");
    let base = std::fs::metadata(out.join("cells/base-4x.json")).unwrap().modified().unwrap();
    let more = study(&["--recipe", "lrsa-late:steps=1", "--recipe", "lrsa-tuned", "--attentions", "dense,4x,2x"]);
    assert!(more.code == 0 && more.stdout.contains("105 of 105 cells"), "{more:?}");
    assert_eq!(std::fs::metadata(out.join("cells/base-4x.json")).unwrap().modified().unwrap(), base);
    let changed = study(&["--recipe", "lrsa-late:steps=2"]);
    assert!(changed.code == 2 && changed.stderr.contains("each name once"), "{changed:?}");
    for (bad, why) in [
        (&["--recipe", "base"][..], "base"),
        (&["--recipe", "x:keep=0.5.."], "0.5..0.125"),
        (&["--recipe", "x:attention=dense,keep=0.5"], "--keep"),
        (&["--also", "needle-9000"], "--also"),
        (&["--also", "perplexity-400", "--windows", "9999"], "--windows"),
        (&["--recipe", "x", "--recipe", "x"], "each name once"),
    ] {
        let elsewhere = dir.path().join("elsewhere");
        let refused = run(&[&["study", "--model", MODEL, "--out", arg(&elsewhere), "--device", "cpu"], bad].concat());
        assert!(refused.code == 2 && refused.stderr.contains(why), "{bad:?}: {refused:?}");
        assert!(!elsewhere.exists());
    }
}

fn files_of(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_study_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (MODEL, dir.path().join("study"));
    let settings = [
        "--model",
        model,
        "--length",
        "160",
        "--samples",
        "3",
        "--seeds",
        "0,1",
        "--steps",
        "2",
        "--rank",
        "2",
        "--sink",
        "4",
        "--lag",
        "16",
        "--attentions",
        "dense,4x",
    ];
    let study = |more: &[&str]| run(&[&["study", "--out", arg(&out), "--device", "cpu"][..], more].concat());
    let first = study(&settings);
    assert_eq!(first.code, 0, "{first:?}");
    let cells = files_of(&out.join("cells"));
    assert_eq!(cells.len(), 2 + 2 * 2 * 2, "{cells:?}");
    assert!(first.stdout.contains("10 of 10 cells"), "{}", first.stdout);
    for file in ["report.md", "study.json", "exact.svg", "exact.png", "digits.svg"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(out.join("cells").join(name)).unwrap()).unwrap()
    };
    let (lost, kept) = ("LRSA-tuned-seed-1-4x.json", "dense-tuned-seed-0-dense.json");
    let (before, stamp) = (read(lost), out.join("cells").join(kept).metadata().unwrap().modified().unwrap());
    assert_eq!(before["answers"].as_array().unwrap().len(), 3);
    std::fs::remove_file(out.join("cells").join(lost)).unwrap();
    let report = study(&["--report"]);
    assert!(report.stdout.contains("9 of 10 cells") && report.stdout.contains("## Not run yet"), "{report:?}");
    let again = study(&["--batch", "1"]);
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(again.stderr.matches("4x: exact").count(), 1, "only what was missing: {}", again.stderr);
    assert_eq!((&read(lost)["answers"], &read(lost)["means"]), (&before["answers"], &before["means"]));
    assert_eq!(out.join("cells").join(kept).metadata().unwrap().modified().unwrap(), stamp);

    let other = study(&["--steps", "3"]);
    assert!(other.code == 2 && other.stderr.contains("other settings"), "{other:?}");
    // A work folder serves one study. A changed adapter is trained again and does not mix with
    // another's results.
    let (elsewhere, work) = (dir.path().join("elsewhere"), out.join("work"));
    let settings = [&settings[..], &["--lr", "1e-3", "--work", arg(&work), "--out", arg(&elsewhere)]].concat();
    let shared = run(&[&["study", "--device", "cpu"][..], &settings].concat());
    assert!(shared.code == 2 && shared.stderr.contains("other settings") && !elsewhere.exists(), "{shared:?}");
    let adapter = work.join("LRSA-tuned-seed-1/adapter_model.safetensors");
    let (trained, foreign) =
        (std::fs::read(&adapter).unwrap(), work.join("LRSA-tuned-seed-0/adapter_model.safetensors"));
    std::fs::copy(foreign, &adapter).unwrap();
    std::fs::remove_file(out.join("cells").join(lost)).unwrap();
    let again = study(&[]);
    assert!(again.code == 0 && again.stderr.contains("training LRSA-tuned-seed-1"), "{again:?}");
    assert_eq!(std::fs::read(&adapter).unwrap(), trained, "the same adapter again");
    assert!(read(lost)["adapter"].as_str().is_some_and(|sum| sum.starts_with("crc32 ")), "{}", read(lost));
    let mut cell = read("LRSA-tuned-seed-1-dense.json");
    cell["adapter"] = "crc32 00000000".into();
    std::fs::write(out.join("cells/LRSA-tuned-seed-1-dense.json"), cell.to_string()).unwrap();
    std::fs::remove_file(out.join("cells").join(lost)).unwrap();
    let mixed = study(&[]);
    assert!(mixed.code == 1 && mixed.stderr.contains("another adapter"), "{mixed:?}");

    std::fs::write(out.join("cells").join(lost), "{}").unwrap();
    let broken = study(&[]);
    assert!(broken.code == 1 && broken.stderr.contains(lost), "{broken:?}");
}
