//! Tests of the app's state machine without a window.

use std::path::PathBuf;

use super::chat::{Dropped, dropped};
use super::conversations::{Order, markdown};
use super::documents::{Document, read_document};
use super::message::{Command, Event, ModelCard, Question};
use super::settings::Settings;
use super::state::{Action, App, Busy, Effect, Page, Pick};
use super::tune::RunState;
use super::turns::{Cut, Turn};
use crate::attention::Attention;
use crate::eval::KeptMap;
use crate::generate::{Answer, StoppedBy};
use crate::train::{StepLine, Summary};

pub(super) fn card() -> ModelCard {
    ModelCard { name: "m".into(), max_positions: 1000, entry_bytes: 64, n_layers: 2, ..ModelCard::default() }
}

/// An app with an open model.
pub(super) fn opened() -> App {
    let (mut app, effects) = App::new(Settings::default());
    let [Effect::Send(Command::ListAdapters), Effect::Store(Order::List), Effect::Send(Command::Open(_))] =
        &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(app.busy, Some(Busy::Opening));
    assert_eq!(app.on_event(Event::Opened(card())), [Effect::SaveSettings]);
    assert_eq!(app.settings.factor, 1, "a model that was not trained with compression");
    app.settings.factor = 4;
    app
}

pub(super) fn answer(text: &str) -> Answer {
    Answer {
        text: text.into(),
        n_tokens: 50,
        n_said: 10,
        n_reused: 0,
        kv_entries: 40,
        kv_bytes: 2560,
        stopped_by: StoppedBy::StopToken,
    }
}

pub(super) fn step(step: u64) -> StepLine {
    StepLine {
        step,
        loss: 5.0 - step as f64,
        keep: None,
        chunk: None,
        ce: None,
        kl: None,
        pairs: None,
        lr: 1e-4,
        grad_norm: 1.0,
        tokens: 100,
        seconds: 2.0,
        bytes: 7,
    }
}

pub(super) fn ask(app: &mut App, text: &str) -> Question {
    app.chat.draft = text.into();
    match &app.on_action(Action::Ask)[..] {
        [Effect::Send(Command::Ask(question))] => question.clone(),
        other => panic!("{other:?}"),
    }
}

/// The summary of a run that was stopped after four steps.
pub(super) fn summary() -> Summary {
    Summary {
        steps: 4,
        loss: Some(1.0),
        eval_loss: None,
        best: None,
        first_loss: None,
        last_loss: None,
        tokens: 400,
        seconds: 8.0,
        tokens_per_s: 50.0,
        peak_bytes: 1,
        cancelled: true,
        stopped_early: false,
    }
}

#[test]
fn a_conversation_streams_and_goes_on() {
    let mut app = opened();
    app.on_action(Action::Document(Document::new("d.txt", "long text")));
    let question = ask(&mut app, "  Who?  ");
    assert_eq!((&*question.document, question.turns[0].question.as_str()), ("long text", "Who?"));
    assert!(matches!(question.attention, Attention::Lrsa(l) if l.keep() == 0.25));
    assert_eq!((app.busy, app.chat.draft.as_str()), (Some(Busy::Answering), ""));
    app.on_event(Event::Fed { done: 10, total: 40 });
    assert_eq!(app.chat.fed, Some((10, 40)));
    app.on_event(Event::Grown(600));
    assert_eq!(app.chat.context, Some((600, 16 + 3 * 32 + 128 + 72, 312 * 64)), "four partitions and a rest");
    app.on_event(Event::Said("A".into()));
    app.on_event(Event::Said("hab".into()));
    assert_eq!((app.chat.turns[0].answer.as_str(), app.chat.fed), ("Ahab", None));
    app.on_event(Event::Answered(answer("Ahab.")));
    assert_eq!((app.busy, app.chat.context), (None, Some((50, 40, 2560))));
    let next = ask(&mut app, "Why?");
    assert_eq!(next.turns.len(), 2);
    assert_eq!(next.turns[0], Turn { answer: "Ahab.".into(), ..Turn::asked("Who?") });
    assert_eq!(app.on_action(Action::Stop), [Effect::Stop]);
    app.on_event(Event::Answered(Answer { stopped_by: StoppedBy::Caller, ..answer("Because") }));
    assert_eq!((app.chat.turns[1].answer.as_str(), app.chat.turns[1].cut), ("Because", Some(Cut::Stopped(10))));
    assert!(
        matches!(&app.on_action(Action::Regenerate)[..], [Effect::Send(Command::Ask(q))] if q.turns[1].answer.is_empty() && q.seed == 3)
    );
    assert_eq!(app.chat.turns[1].n_versions(), 2, "the stopped answer stays as another version");
    let text = markdown(&app.conversation());
    let says = |part: &str| text.contains(part);
    assert!(says("**Documents**: d.txt\n") && says("## You\n\nWho?\n") && says("## Model\n\nAhab.\n"), "{text}");
}

