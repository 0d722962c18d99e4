//! Tests of documents in the app's state: adding, removing, and what a question says of them.

use super::document::{Document, joined};
use crate::app::message::Event;
use crate::app::state::{Action, Busy, Page};
use crate::app::state_tests::{answer, ask, opened};

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
