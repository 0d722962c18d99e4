//! Tests of the list of runs and of exports, without a window.

use std::path::{Path, PathBuf};

use super::conversations::Order;
use super::exporting::{ExportState, Exporting};
use super::message::{Command, Event};
use super::state::{Action, App, Busy, Effect, Page, Pick};
use super::state_tests::{answer, ask, card, step, summary};
use super::tune::TuneAction;
use super::tune_tests::{described, evaluation};
use crate::checkpoint::record::AttentionRecord;
use crate::export::{Comparison, ExportFormat, Exported, WeightType};
use crate::train::{Logs, Method, PastRun, PastState, TrainJob};

fn act(app: &mut App, action: TuneAction) -> Vec<Effect> {
    app.on_action(Action::Tune(action))
}

/// A run that was stopped at step 4 of 9, with its best checkpoint at step 2.
pub(super) fn stopped(name: &str) -> PastRun {
    let out = Path::new("/runs").join(name);
    PastRun {
        best_checkpoint: Some(out.join("checkpoints/step-2")),
        job: TrainJob {
            model: "dir/m.gguf".into(),
            data: "data".into(),
            out,
            steps: Some(9),
            attention: Some(AttentionRecord::Lrsa { sink: 4, lag: 64, keep: 0.125 }),
            ..TrainJob::default()
        },
        state: PastState::Stopped,
        logs: Logs { steps: (1..=4).map(step).collect(), evaluations: vec![evaluation(2, 0.5), evaluation(4, 0.75)] },
        saved_at: Some(3),
        has_result: true,
        best: Some(evaluation(2, 0.5)),
        changed: 1_796_000_000,
    }
}

/// A finished run with other settings.
pub(super) fn finished(name: &str) -> PastRun {
    let run = stopped(name);
    let job = TrainJob { rank: Some(8), dora: true, steps: Some(4), ..run.job };
    PastRun { job, state: PastState::Finished, ..run }
}

pub(super) fn exported() -> Exported {
    let comparison = Comparison { tokens: 192, largest_difference: 3e-4, divergence: 2e-9, same_choice: 192 };
    Exported { kind: WeightType::F16, bytes: 5 << 20, comparison }
}

/// An app with two runs in its list.
pub(super) fn listing() -> App {
    let mut app = described();
    act(&mut app, TuneAction::ShowRuns(true));
    app.on_event(Event::Runs(vec![finished("b"), stopped("a")]));
    app
}

#[test]
fn runs_are_looked_for_where_runs_were_saved() {
    let mut app = described();
    assert!(!app.tune.history.is_shown && app.tune.history.runs.is_none());
    app.settings.runs = vec!["/runs".into(), "/more".into()];
    app.settings.out = "/runs/last".into();
    let folders = ["/runs", "/more", "runs"].map(PathBuf::from).to_vec();
    assert_eq!(act(&mut app, TuneAction::ShowRuns(true)), [Effect::ReadRuns(folders.clone())]);
    assert_eq!(act(&mut app, TuneAction::ReadRuns), [Effect::ReadRuns(folders.clone())]);
    // A run that begins is remembered, and one that ends is listed.
    app.on_action(Action::Train);
    let job = TrainJob { out: "/new/x".into(), ..app.job().unwrap() };
    assert_eq!(app.on_event(Event::TrainBegan(Box::new(job))), [Effect::SaveSettings]);
    assert_eq!(app.settings.runs, ["/new", "/runs", "/more"]);
    let effects = app.on_event(Event::Trained(summary()));
    let reads = |effect: &Effect| matches!(effect, Effect::ReadRuns(folders) if folders[0] == Path::new("/new"));
    assert!(effects.iter().any(reads), "{effects:?}");
    assert!(act(&mut app, TuneAction::ShowRuns(false)).is_empty());
    // The run that has ended is shown in the list, once it is read.
    assert_eq!(act(&mut app, TuneAction::ShowRun("/runs/a".into())).len(), 1);
    app.on_event(Event::Runs(vec![finished("b"), stopped("a")]));
    assert_eq!(app.tune.history.chosen(), Some(&stopped("a")));
}