#[test]
fn nothing_typed_is_lost_when_an_answer_fails() {
    let mut app = opened();
    ask(&mut app, "A long question");
    app.on_event(Event::Failed("out of memory".into()));
    assert_eq!((app.chat.draft.as_str(), app.chat.turns.len(), app.busy), ("A long question", 0, None));
    assert!(app.notices[0].is_error && app.notices[0].text.contains("out of memory"));
    app.on_action(Action::Dismiss(0));
    app.on_action(Action::Dismiss(7));
    assert!(app.notices.is_empty());
    // A partial answer stays.
    ask(&mut app, "Again");
    app.on_event(Event::Said("Half an".into()));
    app.on_event(Event::Failed("lost".into()));
    assert_eq!((app.chat.turns[0].answer.as_str(), app.chat.draft.as_str()), ("Half an", ""));
}

#[test]
fn a_worker_that_was_restarted_opens_the_model_again() {
    let mut app = opened();
    ask(&mut app, "Q");
    let effects = app.on_event(Event::Restarted("the device was lost".into()));
    assert!(matches!(&effects[..], [Effect::Send(Command::Open(_))]));
    assert_eq!((app.busy, app.chat.model.is_none(), app.chat.draft.as_str()), (Some(Busy::Opening), true, "Q"));
    assert!(app.notices[0].text.contains("lost"));
    // After a failure during a run the model opens again once, and no later failure closes it.
    app.on_event(Event::Opened(card()));
    app.on_action(Action::Train);
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    app.settings.factor = 8;
    let effects = app.on_event(Event::Restarted("the device was lost".into()));
    assert!(matches!(&effects[..], [Effect::Send(Command::Open(_))]));
    app.on_event(Event::Opened(ModelCard { recorded: Some((8, 32, 0.5)), ..card() }));
    assert_eq!(app.settings.factor, 2, "trained with another ratio meanwhile");
    app.on_action(Action::CheckRun);
    assert!(app.on_event(Event::Failed("no such file".into())).is_empty() && app.chat.model.is_some());
    // A model that crashes the engine while opening is not opened again.
    app.on_action(Action::OpenModel);
    assert!(app.on_event(Event::Restarted("the loader failed".into())).is_empty());
    assert_eq!(app.busy, None);
    // A failure to open another model keeps the conversation.
    let mut app = opened();
    ask(&mut app, "Q");
    app.on_event(Event::Answered(answer("A")));
    app.chat.draft = "next".into();
    app.on_action(Action::OpenModel);
    app.on_event(Event::Failed("no such folder".into()));
    assert_eq!((app.chat.turns.len(), app.chat.draft.as_str()), (1, "next"));
}

