//! Tests of the chat's state: the queue, answers that are made again or continued, and their end.

use super::message::{Command, Event, Question};
use super::settings::Settings;
use super::state::{Action, App, Effect};
use super::state_tests::{answer, ask, opened};
use super::turns::Cut;
use crate::generate::{Answer, StoppedBy};

/// The question of the only effect.
fn asked(effects: &[Effect]) -> Question {
    match effects {
        [Effect::Send(Command::Ask(question))] => question.clone(),
        other => panic!("{other:?}"),
    }
}

fn stopped(text: &str, n_said: usize) -> Answer {
    Answer { stopped_by: StoppedBy::Caller, n_said, n_tokens: 77, ..answer(text) }
}

fn at_limit(text: &str, n_said: usize) -> Answer {
    Answer { stopped_by: StoppedBy::MaxTokens, n_said, ..answer(text) }
}

/// An app whose only question has the answer "old".
fn answered() -> App {
    let mut app = opened();
    ask(&mut app, "Q");
    app.on_event(Event::Answered(answer("old")));
    app
}

#[test]
fn an_edited_question_that_is_stopped_at_once_stays() {
    let mut app = answered();
    app.chat.editing = Some((0, "R".into()));
    asked(&app.on_action(Action::Resend));
    app.on_event(Event::Answered(stopped("", 0)));
    let turn = &app.chat.turns[0];
    assert_eq!((turn.question.as_str(), turn.at, turn.n_versions()), ("R", 1, 2));
    assert_eq!(turn.cut, Some(Cut::Stopped(0)));
}

#[test]
fn the_old_answer_returns_if_the_new_one_comes_to_nothing() {
    let ends = [Event::Answered(stopped("", 0)), Event::Failed("out of memory".into())];
    for (end, says) in ends.iter().flat_map(|end| [(end, ""), (end, "ne")]) {
        if matches!(end, Event::Answered(_)) && !says.is_empty() {
            continue;
        }
        let mut app = answered();
        let before = (app.chat.turns.clone(), app.chat.context);
        let question = asked(&app.on_action(Action::Regenerate));
        assert_eq!((question.turns[0].answer.as_str(), question.seed), ("", 2));
        app.on_event(Event::Fed { done: 30, total: 40 });
        if !says.is_empty() {
            app.on_event(Event::Said(says.into()));
        }
        app.on_event(end.clone());
        assert_eq!((app.chat.turns.clone(), app.chat.context), before, "{end:?} after '{says}'");
        assert_eq!((app.chat.draft.as_str(), app.busy, app.chat.fed), ("", None, None));
    }
    // A new answer that has begun takes the place of the old one.
    let mut app = answered();
    app.on_action(Action::Regenerate);
    app.on_event(Event::Said("new".into()));
    app.on_event(Event::Answered(stopped("new", 3)));
    assert_eq!((app.chat.turns[0].answer.as_str(), app.chat.turns[0].cut), ("new", Some(Cut::Stopped(3))));
    assert_eq!(app.chat.context, Some((77, 40, 2560)));
}

#[test]
fn a_failed_question_leaves_the_figures_of_the_conversation() {
    let mut app = answered();
    let before = app.chat.context;
    ask(&mut app, "more");
    app.on_event(Event::Fed { done: 500, total: 600 });
    app.on_event(Event::Failed("lost".into()));
    assert_eq!((app.chat.context, app.chat.draft.as_str(), app.chat.turns.len()), (before, "more", 1));
}

#[test]
fn questions_wait_for_the_end_of_the_answer() {
    let mut app = opened();
    ask(&mut app, "first");
    for text in ["second", " third\nline ", "  "] {
        app.chat.draft = text.into();
        assert!(app.on_action(Action::Ask).is_empty());
    }
    assert_eq!(app.chat.queued, ["second", "third\nline"]);
    assert!(app.notices.is_empty());
    app.chat.draft = "being typed".into();
    let question = asked(&app.on_event(Event::Answered(answer("1"))));
    assert_eq!((question.turns.len(), question.turns[1].question.as_str()), (2, "second"));
    assert_eq!((app.chat.draft.as_str(), app.chat.queued.len()), ("being typed", 1));
    // A stop ends an answer too.
    assert_eq!(app.on_action(Action::Stop), [Effect::Stop]);
    let question = asked(&app.on_event(Event::Answered(stopped("2", 1))));
    assert_eq!((question.turns[2].question.as_str(), app.chat.draft.as_str()), ("third\nline", "being typed"));
    // A question can leave the queue, and nothing that was typed is lost if the answer fails.
    for text in ["fourth", "fifth", "sixth"] {
        app.chat.draft = text.into();
        app.on_action(Action::Ask);
    }
    app.on_action(Action::Unqueue(1));
    app.on_action(Action::Unqueue(9));
    app.chat.draft = "seventh".into();
    assert!(app.on_event(Event::Failed("lost".into())).is_empty());
    assert_eq!(app.chat.draft, "third\nline\nfourth\nsixth\nseventh");
    assert!(app.chat.queued.is_empty());
}

#[test]
fn an_answer_that_reached_the_limit_can_go_on() {
    assert_eq!(Settings::default().max_tokens, 1024);
    let mut app = answered();
    assert!(app.on_action(Action::Continue).is_empty(), "nothing cut this answer");
    ask(&mut app, "More");
    app.on_event(Event::Answered(at_limit("one", 10)));
    assert_eq!(app.chat.turns[1].cut, Some(Cut::Limit(10)));
    let question = asked(&app.on_action(Action::Continue));
    assert_eq!((question.turns[1].answer.as_str(), question.seed), ("one", 3));
    app.on_event(Event::Said(" tw".into()));
    assert_eq!(app.chat.turns[1].answer, "one tw");
    app.on_event(Event::Answered(at_limit(" two", 5)));
    assert_eq!((app.chat.turns[1].answer.as_str(), app.chat.turns[1].cut), ("one two", Some(Cut::Limit(15))));
    // Stopped before it went on, it stays as it was.
    app.on_action(Action::Continue);
    app.on_event(Event::Answered(stopped("", 0)));
    assert_eq!((app.chat.turns[1].answer.as_str(), app.chat.turns[1].cut), ("one two", Some(Cut::Limit(15))));
    app.on_action(Action::Continue);
    app.on_event(Event::Answered(answer(" three")));
    assert_eq!((app.chat.turns[1].answer.as_str(), app.chat.turns[1].cut), ("one two three", None));
    // A conversation that fills the model cannot go on.
    ask(&mut app, "More");
    app.on_event(Event::Answered(Answer { n_tokens: 1000, ..at_limit("end", 3) }));
    assert!(app.on_action(Action::Continue).is_empty());
}

#[test]
fn typing_goes_on_after_what_leads_to_it() {
    let mut app = opened();
    assert!(std::mem::take(&mut app.chat.wants_focus), "after opening");
    ask(&mut app, "Q");
    assert!(std::mem::take(&mut app.chat.wants_focus), "after the button");
    app.on_event(Event::Said("A".into()));
    assert!(!app.chat.wants_focus);
    app.on_event(Event::Answered(answer("A")));
    assert!(std::mem::take(&mut app.chat.wants_focus), "after an answer");
    app.on_action(Action::Regenerate);
    assert!(std::mem::take(&mut app.chat.wants_focus));
    app.on_action(Action::SettingsChanged);
    assert!(!app.chat.wants_focus);
}
