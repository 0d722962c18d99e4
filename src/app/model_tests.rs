//! Tests of the models page: its state, and the thread that makes the list.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::message::{AdapterLine, Command, Event, ModelChoice};
use super::model_scan::scan;
use super::models::{
    AdapterEntry, Entry, EntryState, Known, Listed, ModelAction, ModelEvent, Origin, Request, ScanJob,
};
use super::settings::Settings;
use super::state::{Action, App, Busy, Effect, Page};
use super::state_tests::{card, opened};
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::bundled;
use crate::checkpoint::hub::{Hub, Limits};
use crate::checkpoint::model_facts::ModelFacts;

fn listed(model: &str, origin: Origin, changed: u64) -> Listed {
    Listed { model: model.into(), origin, place: Some(Path::new("/models").join(model)), changed: Some(changed) }
}

fn known() -> EntryState {
    let facts = ModelFacts::of(&bundled::stories().unwrap()).unwrap();
    EntryState::Known(Box::new(Known { facts, disk_bytes: 1 << 20 }))
}

fn facts_of(state: &EntryState) -> ModelFacts {
    let EntryState::Known(known) = state else { panic!("{state:?}") };
    known.facts.clone()
}

/// An app whose list has the bundled model, two of the cache and an opened one.
fn with_list() -> App {
    let mut app = opened();
    app.settings.models = vec!["/models/mine".into()];
    let bundled = Listed { place: None, changed: None, ..listed("", Origin::Bundled, 0) };
    let list = vec![
        bundled,
        listed("org/old", Origin::Cache, 10),
        listed("org/new", Origin::Cache, 20),
        listed("/models/mine", Origin::Opened, 5),
    ];
    app.on_event(Event::Models(ModelEvent::Listed(list)));
    for model in ["", "org/new", "/models/mine"] {
        app.on_event(Event::Models(ModelEvent::Read(model.into(), known())));
    }
    let why = "model /models/org/old: config.json: unexpected end";
    app.on_event(Event::Models(ModelEvent::Read("org/old".into(), EntryState::Unreadable(why.into()))));
    app.on_event(Event::Models(ModelEvent::Scanned { host_bytes: Some(1 << 30) }));
    app
}

fn names(app: &App) -> Vec<String> {
    app.shown_models().into_iter().map(Entry::name).collect()
}

fn act(app: &mut App, action: ModelAction) -> Vec<Effect> {
    app.on_action(Action::Models(action))
}

#[test]
fn the_list_begins_with_what_was_opened_last_and_is_searched_by_words() {
    let mut app = with_list();
    assert_eq!(names(&app), ["mine", "org/new", "org/old", "stories260K (bundled)"]);
    for (search, found) in [
        ("NEW", &["org/new"][..]),
        ("llama org", &["org/new"]),
        ("f32", &["mine", "org/new", "stories260K (bundled)"]),
        ("/models/", &["mine", "org/new", "org/old"]),
        ("absent", &[]),
    ] {
        app.models.search = search.into();
        assert_eq!(names(&app), found, "{search}");
    }
}

#[test]
fn a_new_list_keeps_what_is_known_until_it_is_read_again() {
    let mut app = with_list();
    let effects = act(&mut app, ModelAction::Scan);
    let job = ScanJob { models: vec!["/models/mine".into()], ..ScanJob::default() };
    assert_eq!((effects, app.models.is_scanning), (vec![Effect::Models(Request::Scan(job))], true));
    let list = vec![listed("org/new", Origin::Cache, 20), listed("org/third", Origin::Cache, 30)];
    app.on_event(Event::Models(ModelEvent::Listed(list)));
    let states: Vec<bool> = app.models.entries.iter().map(|entry| entry.facts().is_some()).collect();
    assert_eq!((names(&app), states), (vec!["org/third".into(), "org/new".into()], vec![true, false]));
    app.on_event(Event::Models(ModelEvent::Read("org/gone".into(), known()))); // of an earlier list
    assert_eq!(app.models.entries.len(), 2);
    assert!(app.models.is_scanning);
    app.on_event(Event::Models(ModelEvent::Scanned { host_bytes: None }));
    assert!(!app.models.is_scanning);
    assert!(matches!(&app.on_action(Action::Show(Page::Models))[..], [Effect::Models(Request::Scan(_))]));
}