#[test]
fn a_run_is_begun_paused_and_talked_to() {
    let mut app = opened();
    (app.tune.data, app.tune.out, app.settings.model) = ("data".into(), "out dir".into(), "m.gguf".into());
    let effects = app.on_action(Action::Train);
    let [Effect::Send(Command::Train { job, .. }), Effect::SaveSettings] = &effects[..] else { panic!("{effects:?}") };
    job.validate().unwrap();
    assert_eq!((job.data.clone(), job.steps), (PathBuf::from("data"), Some(100)));
    assert_eq!(app.settings.out, "out dir");
    // A run replaces an earlier result only after the user agrees.
    app.on_event(Event::WouldReplace("out dir".into()));
    assert_eq!((app.busy, app.tune.asks_to_replace()), (None, Some(&PathBuf::from("out dir"))));
    app.tune.out = "elsewhere".into();
    assert_eq!(app.tune.asks_to_replace(), None);
    app.tune.out = "out dir".into();
    let effects = app.on_action(Action::Replace);
    assert!(matches!(&effects[0], Effect::Send(Command::Train { replace: true, .. })), "{effects:?}");
    // The same holds for a run that it would continue.
    app.on_event(Event::WouldContinue("out dir".into()));
    assert_eq!((app.busy, app.tune.asks_to_continue()), (None, Some(&PathBuf::from("out dir"))));
    let effects = app.on_action(Action::ContinueRun);
    let Effect::Send(Command::Train { job, replace: false, .. }) = &effects[0] else { panic!("{effects:?}") };
    assert!(job.resume && app.tune.asks_to_continue().is_none());
    // The chat closes its model to free the memory and keeps the conversation.
    app.chat.turns = vec![Turn::asked("Q")];
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    assert_eq!((app.chat.model.is_none(), app.chat.turns.len()), (true, 1));
    app.on_event(Event::TrainStarted { steps: 100, examples: 9 });
    for step in 1..=4 {
        app.on_event(Event::TrainStep(self::step(step)));
    }
    assert_eq!((app.tune.seconds_left(), app.tune.tokens_per_s()), (Some(192.0), Some(50.0)));
    assert_eq!(app.on_action(Action::Pause(true)), [Effect::Pause(true)]);
    assert_eq!(app.tune.run, RunState::Paused);
    assert_eq!(app.on_action(Action::Pause(false)), [Effect::Pause(false)]);
    assert!(app.on_action(Action::OpenModel).iter().all(|e| *e == Effect::SaveSettings), "the engine is busy");
    let summary = summary();
    app.page = Page::Chat;
    app.on_event(Event::SaveFailed("no space".into()));
    assert!(app.on_action(Action::Stop).is_empty() && app.page == Page::Tune, "stop shows the page that asks");
    assert_eq!(app.on_action(Action::SaveAgain(true)), [Effect::Answer(true)]);
    assert!(app.on_action(Action::SaveAgain(true)).is_empty(), "asked once, answered once");
    let effects = app.on_event(Event::Trained(summary));
    assert_eq!(app.tune.run, RunState::Done(summary));
    assert!(matches!(&effects[..], [Effect::Send(Command::Open(_)), Effect::Models(_)]), "{effects:?}");
    app.settings.factor = 8;
    app.on_event(Event::Opened(card()));
    assert_eq!((app.settings.factor, app.busy), (8, None), "the settings stay as they were");
    let effects = app.on_action(Action::ChatWithAdapter);
    let opened = effects.iter().find_map(|e| if let Effect::Send(Command::Open(c)) = e { Some(c) } else { None });
    assert_eq!((opened.unwrap().adapter.clone(), app.page), (Some(PathBuf::from("out dir")), Page::Chat));
    // The next run begins its own curve.
    app.on_event(Event::Opened(card()));
    app.on_action(Action::Train);
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    assert_eq!((app.tune.steps.len(), app.tune.run.clone()), (0, RunState::Running));
    let effects = app.on_event(Event::Failed("the disk is full".into()));
    assert!(matches!(&app.tune.run, RunState::Failed(why) if why.contains("full")));
    assert!(matches!(&effects[..], [Effect::Send(Command::Open(_))]), "{effects:?}");
    assert!(app.on_event(Event::Failed("no such folder".into())).is_empty(), "only once");
}

#[test]
fn a_typed_path_is_read() {
    let mut app = opened();
    app.chat.path = " book.txt ".into();
    assert_eq!(app.on_action(Action::Read), [Effect::Read("book.txt".into())]);
}

