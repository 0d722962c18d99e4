//! Tests of saved conversations: their files, the list, and turning from one to another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::conversation::{Conversation, Entry, markdown};
use super::list::Next;
use super::store::{Order, Store, Stored};
use crate::app::documents::Document;
use crate::app::message::{Command, Event};
use crate::app::settings::Settings;
use crate::app::state::{Action, App, Busy, Effect, Page};
use crate::app::state_tests::{answer, ask, card, opened, summary};
use crate::app::turns::{Turn, branch};
use crate::checkpoint::generation_config::Wished;

/// A store on a folder, and what it says.
struct Shelf {
    store: Store,
    said: Receiver<Stored>,
}

impl Shelf {
    fn on(folder: &Path) -> Self {
        let (sender, said) = channel();
        let tell = Arc::new(move |stored| {
            let _ = sender.send(stored);
        });
        Self { store: Store::start(folder.to_path_buf(), tell), said }
    }

    fn does(&self, order: Order) -> Stored {
        self.store.send(order);
        self.said.recv_timeout(Duration::from_secs(20)).expect("an answer")
    }
}

fn whole(id: &str) -> Conversation {
    let mut turns = vec![Turn { answer: "Ishmael, a **sailor**.".into(), ..Turn::asked("Who tells\nit?") }];
    branch(&mut turns, 0, Turn { answer: "Nobody.".into(), ..Turn::asked("Who wrote it?") });
    Conversation {
        id: id.into(),
        model: "m.gguf".into(),
        adapter: Some(PathBuf::from("runs/a")),
        sink: 4,
        lag: 32,
        factor: 8,
        system: "Be brief.".into(),
        sampling: Wished { temperature: Some(0.5), top_k: Some(7), ..Wished::default() },
        seed: Some(3),
        n_asked: 9,
        draft: "And".into(),
        documents: vec![Document::new("a.txt", "Call me Ishmael."), Document::new("b.txt", "Call me Ishmael.")],
        turns,
        ..Conversation::default()
    }
}

#[test]
fn a_conversation_returns_from_its_file_whole() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("deep/conversations");
    let shelf = Shelf::on(&folder);
    assert_eq!(shelf.does(Order::List), Stored::Listed(vec![]));
    let conversation = whole("one");
    let Stored::Written(entry) = shelf.does(Order::Write(Box::new(conversation.clone()))) else { panic!("written") };
    assert_eq!((entry.id.as_str(), entry.title.as_str()), ("one", "Who wrote it?"));
    assert!(entry.words.contains("nobody.") && entry.changed > 1_700_000_000);
    assert_eq!(shelf.does(Order::Load("one".into())), Stored::Loaded(Box::new(conversation.clone())));
    assert_eq!(std::fs::read_dir(folder.join("documents")).unwrap().count(), 1, "equal texts are one file");
    // A conversation that is written again does not write its documents again.
    let document = std::fs::read_dir(folder.join("documents")).unwrap().next().unwrap().unwrap().path();
    let before = document.metadata().unwrap().modified().unwrap();
    shelf.does(Order::Write(Box::new(Conversation { draft: "x".into(), ..conversation })));
    assert_eq!(document.metadata().unwrap().modified().unwrap(), before);

    let Stored::Written(entry) = shelf.does(Order::Rename("one".into(), "Whales".into())) else { panic!("renamed") };
    assert_eq!(entry.title, "Whales");
    let path = dir.path().join("out.md");
    assert_eq!(shelf.does(Order::Export("one".into(), path.clone())), Stored::Exported(path.clone()));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.starts_with("# Whales\n\n**Instructions**\n\nBe brief.\n\n**Documents**: a.txt, b.txt\n\n"), "{text}");
    assert!(text.ends_with("## You\n\nWho wrote it?\n\n## Model\n\nNobody.\n\n"), "{text}");

    shelf.does(Order::Write(Box::new(Conversation { documents: vec![], ..whole("two") })));
    assert!(matches!(shelf.does(Order::List), Stored::Listed(list) if list.len() == 2));
    assert_eq!(shelf.does(Order::Delete("one".into())), Stored::Deleted("one".into()));
    assert!(matches!(shelf.does(Order::List), Stored::Listed(list) if list.len() == 1 && list[0].id == "two"));
    assert_eq!(std::fs::read_dir(folder.join("documents")).unwrap().count(), 0, "nobody needs it");
}