#[test]
fn models_and_adapters_are_remembered_once_they_have_opened() {
    let mut app = with_list();
    let effects = act(&mut app, ModelAction::Open("org/new".into(), Some("/runs/a".into())));
    let choice =
        ModelChoice { model: "org/new".into(), adapter: Some(PathBuf::from("/runs/a")), device: "auto".into() };
    assert_eq!(effects, [Effect::Send(Command::Open(choice)), Effect::SaveSettings]);
    assert_eq!((app.page, app.settings.models.len()), (Page::Chat, 1), "not yet open");
    let effects = app.on_event(Event::Opened(card()));
    assert!(
        matches!(&effects[..], [Effect::SaveSettings, Effect::Models(Request::Scan(job))] if job.adapters == ["/runs/a"])
    );
    assert_eq!(app.settings.models, ["org/new", "/models/mine"]);
    assert_eq!(app.settings.adapters, ["/runs/a"]);
    assert!(app.is_open("org/new", Some(Path::new("/runs/a"))) && !app.is_open("org/new", None));
    // A model that fails to open is not remembered.
    act(&mut app, ModelAction::Open("org/old".into(), None));
    app.on_event(Event::Failed("damaged".into()));
    assert_eq!(app.settings.models, ["org/new", "/models/mine"]);
    // Nothing is opened while the worker is busy.
    app.busy = Some(Busy::Training);
    app.page = Page::Models;
    assert!(act(&mut app, ModelAction::Open("org/old".into(), None)).is_empty());
    assert_eq!((app.page, app.settings.model.as_str(), app.notices.len()), (Page::Models, "org/new", 2));
    // The oldest of more than a hundred is forgotten.
    app.busy = None;
    app.settings.models = (0..100).map(|i| format!("m{i}")).collect();
    act(&mut app, ModelAction::Open("org/new".into(), None));
    app.on_event(Event::Opened(card()));
    assert_eq!((app.settings.models.len(), app.settings.models[0].as_str()), (100, "org/new"));
    assert_eq!(app.settings.models[99], "m98");
}

#[test]
fn a_removed_model_returns_when_it_is_opened() {
    let mut app = with_list();
    for model in ["org/new", "/models/mine"] {
        assert_eq!(act(&mut app, ModelAction::Forget(model.into())), [Effect::SaveSettings]);
    }
    assert_eq!(names(&app), ["org/old", "stories260K (bundled)"]);
    assert!(app.settings.models.is_empty());
    app.models.field = " org/new ".into();
    assert_eq!(act(&mut app, ModelAction::OpenTyped), [Effect::Models(Request::Look("org/new".into()))]);
    let effects = app.on_event(Event::Models(ModelEvent::Here("org/new".into())));
    assert!(matches!(&effects[..], [Effect::Send(Command::Open(c)), Effect::SaveSettings] if c.model == "org/new"));
    app.on_event(Event::Opened(card()));
    assert_eq!(names(&app)[0], "org/new");
    assert_eq!(app.models.field, "");
    assert!(act(&mut app, ModelAction::OpenTyped).is_empty(), "nothing is typed");
}

#[test]
fn a_model_is_chosen_for_fine_tuning() {
    let mut app = with_list();
    app.settings.adapter = "/runs/a".into();
    assert_eq!(act(&mut app, ModelAction::Train("org/new".into())), [Effect::SaveSettings]);
    assert_eq!((app.page, app.job().unwrap().model.as_str()), (Page::Tune, "org/new"));
    // The chat keeps its own model and adapter, also after a restart.
    assert_eq!((app.settings.model.as_str(), app.settings.adapter.as_str()), ("", "/runs/a"));
    let (again, _) = App::new(app.settings.clone());
    assert_eq!(again.tune_model(), "org/new");
}

#[test]
fn the_fit_is_judged_with_cache_and_device_of_the_settings() {
    let mut app = with_list();
    let facts = facts_of(&known());
    let lrsa = Lrsa::new(app.settings.sink, app.settings.lag, 0.25).unwrap();
    let n_tokens = facts.config.max_positions.min(8192);
    let line = |index, name: &str, device_type: &str, memory_bytes| AdapterLine {
        index,
        name: name.into(),
        backend: "vulkan".into(),
        device_type: device_type.into(),
        memory_bytes,
        ..AdapterLine::default()
    };
    let adapters = vec![
        line(0, "Fast GPU", "discrete", Some(facts.weight_bytes)),
        line(1, "Other", "integrated", None),
        line(2, "llvmpipe", "software", Some(7)),
    ];
    app.on_event(Event::Adapters(adapters));
    for (device, name, bytes, fits) in [
        ("auto", "Fast GPU", Some(facts.weight_bytes), Some(false)),
        ("cpu", "the CPU", Some(1 << 30), Some(true)),
        ("1", "Other", None, None),
        ("LLVM", "llvmpipe", Some(1 << 30), Some(true)),
    ] {
        app.settings.device = device.into();
        let fit = app.fit(&facts);
        assert_eq!((fit.device.as_str(), fit.device_bytes, fit.fits()), (name, bytes, fits), "{device}");
        let cache = facts.config.cache_bytes(Attention::Lrsa(lrsa), n_tokens);
        assert_eq!((fit.n_tokens, fit.cache_bytes, fit.weight_bytes), (n_tokens, cache, facts.weight_bytes));
    }
    app.settings.factor = 1;
    assert_eq!(app.fit(&facts).cache_bytes, facts.config.cache_bytes(Attention::Dense, n_tokens));
}

