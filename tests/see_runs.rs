//! What a person sees of a run: its files for other programs, plots, the last lines, and the bundled
//! model and data by their names.

mod program;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use program::{Run, arg, project, run};
use serde_json::Value;

/// Trains an adapter of the bundled model on the bundled data.
fn train(out: &Path, more: &[&str]) -> Run {
    let args = ["train", "--device", "cpu", "--model", "stories260k", "--data", "moby-dick", "--max-length", "48"];
    run(&[&args[..], &["--sink", "4", "--lag", "16", "--rank", "2", "--out", arg(out)], more].concat())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn only_event_file(out: &Path) -> Vec<u8> {
    let files: Vec<_> = std::fs::read_dir(out.join("tensorboard")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    std::fs::read(&files[0]).unwrap()
}

/// The number of records in a TFRecord file; fails if the last one is not whole.
fn n_records(mut bytes: &[u8]) -> usize {
    let mut n = 0;
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes = &bytes[16 + length..];
        n += 1;
    }
    n
}

#[test]
fn a_run_leaves_its_curves_for_other_programs_and_says_what_to_type_next() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("my run");
    let done = train(&out, &["--steps", "6", "--save-every", "2", "--eval-every", "3"]);
    assert_eq!(done.code, 0, "{done:?}");

    let state = read_json(&out.join("trainer_state.json"));
    assert_eq!((&state["global_step"], &state["max_steps"]), (&6.into(), &6.into()));
    let history = state["log_history"].as_array().unwrap();
    let with = |key: &str| history.iter().filter(|entry| entry.get(key).is_some()).count();
    assert_eq!((with("loss"), with("keep"), with("eval_loss"), history.len()), (6, 6, 2, 8));
    assert!(state["epoch"].as_f64().unwrap() > 0.0 && state["num_train_epochs"] == 1);
    let best = Path::new(state["best_model_checkpoint"].as_str().unwrap());
    assert!(best.join("adapter_config.json").is_file());
    let checkpoint = out.join("checkpoints").join(format!("step-{}", state["best_global_step"]));
    assert_eq!(best.canonicalize().unwrap(), checkpoint.canonicalize().unwrap());
    let of_step_4 = read_json(&out.join("checkpoints/step-4/trainer_state.json"));
    assert_eq!((&of_step_4["global_step"], of_step_4["log_history"].as_array().unwrap().len()), (&4.into(), 5));
    assert_eq!(read_json(&out.join("checkpoints/step-6/trainer_state.json")), state, "with the last evaluation");
    assert_eq!(n_records(&only_event_file(&out)), 1 + 6 + 2, "a version, the steps and the evaluations");

    let quoted = format!("'{}'", out.display());
    let next: Vec<&str> = done.stdout.lines().skip_while(|line| *line != "next:").skip(1).map(str::trim).collect();
    let generate =
        format!("longreach generate --model stories260k --adapter {quoted} --prompt \"Once upon a time\" --echo");
    assert_eq!(next, [generate, format!("longreach plot {quoted}")]);
    for file in ["adapter_model.safetensors", "checkpoints", "metrics.jsonl", "eval.jsonl", "tensorboard"] {
        assert!(done.stdout.contains(file), "{done:?}");
    }
    let args = ["generate", "--device", "cpu", "--model", "stories260k", "--adapter", arg(&out)];
    let said = run(&[&args[..], &["--prompt", "Once upon a time", "--echo", "--max-tokens", "8"]].concat());
    assert!(said.code == 0 && said.stdout.starts_with("Once upon a time"), "{said:?}");
    let plot = run(&["plot", arg(&out)]);
    assert!(plot.code == 0 && plot.stdout.contains("plot.svg"), "{plot:?}");
    let svg = std::fs::read_to_string(out.join("plot.svg")).unwrap();
    // Two steps in four have the dense cache, one r = 1/4 and one r = 1/8.
    let seen = ["Loss of my run", "dense", "4x", "8x", "validation"];
    assert!(seen.iter().all(|text| svg.contains(text)), "{svg}");
    let by_cache = "loss by cache, over the last quarter of its steps: dense ";
    let losses = done.stdout.lines().find_map(|line| line.strip_prefix(by_cache)).unwrap_or_else(|| panic!("{done:?}"));
    assert!(losses.contains(", 4x ") && losses.contains(", 8x "), "{losses}");
    let decoder = png::Decoder::new(BufReader::new(std::fs::File::open(out.join("plot.png")).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut dots = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut dots).unwrap();
    assert!(dots.chunks(3).filter(|dot| *dot == [0, 114, 178]).count() > 500, "the curve is drawn");
}

#[test]
fn a_stopped_or_killed_run_repeats_no_step_in_the_event_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let flags = ["--steps", "400", "--save-every", "3"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_longreach"));
    child.args(["train", "--device", "cpu", "--model", "stories260k", "--data", "moby-dick", "--max-length", "48"]);
    child.args(["--sink", "4", "--lag", "16", "--rank", "2", "--out", arg(&out)]).args(flags);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let n_lines = || std::fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    while n_lines() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    n_records(&only_event_file(&out)); // whole records
    let done = train(&out, &flags);
    assert!(done.code == 0 && done.stderr.contains("resumes after step"), "{done:?}");
    assert_eq!(n_lines(), 400);
    assert_eq!(n_records(&only_event_file(&out)), 1 + 400 + 1);
}

#[test]
fn a_plot_needs_runs_and_a_name_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    for (args, word) in [
        (&["plot"][..], "RUN"),
        (&["plot", arg(dir.path())], "metrics.jsonl"),
        (&["plot", arg(dir.path()), "--out", "plot.jpg"], ".svg or .png"),
        (&["plot", arg(dir.path()), "--what", "accuracy"], "tokens-per-second"),
    ] {
        let got = run(args);
        assert!(got.code == 2 && got.stderr.contains(word), "{args:?}: {got:?}");
    }
}