#[test]
fn a_run_is_chosen_and_several_are_compared() {
    let mut app = listing();
    let names = |app: &App| -> Vec<String> {
        app.tune.history.drawn().iter().map(|run| run.job.out.display().to_string()).collect()
    };
    assert!(names(&app).is_empty() && app.tune.history.chosen().is_none());
    act(&mut app, TuneAction::Choose("/runs/a".into()));
    assert_eq!(names(&app), ["/runs/a"]);
    for dir in ["/runs/a", "/runs/b"] {
        act(&mut app, TuneAction::Compare(dir.into(), true));
    }
    assert_eq!(names(&app), ["/runs/b", "/runs/a"], "in the order of the list");
    let rows = app.tune.history.differences();
    let expected = [("steps", ["4", "9"]), ("rank", ["8", "default"]), ("dora", ["on", "default"])];
    let mut found: Vec<(&str, [&str; 2])> =
        rows.iter().map(|(name, texts)| (name.as_str(), [texts[0].as_str(), texts[1].as_str()])).collect();
    found.sort_by_key(|(name, _)| expected.iter().position(|(known, _)| known == name));
    assert_eq!(found, expected);
    act(&mut app, TuneAction::Compare("/runs/b".into(), false));
    assert_eq!(names(&app), ["/runs/a"]);
    // A run that is gone is neither chosen nor compared.
    app.on_event(Event::Runs(vec![finished("b")]));
    assert!(names(&app).is_empty() && app.tune.history.chosen().is_none());
    act(&mut app, TuneAction::Choose("/runs/b".into()));
    act(&mut app, TuneAction::Choose("/runs/b".into()));
    assert!(app.tune.history.chosen().is_none(), "chosen twice");
}

