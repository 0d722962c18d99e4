//! Tests of the question field: its size, its keys and its focus.

use egui::accesskit::Role;
use egui::{Key, Modifiers};
use egui_kittest::kittest::{NodeT, Queryable};
use egui_kittest::{Harness, Node};

use super::view_tests::{Shown, harness, opened, press, talking};
use crate::app::state::{Action, Busy, Notice};
use crate::app::turns::Cut;

const SIZE: (f32, f32) = (1280.0, 800.0);

fn field<'a>(harness: &'a Harness<'_, Shown>) -> Node<'a> {
    harness.get_all_by_role(Role::MultilineTextInput).next().expect("the question field")
}

fn types(harness: &mut Harness<'_, Shown>, text: &str) {
    field(harness).type_text(text);
    harness.run_steps(2);
}

#[test]
fn a_long_question_scrolls_in_its_field() {
    for size in [SIZE, (720.0, 480.0)] {
        let mut harness = harness(talking(), size);
        field(&harness).focus();
        harness.run_steps(2);
        let lines: Vec<String> = (1..=60).map(|i| format!("line {i}")).collect();
        field(&harness).type_text(&lines.join("\n"));
        harness.run_steps(4);
        // The field has grown; what is typed next scrolls to the caret.
        field(&harness).type_text("x");
        harness.run_steps(4);
        let top = harness.get_by_label("Send").rect().top();
        assert!(top >= 0.45 * size.1, "the question begins at {top} of {}", size.1);
        let rect = field(&harness).rect();
        assert!(rect.height() > size.1, "all lines are in the field: {rect:?}");
        assert!(rect.bottom() <= size.1, "the caret behind the last line is visible: {rect:?}");
        // An emptied field has its first size again.
        harness.state_mut().app.chat.draft.clear();
        harness.run_steps(4);
        assert!(field(&harness).rect().height() < 80.0);
        assert!(harness.get_by_label("Send").rect().top() > size.1 - 120.0);
    }
}

#[test]
fn enter_sends_the_whole_question_wherever_the_caret_is() {
    let mut harness = harness(opened(), SIZE);
    assert!(field(&harness).accesskit_node().is_focused(), "after opening");
    types(&mut harness, "Who is Ahab?");
    for _ in 0..5 {
        press(&mut harness, Modifiers::NONE, Key::ArrowLeft);
    }
    press(&mut harness, Modifiers::SHIFT, Key::Enter);
    assert_eq!(harness.state().app.chat.draft, "Who is \nAhab?");
    assert_eq!(harness.state().actions, []);
    for busy in [None, Some(Busy::Answering)] {
        harness.state_mut().app.busy = busy;
        harness.state_mut().actions.clear();
        press(&mut harness, Modifiers::NONE, Key::Enter);
        assert_eq!(harness.state().actions, [Action::Ask], "{busy:?}");
        assert_eq!(harness.state().app.chat.draft, "Who is \nAhab?");
    }
    // Where no question can be asked, Enter leaves the text alone.
    harness.state_mut().app.busy = Some(Busy::Training);
    harness.state_mut().actions.clear();
    press(&mut harness, Modifiers::NONE, Key::Enter);
    assert_eq!((harness.state().actions.len(), harness.state().app.chat.draft.as_str()), (0, "Who is \nAhab?"));
}

#[test]
fn escape_stops_the_answer_and_typing_goes_on() {
    let mut harness = harness(opened(), SIZE);
    harness.state_mut().app.busy = Some(Busy::Answering);
    types(&mut harness, "And then");
    press(&mut harness, Modifiers::NONE, Key::Escape);
    assert_eq!(harness.state().actions, [Action::Stop]);
    assert!(field(&harness).accesskit_node().is_focused());
    harness.event(egui::Event::Text("?".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().app.chat.draft, "And then?");
}

#[test]
fn buttons_give_the_focus_to_the_question_and_fields_keep_theirs() {
    let mut harness = harness(talking(), SIZE);
    harness.get_all_by_label("Copy").last().expect("one for each answer").click();
    harness.run_steps(2);
    let actions = std::mem::take(&mut harness.state_mut().actions);
    assert_eq!(actions, [Action::Copy("Ishmael, a sailor.".into())]);
    for action in actions {
        harness.state_mut().app.on_action(action);
    }
    harness.run_steps(2);
    assert!(field(&harness).accesskit_node().is_focused());
    harness.get_all_by_role(Role::TextInput).next().expect("the path of a document").focus();
    harness.run_steps(2);
    harness.state_mut().app.chat.wants_focus = true;
    harness.run_steps(2);
    assert!(!field(&harness).accesskit_node().is_focused());
}

#[test]
fn a_notice_leaves_the_focus_where_it_is() {
    let mut harness = harness(opened(), SIZE);
    types(&mut harness, "one");
    harness.state_mut().app.notify(Notice::error("no room"));
    harness.run_steps(2);
    harness.event(egui::Event::Text(" two".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().app.chat.draft, "one two");
    harness.state_mut().app.notices.clear();
    harness.run_steps(2);
    harness.event(egui::Event::Text(" three".into()));
    harness.run_steps(2);
    assert_eq!(harness.state().app.chat.draft, "one two three");
}

#[test]
fn the_queue_and_the_end_of_an_answer_are_shown() {
    let mut app = talking();
    app.busy = Some(Busy::Answering);
    app.chat.queued = vec!["Why the whale?".into(), "And\nthen?".into()];
    let mut harness = harness(app, SIZE);
    assert!(harness.query_by_label("Next: Why the whale?").is_some());
    // The first of these buttons removes the document.
    harness.get_all_by_label("Remove").nth(2).expect("a button for each question").click();
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::Unqueue(1)]);

    let mut app = talking();
    app.chat.turns[1].cut = Some(Cut::Limit(1024));
    let mut harness = self::harness(app.clone(), SIZE);
    assert!(harness.query_by_label("Cut at 1024 tokens").is_some() && harness.query_by_label("stopped").is_none());
    harness.get_by_label("Continue").click();
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::Continue]);
    app.chat.context = Some((8192, 668, 30_781_440));
    let harness = self::harness(app, SIZE);
    assert!(harness.query_by_label("Continue").is_none());
}
