//! Tests of the state of the page for fine-tuning: its run, its validation and its command line.

use std::path::PathBuf;

use clap::Parser;

use super::checked_run::testing::checked;
use super::data_counts::DataCounts;
use super::form::{Form, Preset};
use super::message::{Command, Event};
use super::state::{Action, App, Effect, Page, Pick};
use super::state_tests::{card, opened, step, summary};
use super::tune::{RunState, TuneAction};
use crate::checkpoint::record::AttentionRecord;
use crate::train::{EvalLine, Keep, Method, TrainJob};

pub(super) fn evaluation(step: u64, loss: f64) -> EvalLine {
    EvalLine { step, loss, perplexity: Some(loss.exp()), pairs: None, tokens: 10 }
}

fn counts(path: &str, n_train: usize, n_valid: usize) -> DataCounts {
    DataCounts { path: path.into(), n_train, n_valid, problem: None }
}

/// An app whose page describes a run.
pub(super) fn described() -> App {
    let mut app = opened();
    (app.tune.data, app.tune.out, app.settings.model) = ("data".into(), "runs/a".into(), "dir/m.gguf".into());
    app
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    train: crate::cli::TrainArgs,
}

/// The job that the command line describes.
fn parsed(line: &str) -> TrainJob {
    let mut words: Vec<String> = Vec::new();
    for (i, part) in line.split('"').enumerate() {
        if i % 2 == 1 { words.push(part.into()) } else { words.extend(part.split_whitespace().map(String::from)) }
    }
    let parsed = Line::try_parse_from(&words[1..]).unwrap_or_else(|e| panic!("{line}: {e}"));
    parsed.train.described()
}

#[test]
fn the_command_line_describes_the_same_run() {
    let mut app = described();
    app.tune.data = "my data".into();
    let check = |app: &App| {
        let (line, job) = (app.command_line().unwrap(), app.job().unwrap());
        assert_eq!(parsed(&line), job, "{line}");
        job
    };
    for (factor, recompute) in [(1, false), (4, true), (8, false)] {
        (app.tune.factor, app.tune.recompute) = (factor, recompute);
        for preset in Preset::ALL {
            app.tune.form = Form::of(preset);
            check(&app);
        }
    }
    for (name, text) in [
        ("rank", "8"),
        ("alpha", "12.5"),
        ("targets", "q_proj,v_proj"),
        ("layers", "0,2-4"),
        ("modules_to_save", "embed_tokens,lm_head"),
        ("dora", "true"),
        ("lr", "3e-4"),
        ("max_length", "512"),
        ("long", "window"),
        ("accumulate", "4"),
        ("batch_tokens", "auto"),
        ("chunk", "256"),
        ("keep", "1,0.5..0.125"),
        ("sink", "4"),
        ("lag", "64"),
        ("distill", "0.5"),
        ("teacher", "self"),
        ("optimizer", "lion"),
        ("schedule", "wsd"),
        ("decay_ratio", "0.3"),
        ("eval_every", "7"),
        ("valid_fraction", "0.25"),
        ("early_stop", "2"),
        ("keep_checkpoints", "3"),
        ("seed", "9"),
    ] {
        app.tune.form.set(name, text);
    }
    let job = check(&app);
    assert_eq!((job.eval_every, job.valid_fraction, job.seed), (7, Some(0.25), 9));
    assert_eq!(job.attention, Some(AttentionRecord::Lrsa { sink: 4, lag: 64, keep: 1.0 }));
    assert_eq!(job.keeps, Some(vec![Keep::Fixed(1.0), Keep::Anneal { from: 0.5, to: 0.125 }]));
    app.tune.form.set("keep", "0.25");
    assert_eq!(check(&app).keeps, Some(vec![]), "one r in every step");
    app.tune.factor = 1;
    assert!(app.job().unwrap_err().to_string().contains("`keep`"), "a dense cache keeps everything");
    (app.tune.factor, _) = (8, app.tune.form.set("keep", ""));
    assert_eq!(check(&app).keeps, None);
    assert!(app.command_line().unwrap().contains("--attention 8x"));
    app.settings.model.clear();
    assert!(app.command_line().unwrap().contains("--model stories260k"));
}

#[test]
fn a_run_has_validation_whatever_its_data_holds() {
    let mut app = described();
    let validation = |app: &App| app.job().map(|job| (job.valid_fraction, job.eval_every)).unwrap();
    assert_eq!(validation(&app), (Some(0.1), 10), "before the data is counted");
    app.tune.data = "other".into();
    assert_eq!(app.on_action(Action::Tune(TuneAction::CountData)), [Effect::CountData("other".into())]);
    app.on_event(Event::DataCounted(counts("other", 800, 0)));
    assert_eq!(validation(&app), (Some(0.0625), 16), "50 of them, with 6 evaluations");
    app.on_event(Event::DataCounted(counts("other", 800, 20)));
    assert_eq!(validation(&app), (None, 10), "it has its own");
    assert!(app.on_action(Action::Tune(TuneAction::CountData)).is_empty(), "counted already");
    app.tune.form.set("valid_fraction", "0.3");
    assert_eq!(validation(&app), (None, 10), "which takes the place of what is held out");
    app.tune.form.set("valid_fraction", "0");
    app.tune.form.set("eval_every", "33");
    assert_eq!(validation(&app), (None, 33));
    let picked = app.on_action(Action::Picked(Pick::Data, "third".into()));
    assert_eq!(picked, [Effect::CountData("third".into())]);
    // The counts of other data do not matter.
    app.tune.form = Form::default();
    assert_eq!(validation(&app), (Some(0.1), 10));
}

