//! Tests of downloads in the app: the offer, pause and resume, and opening what has come.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::downloads::{DownloadEvent, DownloadState, Progress};
use super::library::Library;
use super::message::{Command, Event, ModelChoice};
use super::models::{ModelAction, ModelEvent, Request};
use super::state::{Action, App, Busy, Effect, Page};
use super::state_tests::{answer, ask, card, opened};
use super::worker::Worker;
use crate::checkpoint::hub::hub_test_server::{COMMIT, Reply, serve, set_rule};
use crate::checkpoint::hub::{Hub, Limits};
use crate::checkpoint::hub_survey::{Survey, SurveyFile};
use crate::gpu::open_device;
use crate::train::TrainJob;

fn act(app: &mut App, action: ModelAction) -> Vec<Effect> {
    app.on_action(Action::Models(action))
}

fn tell(app: &mut App, event: ModelEvent) -> Vec<Effect> {
    app.on_event(Event::Models(event))
}

fn survey(have: u64) -> Survey {
    let file = |name: &str, size, have| SurveyFile { name: name.into(), size, have };
    let files = vec![file("config.json", 100, 100), file("model.safetensors", 900, have)];
    Survey { name: "org/name".into(), files, free_bytes: Some(10_000), ..Survey::default() }
}

fn choice(model: &str, adapter: Option<&str>) -> ModelChoice {
    ModelChoice { model: model.into(), adapter: adapter.map(PathBuf::from), device: "auto".into() }
}

/// An app that downloads `org/name`.
fn downloading() -> App {
    let mut app = opened();
    act(&mut app, ModelAction::Look("org/name".into()));
    tell(&mut app, ModelEvent::Surveyed("org/name".into(), Ok(survey(0))));
    let effects = act(&mut app, ModelAction::Download);
    assert_eq!(effects, [Effect::Models(Request::Download { id: 1, survey: Box::new(survey(0)) })]);
    app
}

#[test]
fn a_model_that_is_not_here_is_offered_with_its_size_and_opened_when_it_has_come() {
    let mut app = opened();
    (app.settings.model, app.settings.adapter) = ("org/name".into(), "runs/a".into());
    app.on_action(Action::OpenModel);
    let effects = app.on_event(Event::NotDownloaded(choice("org/name", Some("runs/a"))));
    assert_eq!(effects, [Effect::SaveSettings, Effect::Models(Request::Look("org/name".into()))]);
    assert_eq!((app.busy, app.page, app.settings.model.as_str()), (None, Page::Models, ""), "the open model stays");
    assert!(app.chat.model.is_some());
    tell(&mut app, ModelEvent::Surveyed("org/other".into(), Err("of an earlier look-up".into())));
    assert_eq!(app.models.offer.as_ref().unwrap().answer, None);
    tell(&mut app, ModelEvent::Surveyed("org/name".into(), Ok(survey(400))));
    let effects = act(&mut app, ModelAction::Download);
    assert_eq!(effects, [Effect::Models(Request::Download { id: 1, survey: Box::new(survey(400)) })]);
    let progress = &app.models.download.as_ref().unwrap().progress;
    assert_eq!((progress.bytes, progress.files, app.models.offer.is_none()), ((500, 1000), (1, 2), true));
    let effects = tell(&mut app, ModelEvent::Downloading(1, DownloadEvent::Done { n_checked: 1 }));
    let open = Effect::Send(Command::Open(choice("org/name", Some("runs/a"))));
    assert_eq!(effects[..2], [open, Effect::SaveSettings]);
    assert!(matches!(&effects[2..], [Effect::Models(Request::Scan(_))]));
    assert_eq!((app.models.download.is_none(), app.page), (true, Page::Chat));
    let notice = &app.notices.last().unwrap().text;
    assert!(notice.contains("org/name is downloaded") && notice.contains("SHA-256 of one file"), "{notice}");
    app.on_event(Event::Opened(card()));
    assert_eq!((app.settings.models[0].as_str(), app.settings.adapters[0].as_str()), ("org/name", "runs/a"));
}

