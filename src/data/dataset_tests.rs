//! Tests of reading training data.

use super::*;
use crate::text::chat_template::ChatTemplate;
use crate::text::test_tokenizers::{END, START, byte_level, stories};
use crate::text::tokenizer::Tokenizer;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A reader without a tokenizer for a vocabulary of 100.
fn tokens_only() -> Reader<'static> {
    Reader { tokenizer: None, template: None, eos: None, vocab_size: 100, max_length: None }
}

fn with_tokenizer<'a>(tokenizer: &'a Tokenizer, template: Option<&'a ChatTemplate>, eos: u32) -> Reader<'a> {
    Reader { tokenizer: Some(tokenizer), template, eos: Some(eos), vocab_size: 512, max_length: None }
}

fn read(reader: &Reader, text: &str) -> Result<Split> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.jsonl");
    std::fs::write(&path, text).unwrap();
    reader.read_file(&path)
}

fn one(reader: &Reader, line: &str) -> Example {
    let split = read(reader, line).unwrap();
    assert_eq!(split.examples.len(), 1);
    split.examples[0].clone()
}

/// The text of the tokens whose labels count.
fn trained(tokenizer: &Tokenizer, example: &Example) -> String {
    let ids: Vec<u32> = example.labels.iter().filter(|&&l| l != IGNORED).map(|&l| l as u32).collect();
    assert!(example.labels.iter().zip(&example.ids).all(|(&l, &id)| l == IGNORED || l as u32 == id));
    tokenizer.decode(&ids, false).unwrap()
}