#[test]
fn damaged_files_are_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::on(dir.path());
    shelf.does(Order::Write(Box::new(whole("good"))));
    for (id, text, why) in [
        ("cut", "{\"version\": 1, \"tur", "reading"),
        ("new", "{\"version\": 99}", "a newer Longreach wrote"),
        ("other", "{}", "no conversation of Longreach"),
    ] {
        std::fs::write(dir.path().join(format!("{id}.json")), text).unwrap();
        let Stored::Failed(said) = shelf.does(Order::Load(id.into())) else { panic!("{id}") };
        assert!(said.contains(why) && said.contains(&format!("{id}.json")), "{said}");
    }
    shelf.store.send(Order::List);
    let said: Vec<Stored> = (0..4).map(|_| shelf.said.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
    assert!(matches!(&said[3], Stored::Listed(list) if list.len() == 1 && list[0].id == "good"), "{said:?}");
    assert!(dir.path().join("cut.json").exists());
    // An id is no way out of the folder.
    let Stored::Failed(_) = shelf.does(Order::Delete("../x".into())) else { panic!("no id") };
    // A document that is gone is left out, and the rest is shown.
    std::fs::remove_dir_all(dir.path().join("documents")).unwrap();
    shelf.store.send(Order::Load("good".into()));
    let said: Vec<Stored> = (0..3).map(|_| shelf.said.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
    assert!(matches!(&said[0], Stored::Failed(why) if why.contains("a.txt")), "{said:?}");
    assert!(matches!(&said[2], Stored::Loaded(c) if c.documents.is_empty() && c.turns.len() == 1), "{said:?}");
}

#[test]
fn titles_are_short_and_of_one_line() {
    let title = |name: &str, question: &str| {
        let turns = vec![Turn::asked(question)];
        Conversation { name: name.into(), turns, ..Conversation::default() }.title()
    };
    assert_eq!(title("", " Who\n is  he? "), "Who is he?");
    assert_eq!(title("Mine", "Who?"), "Mine");
    assert_eq!(title("", &"wort ".repeat(40)), format!("{}…", "wort ".repeat(12).trim_end()));
    assert_eq!(Conversation::default().title(), "New chat");
    assert!(markdown(&Conversation::default()).starts_with("# New chat\n"));
}

fn saved(effects: &[Effect]) -> Option<&Conversation> {
    effects.iter().find_map(|effect| match effect {
        Effect::Store(Order::Write(conversation)) => Some(&**conversation),
        _ => None,
    })
}

/// An app with an answered question that is saved under the id `first`.
fn talking() -> App {
    let mut app = opened();
    app.conversations.fresh_id = "first".into();
    assert!(app.keep().is_empty(), "nothing to save yet");
    assert!(!app.must_keep());
    ask(&mut app, "Q");
    assert!(app.must_keep());
    assert_eq!(saved(&app.keep()).map(|c| (c.id.as_str(), c.turns.len())), Some(("first", 1)));
    app.on_event(Event::Said("A".into()));
    assert!(!app.must_keep(), "an answer that grows can wait a second");
    app.on_event(Event::Answered(answer("A")));
    assert!(app.must_keep());
    assert_eq!(saved(&app.keep()).map(|c| c.turns[0].answer.as_str()), Some("A"));
    assert!(app.keep().is_empty() && !app.must_keep(), "nothing has changed");
    app.conversations.fresh_id = "second".into();
    app
}

#[test]
fn a_changed_conversation_is_saved() {
    let mut app = talking();
    let changes: [fn(&mut App); 5] = [
        |app| app.chat.draft = "typed".into(),
        |app| app.chat.system = "Be brief.".into(),
        |app| app.settings.factor = 8,
        |app| drop(app.on_action(Action::Document(Document::new("d", "t")))),
        |app| drop(app.on_action(Action::RenameChat("first".into(), " Mine ".into()))),
    ];
    for change in changes {
        change(&mut app);
        assert_eq!(saved(&app.keep()).map(|c| c.id.as_str()), Some("first"));
        assert!(app.keep().is_empty());
    }
    assert_eq!((app.conversation().title().as_str(), app.settings.conversation.as_str()), ("Mine", "first"));
}

#[test]
fn nothing_is_lost_when_the_user_turns_to_another_conversation() {
    let mut app = talking();
    app.chat.draft = "half a quest".into();
    let effects = app.on_action(Action::NewChat);
    assert_eq!(saved(&effects).map(|c| c.draft.as_str()), Some("half a quest"));
    assert!(app.chat.turns.is_empty() && app.chat.draft.is_empty() && app.conversations.id.is_empty());
    assert!(app.on_action(Action::NewChat).is_empty(), "this one is new");
    ask(&mut app, "R");
    assert_eq!(saved(&app.keep()).map(|c| c.id.as_str()), Some("second"));
    // While the model answers, it is stopped first, and its text stays where it belongs.
    app.on_event(Event::Said("half an".into()));
    assert_eq!(app.on_action(Action::OpenChat("first".into())), [Effect::Stop]);
    assert_eq!(app.conversations.next, Some(Next::Saved("first".into())));
    let effects = app.on_event(Event::Answered(answer("half an")));
    assert_eq!(saved(&effects).map(|c| (c.id.as_str(), c.turns[0].answer.as_str())), Some(("second", "half an")));
    assert_eq!(effects.last(), Some(&Effect::Store(Order::Load("first".into()))));
    let loaded = Conversation {
        id: "first".into(),
        turns: vec![Turn::asked("Q")],
        factor: 2,
        sink: 4,
        lag: 64,
        ..app.conversation()
    };
    app.on_stored(Stored::Loaded(Box::new(loaded)));
    assert_eq!((app.chat.turns.len(), app.settings.factor, app.settings.lag), (1, 2, 64));
    assert!(app.keep().is_empty(), "what was loaded is saved");
}

#[test]
fn a_conversation_opens_the_model_that_it_was_with() {
    let mut app = talking();
    let mine = Conversation { factor: 8, lag: 64, sink: 4, ..whole("third") };
    let effects = app.on_stored(Stored::Loaded(Box::new(mine)));
    let choice = app.choice();
    assert_eq!((choice.model.as_str(), &choice.adapter), ("m.gguf", &Some(PathBuf::from("runs/a"))));
    assert_eq!(effects, [Effect::Send(Command::Open(choice)), Effect::SaveSettings]);
    // The adapter was trained with other settings than the conversation had.
    let adapted = crate::app::message::ModelCard { recorded: Some((16, 128, 0.25)), ..card() };
    app.on_event(Event::Opened(adapted));
    assert_eq!((app.settings.factor, app.settings.lag, app.chat.turns.len()), (8, 64, 1));
    assert_eq!((app.chat.documents.len(), app.chat.system.as_str(), app.chat.seed), (2, "Be brief.", Some(3)));
    // During a run it can be read, and no model is opened.
    app.busy = Some(Busy::Training);
    let effects = app.on_stored(Stored::Loaded(Box::new(Conversation { model: "x".into(), ..whole("fourth") })));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send(_))), "{effects:?}");
    assert_eq!((app.conversations.id.as_str(), effects.last()), ("fourth", Some(&Effect::SaveSettings)));
}

