//! Tests of every page in its empty, busy, failed and done state.
//!
//! They check the texts, the buttons, and that nothing extends beyond the window, also in a small
//! window and at high zoom. With LONGREACH_APP_PICTURES they paint every state (`pictures.rs`).

use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};

use super::document_tests::with_documents;
use super::pictures::{self, painted};
use super::{apply, set_up, show};
use crate::app::checked_run::testing::checked;
use crate::app::conversations::{Entry, Stored};
use crate::app::documents::Document;
use crate::app::exporting::ExportState;
use crate::app::message::{AdapterLine, CheckLine, Event, ModelCard};
use crate::app::run_tests::{exported, listing};
use crate::app::settings::{Settings, Theme};
use crate::app::state::{Action, App, Busy, Page};
use crate::app::tune::{RunState, TuneAction};
use crate::app::turns::{Cut, Turn};
use crate::eval::KeptMap;
use crate::train::{EvalLine, StepLine, Summary};

/// An app and the actions that its views returned.
pub(super) struct Shown {
    pub app: App,
    pub actions: Vec<Action>,
}

/// The app in a window of `size` pixels, with the zoom of its settings.
pub(super) fn harness(app: App, size: (f32, f32)) -> Harness<'static, Shown> {
    let zoom = app.settings.zoom;
    let mut is_set_up = false;
    let ui = move |ui: &mut egui::Ui, shown: &mut Shown| {
        if !is_set_up {
            set_up(ui.ctx());
            is_set_up = true;
        }
        // The harness has the zoom, as it does not follow a change.
        apply(ui.ctx(), &Settings { zoom: 1.0, ..shown.app.settings.clone() });
        let ground = super::ground(ui.ctx());
        ui.painter().rect_filled(ui.ctx().content_rect(), 0, ground); // the app clears its window with this colour
        shown.actions.extend(show(ui, &mut shown.app));
    };
    let builder = Harness::builder().with_size((size.0 / zoom, size.1 / zoom)).with_pixels_per_point(zoom);
    let mut harness = builder.with_max_steps(20).build_ui_state(ui, Shown { app, actions: vec![] });
    harness.run_steps(4); // a spinner animates for ever
    harness
}

/// Presses a key and lets the app draw what follows.
pub(super) fn press(harness: &mut Harness<'_, Shown>, modifiers: egui::Modifiers, key: egui::Key) {
    harness.key_press_modifiers(modifiers, key);
    harness.run_steps(3);
}

pub(super) fn opened() -> App {
    let (mut app, _) = App::new(Settings::default());
    app.on_event(Event::Opened(card()));
    app.settings.factor = 4;
    app
}

fn card() -> ModelCard {
    ModelCard {
        name: "smollm2.gguf".into(),
        adapter: Some("my-adapter".into()),
        device: "llvmpipe (LLVM 15.0.6, 512 bits), Vulkan".into(),
        n_layers: 30,
        n_kv_heads: 3,
        max_positions: 8192,
        has_chat_template: true,
        entry_bytes: 46_080,
        windows: vec![],
        recorded: None,
        recommended: Some(crate::kernels::sample::Sampling::default()),
    }
}

pub(super) fn talking() -> App {
    let mut app = opened();
    let text = "Call me Ishmael. ".repeat(400);
    app.chat.documents = vec![Document::new("moby-dick.txt", text)];
    let long = "It is the story of a captain who hunts the whale that took his leg, told by a sailor. ".repeat(8);
    app.chat.turns = vec![
        Turn { answer: long, ..Turn::asked("What is it about?") },
        Turn { answer: "Ishmael, a sailor.".into(), cut: Some(Cut::Stopped(6)), ..Turn::asked("Who tells it?") },
    ];
    app.chat.context = Some((2412, 668, 30_781_440));
    app
}