#[test]
fn a_download_runs_beside_an_answer_and_does_not_open_over_it() {
    let mut app = downloading();
    app.models.field = "other/name".into();
    ask(&mut app, "Who?");
    let progress = Progress { bytes: (300, 1000), ..Progress::default() };
    assert!(tell(&mut app, ModelEvent::Downloading(1, DownloadEvent::Progress(progress))).is_empty());
    assert_eq!(app.models.download.as_ref().unwrap().progress.share(), 0.3);
    let effects = tell(&mut app, ModelEvent::Downloading(1, DownloadEvent::Done { n_checked: 0 }));
    assert!(matches!(&effects[..], [Effect::Models(Request::Scan(_))]), "{effects:?}");
    assert_eq!(app.busy, Some(Busy::Answering));
    assert!(app.notices.last().unwrap().text.contains("Open it when this is done: Answering"));
    app.on_event(Event::Answered(answer("Ishmael.")));
    assert_eq!((app.chat.turns.len(), app.chat.choice.model.as_str()), (1, ""));
}

#[test]
fn a_download_does_not_replace_a_model_that_has_read_something() {
    let mut app = downloading();
    ask(&mut app, "Who?");
    app.on_event(Event::Answered(answer("Ishmael.")));
    let effects = tell(&mut app, ModelEvent::Downloading(1, DownloadEvent::Done { n_checked: 0 }));
    assert!(matches!(&effects[..], [Effect::Models(Request::Scan(_))]), "{effects:?}");
    assert!(app.notices.last().unwrap().text.contains("The Models page opens it"));
}

#[test]
fn a_download_is_paused_resumed_tried_again_and_stopped() {
    let mut app = downloading();
    let fast = Progress { bytes: (100, 1000), bytes_per_s: Some(9.0), note: Some("x".into()), ..Progress::default() };
    tell(&mut app, ModelEvent::Downloading(1, DownloadEvent::Progress(fast)));
    assert_eq!(app.models.download.as_ref().unwrap().progress.seconds_left(), Some(100.0));
    assert_eq!(act(&mut app, ModelAction::PauseDownload(true)), [Effect::Models(Request::EndDownload)]);
    assert!(act(&mut app, ModelAction::PauseDownload(true)).is_empty());
    let progress = &app.models.download.as_ref().unwrap().progress;
    assert_eq!((progress.seconds_left(), &progress.note), (None, &None));
    let late = Progress { bytes: (999, 1000), ..Progress::default() };
    tell(&mut app, ModelEvent::Downloading(1, DownloadEvent::Progress(late.clone())));
    let state = |app: &App| app.models.download.as_ref().map(|d| (d.id, d.state.clone(), d.progress.bytes.0));
    assert_eq!(state(&app), Some((1, DownloadState::Paused, 100)));
    let resumed = act(&mut app, ModelAction::PauseDownload(false));
    assert_eq!(resumed, [Effect::Models(Request::Download { id: 2, survey: Box::new(survey(0)) })]);
    assert!(act(&mut app, ModelAction::PauseDownload(false)).is_empty(), "it runs");
    // The first thread ends only now.
    for event in [DownloadEvent::Ended, DownloadEvent::Failed("late".into()), DownloadEvent::Progress(late)] {
        tell(&mut app, ModelEvent::Downloading(1, event));
    }
    assert_eq!(state(&app), Some((2, DownloadState::Running, 100)));
    tell(&mut app, ModelEvent::Downloading(2, DownloadEvent::Failed("check the network".into())));
    assert_eq!(state(&app).unwrap().1, DownloadState::Failed("check the network".into()));
    assert!(matches!(
        &act(&mut app, ModelAction::PauseDownload(false))[..],
        [Effect::Models(Request::Download { id: 3, .. })]
    ));
    let effects = act(&mut app, ModelAction::StopDownload);
    assert!(matches!(&effects[..], [Effect::Models(Request::EndDownload), Effect::Models(Request::Scan(_))]));
    assert_eq!(state(&app), None);
    assert!(app.notices.last().unwrap().text.contains("continues there"));
    assert!(act(&mut app, ModelAction::StopDownload).is_empty());
}

