//! Tests of the models page and the menu of models as they are drawn.

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::pictures::{self, painted};
use super::view_tests::{Shown, check_states, harness, opened, outside};
use super::{apply, models, set_up};
use crate::app::downloads::{DownloadEvent, Progress};
use crate::app::message::Event;
use crate::app::models::{AdapterEntry, EntryState, Known, Listed, ModelAction, ModelEvent, Origin};
use crate::app::settings::Theme;
use crate::app::state::{Action, App, Page, Pick};
use crate::checkpoint::bundled;
use crate::checkpoint::hub_survey::{GgufChoice, Survey, SurveyFile};
use crate::checkpoint::model_facts::ModelFacts;
use crate::checkpoint::record::AttentionRecord;
use crate::formats::dtype::DType;

fn known(n_parameters: u64, dtype: DType, weight_bytes: u64) -> EntryState {
    let facts = ModelFacts::of(&bundled::stories().unwrap()).unwrap();
    let mut config = facts.config;
    config.max_positions = 131_072;
    let types = vec![(dtype, n_parameters)];
    let facts = ModelFacts { config, n_parameters, weight_bytes, types, has_tokenizer: true, has_chat_template: true };
    EntryState::Known(Box::new(Known { facts, disk_bytes: weight_bytes + 4_000_000 }))
}

pub(super) fn listing() -> App {
    let mut app = App { page: Page::Models, ..opened() };
    app.settings.device = "cpu".into();
    app.settings.models = vec!["/home/me/models/SmolLM2-135M-Instruct-Q8_0.gguf".into()];
    app.models.is_scanning = true;
    let of = |model: &str, origin, place: Option<&str>| Listed {
        model: model.into(),
        origin,
        place: place.map(Into::into),
        changed: Some(1),
    };
    let cache = "/home/me/.cache/huggingface/hub/models--Qwen--Qwen2.5-7B-Instruct/snapshots/c0ffee";
    let mine = app.settings.models[0].clone();
    let list = vec![
        of("", Origin::Bundled, None),
        of(&mine, Origin::Opened, Some(&mine)),
        of("Qwen/Qwen2.5-7B-Instruct", Origin::Cache, Some(cache)),
        of(
            "/mnt/disk/a-model-with-an-unusually-long-name-that-does-not-fit-into-a-narrow-window",
            Origin::Opened,
            None,
        ),
        of("org/half", Origin::Cache, Some("/home/me/.cache/huggingface/hub/models--org--half")),
    ];
    let long = list[3].model.clone();
    let mut tell = |event| app.on_event(Event::Models(event));
    tell(ModelEvent::Listed(list));
    tell(ModelEvent::Read(mine.clone(), known(134_515_008, DType::Q8_0, 143_000_000)));
    tell(ModelEvent::Read("Qwen/Qwen2.5-7B-Instruct".into(), known(7_615_616_512, DType::BF16, 15_231_233_024)));
    let why = "there is no such file or folder any more".to_string();
    tell(ModelEvent::Read(long, EntryState::Unreadable(why)));
    tell(ModelEvent::Read("org/half".into(), EntryState::Absent { is_partial: true }));
    let losses = (1..60).map(|i| [f64::from(i), 3.0 / f64::from(i).sqrt()]).collect();
    tell(ModelEvent::Adapters(vec![
        AdapterEntry {
            path: "/home/me/runs/first".into(),
            base: Some(mine.clone()),
            models: vec![mine],
            rank: Some(16),
            attention: Some(AttentionRecord::Lrsa { sink: 16, lag: 128, keep: 0.25 }),
            losses,
            changed: Some(2),
            problem: None,
        },
        AdapterEntry { path: "/home/me/runs/other".into(), base: Some("org/gone".into()), ..AdapterEntry::default() },
    ]));
    app
}

fn listed() -> App {
    let mut app = listing();
    app.on_event(Event::Models(ModelEvent::Read(String::new(), known(260_032, DType::F32, 1_040_128))));
    app.on_event(Event::Models(ModelEvent::Scanned { host_bytes: Some(8 << 30) }));
    app
}

/// An app that has looked up a model, and what the hub said.
fn offered(answer: Option<Result<Survey, String>>) -> App {
    let mut app = listed();
    app.on_action(Action::Models(ModelAction::Look("Qwen/Qwen2.5-14B-Instruct".into())));
    if let Some(answer) = answer {
        app.on_event(Event::Models(ModelEvent::Surveyed("Qwen/Qwen2.5-14B-Instruct".into(), answer)));
    }
    app
}