pub(super) fn kept() -> App {
    let mut app = talking();
    let words: Vec<String> = (0..300).map(|i| format!(" word{i}")).collect();
    let every = |step: usize| (20..260).filter(|p| p % step == 0).collect::<Vec<_>>();
    app.on_event(Event::Kept(Box::new(KeptMap {
        tokens: words,
        sink: 16,
        lag: 64,
        keep: 0.25,
        recent_start: 260,
        kept: vec![vec![every(4), every(3)], vec![every(5), every(4)]],
    })));
    app
}

pub(super) fn training() -> App {
    let mut app = opened();
    app.page = Page::Tune;
    (app.tune.data, app.tune.out) = ("data".into(), "runs/first".into());
    app.settings.model = "models/smollm2.gguf".into();
    app.on_action(Action::Train);
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    app.on_event(Event::TrainStarted { steps: 100, examples: 64 });
    for step in 1..=40u64 {
        let loss = 3.0 / (step as f64).sqrt() + 0.1 * (step % 3) as f64;
        let lr = 5e-4 * (1.0 - step as f64 / 100.0);
        app.on_event(Event::TrainStep(StepLine {
            step,
            loss,
            keep: None,
            chunk: None,
            ce: None,
            kl: None,
            pairs: None,
            lr,
            grad_norm: 1.0,
            tokens: 960,
            seconds: 6.1,
            bytes: 1_300_000_000,
        }));
    }
    app.on_event(Event::TrainEvaluated(EvalLine {
        step: 20,
        loss: 1.1,
        perplexity: Some(3.0),
        pairs: None,
        tokens: 900,
    }));
    app.on_event(Event::TrainSaved(20));
    app
}

fn trained() -> App {
    let mut app = training();
    app.on_event(Event::Trained(Summary {
        steps: 40,
        loss: Some(0.52),
        eval_loss: None,
        best: None,
        first_loss: None,
        last_loss: None,
        tokens: 38_400,
        seconds: 244.0,
        tokens_per_s: 157.0,
        peak_bytes: 1_301_000_000,
        cancelled: true,
        stopped_early: false,
    }));
    app.on_event(Event::Opened(card()));
    app
}

fn checked_run() -> App {
    let mut app = opened();
    app.page = Page::Tune;
    (app.tune.data, app.tune.out) = ("data".into(), "runs/first".into());
    app.on_action(Action::CheckRun);
    app.on_event(Event::Forecast(Box::new(checked())));
    app
}

fn asking() -> App {
    let mut app = opened();
    app.page = Page::Tune;
    (app.tune.data, app.tune.out) = ("data".into(), "runs/first".into());
    app.on_action(Action::Train);
    app.on_event(Event::WouldReplace("runs/first".into()));
    app
}

fn unsaved() -> App {
    let mut app = training();
    app.on_event(Event::SaveFailed("saving: writing runs/first: No space left on device".into()));
    app
}

fn failed_training() -> App {
    let mut app = training();
    app.on_event(Event::Failed("step 41 (the result of step 40 is kept in runs/first): the device was lost".into()));
    app
}

fn paused() -> App {
    let mut app = training();
    app.on_action(Action::Pause(true));
    app
}

fn no_runs() -> App {
    let mut app = App { page: Page::Tune, ..opened() };
    app.on_action(Action::Tune(TuneAction::ShowRuns(true)));
    app
}

/// The page with a chosen run, whose export has come so far.
pub(super) fn chosen(state: ExportState) -> App {
    let mut app = App { page: Page::Tune, ..listing() };
    app.on_action(Action::Tune(TuneAction::Choose("/runs/a".into())));
    app.tune.export.begin("/runs/a".as_ref());
    app.tune.export.state = state;
    app
}

fn compared() -> App {
    let mut app = App { page: Page::Tune, ..listing() };
    for dir in ["/runs/a", "/runs/b"] {
        app.on_action(Action::Tune(TuneAction::Compare(dir.into(), true)));
    }
    app
}