#[test]
fn the_last_conversation_returns_at_start() {
    let (app, effects) = App::new(Settings { conversation: "first".into(), ..Settings::default() });
    assert!(effects.contains(&Effect::Store(Order::Load("first".into()))));
    assert_eq!(app.busy, Some(Busy::Opening));
}

#[test]
fn the_list_is_searched_and_kept_in_order() {
    let mut app = opened();
    let entry =
        |id: &str, words: &str, changed| Entry { id: id.into(), title: id.into(), words: words.into(), changed };
    app.on_stored(Stored::Listed(vec![
        entry("a", "whales", 1),
        entry("b", "ships and whales", 3),
        entry("c", "ropes", 2),
    ]));
    let found = |app: &App| app.conversations.found().map(|e| e.id.clone()).collect::<Vec<_>>();
    assert_eq!(found(&app), ["b", "c", "a"]);
    app.conversations.search = " WHALES".into();
    assert_eq!(found(&app), ["b", "a"]);
    app.on_stored(Stored::Written(entry("a", "whales", 9)));
    assert_eq!(found(&app), ["a", "b"]);
    app.on_stored(Stored::Deleted("a".into()));
    assert_eq!(found(&app), ["b"]);
    assert_eq!(
        app.on_action(Action::RenameChat("c".into(), " Rope ".into())),
        [Effect::Store(Order::Rename("c".into(), "Rope".into()))]
    );
}

