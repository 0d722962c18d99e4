//! Tests of the worker on runs: validation, resuming, the list of runs, and exports, with the bundled
//! model on the CPU.

use std::path::Path;

use super::message::{Command, Event};
use super::worker_tests::{Window, run_in, train};
use crate::checkpoint::bundled;
use crate::export::{ExportFormat, ExportJob, WeightType};
use crate::train::{PastRun, PastState, TrainJob};

/// A run of four steps with validation data that is held out.
fn short_run(dir: &Path) -> TrainJob {
    let run = run_in(dir);
    let model = bundled::NAME.to_string();
    TrainJob { model, steps: Some(4), valid_fraction: Some(0.25), eval_every: 2, ..run }
}

fn ends(event: &Event) -> bool {
    matches!(event, Event::Trained(_) | Event::Failed(_) | Event::Restarted(_))
}

#[test]
fn a_run_evaluates_on_what_it_holds_out_or_on_the_validation_data() {
    let dir = tempfile::tempdir().unwrap();
    let job = short_run(dir.path());
    let mut window = Window::new();
    let evaluated = |window: &mut Window, job: &TrainJob| -> (Vec<u64>, Option<f64>) {
        window.worker.send(train(job, true));
        let heard = window.until(ends);
        assert!(matches!(heard.last(), Some(Event::Trained(_))), "{heard:?}");
        let steps = heard.iter().filter_map(|e| if let Event::TrainEvaluated(e) = e { Some(e.step) } else { None });
        let began =
            heard.iter().find_map(|e| if let Event::TrainBegan(job) = e { Some(job.valid_fraction) } else { None });
        (steps.collect(), began.expect("it began"))
    };
    assert_eq!(evaluated(&mut window, &job), (vec![2, 4], Some(0.25)));
    std::fs::copy(job.data.join("train.jsonl"), job.data.join("valid.jsonl")).unwrap();
    assert_eq!(evaluated(&mut window, &job), (vec![2, 4], None), "nothing is held out beside the validation data");
}

#[test]
fn a_stopped_run_is_listed_resumed_and_finished() {
    let dir = tempfile::tempdir().unwrap();
    let job = TrainJob { steps: Some(300), ..short_run(dir.path()) };
    let mut window = Window::new();
    window.worker.send(train(&job, false));
    window.until(|e| matches!(e, Event::TrainEvaluated(e) if e.step == 2));
    window.worker.control.stop();
    window.until(ends);
    let list = || PastRun::find(&[dir.path().into()], 9);
    let [run] = &list()[..] else { panic!("{:?}", list()) };
    let saved = run.saved_at.unwrap();
    assert!(run.state == PastState::Stopped && run.is_resumable() && (2..300).contains(&saved), "{:?}", run.state);
    assert_eq!((run.n_steps(), run.best.is_some(), run.best_checkpoint.is_some()), (saved, true, true));
    // It goes on with the step after its checkpoint.
    window.worker.send(train(&TrainJob { resume: true, ..run.job.clone() }, false));
    let heard = window.until(|e| ends(e) || matches!(e, Event::TrainStep(_)));
    assert!(matches!(heard.last(), Some(Event::TrainStep(line)) if line.step == saved + 1), "{heard:?}");
    window.worker.control.stop();
    window.until(ends);
    // A run with other settings says so, instead of asking whether it may replace this one.
    let other = TrainJob { resume: true, rank: Some(3), ..run.job.clone() };
    window.worker.send(train(&other, false));
    let heard = window.until(ends);
    assert!(matches!(heard.last(), Some(Event::Failed(why)) if why.contains("rank 2, not 3")), "{heard:?}");
}

#[test]
fn a_run_that_fails_is_listed_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let job = TrainJob { lr: Some(1e30), clip: 0.0, valid_fraction: None, eval_every: 0, ..short_run(dir.path()) };
    let mut window = Window::new();
    window.worker.send(train(&TrainJob { steps: Some(40), ..job }, false));
    let heard = window.until(ends);
    let Some(Event::Failed(why)) = heard.last() else { panic!("{heard:?}") };
    let [run] = &PastRun::find(&[dir.path().into()], 9)[..] else { panic!("one run") };
    let PastState::Failed(listed) = &run.state else { panic!("{:?}", run.state) };
    assert_eq!(super::labels::in_words(listed), *why);
}

#[test]
fn exports_are_verified_and_replace_nothing_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let job = TrainJob { steps: Some(2), ..short_run(dir.path()) };
    let mut window = Window::new();
    window.worker.send(train(&job, false));
    window.until(ends);
    let at = |name: &str| dir.path().join(name);
    let export = |to, name: &str, quantise| ExportJob {
        model: bundled::NAME.into(),
        adapter: Some(job.out.clone()),
        rope_scaling: None,
        to,
        quantise,
        out: at(name),
        text: None,
    };
    let send = |window: &mut Window, job: &ExportJob, replace| {
        window.worker.send(Command::Export { job: Box::new(job.clone()), device: "cpu".into(), replace });
        let is_end = |e: &Event| {
            let is_over = matches!(e, Event::Exported { .. } | Event::ExportExists(_) | Event::ExportStopped);
            is_over || ends(e)
        };
        window.until(is_end)
    };
    window.open();
    for (to, name, kind) in [
        (ExportFormat::Gguf, "m.gguf", Some(WeightType::Q8_0)),
        (ExportFormat::AdapterGguf, "a.gguf", None),
        (ExportFormat::Hf, "merged", Some(WeightType::F16)),
    ] {
        let heard = send(&mut window, &export(to, name, kind), false);
        let Some(Event::Exported { out, exported }) = heard.last() else { panic!("{heard:?}") };
        assert!(*out == at(name) && out.exists() && exported.bytes > 1000, "{exported:?}");
        let largest = exported.kind.largest_divergence();
        assert!(exported.comparison.tokens > 50 && exported.comparison.divergence <= largest, "{exported:?}");
    }
    let file = export(ExportFormat::Gguf, "m.gguf", Some(WeightType::F16));
    let before = std::fs::read(at("m.gguf")).unwrap();
    assert_eq!(send(&mut window, &file, false), [Event::ExportExists(at("m.gguf"))]);
    assert_eq!(std::fs::read(at("m.gguf")).unwrap(), before);
    let heard = send(&mut window, &file, true);
    assert!(matches!(heard.last(), Some(Event::Exported { out, .. }) if *out == at("m.gguf")), "{heard:?}");
    assert!(std::fs::metadata(at("m.gguf")).unwrap().len() > before.len() as u64, "16 bits rather than 8.5");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with('.')), "{names:?}");
    // A folder is never replaced, and the message says what to do.
    let heard = send(&mut window, &export(ExportFormat::Hf, "merged", None), true);
    assert!(matches!(heard.last(), Some(Event::Failed(why)) if why.contains("give another name")), "{heard:?}");
    let heard = send(&mut window, &export(ExportFormat::Gguf, "model.bin", None), false);
    assert!(matches!(heard.last(), Some(Event::Failed(why)) if why.contains("model.bin.gguf")), "{heard:?}");
    window.worker.send(Command::Export {
        job: Box::new(export(ExportFormat::Gguf, "stopped.gguf", None)),
        device: "cpu".into(),
        replace: false,
    });
    window.worker.control.stop();
    let heard = window.until(|e| ends(e) || matches!(e, Event::ExportStopped | Event::Exported { .. }));
    assert!(matches!(heard.last(), Some(Event::ExportStopped)) && !at("stopped.gguf").exists(), "{heard:?}");
}