fn devices() -> App {
    let mut app = opened();
    app.page = Page::Devices;
    app.on_event(Event::Adapters(vec![AdapterLine {
        name: "llvmpipe (LLVM 15.0.6, 512 bits)".into(),
        backend: "vulkan".into(),
        device_type: "software".into(),
        driver: "llvmpipe Mesa 22.3.6".into(),
        features: vec!["subgroups".into(), "f16".into()],
        max_binding_mib: 128,
        memory_bytes: Some(16 << 30),
        index: 0,
    }]));
    app
}

fn checking(n_failed: usize, ended: Option<bool>) -> App {
    let mut app = devices();
    app.on_action(Action::Check("0".into()));
    for i in 0..30 {
        app.on_event(Event::Checked(Box::new(CheckLine {
            kernel: "matmul/register_tile".into(),
            case: format!("linear: odd sizes {i}"),
            passed: i >= n_failed,
            relative_error: 1e-7,
            reason: "sums of f32".into(),
        })));
    }
    if let Some(is_complete) = ended {
        let passed = 30 - n_failed;
        app.on_event(Event::CheckDone { passed, failed: n_failed, is_complete, report: "<html>".into() });
    }
    app
}

/// Every page and state, with a text that it shows.
fn states() -> Vec<(&'static str, App, &'static str)> {
    let opening = App::new(Settings::default()).0;
    let reading = {
        let mut app = talking();
        app.chat.draft = "And why?".into();
        app.on_action(Action::Ask);
        app.on_event(Event::Fed { done: 1024, total: 2430 });
        app
    };
    let failed = {
        let mut app = talking();
        app.on_event(Event::Failed(
            "the conversation has 9000 tokens, more than the 8192 that the model was made for".into(),
        ));
        app
    };
    let editing = {
        let mut app = talking();
        app.chat.editing = Some((1, "Who tells the story?".into()));
        app
    };
    let marked = {
        let mut app = talking();
        let answer = "# The whale\n\nIt is **white**, and *large*:\n\n1. teeth\n2. a tail\n\n```rust\nfn main() {}\n```\n\n\
                      | a | b |\n|---|---|\n| 1 | 2 |\n\n> Call me Ishmael. → ✓ 😀";
        app.chat.turns.push(Turn { answer: answer.into(), ..Turn::asked("Show me Markdown") });
        app.chat.turns[2].others = vec![vec![Turn::asked("Show me a table")]];
        app.chat.turns[2].at = 1;
        app
    };
    let listed = {
        let mut app = talking();
        let entry =
            |i: usize, title: &str| Entry { id: format!("{i}"), title: title.into(), words: String::new(), changed: 9 };
        let titles = ["What is it about?", "A very long title that does not fit into the sidebar", "Ropes and knots"];
        app.on_stored(Stored::Listed(titles.iter().enumerate().map(|(i, title)| entry(i, title)).collect()));
        app.conversations.id = "0".into();
        app
    };
    let with_settings = {
        let mut app = listed.clone();
        app.chat.shows_settings = true;
        app.chat.sampling.temperature = Some(0.7);
        app
    };
    let found = {
        let mut app = kept();
        app.chat.kept_page.query = "WORD12".into();
        app.chat.kept_page.search();
        app.chat.kept_page.step(true);
        app
    };
    let empty_tune = App { page: Page::Tune, ..opened() };
    vec![
        ("chat-opening", opening, "Opening the model…"),
        ("chat-empty", opened(), "Ask something, or open a long document first."),
        ("chat-reading", reading, "Reading"),
        ("chat-done", talking(), "Ishmael, a sailor."),
        ("chat-failed", failed, "Dismiss"),
        ("chat-editing", editing, "Send again"),
        ("chat-markdown", marked, "2 of 2"),
        ("chat-list", listed, "What is it about?"),
        ("chat-settings", with_settings, "Use the recommended values"),
        ("chat-documents", with_documents(&[Some(3072), Some(1024)]), "compresses beyond ~272 tokens"),
        ("chat-too-long", with_documents(&[Some(6000), Some(3000), None]), "counting…"),
        ("chat-kept", kept(), "Back to the conversation"),
        ("chat-kept-found", found, "2 of 11"),
        ("tune-empty", empty_tune, "Choose the training data and an output folder."),
        ("tune-checked", checked_run(), "Example 1"),
        ("tune-running", training(), "Pause"),
        ("tune-done", trained(), "Chat with this adapter"),
        ("tune-unsaved", unsaved(), "Try again"),
        ("tune-asking", asking(), "Replace the result"),
        ("tune-failed", failed_training(), "Start training"),
        ("tune-paused", paused(), "Training is paused"),
        ("tune-runs-empty", no_runs(), "Looking for runs…"),
        ("tune-runs", chosen(ExportState::Asks("/runs/a.gguf".into())), "Replace the file"),
        ("tune-compared", compared(), "Settings that differ"),
        (
            "tune-exporting",
            chosen(ExportState::Writing(40, 272)),
            "40 of 272 tensors; then it is read back and compared",
        ),
        (
            "tune-exported",
            chosen(ExportState::Done("/runs/a.gguf".into(), exported())),
            "Wrote /runs/a.gguf (f16, 5.0 MiB).",
        ),
        ("devices-listing", App { page: Page::Devices, ..opened() }, "Looking for devices…"),
        ("devices", devices(), "vulkan: llvmpipe (LLVM 15.0.6, 512 bits)"),
        ("devices-checking", checking(0, None), "30 checks so far"),
        ("devices-passed", checking(0, Some(true)), "All 30 checks passed."),
        ("devices-failed", checking(2, Some(true)), "2 of 30 checks failed."),
        ("devices-stopped", checking(0, Some(false)), "Stopped after 30 checks, all passed."),
    ]
}