#[test]
fn tokens_are_taken_as_they_are() {
    let example = one(&tokens_only(), r#"{"input_ids": [1, 2, 99], "labels": [-100, 2, 99]}"#);
    assert_eq!((example.ids, example.labels), (vec![1, 2, 99], vec![-100, 2, 99]));
    assert_eq!(one(&tokens_only(), r#"{"input_ids": [1, 2], "labels": null}"#).labels, [1, 2]);
}

#[test]
fn a_completion_is_trained_with_its_end_and_the_prompt_is_not() {
    let t = stories();
    let example = one(&with_tokenizer(&t, None, 2), r#"{"prompt": "Once upon", "completion": " a time", "id": 3}"#);
    let prompt = t.encode("Once upon", true).unwrap();
    assert_eq!(example.ids[..prompt.len()], prompt);
    assert_eq!(example.labels[..prompt.len()], vec![IGNORED; prompt.len()]);
    assert_eq!(t.decode(&example.ids, false).unwrap(), "<s> Once upon a time</s>");
    assert!(trained(&t, &example).ends_with("a time</s>"), "{example:?}");
    assert_eq!(example.n_targets(), example.ids.len() - prompt.len());
}

#[test]
fn a_text_is_trained_whole() {
    let t = stories();
    let example = one(&with_tokenizer(&t, None, 2), r#"{"text": "Lily ran."}"#);
    assert_eq!(example.ids[0], 1);
    assert_eq!(example.ids.last(), Some(&2));
    assert_eq!(example.n_targets(), example.ids.len() - 1);
}

#[test]
fn all_answers_of_a_conversation_are_trained_to_the_token() {
    let t = byte_level();
    let template = ChatTemplate::new(CHATML, "", "").unwrap();
    let line = r#"{"messages": [{"role": "user", "content": "é hello"}, {"role": "assistant", "content": "hello é 🦙"},
        {"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": null}]}"#
        .replace('\n', " ");
    let example = one(&with_tokenizer(&t, Some(&template), END), &line);
    assert_eq!(trained(&t, &example), "hello é 🦙<|im_end|><|im_end|>");
    assert_eq!(example.ids[0], START);
    assert_eq!(example.ids.len(), example.labels.len());
}

#[test]
fn long_examples_are_cut_and_empty_ones_dropped_and_both_counted() {
    let reader = Reader { max_length: Some(3), ..tokens_only() };
    let lines = [
        r#"{"input_ids": [1, 2, 3, 4]}"#,
        "",
        r#"{"input_ids": [1, 2, 3]}"#,
        r#"{"input_ids": [5]}"#,
        r#"{"input_ids": [1, 2, 3, 4, 5], "labels": [-100, -100, -100, 4, 5]}"#,
    ];
    let split = read(&reader, &lines.join("\r\n")).unwrap();
    let ids: Vec<_> = split.examples.iter().map(|e| e.ids.clone()).collect();
    assert_eq!(ids, [[1, 2, 3], [1, 2, 3]]);
    assert_eq!((split.n_truncated, split.n_dropped), (2, 2));
    let e = read(&reader, lines[4]).unwrap_err().to_string();
    assert!(e.contains("none of the 1 examples"), "{e}");
}

#[test]
fn mistakes_name_the_line_and_what_was_found() {
    let t = byte_level();
    let text = with_tokenizer(&t, None, END);
    for (reader, line, words) in [
        (tokens_only(), "{\"input_ids\": [1, 2}", "not valid JSON"),
        (tokens_only(), "\u{FEFF}", "not valid JSON"),
        (tokens_only(), "[1, 2]", "a list of 2"),
        (tokens_only(), r#"{"question": "q", "answer": "a"}"#, "[question, answer]"),
        (tokens_only(), r#"{"input_ids": "abc"}"#, "the string \"abc\""),
        (tokens_only(), r#"{"input_ids": [1, -1]}"#, "not a token id"),
        (tokens_only(), r#"{"input_ids": [1, 100]}"#, "only 100 ids"),
        (tokens_only(), r#"{"input_ids": [1, 2], "labels": [1]}"#, "2 entries and \"labels\" 1"),
        (tokens_only(), r#"{"input_ids": [1, 2], "labels": [1, 100]}"#, "only 100 ids"),
        (tokens_only(), r#"{"input_ids": [1, 2], "labels": [1, -7]}"#, "nor -100"),
        (tokens_only(), r#"{"text": "abc"}"#, "no tokenizer"),
        (text, r#"{"prompt": 3, "completion": "a"}"#, "the number 3"),
        (text, r#"{"prompt": "q"}"#, "[prompt]"),
        (text, r#"{"messages": [{"role": "user", "content": "a"}]}"#, "no chat template"),
        (text, r#"{"messages": []}"#, "is empty"),
        (text, r#"{"messages": [{"role": "user"}]}"#, "\"content\" is missing"),
        (text, r#"{"messages": [{"role": "user", "content": "a", "tool_calls": [1]}]}"#, "\"tool_calls\""),
    ] {
        let e = read(&reader, &format!("{{\"input_ids\": [1, 2]}}\n\n{line}\n")).unwrap_err().to_string();
        assert!(e.contains("train.jsonl, line 3") && e.contains(words), "{line}: {e}");
    }
    let e = read(&text, "{\"text\": \"\u{fffd}\"}".replace('\u{fffd}', "\\ud800").as_str()).unwrap_err().to_string();
    assert!(e.contains("line 1"), "{e}");
    assert!(read(&tokens_only(), "\n \n").unwrap_err().to_string().contains("no examples"));
}

#[test]
fn folders_hold_training_and_perhaps_validation_data() {
    let dir = tempfile::tempdir().unwrap();
    let e = tokens_only().read(dir.path()).unwrap_err();
    assert!(e.to_string().contains("train.jsonl") && e.kind() == crate::ErrorKind::Usage);
    std::fs::write(dir.path().join("train.jsonl"), "\u{FEFF}{\"input_ids\": [1, 2]}").unwrap();
    let data = tokens_only().read(dir.path()).unwrap();
    assert_eq!((data.train.examples.len(), data.valid), (1, None));
    std::fs::write(dir.path().join("valid.jsonl"), "{\"input_ids\": [3, 4]}\n{\"input_ids\": [3, 4]}\n").unwrap();
    assert_eq!(tokens_only().read(dir.path()).unwrap().valid.unwrap().examples.len(), 2);
    assert_eq!(tokens_only().read(&dir.path().join("valid.jsonl")).unwrap().train.examples.len(), 2);
    assert!(tokens_only().read(&dir.path().join("absent.jsonl")).unwrap_err().to_string().contains("absent.jsonl"));
}