#[test]
fn what_cannot_be_trained_is_said_and_not_started() {
    let mut app = described();
    for (name, text, said) in [("rank", "x", "rank cannot be 'x'"), ("distill", "2", "distill")] {
        app.tune.form = Form::default();
        app.tune.form.set(name, text);
        assert!(app.on_action(Action::Train).is_empty());
        assert!(app.notices.len() == 1 && app.notices[0].text.contains(said), "{:?}", app.notices);
        assert_eq!((app.busy, app.command_line()), (None, None));
    }
    app.tune.form = Form::default();
    assert_eq!(app.on_action(Action::Train).len(), 2);
    assert!(app.notices.is_empty(), "the complaint is out of date");
}

/// An app in the middle of a run.
pub(super) fn running() -> App {
    let mut app = described();
    app.on_action(Action::Train);
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    app.on_event(Event::TrainStarted { steps: 100, examples: 9 });
    (1..=4).for_each(|n| drop(app.on_event(Event::TrainStep(step(n)))));
    app
}

#[test]
fn a_paused_run_has_no_time_left() {
    let mut app = running();
    assert_eq!((app.tune.seconds_left(), app.tune.waits()), (Some(192.0), None));
    app.on_action(Action::Pause(true));
    assert_eq!((app.tune.seconds_left(), app.tune.waits()), (None, Some("Training is paused")));
    app.on_action(Action::Pause(false));
    assert_eq!((app.tune.seconds_left(), app.tune.waits()), (Some(192.0), None));
    app.on_event(Event::SaveFailed("no space".into()));
    assert!(app.tune.waits().is_some_and(|text| text.contains("not saved")));
}

#[test]
fn results_belong_to_the_settings_they_were_made_with() {
    let mut app = running();
    app.on_event(Event::TrainEvaluated(evaluation(4, 1.5)));
    app.on_event(Event::DataCounted(counts("data", 40, 0)));
    app.on_event(Event::Trained(summary()));
    app.on_event(Event::Opened(card()));
    assert!(!app.describes_another(), "counting the data changes no setting");
    assert_eq!((app.tune.validation(), app.tune.run.clone()), (vec![[4.0, 1.5]], RunState::Done(summary())));
    (app.tune.factor, app.settings.model, app.tune.method) = (8, "other.gguf".into(), Method::Full);
    app.tune.out = "runs/b".into();
    assert!(app.describes_another());
    // The chat gets the model and the cache of the run, not those of the settings.
    let effects = app.on_action(Action::ChatWithAdapter);
    let Some(Effect::Send(Command::Open(choice))) = effects.first() else { panic!("{effects:?}") };
    assert_eq!((choice.model.as_str(), choice.adapter.clone()), ("dir/m.gguf", Some(PathBuf::from("runs/a"))));
    assert_eq!((app.settings.factor, app.page), (4, Page::Chat));
}

#[test]
fn a_run_that_resumes_goes_on_where_it_was() {
    let mut app = running();
    app.on_event(Event::TrainStep(step(3)));
    let steps: Vec<u64> = app.tune.steps.iter().map(|line| line.step).collect();
    assert_eq!((steps, app.tune.n_steps()), (vec![1, 2, 3], 3));
    app.on_event(Event::TrainEvaluated(evaluation(5, 1.0)));
    app.on_event(Event::TrainEvaluated(evaluation(5, 0.5)));
    assert_eq!(app.tune.validation(), [[5.0, 0.5]]);
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    app.on_event(Event::TrainStarted { steps: 100, examples: 9 });
    (61..=62).for_each(|n| drop(app.on_event(Event::TrainStep(step(n)))));
    assert_eq!((app.tune.n_steps(), app.tune.seconds_left()), (62, Some(76.0)), "38 steps of 2 s");
}

#[test]
fn a_check_belongs_to_the_run_it_was_of() {
    let mut app = described();
    let effects = app.on_action(Action::CheckRun);
    let [Effect::Send(Command::Forecast { job, device })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&**job, device.as_str()), (&app.job().unwrap(), "auto"));
    assert_eq!(app.checked(), None);
    // The worker closes the model for the measured step, and the app opens it again.
    app.on_event(Event::Closed);
    let effects = app.on_event(Event::Forecast(Box::new(checked())));
    assert!(matches!(&effects[..], [Effect::Send(Command::Open(_))]), "{effects:?}");
    app.on_event(Event::Opened(card()));
    app.on_event(Event::DataCounted(counts("data", 40, 0)));
    assert_eq!(app.checked(), Some(&checked()));
    let changes: [fn(&mut App); 4] = [
        |app| app.tune.recompute = true,
        |app| app.settings.device = "cpu".into(),
        |app| app.tune.data = "other".into(),
        |app| app.tune.form.set("batch_size", "8"),
    ];
    for change in changes {
        let mut other = app.clone();
        change(&mut other);
        assert_eq!(other.checked(), None);
    }
}