#[test]
fn a_deleted_conversation_leaves_a_new_one() {
    let mut app = talking();
    app.page = Page::Devices;
    let effects = app.on_action(Action::DeleteChat("first".into()));
    assert_eq!(effects[0], Effect::Store(Order::Delete("first".into())));
    assert!(app.chat.turns.is_empty() && app.conversations.id.is_empty() && app.settings.conversation.is_empty());
    assert!(app.keep().is_empty(), "it does not return");
}

#[test]
fn an_edited_question_leaves_the_old_one_as_a_version() {
    let mut app = talking();
    ask(&mut app, "R");
    app.on_event(Event::Answered(answer("B")));
    app.chat.editing = Some((0, "Q".into()));
    assert!(app.on_action(Action::Resend).is_empty(), "it is the same question");
    app.chat.editing = Some((0, " Q' ".into()));
    let effects = app.on_action(Action::Resend);
    let [Effect::Send(Command::Ask(question))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((question.turns.len(), question.turns[0].question.as_str()), (1, "Q'"));
    app.on_event(Event::Answered(answer("A'")));
    assert_eq!((app.chat.turns.len(), app.chat.turns[0].n_versions()), (1, 2));
    app.on_action(Action::ShowVersion(0, 0));
    let shown: Vec<_> = app.chat.turns.iter().map(|t| (t.question.as_str(), t.answer.as_str())).collect();
    assert_eq!(shown, [("Q", "A"), ("R", "B")]);
    // A new version that fails before its first text leaves the old one, and the text in the field.
    app.chat.editing = Some((1, "R'".into()));
    app.on_action(Action::Resend);
    app.on_event(Event::Failed("lost".into()));
    assert_eq!((app.chat.turns[1].question.as_str(), app.chat.draft.as_str()), ("R", "R'"));
}

#[test]
fn a_chat_that_is_only_looked_at_keeps_its_model() {
    let mut app = talking();
    (app.tune.data, app.tune.out) = ("data".into(), "out".into());
    app.on_action(Action::Train);
    app.on_event(Event::TrainBegan(Box::new(app.job().unwrap())));
    app.on_stored(Stored::Loaded(Box::new(whole("second"))));
    assert!(app.keep().is_empty(), "nothing has changed in it");
    app.chat.draft = "typed".into();
    let found = app.keep();
    let kept = saved(&found).unwrap();
    assert_eq!((kept.model.as_str(), kept.adapter.clone(), kept.factor), ("m.gguf", Some("runs/a".into()), 8));
    // Its model opens after the run, and not the one that was closed for the run.
    let effects = app.on_event(Event::Trained(summary()));
    let [Effect::Send(Command::Open(choice)), ..] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((choice.model.as_str(), choice.adapter.clone()), ("m.gguf", Some("runs/a".into())));
    app.on_event(Event::Opened(card()));
    assert_eq!((app.settings.factor, app.keep().is_empty()), (8, true));
    // If its model cannot be opened, the one before it returns, and answers if asked.
    app.on_stored(Stored::Loaded(Box::new(Conversation { model: "gone.gguf".into(), ..whole("third") })));
    let effects = app.on_event(Event::Failed("gone".into()));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send(_))), "the worker kept it: {effects:?}");
    assert!(app.keep().is_empty(), "the file still names its own model");
    ask(&mut app, "Who?");
    assert_eq!(saved(&app.keep()).map(|c| c.model.as_str()), Some("m.gguf"));
}