/// The labels and buttons that extend beyond the window's width.
pub(super) fn outside(harness: &Harness<'_, Shown>, what: &str, width: f32) -> Vec<String> {
    let (mut n, mut found) = (0, Vec::new());
    for node in harness.query_all_by(|_| true) {
        let label = node.accesskit_node().label().unwrap_or_default();
        if label.is_empty() || node.accesskit_node().bounding_box().is_none() {
            continue;
        }
        let rect = node.rect();
        n += 1;
        if rect.left() < -1.0 || rect.right() > width + 1.0 {
            found.push(format!("{what}: '{label}' lies at {rect:?} of {width}"));
        }
    }
    assert!(n > 5, "{what} says something");
    found
}

/// Checks that each state says its text, and that nothing extends beyond the window, also in a small
/// window and at high zoom.
pub(super) fn check_states(states: Vec<(&'static str, App, &'static str)>) {
    let mut wrong = Vec::new();
    for (name, app, text) in states {
        for (size, zoom) in [((1280.0, 800.0), 1.0), ((1280.0, 800.0), 2.0), ((720.0, 480.0), 1.0)] {
            let mut app = app.clone();
            app.settings.zoom = zoom;
            let harness = harness(app, size);
            let what = format!("{name} at {size:?}, {zoom}");
            assert!(harness.query_all_by_label(text).next().is_some(), "{what} says '{text}'");
            wrong.extend(outside(&harness, &what, size.0 / zoom));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_state_says_what_it_is_and_stays_in_the_window() {
    check_states(states());
}

#[test]
fn buttons_and_keys_do_what_they_say() {
    let press = |app: App, label: &str| {
        let mut harness = harness(app, (1280.0, 800.0));
        harness.get_by_label(label).click();
        harness.run_steps(2);
        std::mem::take(&mut harness.state_mut().actions)
    };
    assert_eq!(press(talking(), "Regenerate"), [Action::Regenerate]);
    assert_eq!(press(talking(), "Show kept tokens"), [Action::ShowKept(true)]);
    assert_eq!(press(kept(), "Back to the conversation"), [Action::ShowKept(false)]);
    assert_eq!(press(training(), "Pause"), [Action::Pause(true)]);
    assert_eq!(press(unsaved(), "Discard"), [Action::SaveAgain(false)]);
    assert_eq!(press(asking(), "Replace the result"), [Action::Replace]);
    assert_eq!(press(trained(), "Chat with this adapter"), [Action::ChatWithAdapter]);
    assert_eq!(press(devices(), "Check CPU"), [Action::Check("cpu".into())]);
    assert_eq!(press(opened(), "Fine-tune"), [Action::Show(Page::Tune)]);
    let mut app = opened();
    app.notices = vec![];
    app.on_event(Event::Failed("x".into()));
    assert_eq!(press(app, "Dismiss"), [Action::Dismiss(0)]);

    let mut harness = harness(training(), (1280.0, 800.0));
    harness.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::Num4);
    harness.run_steps(1);
    harness.key_press(egui::Key::Escape);
    harness.run_steps(1);
    // Escape stops an answer but not training.
    assert_eq!(harness.state().actions, [Action::Show(Page::Devices)]);
    harness.state_mut().app.busy = Some(Busy::Answering);
    harness.key_press(egui::Key::Escape);
    harness.run_steps(1);
    assert_eq!(harness.state().actions[1..], [Action::Stop]);
    // One button on the page, one in the status bar.
    let mut harness = self::harness(training(), (1280.0, 800.0));
    let stops = harness.get_all_by_label("Stop and save").count();
    assert_eq!(stops, 2);
    harness.get_all_by_label("Stop and save").next().expect("counted").click();
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::Stop]);
}