#[test]
fn an_adapter_brings_its_compression() {
    let mut app = opened();
    app.on_event(Event::Opened(ModelCard { recorded: Some((8, 32, 0.125)), ..card() }));
    assert_eq!((app.settings.sink, app.settings.lag, app.settings.factor), (8, 32, 8));
    // The user's choice for it lasts, also when the app starts anew.
    app.settings.factor = 2;
    let adapted = ModelCard { recorded: Some((8, 32, 0.125)), ..card() };
    let mut again = App::new(app.settings.clone()).0;
    assert!(again.on_event(Event::Opened(adapted.clone())).is_empty());
    assert_eq!(again.settings.factor, 2);
    // Another model brings its own, and one without a record the dense cache.
    let open = |app: &mut App, model: &str, card: &ModelCard| {
        app.settings.model = model.into();
        app.on_action(Action::OpenModel);
        app.on_event(Event::Opened(card.clone()));
        app.settings.factor
    };
    assert_eq!([open(&mut again, "a.gguf", &card()), open(&mut again, "b.gguf", &adapted)], [1, 8]);
    assert_eq!(open(&mut again, "c.gguf", &card()), 1);
}

#[test]
fn kept_tokens_are_those_of_the_chosen_compression() {
    let mut app = opened();
    ask(&mut app, "Who?");
    app.on_event(Event::Answered(answer("Ahab.")));
    let look = |app: &mut App, factor: u32| {
        app.settings.factor = factor;
        let chosen = app.attention().unwrap();
        let Attention::Lrsa(lrsa) = chosen else { panic!("{chosen:?}") };
        match &app.on_action(Action::ShowKept(true))[..] {
            [] => return false,
            [Effect::Send(Command::Kept(question))] => {
                assert_eq!((question.attention, question.turns[0].answer.as_str()), (chosen, "Ahab."));
            }
            other => panic!("{other:?}"),
        }
        let (sink, lag, keep) = (lrsa.sink(), lrsa.lag(), lrsa.keep());
        let tokens = ["Who?", "Ahab."].map(String::from).to_vec();
        let map = KeptMap { tokens, sink, lag, keep, recent_start: 1, kept: vec![vec![vec![]]] };
        app.on_event(Event::Kept(Box::new(map)));
        true
    };
    assert!(look(&mut app, 4) && app.chat.shows_kept);
    app.on_action(Action::ShowKept(false));
    assert!(!look(&mut app, 4) && app.chat.shows_kept, "it is there already");
    assert!(look(&mut app, 8) && app.chat.shows_kept);
}

#[test]
fn dropped_things_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("model")).unwrap();
    std::fs::create_dir(at("adapter")).unwrap();
    std::fs::write(at("model/config.json"), "{}").unwrap();
    std::fs::write(at("adapter/adapter_config.json"), "{}").unwrap();
    std::fs::write(at("book.txt"), "Call me Ishmael.").unwrap();
    std::fs::write(at("photo.jpg"), [0xff, 0xd8, 0xff]).unwrap();
    assert_eq!(dropped(at("model")), Dropped::Model(at("model")));
    assert_eq!(dropped(at("m.GGUF")), Dropped::Model(at("m.GGUF")));
    assert_eq!(dropped(at("adapter")), Dropped::Adapter(at("adapter")));
    assert_eq!(dropped(at("book.txt")), Dropped::Document(at("book.txt")));
    let document = read_document(&at("book.txt")).unwrap();
    assert_eq!((document.name.as_str(), &*document.text), ("book.txt", "Call me Ishmael."));
    assert!(read_document(&at("photo.jpg")).unwrap_err().to_string().contains("UTF-8"));
    assert!(read_document(&at("none")).unwrap_err().to_string().contains("none"));
    let mut app = opened();
    let effects = app.on_action(Action::Picked(Pick::ModelFolder, at("model")));
    assert!(matches!(&effects[..], [Effect::Send(Command::Open(c)), Effect::SaveSettings] if c.adapter.is_none()));
}

#[test]
fn layers_with_windows_count_what_they_hold() {
    let mut app = opened();
    let windows = vec![10, 100];
    app.chat.model = Some(ModelCard { n_layers: 4, windows, entry_bytes: 400, ..card() });
    assert_eq!(app.chat.cache_size(Attention::Dense, 50), (50, (2 * 50 + 10 + 50) * 100));
    assert_eq!(app.chat.cache_size(Attention::Dense, 500), (500, (2 * 500 + 10 + 100) * 100));
}