fn survey(free_bytes: u64) -> Survey {
    let file = |name: &str, size, have| SurveyFile { name: name.into(), size, have };
    Survey {
        name: "Qwen/Qwen2.5-14B-Instruct".into(),
        files: vec![file("config.json", 700, 700), file("model.safetensors", 3 << 30, 1 << 30)],
        free_bytes: Some(free_bytes),
        is_gated: true,
        ..Survey::default()
    }
}

fn choices() -> Survey {
    let one = |file: &str, size| GgufChoice { name: format!("Qwen/Qwen2.5-14B-Instruct:{file}"), size };
    let choices = vec![one("x-Q4_K_M.gguf", 9 << 30), one("x-Q8_0.gguf", 15 << 30)];
    Survey { name: "Qwen/Qwen2.5-14B-Instruct".into(), choices, ..Survey::default() }
}

fn downloading() -> App {
    let mut app = offered(Some(Ok(survey(9 << 30))));
    app.on_action(Action::Models(ModelAction::Download));
    let progress = Progress {
        file: "model.safetensors".into(),
        files: (1, 2),
        bytes: (2 << 30, 3 << 30),
        bytes_per_s: Some(f64::from(12 << 20)),
        note: None,
    };
    app.on_event(Event::Models(ModelEvent::Downloading(1, DownloadEvent::Progress(progress))));
    app
}

fn paused() -> App {
    let mut app = downloading();
    app.on_action(Action::Models(ModelAction::PauseDownload(true)));
    app
}

fn broken_off() -> App {
    let mut app = downloading();
    let why = "downloading the model 'Qwen/Qwen2.5-14B-Instruct' from https://huggingface.co: huggingface.co: connection \
               refused; check the network, or give a local path";
    app.on_event(Event::Models(ModelEvent::Downloading(1, DownloadEvent::Failed(why.into()))));
    app
}

pub(super) fn states() -> Vec<(&'static str, App, &'static str)> {
    let empty = App { page: Page::Models, ..opened() };
    let mut looking = empty.clone();
    looking.models.is_scanning = true;
    let mut searching = listed();
    searching.models.search = "nothing of that kind".into();
    vec![
        ("models-looking", looking, "Looking for models…"),
        ("models-empty", empty, "The list is empty. Open a file or folder, or type the id of a model."),
        ("models-listing", listing(), "Reading the files of the models…"),
        ("models", listed(), "Qwen/Qwen2.5-7B-Instruct"),
        ("models-asking", offered(None), "Looking up Qwen/Qwen2.5-14B-Instruct…"),
        ("models-offer", offered(Some(Ok(survey(9 << 30)))), "Download"),
        ("models-disk", offered(Some(Ok(survey(1 << 30)))), "The disk is too small. Free another 1.00 GiB first."),
        ("models-choices", offered(Some(Ok(choices()))), "x-Q4_K_M.gguf (9.00 GiB)"),
        (
            "models-unknown",
            offered(Some(Err("there is no such model (did you mean a local path?)".into()))),
            "Try again",
        ),
        ("models-downloading", downloading(), "1 of 2 files · 2.00 GiB of 3.00 GiB · 12.0 MiB/s · 2 min left"),
        ("models-paused", paused(), "Resume"),
        ("models-broken", broken_off(), "Try again"),
        ("models-none", searching, "No model has these words in its name, folder, family or weight type."),
    ]
}

#[test]
fn every_state_says_what_it_is_and_stays_in_the_window() {
    check_states(states());
}

#[test]
fn a_model_says_its_facts_and_its_fit() {
    let harness = harness(listed(), (1280.0, 800.0));
    let has = |text: &str| assert!(harness.query_all_by_label_contains(text).next().is_some(), "{text}");
    has("llama · 134.5 M parameters · Q8_0 · 140.2 MiB on disk · 131,072 tokens · chat template");
    has("Fits the CPU: 136.4 MiB of weights and 2.7 MiB for 8,192 tokens with 4x compression, of 8.00 GiB");
    has("Does not fit the CPU: 14.19 GiB of weights");
    has("It cannot be opened: there is no such file or folder any more");
    has("Its download was broken off. Opening it continues the download.");
    has("+ first · rank 16, sink 16, lag 128, keep 0.25 · loss 0.391");
    has("+ other · adapter of org/gone");
}