#[test]
fn the_bundled_model_and_data_have_names() {
    let info = run(&["info", "--model", "stories260k"]);
    assert!(info.code == 0 && info.stdout.contains("llama"), "{info:?}");
    let data = run(&["data", "--model", "stories260k", "--data", "moby-dick", "--examples", "1", "--json"]).json();
    let parts = data["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 2, "training and validation");
    let longest = parts.iter().map(|part| part["tokens"]["max"].as_u64().unwrap()).max().unwrap();
    assert!((300..=512).contains(&longest), "{longest} tokens fit the model, and LRSA compresses them");
    let unknown = run(&["train", "--model", "stories260k", "--data", "absent", "--out", "never"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("moby-dick"), "{unknown:?}");
    let unknown = run(&["generate", "--model", "absent", "--prompt", "a"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("stories260k"), "{unknown:?}");
}

#[test]
fn an_adapter_on_other_weights_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    assert_eq!(train(&out, &["--steps", "1"]).code, 0);
    let record = read_json(&out.join("longreach.json"));
    assert_eq!((&record["attention"], &record["base"]["model"]), (&"lrsa".into(), &"stories260k".into()));
    let generate = |model: &Path| {
        let args = ["generate", "--device", "cpu", "--max-tokens", "1", "--prompt", "a", "--adapter", arg(&out)];
        let got = run(&[&args[..], &["--model", arg(model)]].concat());
        assert_eq!(got.code, 0, "{got:?}");
        got.stderr
    };
    let bundled = project("assets/stories260k");
    assert!(!generate(&bundled).contains("trained on the weights"), "the same weights in a folder");
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(bundled.join(file), other.join(file)).unwrap();
    }
    let mut bytes = std::fs::read(other.join("model.safetensors")).unwrap();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    std::fs::write(other.join("model.safetensors"), bytes).unwrap();
    let said = generate(&other);
    assert!(said.contains("trained on the weights of stories260k") && said.contains(arg(&other)), "{said}");
}

#[test]
fn what_is_echoed_comes_before_the_answer() {
    let base =
        ["generate", "--device", "cpu", "--model", "stories260k", "--prompt", "Once upon a time", "--max-tokens", "9"];
    let plain = run(&base);
    let echoed = run(&[&base[..], &["--echo"]].concat());
    assert_eq!(echoed.stdout, format!("Once upon a time{}", plain.stdout));
    let json = run(&[&base[..], &["--echo", "--json"]].concat()).json();
    assert_eq!(json["text"], echoed.stdout.trim_end_matches('\n'));
    assert_eq!(json["ids"].as_array().unwrap().len() as u64, json["prompt_tokens"].as_u64().unwrap() + 9);
}

#[test]
fn a_closed_standard_output_ends_the_program_quietly() {
    for args in [&["info"][..], &["generate", "--device", "cpu", "--model", "stories260k", "--prompt", "a"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
        let done = command.args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(141), "{args:?}: {stderr}");
        assert!(!stderr.contains("error") && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

#[cfg(all(feature = "app", unix, not(target_os = "macos")))]
#[test]
fn the_app_without_a_display_says_what_to_do() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
    for name in ["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"] {
        command.env_remove(name);
    }
    let done = command.arg("app").output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("no display") && stderr.contains("longreach generate"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn an_evaluation_that_is_stopped_reports_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
    command.args(["eval", "needle", "--device", "cpu", "--model", "stories260k", "--attentions", "dense"]);
    command.args(["--lengths", "300", "--depths", "0.5", "--samples", "2000", "--out", arg(dir.path())]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "1 of 2000 answers"), "the first answer is announced");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("stopped after ")), "{rest:?}");
    let report = read_json(&dir.path().join("report.json"));
    let answered = report["outcomes"].as_array().unwrap().len() as u64;
    assert!((1..2000).contains(&answered), "{answered}");
    assert_eq!(report["stopped_after"], serde_json::json!([answered, 2000]));
    assert!(String::from_utf8_lossy(&done.stdout).contains(&format!("Stopped after {answered} of 2000")));
}