#[test]
fn adapters_lie_under_their_models_newest_first() {
    let mut app = with_list();
    let adapter = |path: &str, models: &[&str], changed| AdapterEntry {
        path: path.into(),
        models: models.iter().map(|m| (*m).to_string()).collect(),
        changed: Some(changed),
        ..AdapterEntry::default()
    };
    let list = vec![adapter("r/a", &["org/new", ""], 1), adapter("r/b", &["org/new"], 2), adapter("r/c", &[], 3)];
    app.on_event(Event::Models(ModelEvent::Adapters(list)));
    let names = |found: Vec<&AdapterEntry>| found.into_iter().map(AdapterEntry::name).collect::<Vec<_>>();
    assert_eq!(names(app.models.adapters_of("org/new")), ["b", "a"]);
    assert_eq!(names(app.models.adapters_of("")), ["a"]);
    assert_eq!(names(app.models.lone_adapters()), ["c"]);
}

/// All that a scan reports.
fn scanned(job: &ScanJob, cache: &Path) -> Vec<ModelEvent> {
    let hub = Hub {
        endpoint: "http://127.0.0.1:1".into(),
        cache: cache.into(),
        token: None,
        offline: true,
        progress: false,
        limits: Limits::default(),
    };
    let heard = Mutex::new(Vec::new());
    scan(job, Some(&hub), &|| false, &|event| heard.lock().unwrap().push(event));
    heard.into_inner().unwrap()
}

fn copy_bundled(to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn the_scan_reads_the_bundled_the_opened_and_the_cached_models() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let commit = "a".repeat(40);
    copy_bundled(&at(&format!("cache/models--org--good/snapshots/{commit}")));
    copy_bundled(&at(&format!("cache/models--org--broken/snapshots/{commit}")));
    std::fs::write(at(&format!("cache/models--org--broken/snapshots/{commit}/config.json")), "{").unwrap();
    for name in ["good", "broken"] {
        std::fs::create_dir_all(at(&format!("cache/models--org--{name}/refs"))).unwrap();
        std::fs::write(at(&format!("cache/models--org--{name}/refs/main")), &commit).unwrap();
    }
    copy_bundled(&at("mine"));
    let adapter = at("runs/tuned");
    std::fs::create_dir_all(&adapter).unwrap();
    std::fs::write(adapter.join("adapter_config.json"), r#"{"r": 8, "base_model_name_or_path": "stories260k"}"#)
        .unwrap();
    let mine = at("mine").display().to_string();
    let job = ScanJob {
        models: vec!["org/good".into(), mine.clone(), at("gone").display().to_string(), "org/absent".into()],
        adapters: vec![],
        out: at("runs/next").display().to_string(),
    };
    let mut app = App::new(Settings { models: job.models.clone(), ..Settings::default() }).0;
    let heard = scanned(&job, &at("cache"));
    assert!(matches!(&heard[0], ModelEvent::Listed(list) if list.len() == 6), "{heard:?}");
    assert!(matches!(heard.last(), Some(ModelEvent::Scanned { .. })));
    heard.into_iter().for_each(|event| drop(app.on_event(Event::Models(event))));
    let state = |model: &str| &app.models.entries.iter().find(|e| e.listed.model == model).expect("listed").state;
    let bundled = ModelFacts::of(&bundled::stories().unwrap()).unwrap();
    for model in ["", "org/good", &mine] {
        assert_eq!(facts_of(state(model)).n_parameters, bundled.n_parameters, "{model}");
    }
    let EntryState::Known(of_mine) = state(&mine) else { panic!("known") };
    let sizes = std::fs::read_dir(at("mine")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    assert_eq!(of_mine.disk_bytes, sizes.sum::<u64>());
    assert!(matches!(state("org/broken"), EntryState::Unreadable(why) if why.contains("config.json")));
    assert!(matches!(state(&at("gone").display().to_string()), EntryState::Unreadable(why) if why.contains("no such")));
    assert_eq!(state("org/absent"), &EntryState::Absent { is_partial: false });
    // The adapter names the bundled model.
    assert_eq!(app.models.adapters_of("").iter().map(|a| a.path.clone()).collect::<Vec<_>>(), [adapter]);
}

#[test]
fn a_scan_that_is_stopped_ends_early() {
    let heard = Mutex::new(Vec::new());
    scan(&ScanJob::default(), None, &|| true, &|event| heard.lock().unwrap().push(event));
    let heard = heard.into_inner().unwrap();
    assert!(matches!(&heard[..], [ModelEvent::Listed(list)] if list.len() == 1), "{heard:?}");
}
