//! Tests of the frame around the pages and of the conversation: the order of Tab, sizes, notices, and
//! what is laid out of a long conversation.

use egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};

use super::view_tests::{Shown, harness, opened, press, talking};
use crate::app::conversations::{Entry, Stored};
use crate::app::state::{Action, App, Notice};
use crate::app::turns::Turn;

const SIZE: (f32, f32) = (1280.0, 800.0);

/// The label, value or role of what has the focus.
fn focused(harness: &Harness<'_, Shown>) -> Option<String> {
    let node = harness.query_all_by(|node| node.is_focused()).next()?;
    let node = node.accesskit_node();
    Some(node.label().filter(|label| !label.is_empty()).unwrap_or_else(|| format!("{:?}", node.role())))
}

#[test]
fn tab_follows_what_one_sees() {
    let mut app = talking();
    app.chat.wants_focus = false;
    app.conversations.list = Some(vec![Entry { id: "a".into(), title: "Whales".into(), ..Entry::default() }]);
    let mut harness = harness(app, SIZE);
    let mut order = Vec::new();
    for _ in 0..60 {
        press(&mut harness, Modifiers::NONE, Key::Tab);
        order.extend(focused(&harness).filter(|name| order.last() != Some(name)));
    }
    let at = |name: &str| order.iter().position(|n| n == name).unwrap_or_else(|| panic!("{name} in {order:?}"));
    let seen =
        ["Chat", "New chat", "Whales", "4x", "Chat settings", "Edit", "Regenerate", "MultilineTextInput", "Send"];
    let places: Vec<usize> = seen.iter().map(|name| at(name)).collect();
    assert!(places.is_sorted(), "{order:?}");
}

#[test]
fn keys_change_the_size_and_begin_a_chat() {
    let mut harness = harness(opened(), SIZE);
    press(&mut harness, Modifiers::COMMAND, Key::Plus);
    press(&mut harness, Modifiers::COMMAND, Key::Plus);
    press(&mut harness, Modifiers::COMMAND, Key::Minus);
    assert_eq!(harness.state().app.settings.zoom, 1.1);
    assert!(harness.query_by_label("110 %").is_some());
    press(&mut harness, Modifiers::COMMAND, Key::Num0);
    assert_eq!(harness.state().app.settings.zoom, 1.0);
    harness.state_mut().actions.clear();
    press(&mut harness, Modifiers::COMMAND, Key::N);
    assert_eq!(harness.state().actions, [Action::NewChat]);
    for _ in 0..40 {
        harness.state_mut().app.settings.zoom_by(1);
    }
    assert_eq!(harness.state().app.settings.zoom, 3.0);
}

#[test]
fn news_leaves_by_itself_and_errors_stay() {
    let mut app = opened();
    app.notices = vec![Notice::info("Saved a.md"), Notice::error("no space left")];
    let mut harness = harness(app, SIZE);
    assert_eq!(harness.get_all_by_label("Dismiss").count(), 2);
    assert!(harness.query_by_label("Error: no space left").is_some());
    assert_eq!(harness.state().actions, []);
    harness.run_steps(40); // a quarter of a second each
    assert_eq!(harness.state().actions[0], Action::Dismiss(0));
    assert!(!harness.state().actions.contains(&Action::Dismiss(1)));
}

fn long(n: usize) -> App {
    let mut app = opened();
    let answer = "It is **white**.\n\n- teeth\n- a tail\n\n".repeat(6);
    app.chat.turns = (0..n).map(|i| Turn { answer: answer.clone(), ..Turn::asked(format!("Question {i}")) }).collect();
    app
}

#[test]
fn a_long_conversation_lays_out_what_is_in_sight() {
    let mut harness = harness(long(500), SIZE);
    let laid_out = |harness: &Harness<'_, Shown>| harness.query_all_by_label("You").count();
    harness.run_steps(3);
    assert!((1..20).contains(&laid_out(&harness)), "{} turns", laid_out(&harness));
    assert!(harness.query_by_label("Question 499").is_some(), "the end is in sight");
    harness.hover_at(egui::pos2(700.0, 300.0));
    harness.event(egui::Event::MouseWheel {
        unit: egui::MouseWheelUnit::Point,
        delta: egui::vec2(0.0, 9e6),
        phase: egui::TouchPhase::Move,
        source: egui::MouseWheelSource::Wheel,
        modifiers: Modifiers::NONE,
    });
    harness.run_steps(40);
    assert!(harness.query_by_label("Question 0").is_some(), "the beginning is in sight");
    assert!((1..20).contains(&laid_out(&harness)), "{} turns", laid_out(&harness));
    let start = std::time::Instant::now();
    harness.run_steps(20);
    eprintln!("a frame of 500 turns takes {:.1} ms here", start.elapsed().as_secs_f64() * 1e3 / 20.0);
}

#[test]
fn a_chat_is_renamed_and_deleted_in_the_list() {
    let mut app = opened();
    let entry = Entry { id: "a".into(), title: "Whales".into(), words: "whales".into(), changed: 1 };
    app.on_stored(Stored::Listed(vec![entry]));
    let mut harness = harness(app, SIZE);
    harness.get_by_label("Whales").click_secondary();
    harness.run_steps(2);
    harness.get_by_label("Rename").click();
    harness.run_steps(4);
    let (id, text) = harness.state().app.conversations.renaming.clone().expect("the name is a field");
    assert_eq!((id.as_str(), text.as_str()), ("a", "Whales"));
    press(&mut harness, Modifiers::NONE, Key::End);
    harness.event(egui::Event::Text("!".into()));
    harness.run_steps(2);
    press(&mut harness, Modifiers::NONE, Key::Enter);
    assert_eq!(harness.state().actions, [Action::RenameChat("a".into(), "Whales!".into())]);
    harness.state_mut().actions.clear();
    harness.state_mut().app.conversations.renaming = None;
    harness.run_steps(2);
    harness.get_by_label("Whales").click_secondary();
    harness.run_steps(2);
    harness.get_by_label("Delete…").click();
    harness.run_steps(4);
    assert_eq!(harness.state().actions, [], "it asks first");
    harness.get_by_label("Delete").click();
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::DeleteChat("a".into())]);
}
