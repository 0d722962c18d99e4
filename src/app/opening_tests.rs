//! Tests of the app's state when a model cannot be opened or a run cannot be saved.

use std::path::PathBuf;

use super::message::{Command, Event, ModelChoice};
use super::state::{About, Action, App, Busy, Effect, Notice, Page};
use super::state_tests::{answer, ask, card, opened, summary};
use super::tune::RunState;

/// An app with the model `good` open and a conversation.
fn talking() -> App {
    let mut app = opened();
    (app.settings.model, app.settings.adapter) = ("good".into(), "fit".into());
    app.on_action(Action::OpenModel);
    app.on_event(Event::Opened(card()));
    ask(&mut app, "Q");
    app.on_event(Event::Answered(answer("A")));
    app
}

fn good() -> ModelChoice {
    ModelChoice { model: "good".into(), adapter: Some(PathBuf::from("fit")), device: "auto".into() }
}

#[test]
fn a_model_that_cannot_be_opened_leaves_the_open_one() {
    let mut app = talking();
    let context = app.chat.context;
    for model in ["missing", "unreadable"] {
        (app.settings.model, app.settings.adapter) = (model.into(), String::new());
        app.on_action(Action::OpenModel);
        let effects = app.on_event(Event::Failed(format!("{model} cannot be read")));
        assert_eq!(effects, [Effect::SaveSettings], "nothing is opened again: the worker kept it");
        assert_eq!((app.busy, app.chat.model.clone(), app.chat.context), (None, Some(card()), context));
        assert_eq!((app.choice(), app.chat.choice.clone()), (good(), good()));
    }
    let texts: Vec<&str> = app.notices.iter().map(|n| n.text.as_str()).collect();
    assert_eq!(texts, ["unreadable cannot be read"], "one notice about opening");
    ask(&mut app, "still there");
    app.on_event(Event::Answered(answer("yes")));
    app.on_action(Action::OpenModel);
    app.on_event(Event::Opened(card()));
    assert!(app.notices.is_empty());
}

#[test]
fn a_model_that_was_closed_for_another_one_is_opened_again() {
    let ends: [fn(&str) -> Event; 2] = [|why| Event::Failed(why.into()), |why| Event::Restarted(why.into())];
    for end in ends {
        let mut app = talking();
        app.settings.factor = 8;
        app.settings.model = "large".into();
        app.on_action(Action::OpenModel);
        app.on_event(Event::Closed);
        assert!(app.chat.model.is_none());
        let effects = app.on_event(end("out of memory"));
        assert_eq!(effects, [Effect::Send(Command::Open(good())), Effect::SaveSettings]);
        assert_eq!((app.choice(), app.busy), (good(), Some(Busy::Opening)));
        app.on_event(Event::Opened(card()));
        assert_eq!((app.chat.choice.clone(), app.settings.factor, app.chat.turns.len()), (good(), 8, 1));
        assert_eq!(app.notices.len(), 1, "why the large one did not open");
        // What fails twice is not tried a third time.
        app.settings.model = "large".into();
        app.on_action(Action::OpenModel);
        app.on_event(Event::Closed);
        app.on_event(end("out of memory"));
        assert!(app.on_event(end("still out of memory")).is_empty());
        assert_eq!((app.busy, app.notices.len(), app.chat.model.is_none()), (None, 1, true));
        assert!(app.notices[0].text.contains("still"));
    }
}

#[test]
fn what_is_typed_while_a_model_opens_stays() {
    let mut app = talking();
    app.settings.model = "missing".into();
    app.on_action(Action::OpenModel);
    app.settings.model = "being typed".into();
    assert!(app.on_event(Event::Failed("missing".into())).is_empty());
    assert_eq!(app.settings.model, "being typed");
    // Without an open model the name that failed stays, to be corrected.
    let (mut app, _) = App::new(super::settings::Settings { model: "typo".into(), ..Default::default() });
    assert!(app.on_event(Event::Failed("no such folder".into())).is_empty());
    assert_eq!(app.settings.model, "typo");
}

fn unsaved() -> App {
    let mut app = opened();
    (app.tune.data, app.tune.out) = ("data".into(), "out".into());
    app.on_action(Action::Train);
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    app.on_event(Event::SaveFailed("no space".into()));
    app
}

fn run_notices(app: &App) -> Vec<&Notice> {
    app.notices.iter().filter(|n| n.about == About::Run).collect()
}

