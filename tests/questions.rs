//! Questions about documents: read from files, never repeated, with the common prefix of prompts
//! fed once.

mod common;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use common::stories::{Stories, go_on, policies};
use longreach::checkpoint::bundled::MOBY_DICK;
use longreach::eval::{
    Outcome, Part, QaFile, QuestionGrid, Sample, Subject, Task, answer_all, qa_samples, qa_training,
};

const SQUAD: &str = r#"{"version": "v2.0", "data": [
  {"title": "A", "paragraphs": [{"context": "Ann lives in Rome.", "qas": [
    {"id": "a1", "question": "Where does Ann live?", "answers": [{"text": "Rome", "answer_start": 13}], "is_impossible": false},
    {"id": "a2", "question": "Who lives in Oslo?", "answers": [], "is_impossible": true}]}]},
  {"title": "B", "paragraphs": [{"context": "Bob has a cat.", "qas": [
    {"id": "b1", "question": "What has Bob?", "answers": [{"text": "a cat"}, {"text": "cat"}]}]}]},
  {"title": "C", "paragraphs": [{"context": "Cid is a cook.", "qas": [
    {"id": "c1", "question": "What is Cid?", "answers": [{"text": "a cook"}]}]},
    {"context": "The sea is deep.", "qas": []}]}]}"#;

const HOTPOT: &str = r#"[{"_id": "h1", "question": "Are A and B red?", "answer": "yes", "type": "comparison", "level": "hard",
  "supporting_facts": [["A", 0], ["B", 0]],
  "context": [["A", ["A is red.", " It is old."]], ["X", ["X is blue."]], ["B", ["B is red."]]]}]"#;

#[test]
fn questions_are_read_in_both_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let stories = Stories::open();
    let file = QaFile::read(&write("squad.json", SQUAD)).unwrap();
    assert_eq!((file.questions.len(), file.paragraphs.len(), file.is_hotpot), (3, 4, false));
    let grid = |n_samples, per_text| QuestionGrid { lengths: vec![200], n_samples, per_text, seed: 1 };
    let held_out = qa_samples(&stories.files, &file, &grid(2, 1)).unwrap();
    let trained = qa_training(&stories.files, &file, 200, 1, 1, 1).unwrap();
    let ids = |samples: &[longreach::eval::Sample]| samples.iter().map(|s| s.id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&held_out), BTreeSet::from(["qa-200-b1".to_string(), "qa-200-c1".to_string()]));
    assert!(
        matches!(&trained[..], [turns] if matches!(&turns[..], [(user, answer)] if user.contains("Ann") && answer == "Rome")),
        "{trained:?}"
    );
    for sample in &held_out {
        assert!(!sample.prompt.contains("Ann"), "training articles stay out: {}", sample.prompt);
        assert!(sample.prompt.contains("Bob has a cat.") && sample.prompt.contains("Cid is a cook."));
    }
    assert!(qa_samples(&stories.files, &file, &grid(5, 1)).unwrap_err().to_string().contains("2 of 5"));
    let hotpot = QaFile::read(&write("hotpot.json", HOTPOT)).unwrap();
    let question = &hotpot.questions[0];
    assert_eq!((question.gold.clone(), question.other.clone(), hotpot.is_hotpot), (vec![0, 2], vec![1], true));
    assert_eq!(hotpot.paragraphs[0].0, "A: A is red. It is old.");
    for (name, text) in
        [("a.json", "{"), ("b.json", r#"{"data": [{}]}"#), ("c.json", r#"{"data": []}"#), ("d.json", "[1]")]
    {
        let e = QaFile::read(&write(name, text)).unwrap_err().to_string();
        assert!(e.contains(name), "{e}");
    }
}

#[test]
fn no_article_answers_training_and_held_out_questions() {
    // Five questions, three for training; the fourth is about an article of the second, the fifth
    // about new ones.
    let item = |id: &str, first: &str, second: &str| {
        format!(
            r#"{{"_id": "{id}", "question": "Q {id}?", "answer": "yes", "supporting_facts": [["{first}", 0], ["{second}", 0]],
            "context": [["{first}", ["{first} is."]], ["{second}", ["{second} is."]], ["Aside", ["Aside is."]]]}}"#
        )
    };
    let items =
        [item("1", "A", "B"), item("2", "C", "D"), item("3", "E", "F"), item("4", "G", "D"), item("5", "H", "I")];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hotpot.json");
    std::fs::write(&path, format!("[{}]", items.join(", "))).unwrap();
    let file = QaFile::read(&path).unwrap();
    assert_eq!(file.questions_of(Part::Training), [0, 1, 2]);
    assert_eq!(file.questions_of(Part::HeldOut), [4]);
}

