//! Tests of the page for fine-tuning: its fields, its curves, and what a paused run shows.

use egui::accesskit::Role;
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};

use super::view_tests::{Shown, chosen, harness, outside, training};
use crate::app::checked_run::testing::checked;
use crate::app::data_counts::DataCounts;
use crate::app::exporting::ExportState;
use crate::app::form::Preset;
use crate::app::message::Event;
use crate::app::run_tests::exported;
use crate::app::state::{Action, App, Notice, Page};
use crate::app::tune::TuneAction;
use crate::app::tune_tests::{described, evaluation};

const SIZE: (f32, f32) = (1280.0, 800.0);

/// All labels and values on the page, in one text.
fn said(harness: &Harness<'_, Shown>) -> String {
    let text = |node: egui_kittest::Node<'_>| {
        let node = node.accesskit_node();
        format!("{} {}", node.label().unwrap_or_default(), node.value().unwrap_or_default())
    };
    harness.query_all_by(|_| true).map(text).collect::<Vec<_>>().join("\n")
}

fn page() -> App {
    App { page: Page::Tune, ..described() }
}

#[test]
fn a_paused_run_stands_still() {
    let mut app = training();
    let mut running = harness(app.clone(), SIZE);
    assert!(said(&running).contains(" left") && running.try_run().is_err(), "the spinner turns");
    app.on_action(Action::Pause(true));
    let mut paused = harness(app, SIZE);
    let text = said(&paused);
    assert!(text.contains("Paused at step 40 of 100") && text.contains("Training is paused"), "{text}");
    assert!(!text.contains(" left"), "{text}");
    assert!(paused.try_run().is_ok(), "nothing asks for the next frame");
    paused.get_by_label("Resume").click();
    paused.run_steps(2);
    assert_eq!(paused.state().actions, [Action::Pause(false)]);
}

/// Dots of a picture in the colour of the validation loss.
fn orange(app: &App) -> usize {
    let image = harness(app.clone(), SIZE).render().unwrap_or_else(|e| panic!("{e}"));
    image.pixels().filter(|p| p.0[0] > 200 && (90..150).contains(&p.0[1]) && p.0[2] < 80).count()
}

#[test]
fn the_validation_loss_is_a_line_with_points() {
    if std::env::var_os("CI").is_none() && harness(page(), SIZE).render().is_err() {
        eprintln!("no adapter can render here, so the test skips the pictures");
        return;
    }
    let mut app = training();
    app.tune.evaluations.clear();
    let none = orange(&app);
    app.on_event(Event::TrainEvaluated(evaluation(10, 1.4)));
    let one = orange(&app);
    app.on_event(Event::TrainEvaluated(evaluation(35, 1.1)));
    let two = orange(&app);
    assert!(none == 0 && one > 60, "a single evaluation is a point: {none}, {one}");
    assert!(two > one + 150, "and two have a line between them: {one}, {two}");
}

/// Types into a field and lets rows come and go above and below it.
fn keeps_focus(mut harness: Harness<'_, Shown>, nth: usize, text: &str, value: impl Fn(&App) -> String) {
    harness.get_all_by_role(Role::TextInput).nth(nth).expect("the field").focus();
    harness.run_steps(2);
    let counts = DataCounts { path: "data".into(), n_train: 100, ..DataCounts::default() };
    for (i, letter) in text.chars().enumerate() {
        harness.event(egui::Event::Text(letter.into()));
        harness.run_steps(2);
        let app = &mut harness.state_mut().app;
        match i {
            0 => drop(app.on_event(Event::DataCounted(counts.clone()))),
            1 => app.notify(Notice::error("no room")),
            2 => app.notices.clear(),
            _ => app.tune.counts = None,
        }
        harness.run_steps(2);
    }
    assert_eq!(value(&harness.state().app), text);
}

#[test]
fn rows_that_appear_leave_the_focus_where_it_is() {
    let mut app = page();
    app.tune.out.clear();
    keeps_focus(harness(app, SIZE), 1, "runs/b", |app| app.tune.out.clone());
    // The first letter in a field of the other settings adds a row above them and an error below.
    let mut harness = harness(page(), SIZE);
    harness.get_by_label("More settings").click();
    harness.run_steps(30);
    keeps_focus(harness, 2, "0.25", |app| app.tune.form.text("beta").to_string());
}

#[test]
fn a_changed_preset_says_what_is_changed_and_is_reset() {
    let mut app = page();
    app.tune.form.set("rank", "8");
    app.tune.form.set("lr", "3e-4");
    let mut harness = harness(app, SIZE);
    assert!(said(&harness).contains("Standard, changed: learning rate, rank"), "{}", said(&harness));
    harness.get_by_label("Reset").click();
    harness.run_steps(2);
    let form = &harness.state().app.tune.form;
    assert_eq!((form.changed().count(), form.preset()), (0, Preset::Standard));
    assert!(harness.query_by_label("Reset").is_none());
    harness.get_by_label("Thorough: 3 epochs with early stopping").click();
    harness.run_steps(2);
    assert_eq!(harness.state().app.tune.form.text("epochs"), "3");
    harness.get_all_by_role(Role::TextInput).next().expect("the data field").focus();
    harness.run_steps(2);
    harness.key_press(egui::Key::Tab);
    harness.run_steps(2);
    let actions = &harness.state().actions;
    let is_count = |action: &Action| *action == Action::Tune(TuneAction::CountData);
    assert!(!actions.is_empty() && actions.iter().all(is_count), "when the field is left: {actions:?}");
}