#[test]
fn what_cannot_be_downloaded_is_not_started() {
    let mut app = downloading();
    // One at a time.
    act(&mut app, ModelAction::Look("org/name".into()));
    tell(&mut app, ModelEvent::Surveyed("org/name".into(), Ok(survey(0))));
    assert!(act(&mut app, ModelAction::Download).is_empty());
    assert!(app.notices.last().unwrap().text.contains("is being downloaded") && app.models.offer.is_some());
    act(&mut app, ModelAction::StopDownload);
    let full = Survey { free_bytes: Some(899), ..survey(0) };
    let none = Survey { files: vec![], ..survey(0) };
    for answer in [Ok(full), Ok(none), Err("no such model".to_string())] {
        act(&mut app, ModelAction::Look("org/name".into()));
        tell(&mut app, ModelEvent::Surveyed("org/name".into(), answer));
        assert!(act(&mut app, ModelAction::Download).is_empty());
        assert!(app.models.offer.is_some() && app.models.download.is_none());
    }
    act(&mut app, ModelAction::DropOffer);
    assert!(app.models.offer.is_none());
}

#[test]
fn ids_that_are_typed_are_looked_up_and_paths_are_opened() {
    let mut app = opened();
    for (typed, id) in [("org/name:Q4_K_M", true), ("org/name@v1", true), ("/models/x.gguf", false), ("./a/b", false)] {
        app.busy = None;
        app.models.field = typed.into();
        let effects = act(&mut app, ModelAction::OpenTyped);
        match id {
            true => assert_eq!(effects, [Effect::Models(Request::Look(typed.into()))]),
            false => assert_eq!(effects[0], Effect::Send(Command::Open(choice(typed, None)))),
        }
    }
    // An id that turns out to be here opens at once.
    let mut app = opened();
    act(&mut app, ModelAction::Look("org/name".into()));
    assert!(tell(&mut app, ModelEvent::Here("org/other".into())).is_empty());
    let effects = tell(&mut app, ModelEvent::Here("org/name".into()));
    assert_eq!(effects[0], Effect::Send(Command::Open(choice("org/name", None))));
}

/// A library with a hub on loopback, and what it reports.
fn library(endpoint: &str, cache: &Path) -> (Library, Receiver<ModelEvent>) {
    let (sender, events) = channel();
    let sender = std::sync::Mutex::new(sender);
    let limits = Limits { pause: Duration::from_millis(1), tries: 2, ..Limits::default() };
    let (endpoint, cache) = (endpoint.to_string(), cache.to_path_buf());
    let hub = Hub { endpoint, cache, token: None, offline: false, progress: false, limits };
    let tell = move |event| {
        if let Event::Models(event) = event {
            let _ = sender.lock().unwrap().send(event);
        }
    };
    (Library::with_hub(Arc::new(tell), Arc::new(move || Ok(hub.clone()))), events)
}

fn next(events: &Receiver<ModelEvent>) -> ModelEvent {
    events.recv_timeout(Duration::from_secs(60)).expect("a report")
}