#[test]
fn every_failed_save_warns_before_the_window_closes() {
    let mut app = unsaved();
    assert!(app.on_action(Action::Close).is_empty());
    assert_eq!((app.page, run_notices(&app).len()), (Page::Tune, 1));
    assert_eq!(app.on_action(Action::SaveAgain(true)), [Effect::Answer(true)]);
    assert!(app.notices.is_empty(), "the warning is out of date");
    app.on_event(Event::SaveFailed("no space again".into()));
    assert!(app.on_action(Action::Close).is_empty(), "warned a second time");
    assert!(run_notices(&app)[0].text.contains("not saved"));
    assert_eq!(app.on_action(Action::Close), [Effect::Close]);
    let mut app = opened();
    assert_eq!(app.on_action(Action::Close), [Effect::Close]);
}

#[test]
fn errors_of_a_run_end_with_it() {
    let mut app = unsaved();
    assert_eq!(run_notices(&app).len(), 1);
    app.on_action(Action::SaveAgain(true));
    app.on_event(Event::SaveFailed("no space".into()));
    app.on_action(Action::SaveAgain(true));
    app.on_event(Event::Trained(summary()));
    assert_eq!((run_notices(&app).len(), app.tune.save_failed.clone()), (0, None));
    app.on_event(Event::Opened(card()));
    // A run that failed says so until the next one starts: on its page, and elsewhere in a notice.
    for (page, n) in [(Page::Tune, 0), (Page::Devices, 1)] {
        let mut app = App { page, ..unsaved() };
        app.on_event(Event::Failed("discarded".into()));
        assert_eq!((run_notices(&app).len(), app.tune.save_failed.clone()), (n, None));
        assert!(matches!(app.tune.run, RunState::Failed(_)));
        app.on_event(Event::Opened(card()));
        app.on_action(Action::Train);
        assert_eq!((run_notices(&app).len(), app.tune.run.clone()), (0, RunState::Idle));
    }
}

#[test]
fn a_stopped_opening_leaves_the_open_model() {
    let mut app = talking();
    app.settings.model = "large".into();
    app.on_action(Action::OpenModel);
    app.on_event(Event::Closed);
    let effects = app.on_event(Event::Stopped);
    assert_eq!(effects, [Effect::Send(Command::Open(good())), Effect::SaveSettings]);
    app.on_event(Event::Opened(card()));
    assert_eq!((app.choice(), app.notices.len(), app.chat.turns.len()), (good(), 0, 1));
    // So does a stopped search for kept tokens.
    app.on_action(Action::ShowKept(true));
    app.on_event(Event::KeptSoFar { done: 1024, total: 5000 });
    assert_eq!((app.busy, app.chat.kept_so_far), (Some(Busy::Keeping), Some((1024, 5000))));
    app.on_event(Event::Stopped);
    assert_eq!((app.busy, app.chat.kept_so_far, app.chat.shows_kept), (None, None, false));
}

#[test]
fn the_window_closes_when_a_run_has_saved_or_at_once_if_asked_twice() {
    let running = || {
        let mut app = opened();
        (app.tune.data, app.tune.out) = ("data".into(), "out".into());
        app.on_action(Action::Train);
        app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
        assert_eq!(app.on_action(Action::Close), [Effect::Stop]);
        assert!(run_notices(&app)[0].text.contains("as soon as"));
        app
    };
    let mut app = running();
    assert!(!app.on_event(Event::TrainSaved(3)).contains(&Effect::Close), "it still works");
    assert_eq!(app.on_event(Event::Trained(summary())).last(), Some(&Effect::Close));
    assert_eq!(running().on_action(Action::Close), [Effect::Close]);
    // What fails is shown.
    let mut app = running();
    assert!(!app.on_event(Event::SaveFailed("no space".into())).contains(&Effect::Close));
    app.on_action(Action::SaveAgain(true));
    assert!(!app.on_event(Event::Trained(summary())).contains(&Effect::Close));
    assert!(!running().on_event(Event::Failed("the device is broken".into())).contains(&Effect::Close));
}

#[test]
fn learnt_weights_are_discarded_only_when_that_is_said_twice() {
    let mut app = unsaved();
    assert!(app.on_action(Action::SaveAgain(false)).is_empty());
    assert!(app.tune.gives_up && app.tune.save_failed.is_some());
    assert_eq!(app.on_action(Action::SaveAgain(false)), [Effect::Answer(false)]);
}

#[test]
fn a_check_of_a_run_that_is_stopped_brings_the_model_back() {
    let mut app = talking();
    (app.tune.data, app.tune.out) = ("data".into(), "out".into());
    app.on_action(Action::CheckRun);
    app.on_event(Event::Closed);
    assert_eq!(app.on_event(Event::Stopped), [Effect::Send(Command::Open(good()))]);
    app.on_event(Event::Opened(card()));
    assert_eq!((app.busy, app.chat.turns.len()), (None, 1));
}