#[test]
fn settings_that_cannot_be_read_are_said_beside_the_button() {
    let mut app = page();
    app.tune.form.set("rank", "many");
    let harness = harness(app, SIZE);
    assert!(said(&harness).contains("rank cannot be 'many'"));
    assert!(harness.get_by_label("Start training").accesskit_node().is_disabled());
    assert!(harness.query_by_label("Same run on the command line").is_none());
}

#[test]
fn the_list_of_runs_acts_on_the_chosen_run() {
    let app = chosen(ExportState::Asks("/runs/a.gguf".into()));
    let dir = std::path::PathBuf::from("/runs/a");
    let best = dir.join("checkpoints/step-2");
    for (label, action) in [
        ("Resume from step 3", TuneAction::Resume(dir.clone())),
        ("Chat with the result", TuneAction::ChatWith(dir.clone(), dir.clone())),
        ("Chat with the best (step 2)", TuneAction::ChatWith(dir.clone(), best)),
        ("Export", TuneAction::Export { replace: false }),
        ("Replace the file", TuneAction::Export { replace: true }),
        ("Refresh", TuneAction::ReadRuns),
        ("New run", TuneAction::ShowRuns(false)),
        ("b", TuneAction::Choose("/runs/b".into())),
    ] {
        let mut harness = harness(app.clone(), (1280.0, 1600.0));
        harness.get_all_by_label(label).last().unwrap_or_else(|| panic!("no {label}")).click();
        harness.run_steps(2);
        assert_eq!(harness.state().actions, [Action::Tune(action)], "{label}");
    }
    let text = said(&harness(app, SIZE));
    assert!(text.contains("m.gguf, adapter, stopped at step 4, validation loss 0.500"), "{text}");
    assert!(text.contains("best validation loss 0.500 at step 2"), "{text}");
}

#[test]
fn runs_are_compared_by_ticks() {
    let mut app = chosen(ExportState::Idle);
    let mut harness = harness(app.clone(), SIZE);
    harness.get_all_by_role(Role::CheckBox).next().expect("a tick").click();
    harness.run_steps(2);
    let compare = |dir: &str| Action::Tune(TuneAction::Compare(dir.into(), true));
    assert_eq!(harness.state().actions, [compare("/runs/b")]);
    for dir in ["/runs/a", "/runs/b"] {
        app.on_action(compare(dir));
    }
    let text = said(&self::harness(app, SIZE));
    let rows: Vec<&str> = text.lines().map(str::trim).collect();
    let at = rows.iter().position(|row| *row == "Settings that differ").expect("the table");
    let mut table: Vec<&str> = rows[at + 1..].iter().copied().filter(|row| !row.is_empty()).collect();
    table.dedup(); // a label and its text
    assert!(table.windows(3).any(|row| row == ["rank", "8", "default"]), "{table:?}");
    assert!(table.windows(3).any(|row| row == ["steps", "4", "9"]), "{table:?}");
}

#[test]
fn an_export_shows_how_it_was_verified() {
    let text = said(&harness(chosen(ExportState::Done("/runs/a.gguf".into(), exported())), SIZE));
    assert!(text.contains("Verified: on 192 tokens logits differ by at most 3.0e-4"), "{text}");
    let text = said(&harness(chosen(ExportState::Failed("the disk is full".into())), SIZE));
    assert!(text.contains("the disk is full") && !text.contains("Verified"), "{text}");
}

#[test]
fn the_check_of_a_run_is_a_table() {
    let mut app = page();
    app.on_action(Action::CheckRun);
    app.on_event(Event::Forecast(Box::new(checked())));
    let text = said(&harness(app.clone(), SIZE));
    let mut rows: Vec<&str> = text.lines().map(str::trim).filter(|row| !row.is_empty()).collect();
    rows.dedup(); // a label and its text
    for pair in [["Examples", "1,160, and 50 for validation"], ["Up to 1,024 tokens", "200.0 MiB"]] {
        assert!(rows.windows(2).any(|row| row == pair), "no {pair:?} in {rows:?}");
    }
    app.tune.recompute = true;
    assert!(!said(&harness(app, SIZE)).contains("1,160, and 50"), "it was of another run");
}

#[test]
fn the_other_settings_are_named_and_stay_in_the_window() {
    for (size, name) in [((720.0, 900.0), "narrow"), ((1280.0, 2000.0), "tall")] {
        let mut app = page();
        app.tune.form.set("rank", "8");
        app.on_event(Event::DataCounted(DataCounts { path: "data".into(), n_train: 800, ..DataCounts::default() }));
        let mut harness = harness(app, size);
        harness.get_by_label("More settings").click();
        harness.run_steps(30);
        assert_eq!(outside(&harness, name, size.0), Vec::<String>::new());
        for label in ["objective", "rank", "learning rate", "dora", "distill", "keep", "valid fraction", "eval every"] {
            assert!(harness.query_all_by_label(label).next().is_some(), "no {label}");
        }
        let fields = harness.get_all_by_role(Role::TextInput).count();
        assert!(fields > 30, "{fields} fields");
        if let Some(folder) = std::env::var_os("LONGREACH_APP_PICTURES") {
            let image = harness.render().unwrap_or_else(|e| panic!("{e}"));
            let path = std::path::PathBuf::from(folder).join(format!("tune-settings-{name}.png"));
            image.save(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}