#[test]
fn a_stopped_run_resumes_with_its_own_settings() {
    let mut app = listing();
    assert!(stopped("a").is_resumable() && !finished("b").is_resumable());
    let effects = act(&mut app, TuneAction::Resume("/runs/a".into()));
    let [Effect::Send(Command::Train { job, replace: false, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(**job, TrainJob { resume: true, ..stopped("a").job });
    assert!(!app.tune.history.is_shown, "the page shows its progress");
    // The curve goes on from the checkpoint.
    app.on_event(Event::TrainBegan(job.clone()));
    app.on_event(Event::TrainStarted { steps: 9, examples: 4 });
    assert_eq!((app.tune.n_steps(), app.tune.validation()), (3, vec![[2.0, 0.5]]));
    app.on_event(Event::TrainStep(step(4)));
    assert_eq!(app.tune.steps.len(), 4);
    assert!(act(&mut app, TuneAction::Resume("/runs/a".into())).is_empty(), "one run at a time");
}

#[test]
fn the_chat_opens_what_a_run_saved() {
    let mut app = listing();
    app.conversations.fresh_id = "first".into();
    ask(&mut app, "Who?");
    app.on_event(Event::Answered(answer("Ahab.")));
    let folder = PathBuf::from("/runs/a/checkpoints/step-2");
    let effects = act(&mut app, TuneAction::ChatWith("/runs/a".into(), folder.clone()));
    let written =
        effects.iter().find_map(|e| if let Effect::Store(Order::Write(c)) = e { Some(c.factor) } else { None });
    assert_eq!(written, Some(4), "the chat before it keeps its cache");
    let choice = effects.iter().find_map(|e| if let Effect::Send(Command::Open(c)) = e { Some(c) } else { None });
    let choice = choice.expect("the model opens");
    assert_eq!((choice.model.as_str(), &choice.adapter), ("dir/m.gguf", &Some(folder)));
    assert_eq!((app.settings.sink, app.settings.lag, app.settings.factor), (4, 64, 8));
    assert_eq!(app.page, Page::Chat);
    app.on_event(Event::Opened(card()));
    let full = PastRun { job: TrainJob { method: Method::Full, ..stopped("c").job }, ..stopped("c") };
    app.on_event(Event::Runs(vec![full]));
    let effects = act(&mut app, TuneAction::ChatWith("/runs/c".into(), "/runs/c".into()));
    let Some(Effect::Send(Command::Open(choice))) = effects.first() else { panic!("{effects:?}") };
    assert_eq!((choice.model.as_str(), &choice.adapter), ("/runs/c", &None));
}

#[test]
fn an_export_describes_what_the_command_line_would() {
    let run = stopped("a");
    let mut export = Exporting::default();
    let job = export.job(&run);
    assert_eq!((job.model.as_str(), job.adapter), ("dir/m.gguf", Some(PathBuf::from("/runs/a"))));
    assert_eq!((job.to, job.quantise, job.out), (ExportFormat::Gguf, None, PathBuf::from("/runs/a.gguf")));
    (export.kind, export.is_best) = (Some(WeightType::Q8_0), true);
    let job = export.job(&run);
    assert_eq!((job.adapter, job.quantise), (run.best_checkpoint.clone(), Some(WeightType::Q8_0)));
    assert_eq!(job.out, PathBuf::from("/runs/a-best-q8_0.gguf"));
    export.to = ExportFormat::AdapterGguf;
    assert_eq!(export.job(&run).quantise, None, "an adapter has no such weights");
    (export.kind, export.is_best, export.out) = (None, false, " there.gguf ".into());
    assert_eq!(export.job(&run).out, PathBuf::from("there.gguf"));
    let full = PastRun { job: TrainJob { method: Method::Full, ..run.job.clone() }, ..run };
    (export.to, export.out) = (ExportFormat::Hf, String::new());
    let job = export.job(&full);
    assert_eq!((job.model.as_str(), job.adapter, job.out), ("/runs/a", None, PathBuf::from("/runs/a-hf")));
    assert!(Exporting::formats(Method::Full).iter().all(|(to, _)| *to != ExportFormat::AdapterGguf));
    assert_eq!(Exporting::kinds(ExportFormat::Hf), [WeightType::F32, WeightType::F16, WeightType::Bf16]);
}

#[test]
fn an_export_asks_reports_and_brings_the_model_back() {
    let mut app = listing();
    assert!(act(&mut app, TuneAction::Export { replace: false }).is_empty(), "no run is chosen");
    act(&mut app, TuneAction::Choose("/runs/a".into()));
    let effects = act(&mut app, TuneAction::Export { replace: false });
    let [Effect::Send(Command::Export { job, replace: false, .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((job.out.clone(), app.busy), (PathBuf::from("/runs/a.gguf"), Some(Busy::Exporting)));
    app.on_event(Event::ExportExists("/runs/a.gguf".into()));
    let state = |app: &App| app.tune.export.state_of(Path::new("/runs/a")).clone();
    assert_eq!((state(&app), app.busy), (ExportState::Asks("/runs/a.gguf".into()), None));
    let effects = act(&mut app, TuneAction::Export { replace: true });
    assert!(matches!(&effects[..], [Effect::Send(Command::Export { replace: true, .. })]), "{effects:?}");
    app.on_event(Event::Closed);
    app.on_event(Event::Exporting { done: 3, total: 12 });
    app.on_event(Event::ExportNote("llama.cpp has no part for this".into()));
    assert_eq!(state(&app), ExportState::Writing(3, 12));
    let effects = app.on_event(Event::Exported { out: "/runs/a.gguf".into(), exported: exported() });
    assert!(matches!(&effects[..], [Effect::Send(Command::Open(_))]), "{effects:?}");
    assert_eq!(state(&app), ExportState::Done("/runs/a.gguf".into(), exported()));
    assert_eq!(app.tune.export.state_of(Path::new("/runs/b")), &ExportState::Idle, "the result is of one run");
    app.on_event(Event::Opened(card()));
    act(&mut app, TuneAction::Export { replace: false });
    app.on_event(Event::Failed("out is full: free some space".into()));
    assert_eq!(state(&app), ExportState::Failed("out is full: free some space".into()));
    act(&mut app, TuneAction::Export { replace: false });
    assert_eq!((app.on_action(Action::Stop), state(&app)), (vec![Effect::Stop], ExportState::Writing(0, 0)));
    app.on_event(Event::ExportStopped);
    assert_eq!((state(&app), app.busy), (ExportState::Stopped, None));
    app.on_action(Action::Picked(Pick::Export, "/x.gguf".into()));
    assert_eq!(app.tune.export.out, "/x.gguf");
}