#[test]
fn a_model_is_looked_up_downloaded_in_two_parts_and_then_found() {
    let long: String = (0..3000).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
    let files = [("org/name/config.json", "{}"), ("org/name/model.safetensors", long.as_str())];
    let (endpoint, shelf) = serve(&files);
    let cache = tempfile::tempdir().unwrap();
    let (mut library, events) = library(&endpoint, cache.path());
    library.carry_out(Request::Look("org/name".into()));
    let ModelEvent::Surveyed(name, Ok(survey)) = next(&events) else { panic!("surveyed") };
    assert_eq!((name.as_str(), survey.total_bytes()), ("org/name", 3002));
    // The weights come slowly, so that the download is ended between two bytes.
    let text = long.clone().into_bytes();
    set_rule(&shelf, move |r, _| {
        let slow = Reply::new(200, &[("ETag", "w"), ("X-Repo-Commit", COMMIT)], &text);
        let is_weights = r.path.ends_with("model.safetensors") && r.from.is_none();
        is_weights.then(|| Reply { pause: Duration::from_millis(10), ..slow })
    });
    library.carry_out(Request::Download { id: 1, survey: Box::new(survey.clone()) });
    loop {
        match next(&events) {
            ModelEvent::Downloading(1, DownloadEvent::Progress(p)) if p.bytes.0 > 2 => break,
            ModelEvent::Downloading(1, DownloadEvent::Progress(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    library.carry_out(Request::EndDownload);
    let end = std::iter::repeat_with(|| next(&events))
        .find(|e| !matches!(e, ModelEvent::Downloading(1, DownloadEvent::Progress(_))));
    assert_eq!(end, Some(ModelEvent::Downloading(1, DownloadEvent::Ended)));
    let text = long.clone().into_bytes();
    set_rule(&shelf, move |r, _| {
        let from = r.from.unwrap_or(0);
        let range = format!("bytes {from}-2999/3000");
        let headers = [("ETag", "w"), ("X-Repo-Commit", COMMIT), ("Content-Range", range.as_str())];
        let status = if r.from.is_some() { 206 } else { 200 };
        r.path.ends_with("model.safetensors").then(|| Reply::new(status, &headers, &text[from..]))
    });
    library.carry_out(Request::Download { id: 2, survey: Box::new(survey) });
    let end = std::iter::repeat_with(|| next(&events))
        .find(|e| !matches!(e, ModelEvent::Downloading(2, DownloadEvent::Progress(_))));
    assert_eq!(end, Some(ModelEvent::Downloading(2, DownloadEvent::Done { n_checked: 0 })));
    assert!(shelf.lock().unwrap().asked.iter().any(|r| r.from.is_some_and(|from| from > 0)), "it continued");
    library.carry_out(Request::Look("org/name".into()));
    assert_eq!(next(&events), ModelEvent::Here("org/name".into()));
    library.carry_out(Request::Look("org/absent".into()));
    assert!(matches!(next(&events), ModelEvent::Surveyed(_, Err(why)) if why.contains("no such model")));
}

#[test]
fn the_worker_downloads_nothing_by_itself() {
    let absent = "longreach-tests/no-such-model";
    let (sender, events) = channel();
    let sender = std::sync::Mutex::new(sender);
    let tell = move |event| drop(sender.lock().unwrap().send(event));
    let mut worker = Worker::start_with(Arc::new(tell), Arc::new(open_device));
    let mut hear = |command| {
        worker.send(command);
        events.recv_timeout(Duration::from_secs(60)).expect("an event")
    };
    for model in [absent.to_string(), format!("{absent}:Q4_K_M")] {
        let choice = ModelChoice { device: "cpu".into(), ..choice(&model, Some("runs/a")) };
        assert_eq!(hear(Command::Open(choice.clone())), Event::NotDownloaded(choice));
    }
    let job = TrainJob { model: absent.into(), out: "target/never".into(), ..TrainJob::default() };
    let forecast = Command::Forecast { job: Box::new(job.clone()), device: "cpu".into() };
    assert!(matches!(hear(forecast), Event::Failed(why) if why.contains("Models page")));
    let train = Command::Train { job: Box::new(job), device: "cpu".into(), replace: false };
    assert!(matches!(hear(train), Event::Failed(why) if why.contains("Models page")));
}