#[test]
fn a_document_is_asked_about_several_times_and_no_question_twice() {
    let qas = |from: usize| {
        let one =
            |i: usize| format!(r#"{{"id": "q{i}", "question": "What is {i}?", "answers": [{{"text": "a {i}"}}]}}"#);
        (from..from + 6).map(one).collect::<Vec<_>>().join(", ")
    };
    let paragraph = |name: &str, from| format!(r#"{{"context": "{name} is here.", "qas": [{}]}}"#, qas(from));
    let article = |name: &str, from| format!(r#"{{"paragraphs": [{}]}}"#, paragraph(name, from));
    let articles: Vec<String> =
        ["Ann", "Bob", "Cid", "Dan", "Eve"].iter().zip([0, 10, 20, 30, 40]).map(|(n, i)| article(n, i)).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("squad.json");
    std::fs::write(&path, format!(r#"{{"data": [{}]}}"#, articles.join(", "))).unwrap();
    let (stories, file) = (Stories::open(), QaFile::read(&path).unwrap());
    // Articles 0 to 2 are for training, 3 and 4 are held out: 12 questions, at most 5 per document.
    let grid = QuestionGrid { lengths: vec![200], n_samples: 12, per_text: 5, seed: 3 };
    let samples = qa_samples(&stories.files, &file, &grid).unwrap();
    assert_eq!(samples.iter().map(|s| &s.id).collect::<BTreeSet<_>>().len(), 12);
    let documents: Vec<&str> = samples.iter().map(|s| s.document.as_deref().unwrap()).collect();
    let mut runs = documents.clone();
    runs.dedup();
    let names: BTreeSet<&str> = documents.iter().copied().collect();
    assert_eq!(runs.len(), names.len(), "questions about one document follow each other: {documents:?}");
    assert!(names.len() < 6, "documents have several questions: {names:?}");
    assert!(names.iter().any(|n| documents.iter().filter(|d| d == &n).count() == 5));
    for name in names {
        let of: Vec<_> = samples.iter().filter(|s| s.document.as_deref() == Some(name)).collect();
        assert!(of.len() <= 5);
        let text = |prompt: &str| prompt.split("Question:").next().unwrap().to_string();
        assert!(of.iter().all(|s| text(&s.prompt) == text(&of[0].prompt)
            && s.prompt.ends_with(&format!("What is {}?", &s.answers[0][2..]))));
    }
    let lessons = qa_training(&stories.files, &file, 200, 3, 4, 3).unwrap();
    assert!(lessons.iter().any(|turns| turns.len() == 4), "{lessons:?}");
    let mut asked = BTreeSet::new();
    for turns in &lessons {
        assert!((1..=4).contains(&turns.len()) && turns[0].0.contains("Document 1:"));
        assert!(turns[1..].iter().all(|(user, _)| user.starts_with("Question: ")), "{turns:?}");
        assert!(turns.iter().all(|(user, answer)| user.ends_with(&format!("What is {}?", &answer[2..]))));
        assert!(turns.iter().all(|(_, answer)| asked.insert(answer.clone())), "asked twice: {turns:?}");
    }
    let hotpot = dir.path().join("hotpot.json");
    std::fs::write(&hotpot, HOTPOT).unwrap();
    let e = qa_training(&stories.files, &QaFile::read(&hotpot).unwrap(), 200, 1, 2, 0).unwrap_err().to_string();
    assert!(e.contains("`questions`"), "{e}");
    assert!(asked.iter().all(|a| a[2..].parse::<u32>().unwrap() < 30), "held-out articles stay out: {asked:?}");
}

#[test]
fn what_prompts_have_in_common_is_read_once_and_changes_no_answer() {
    let mut stories = Stories::open();
    let text = &MOBY_DICK[..700];
    let sample = |i: usize, prompt: String| Sample {
        id: format!("s{i}"),
        document: None,
        prompt,
        answers: vec!["it".into()],
        length: 400,
        depth: None,
        max_tokens: 12,
    };
    let ends = [" Once upon a time", " The dog was", " She said that the big bird", " It"];
    let mut samples: Vec<Sample> = ends.iter().enumerate().map(|(i, end)| sample(i, format!("{text}{end}"))).collect();
    samples.push(sample(9, "One day a boy".into()));
    let policies = policies(&["dense", "4x", "random-4x", "window-4x"]);
    let mut told = Vec::new();
    let mut note = |done: usize, total: usize| {
        told.push((done, total));
        ControlFlow::Continue(())
    };
    let together = answer_all(&mut stories.subject(), Task::Qa, &samples, &policies, &mut note).unwrap();
    assert_eq!(told, (1..=20).map(|n| (n, 20)).collect::<Vec<_>>());
    let mut alone = Vec::new();
    for one in &samples {
        alone.extend(
            answer_all(&mut stories.subject(), Task::Qa, std::slice::from_ref(one), &policies, &mut go_on).unwrap(),
        );
    }
    assert_eq!(together, alone);
    let answers: BTreeSet<&str> = together.iter().map(|o| o.answer.as_str()).collect();
    assert!(answers.len() > 5, "attentions and questions differ: {answers:?}");
    for (after, whole) in [(1, 0), (12, 0), (14, 2), (16, 4), (17, 4), (19, 4), (20, 5)] {
        let mut stop = |done: usize, _: usize| match done >= after {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let some = answer_all(&mut stories.subject(), Task::Qa, &samples, &policies, &mut stop).unwrap();
        assert_eq!(some, together[..whole * policies.len()], "stopped after {after}");
    }
    for batch in [2, 3, 8, 100] {
        let mut told = Vec::new();
        let mut note = |done: usize, total: usize| {
            told.push((done, total));
            ControlFlow::Continue(())
        };
        let mut subject = Subject { batch, ..stories.subject() };
        let at_once = answer_all(&mut subject, Task::Qa, &samples, &policies, &mut note).unwrap();
        assert_eq!((at_once, told.last()), (together.clone(), Some(&(20, 20))), "{batch} at once");
        assert!(told.iter().map(|(done, _)| *done).eq(1..=20), "{told:?}");
        let mut stop = |done: usize, _: usize| match done >= 15 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let mut subject = Subject { batch, ..stories.subject() };
        let some = answer_all(&mut subject, Task::Qa, &samples, &policies, &mut stop).unwrap();
        let is_whole = |answers: &&[Outcome]| answers.iter().all(|one| some.contains(one));
        let whole: Vec<Outcome> = together.chunks(policies.len()).filter(is_whole).flatten().cloned().collect();
        assert!(some == whole && some.len() < together.len(), "{batch} at once: whole samples in their order");
    }
    samples[2].prompt = MOBY_DICK[..4000].to_string();
    let e = answer_all(&mut stories.subject(), Task::Qa, &samples, &policies, &mut go_on).unwrap_err().to_string();
    assert!(e.contains("s2") && e.contains("`max_positions`"), "{e}");
}