#[test]
fn enter_asks_what_is_typed() {
    let mut harness = harness(opened(), (1280.0, 800.0));
    let field = harness.get_all_by_role(egui::accesskit::Role::MultilineTextInput).next().expect("a field to type in");
    field.focus();
    harness.run_steps(2);
    let field = harness.get_all_by_role(egui::accesskit::Role::MultilineTextInput).next().expect("a field to type in");
    field.type_text("Who is Ahab?");
    harness.run_steps(2);
    harness.key_press(egui::Key::Enter);
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::Ask]);
    assert_eq!(harness.state().app.chat.draft, "Who is Ahab?");
    // Enter does not send while the engine is busy.
    harness.state_mut().app.busy = Some(Busy::Training);
    harness.state_mut().actions.clear();
    harness.key_press(egui::Key::Enter);
    harness.run_steps(2);
    assert_eq!(harness.state().actions, []);
}

#[test]
fn pages_are_painted_in_light_and_dark() {
    let all = pictures::folder().is_some();
    for (name, app, _) in states().into_iter().filter(|s| all || ["chat-kept", "tune-running"].contains(&s.0)) {
        for theme in [Theme::Light, Theme::Dark] {
            let mut app = app.clone();
            app.settings.theme = theme;
            let name = format!("{name}-{theme:?}");
            let Some(dots) = painted(&mut harness(app.clone(), (1280.0, 800.0)), &name) else { return };
            assert_eq!(dots.len(), 1280 * 800);
            let light = dots.iter().filter(|dot| dot.iter().all(|&c| c > 200)).count();
            let dark = dots.iter().filter(|dot| dot.iter().all(|&c| c < 60)).count();
            let (paper, ink) = if theme == Theme::Light { (light, dark) } else { (dark, light) };
            // The pages that wait for the worker have the least ink: one short sentence.
            assert!(paper > 500_000 && ink > 200, "{name}: {paper} dots of paper, {ink} of ink");
            if all {
                painted(&mut harness(app, (800.0, 600.0)), &format!("{name}-800"));
            }
        }
    }
    // A run that failed keeps its curve.
    assert!(matches!(failed_training().tune.run, RunState::Failed(_)) && failed_training().tune.steps.len() == 40);
}
