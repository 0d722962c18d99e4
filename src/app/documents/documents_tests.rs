//! Tests of documents in the app's state: adding, removing, and what a question says of them.

use super::document::{Document, joined};
use std::sync::Arc;

use crate::app::message::{Event, TokenCount};
use crate::app::state::{Action, App, Busy, Effect, Page};
use crate::app::state_tests::{answer, ask, card, opened};

#[test]
fn several_documents_are_asked_about_together() {
    let mut app = opened();
    app.page = Page::Devices;
    app.on_action(Action::Document(Document::new("a.txt", "one\n")));
    assert_eq!((&*ask(&mut app, "Q").document, app.page), ("one\n", Page::Chat));
    // Adding and removing while an answer is being written applies to the next question.
    assert_eq!(app.busy, Some(Busy::Answering));
    app.on_action(Action::Document(Document::new("b.txt", "two")));
    app.on_action(Action::Document(Document::new("b.txt", "two")));
    app.on_action(Action::Document(Document::new("b.txt", "another")));
    app.on_event(Event::Answered(answer("A")));
    let next = ask(&mut app, "R");
    assert_eq!(&*next.document, "a.txt:\n\none\n\nb.txt:\n\ntwo\n\nb.txt:\n\nanother");
    assert_eq!((next.turns.len(), next.turns[0].answer.as_str()), (2, "A"), "the conversation stays");
    app.on_event(Event::Answered(answer("B")));
    for i in [0, 7, 1] {
        app.on_action(Action::RemoveDocument(i));
    }
    let last = ask(&mut app, "S");
    assert_eq!((&*last.document, last.turns.len()), ("two", 3));
    assert_eq!(&*joined(&[]), "");
    assert!(app.notices.is_empty());
}

/// The count of the first effect.
fn counting(effects: &[Effect]) -> TokenCount {
    match effects {
        [Effect::Count(count)] | [Effect::Count(count), Effect::SaveSettings] => count.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tokens_are_counted_by_the_open_model() {
    let (mut app, _) = App::new(crate::app::settings::Settings::default());
    assert!(app.on_action(Action::Document(Document::new("a.txt", "one"))).is_empty(), "no model is open yet");
    let first = counting(&app.on_event(Event::Opened(card())));
    assert!(app.chat.documents[0].is_counting && Arc::ptr_eq(&first.text, &app.chat.documents[0].text));
    app.on_event(Event::Counted(TokenCount { n_tokens: Some(7), ..first.clone() }));
    assert_eq!((app.chat.documents[0].n_tokens, app.chat.documents[0].is_counting), (Some(7), false));
    let second = counting(&app.on_action(Action::Document(Document::new("b.txt", "two"))));
    // Another model counts both anew, and what the first one counted comes too late.
    let effects = app.on_event(Event::Opened(card()));
    assert_eq!((effects.len(), app.chat.documents[0].n_tokens), (2, None));
    app.on_event(Event::Counted(TokenCount { n_tokens: Some(3), ..second.clone() }));
    assert_eq!((app.chat.documents[1].n_tokens, app.chat.documents[1].is_counting), (None, true));
    let serial = first.serial + 1;
    app.on_event(Event::Counted(TokenCount { n_tokens: Some(4), serial, ..second }));
    app.on_event(Event::Counted(TokenCount { n_tokens: None, serial, ..first.clone() }));
    let found: Vec<_> = app.chat.documents.iter().map(|d| (d.n_tokens, d.is_counting)).collect();
    assert_eq!(found, [(None, false), (Some(4), false)]);
    // The count of a document that was removed meanwhile goes nowhere.
    app.on_action(Action::RemoveDocument(0));
    app.on_event(Event::Counted(TokenCount { n_tokens: Some(9), serial, ..first }));
    assert_eq!(app.chat.documents[0].n_tokens, Some(4));
}