fn press(app: App, label: &str) -> Vec<Action> {
    let mut harness = harness(app, (1280.0, 1200.0));
    harness.get_all_by_label(label).next().expect(label).click();
    harness.run_steps(2);
    std::mem::take(&mut harness.state_mut().actions)
}

#[test]
fn buttons_do_what_they_say() {
    let mine = listed().settings.models[0].clone();
    let act = |action| [Action::Models(action)];
    assert_eq!(press(listed(), "Models"), [Action::Show(Page::Models)]);
    assert_eq!(press(listed(), "Use for fine-tuning"), act(ModelAction::Train(mine.clone())));
    assert_eq!(press(listed(), "Remove from the list"), act(ModelAction::Forget(mine.clone())));
    assert_eq!(press(listed(), "Open a folder…"), [Action::Pick(Pick::ModelFolder)]);
    assert_eq!(press(listed(), "Open a file…"), [Action::Pick(Pick::ModelFile)]);
    assert_eq!(press(listed(), "Open"), act(ModelAction::OpenTyped), "beside the field");
    // Of the rows, the first "Chat" after the page button is that of the adapter.
    let mut harness = harness(listed(), (1280.0, 1200.0));
    harness.get_all_by_label("Chat").nth(1).expect("of the adapter").click();
    harness.run_steps(2);
    assert_eq!(harness.state().actions, act(ModelAction::Open(mine.clone(), Some("/home/me/runs/first".into()))));
    harness.state_mut().actions.clear();
    harness.get_all_by_label("Open").nth(1).expect("of the first model").click();
    harness.run_steps(2);
    assert_eq!(harness.state().actions, act(ModelAction::Open(mine, None)));
}

/// The menu alone, without a popup around it.
fn menu(app: App, size: (f32, f32)) -> Harness<'static, Shown> {
    let mut is_set_up = false;
    let ui = move |ui: &mut egui::Ui, shown: &mut Shown| {
        if !is_set_up {
            set_up(ui.ctx());
            is_set_up = true;
        }
        apply(ui.ctx(), &shown.app.settings);
        let ground = super::ground(ui.ctx());
        ui.painter().rect_filled(ui.ctx().content_rect(), 0, ground);
        let button = ui.button("menu");
        egui::Popup::menu(&button)
            .open(true)
            .close_behavior(egui::PopupCloseBehavior::IgnoreClicks)
            .show(|ui| models::menu(ui, &mut shown.app, &mut shown.actions));
    };
    let mut harness =
        Harness::builder().with_size(size).with_max_steps(20).build_ui_state(ui, Shown { app, actions: vec![] });
    harness.run_steps(4);
    harness
}

#[test]
fn the_menu_opens_models_adapters_and_the_page() {
    let mine = listed().settings.models[0].clone();
    let choose = |label: &str| {
        let mut harness = menu(listed(), (1280.0, 800.0));
        harness.get_all_by_label_contains(label).next().expect(label).click();
        harness.run_steps(2);
        std::mem::take(&mut harness.state_mut().actions)
    };
    assert_eq!(choose("SmolLM2"), [Action::Models(ModelAction::Open(mine.clone(), None))]);
    assert_eq!(choose("+ first"), [Action::Models(ModelAction::Open(mine, Some("/home/me/runs/first".into())))]);
    assert_eq!(choose("stories260K"), [Action::Models(ModelAction::Open(String::new(), None))]);
    assert_eq!(choose("a-model-with"), [], "it cannot be opened");
    assert_eq!(choose("Open a file…"), [Action::Pick(Pick::ModelFile)]);
    assert_eq!(choose("Open a folder…"), [Action::Pick(Pick::ModelFolder)]);
    assert_eq!(choose("All models"), [Action::Show(Page::Models)]);
    // The search has the focus. Enter opens the first model that is found, or else what is typed.
    let mut app = listed();
    app.models.search = "of the last time".into();
    let mut harness = menu(app, (720.0, 480.0));
    harness.event(egui::Event::Text("qwen".into()));
    harness.run_steps(2);
    assert!(harness.query_all_by_label_contains("Qwen2.5").next().is_some());
    assert!(harness.query_all_by_label_contains("SmolLM2").next().is_none());
    harness.key_press(egui::Key::Enter);
    harness.run_steps(2);
    assert!(
        matches!(&harness.state().actions[..], [Action::Models(ModelAction::Open(id, None))] if id.contains("Qwen"))
    );
    let mut harness = menu(listed(), (720.0, 480.0));
    harness.event(egui::Event::Text("/tmp/new.gguf".into()));
    harness.run_steps(2);
    harness.key_press(egui::Key::Enter);
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::Models(ModelAction::OpenTyped)]);
    assert_eq!(harness.state().app.models.field, "/tmp/new.gguf");
    assert_eq!(outside(&menu(listed(), (720.0, 480.0)), "menu", 720.0), [""; 0]);
}

