//! Tests of the pages by keyboard alone: what Tab reaches is in sight, Tab goes on from where it was,
//! page keys scroll, and Escape ends the topmost thing.

use egui::{Key, Modifiers, Rect};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};

use super::view_tests::{Shown, harness, opened, press, talking};
use crate::app::conversations::{Entry, Stored};
use crate::app::message::Event;
use crate::app::state::{Action, App, Busy, Notice, Page};
use crate::app::turns::Turn;

const SIZE: (f32, f32) = (1280.0, 800.0);
const SMALL: (f32, f32) = (800.0, 600.0);

/// The name and the place of the control with the focus.
fn focused(harness: &Harness<'_, Shown>) -> Option<(String, Rect)> {
    let node = harness.query_all_by(|_| true).find(|node| node.accesskit_node().is_focused())?;
    let name = node.accesskit_node().label().or_else(|| node.accesskit_node().value()).unwrap_or_default();
    Some((name, node.rect()))
}

fn name(harness: &Harness<'_, Shown>) -> String {
    focused(harness).map_or_else(String::new, |(name, _)| name)
}

fn tuning() -> App {
    let mut app = opened();
    app.page = Page::Tune;
    (app.tune.data, app.tune.out) = ("data".into(), "run".into());
    app
}

/// A conversation that is longer than the window.
fn long() -> App {
    let mut app = talking();
    for i in 0..12 {
        app.chat.turns.push(Turn { answer: "A sentence of an answer. ".repeat(30), ..Turn::asked(format!("Q{i}?")) });
    }
    app
}

#[test]
fn what_tab_reaches_is_in_sight() {
    let mut settings = talking();
    settings.chat.shows_settings = true;
    for (app, size, least) in [(long(), SIZE, 30), (tuning(), SMALL, 15), (settings, SMALL, 20)] {
        let page = app.page;
        let mut harness = harness(app, size);
        for (modifiers, n) in [(Modifiers::NONE, 45), (Modifiers::SHIFT, 45)] {
            let mut seen = 0;
            for _ in 0..n {
                harness.key_press_modifiers(modifiers, Key::Tab);
                harness.run_steps(12); // the scrolling is animated
                let Some((name, rect)) = focused(&harness) else { continue };
                let window = Rect::from_min_size(egui::Pos2::ZERO, size.into()).expand(1.0);
                assert!(rect.height() > 400.0 || window.contains_rect(rect), "{page:?}: {name} at {rect:?}");
                seen += 1;
            }
            assert!(seen >= least, "{page:?}: {seen}");
        }
    }
}

#[test]
fn page_keys_scroll_the_conversation() {
    let mut harness = harness(long(), SIZE);
    let is_seen = |harness: &Harness<'_, Shown>, text: &str| {
        harness.query_all_by_label(text).any(|node| (0.0..700.0).contains(&node.rect().top()))
    };
    let mut scrolls = |modifiers: Modifiers, key: Key, to: &str| {
        harness.key_press_modifiers(modifiers, key);
        harness.run_steps(30);
        assert!(is_seen(&harness, to), "{key:?} shows {to}");
    };
    scrolls(Modifiers::NONE, Key::PageDown, "Q11?");
    scrolls(Modifiers::COMMAND, Key::Home, "Q0?");
    scrolls(Modifiers::NONE, Key::PageDown, "Q2?");
    scrolls(Modifiers::NONE, Key::PageUp, "Q0?");
    scrolls(Modifiers::COMMAND, Key::End, "Q11?");
}

#[test]
fn tab_goes_on_from_where_the_focus_was() {
    let mut harness = harness(tuning(), SIZE);
    harness.get_by_label("Full fine-tune").focus();
    harness.run_steps(2);
    press(&mut harness, Modifiers::NONE, Key::Tab);
    let next = name(&harness);
    harness.get_by_label("Full fine-tune").focus();
    harness.run_steps(2);
    press(&mut harness, Modifiers::NONE, Key::Escape);
    assert_eq!(focused(&harness), None);
    press(&mut harness, Modifiers::NONE, Key::Tab);
    assert_eq!(name(&harness), next);
    // A control that is gone gives the focus to the nearest one.
    harness.get_by_label("Start training").focus();
    harness.run_steps(2);
    harness.state_mut().app.page = Page::Devices;
    harness.run_steps(2);
    press(&mut harness, Modifiers::NONE, Key::Tab);
    assert!(focused(&harness).is_some());
}