#[test]
fn what_could_not_be_saved_is_saved_later() {
    let mut app = talking();
    app.chat.draft = "typed".into();
    assert_eq!(app.keep().len(), 1);
    app.on_stored(Stored::NotWritten("other".into(), "the disk is full".into()));
    assert!(app.keep().is_empty());
    app.on_stored(Stored::NotWritten("first".into(), "the disk is full".into()));
    assert_eq!(saved(&app.keep()).map(|c| c.draft.as_str()), Some("typed"));
    assert!(app.keep().is_empty());
    // At the end nobody hears of it but the one who waits for the end.
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("file");
    std::fs::write(&folder, "").unwrap();
    let store = Store::start(folder, Arc::new(|_| {}));
    store.send(Order::Write(Box::new(whole("first"))));
    assert!(store.finish().unwrap_err().to_string().contains("saving the conversation"));
}

#[test]
fn queued_questions_return_to_the_field() {
    let mut app = talking();
    ask(&mut app, "one");
    app.chat.queued = vec!["two".into(), "three".into()];
    app.chat.draft = "four".into();
    app.on_action(Action::NewChat);
    app.on_event(Event::Said("A".into()));
    let effects = app.on_event(Event::Answered(answer("A")));
    assert_eq!(saved(&effects).map(|c| c.draft.as_str()), Some("two\nthree\nfour"));
}

#[test]
fn two_windows_with_one_chat_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [here, there] = [Shelf::on(dir.path()), Shelf::on(dir.path())];
    here.does(Order::Write(Box::new(whole("one"))));
    let path = dir.path().join("one.json");
    let text = std::fs::read_to_string(&path).unwrap();
    // As if it had been written some time ago.
    let changed = serde_json::from_str::<serde_json::Value>(&text).unwrap()["changed"].to_string();
    std::fs::write(&path, text.replace(&changed, "1700000000")).unwrap();
    for shelf in [&here, &there] {
        assert!(matches!(shelf.does(Order::Load("one".into())), Stored::Loaded(_)));
    }
    let draft = |draft: &str| Box::new(Conversation { draft: draft.into(), ..whole("one") });
    assert!(matches!(here.does(Order::Write(draft("here"))), Stored::Written(entry) if entry.id == "one"));
    for text in ["there", "there again"] {
        assert_eq!(there.does(Order::Write(draft(text))), Stored::Forked("one".into(), "one-2".into()));
        let said = there.said.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(said, Stored::Written(entry) if entry.id == "one-2"));
    }
    let read = |id: &str| match here.does(Order::Load(id.into())) {
        Stored::Loaded(conversation) => conversation.draft,
        other => panic!("{other:?}"),
    };
    assert_eq!((read("one"), read("one-2")), ("here".into(), "there again".into()));
    let mut app = talking();
    app.on_stored(Stored::Forked("first".into(), "first-2".into()));
    assert_eq!((app.conversations.id.as_str(), app.settings.conversation.as_str()), ("first-2", "first-2"));
    assert!(app.keep().is_empty());
}