#[test]
fn the_buttons_of_offers_and_downloads_do_what_they_say() {
    let act = |action| [Action::Models(action)];
    let model = || "Qwen/Qwen2.5-14B-Instruct".to_string();
    let offer = || offered(Some(Ok(survey(9 << 30))));
    assert_eq!(press(offer(), "Download"), act(ModelAction::Download));
    assert_eq!(press(offer(), "Not now"), act(ModelAction::DropOffer));
    assert_eq!(press(offered(None), "Cancel"), act(ModelAction::DropOffer));
    let chosen = ModelAction::Look(format!("{}:x-Q8_0.gguf", model()));
    assert_eq!(press(offered(Some(Ok(choices()))), "x-Q8_0.gguf (15.00 GiB)"), act(chosen));
    assert_eq!(press(offered(Some(Err("gone".into()))), "Try again"), act(ModelAction::Look(model())));
    assert_eq!(press(downloading(), "Pause"), act(ModelAction::PauseDownload(true)));
    assert_eq!(press(paused(), "Resume"), act(ModelAction::PauseDownload(false)));
    assert_eq!(press(broken_off(), "Try again"), act(ModelAction::PauseDownload(false)));
    assert_eq!(press(paused(), "Stop"), act(ModelAction::StopDownload));
    // A disk without room has no button to download, and the status bar shows the download on every page.
    let harness = harness(offered(Some(Ok(survey(1 << 30)))), (1280.0, 800.0));
    assert!(harness.query_by_label("Download").is_none());
    let text = "Qwen/Qwen2.5-14B-Instruct is not on this machine. It has 2 files of 3.00 GiB in all. 1.00 GiB of them are \
                already here. The disk has 1.00 GiB left. It opens when it has arrived.";
    harness.get_by_label(text);
    let harness = self::harness(App { page: Page::Devices, ..downloading() }, (1280.0, 800.0));
    harness.get_by_label("Downloading Qwen/Qwen2.5-14B-Instruct, 67 %");
}

#[test]
fn enter_opens_what_is_typed() {
    let mut harness = harness(listed(), (1280.0, 800.0));
    let field = |harness: &Harness<'_, Shown>, i| {
        let mut fields = harness.get_all_by_role(egui::accesskit::Role::TextInput);
        fields.nth(i).expect("a field").focus();
    };
    field(&harness, 1);
    harness.run_steps(2);
    harness.get_all_by_role(egui::accesskit::Role::TextInput).nth(1).expect("a field").type_text("org/name");
    harness.run_steps(2);
    harness.key_press(egui::Key::Enter);
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::Models(ModelAction::OpenTyped)]);
    assert_eq!(harness.state().app.models.field, "org/name");
}

#[test]
fn pictures_are_painted_in_light_and_dark() {
    let all = pictures::folder().is_some();
    for (name, app, _) in states().into_iter().filter(|state| all || state.0 == "models") {
        for (theme, size) in
            [(Theme::Light, (1280.0, 800.0)), (Theme::Dark, (1280.0, 800.0)), (Theme::Light, (800.0, 600.0))]
        {
            let mut app = app.clone();
            app.settings.theme = theme;
            paint(&mut harness(app.clone(), size), &format!("{name}-{theme:?}-{}", size.0));
            if name == "models" {
                paint(&mut menu(app, size), &format!("{name}-menu-{theme:?}-{}", size.0));
            }
        }
    }
}

fn paint(harness: &mut Harness<'_, Shown>, name: &str) {
    let Some(dots) = painted(harness, name) else { return };
    let ground = dots[0][0];
    let ink = dots.iter().filter(|dot| dot.iter().any(|&c| c.abs_diff(ground) > 60)).count();
    assert!(ink > 300, "{name}: {ink} dots of ink");
}