#[test]
fn escape_ends_the_topmost_thing() {
    let mut app = talking();
    app.busy = Some(Busy::Answering);
    (app.chat.shows_settings, app.notices) = (true, vec![Notice::error("no space left")]);
    let entry = Entry { id: "a".into(), title: "Whales".into(), words: "whales".into(), changed: 1 };
    app.on_stored(Stored::Listed(vec![entry]));
    let mut harness = harness(app, SIZE);
    harness.get_by_label("Whales").click_secondary();
    harness.run_steps(3);
    press(&mut harness, Modifiers::NONE, Key::Escape);
    assert!(harness.query_by_label("Rename").is_none(), "the menu is closed");
    assert_eq!(harness.state().actions, [], "the answer goes on");
    harness.get_by_label("Whales").click_secondary();
    harness.run_steps(2);
    harness.get_by_label("Delete…").click();
    harness.run_steps(4);
    assert_eq!(name(&harness), "Keep");
    press(&mut harness, Modifiers::NONE, Key::Escape);
    assert_eq!((harness.state().app.conversations.deleting.clone(), harness.state().actions.len()), (None, 0));
    press(&mut harness, Modifiers::NONE, Key::Escape);
    assert_eq!(harness.state().actions, [Action::Stop]);
    harness.state_mut().app.busy = None;
    harness.state_mut().actions.clear();
    press(&mut harness, Modifiers::NONE, Key::Escape);
    assert!(!harness.state().app.chat.shows_settings && harness.state().actions.is_empty());
    press(&mut harness, Modifiers::NONE, Key::Escape);
    assert_eq!(harness.state().actions, [Action::Dismiss(0)]);
}

#[test]
fn a_menu_that_closes_gives_the_focus_back() {
    let mut harness = harness(opened(), SIZE);
    let chip = harness.query_all_by(|node| node.label().is_some_and(|label| label.ends_with('⏷'))).next();
    let chip = chip.expect("the model").accesskit_node().label().unwrap_or_default();
    for _ in 0..40 {
        press(&mut harness, Modifiers::NONE, Key::Tab);
        if name(&harness) == chip {
            break;
        }
    }
    assert_eq!(name(&harness), chip);
    press(&mut harness, Modifiers::NONE, Key::Enter);
    let (_, rect) = focused(&harness).expect("the search of the menu");
    assert!(rect.top() > 40.0 && name(&harness) != chip, "{rect:?}");
    press(&mut harness, Modifiers::NONE, Key::Escape);
    harness.run_steps(3);
    assert_eq!(name(&harness), chip);
}

#[test]
fn a_low_window_has_room_for_the_conversation() {
    let mut app = talking();
    app.settings.zoom = 2.0;
    app.chat.turns.push(Turn { answer: "He is the captain.".into(), ..Turn::asked("Who is Ahab?") });
    let harness = harness(app, SMALL);
    let send = harness.get_by_label("Send").rect();
    let answer = harness.query_all_by(|_| true).find(|node| {
        node.accesskit_node().label().is_some_and(|label| label.contains("He is the captain."))
            || node.accesskit_node().value().is_some_and(|value| value.contains("He is the captain."))
    });
    let answer = answer.expect("the answer").rect();
    assert!(answer.top() > 60.0 && answer.bottom() <= send.top(), "{answer:?} above {send:?}");
    let regenerate = harness.get_by_label("Regenerate").rect();
    assert!(regenerate.bottom() <= send.top() + 1.0, "{regenerate:?} above {send:?}");
}

#[test]
fn a_page_that_is_opened_by_keys_begins_at_its_top() {
    let mut app = opened();
    app.notices.clear();
    let mut harness = harness(app, SIZE);
    harness.state_mut().app.page = Page::Models;
    harness.run_steps(2);
    press(&mut harness, Modifiers::NONE, Key::Tab);
    let (_, rect) = focused(&harness).expect("a control");
    assert!(rect.left() > 230.0 && rect.top() < 60.0, "{rect:?}");
    // The chat page begins at the question.
    press(&mut harness, Modifiers::COMMAND, Key::Num1);
    harness.state_mut().app.on_action(Action::Show(Page::Chat));
    harness.run_steps(3);
    harness.event(egui::Event::Text("Who is Ahab?".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().app.chat.draft, "Who is Ahab?");
    harness.get_by_label("Chat settings").focus();
    harness.run_steps(2);
    press(&mut harness, Modifiers::NONE, Key::Escape);
    harness.event(egui::Event::Text(" And why?".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().app.chat.draft, "Who is Ahab? And why?");
}

#[test]
fn a_path_that_cannot_be_read_stays_in_its_field() {
    let mut harness = harness(opened(), SIZE);
    let path = |harness: &mut Harness<'_, Shown>, text: &str| {
        harness.event(egui::Event::Text(text.into()));
        harness.run_steps(2);
        press(harness, Modifiers::NONE, Key::Enter);
    };
    harness.get_by_role(egui::accesskit::Role::TextInput).focus();
    harness.run_steps(2);
    path(&mut harness, "no.txt");
    harness.state_mut().app.not_read(&crate::error::Error::new("no.txt does not exist"));
    harness.run_steps(3);
    path(&mut harness, "t");
    assert_eq!(harness.state().app.chat.path, "no.txtt", "the field has the focus again");
    let document = crate::app::documents::Document::new("a.txt", "Call me Ishmael.");
    harness.state_mut().app.on_action(Action::Document(document));
    harness.run_steps(4);
    assert!(harness.state().app.notices.is_empty());
    harness.event(egui::Event::Text("Who?".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().app.chat.draft, "Who?", "and then the question");
}

#[test]
fn a_narrow_page_has_the_run_above_the_settings() {
    let mut app = tuning();
    app.settings.zoom = 2.0;
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    let harness = harness(app, SMALL);
    for name in ["Pause", "Stop and save"] {
        let rect = harness.get_all_by_label(name).next().expect(name).rect();
        assert!(rect.right() <= 400.0 && rect.bottom() <= 300.0, "{name} at {rect:?}");
    }
}
