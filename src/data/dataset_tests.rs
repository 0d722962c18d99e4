//! Tests of reading training data.

use super::*;
use crate::text::chat_template::ChatTemplate;
use crate::text::test_tokenizers::{END, START, byte_level, stories};
use crate::text::tokenizer::Tokenizer;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// A reader without a tokenizer for a vocabulary of 100.
fn tokens_only() -> Reader<'static> {
    let (max_length, long) = (None, Long::Cut);
    Reader { tokenizer: None, template: None, eos: None, vocab_size: 100, max_length, long, overlap: 0, pairs: false }
}

fn with_tokenizer<'a>(tokenizer: &'a Tokenizer, template: Option<&'a ChatTemplate>, eos: u32) -> Reader<'a> {
    Reader { tokenizer: Some(tokenizer), template, eos: Some(eos), vocab_size: 512, ..tokens_only() }
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
fn long_texts_and_chats_become_windows_that_learn_each_token_once() {
    let t = stories();
    let template = ChatTemplate::new(
        "{{ '<s>' }}{% for m in messages %}{{ m.role + ': ' + m.content + '</s>' }}{% endfor %}",
        "",
        "",
    );
    let template = template.unwrap();
    let reader = with_tokenizer(&t, Some(&template), 2);
    let story = "Once upon a time there was a little dog. ".repeat(4);
    let text = format!("{{\"text\": {story:?}}}");
    let answer =
        r#"{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "A dog and a cat ran home."}"#;
    let chat = format!("{{\"messages\": [{answer}, {answer}, {answer}]}}");
    for line in [text, chat] {
        let whole = one(&reader, &line);
        let cut = Reader { max_length: Some(24), long: Long::Window, overlap: 3, ..reader };
        let split = read(&cut, &format!("{line}\n{{\"input_ids\": [1, 5, 6]}}")).unwrap();
        let n = split.examples.len() - 1;
        assert!(n >= 3 && split.n_windowed == 1 && split.n_truncated == 0 && split.n_records == 2);
        assert_eq!(split.records, [vec![0; n], vec![1]].concat());
        assert!(split.examples.iter().all(|e| e.ids[0] == 1 && e.ids.len() <= 24), "BOS begins each window");
        let windows = &split.examples[..n];
        let learnt = |e: &Example| -> Vec<i32> { e.labels[1..].iter().copied().filter(|&l| l != IGNORED).collect() };
        assert_eq!(windows.iter().flat_map(learnt).collect::<Vec<_>>(), learnt(&whole));
        for pair in windows.windows(2) {
            assert_eq!(pair[1].ids[1..4], pair[0].ids[pair[0].ids.len() - 3..], "the end of the window before");
        }
        let longest = split.longest.unwrap();
        assert!(longest.n_tokens == whole.ids.len() && longest.place.ends_with("train.jsonl, line 1"), "{longest:?}");
        let e = read(&Reader { long: Long::Whole, ..cut }, &line).unwrap_err();
        assert_eq!(e.kind(), crate::error::ErrorKind::Usage);
        let said = format!("line 1, has {} tokens, more than `max_length` 24", whole.ids.len());
        assert!(e.to_string().contains(&said), "{e}");
        let fits = Reader { long: Long::Whole, max_length: Some(whole.ids.len()), ..reader };
        assert_eq!(one(&fits, &line), whole);
    }
}

#[test]
fn windows_without_a_label_are_dropped() {
    let reader = Reader { max_length: Some(4), long: Long::Window, overlap: 1, ..tokens_only() };
    let labels: Vec<i32> = (0..10).map(|i| if i == 8 { 8 } else { IGNORED }).collect();
    let line = format!("{{\"input_ids\": {:?}, \"labels\": {labels:?}}}", (0..10).collect::<Vec<u32>>());
    let none = r#"{"input_ids": [1, 2, 3, 4, 5, 6], "labels": [1, -100, -100, -100, -100, -100]}"#;
    let split = read(&reader, &format!("{line}\n{none}")).unwrap();
    assert_eq!(split.examples.len(), 1);
    assert_eq!((split.n_parts_dropped, split.n_dropped, split.n_windowed), (2, 1, 2));
    assert_eq!(split.examples[0].ids, [6, 7, 8, 9]);
    assert_eq!(split.longest.unwrap().n_tokens, 10);
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
        (tokens_only(), r#"{"input_ids": [1, 2], "assistant_masks": [1]}"#, "and \"assistant_masks\" 1"),
        (text, r#"{"system": "s", "prompt": "a", "completion": "b"}"#, "\"system\" beside a prompt"),
        (text, r#"{"tools": [{}], "instruction": "a", "output": "b"}"#, "\"tools\" beside an instruction"),
        (tokens_only(), r#"{"text": "abc"}"#, "no tokenizer"),
        (text, r#"{"prompt": 3, "completion": "a"}"#, "the number 3"),
        (text, r#"{"prompt": "q"}"#, "[prompt]"),
        (text, r#"{"prompt": "a", "chosen": "b"}"#, "[prompt, chosen]"),
        (text, r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#, "mixed"),
        (
            text,
            r#"{"prompt": "a", "chosen": "b", "rejected": [{"role": "user", "content": "c"}]}"#,
            "two strings or two lists",
        ),
        (text, r#"{"prompt": "a", "system": "s", "chosen": "b", "rejected": "c"}"#, "\"system\" beside answers"),
        (
            text,
            r#"{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}"#,
            "begin with different",
        ),
        (
            text,
            r#"{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "a"}]}"#,
            "no message of its own",
        ),
        (
            text,
            r#"{"prompt": "a", "chosen": [{"role": "gpt", "content": "b"}], "rejected": [{"role": "gpt", "content": "c"}]}"#,
            "\"chosen\": no message",
        ),
        (text, r#"{"text": null}"#, "\"text\" is null"),
        (text, r#"{"prompt": "a", "completion": null}"#, "\"completion\" is null"),
        (text, r#"{"text": "a\ud83d b"}"#, "surrogate"),
        (text, r#"{"messages": [{"role": "user", "content": "a\ud83d b"}]}"#, "surrogate"),
        (text, r#"{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}"#, "two lists"),
        (text, r#"{"instruction": "a", "output": "b", "history": [["c", "d"]]}"#, "\"history\""),
        (text, r#"{"messages": [{"role": "user", "content": "a"}]}"#, "no chat template"),
        (text, r#"{"messages": []}"#, "is empty"),
        (text, r#"{"messages": [{"role": "user"}]}"#, "\"content\" is missing"),
        (text, r#"{"messages": [{"role": "user", "content": "a", "tool_calls": [1]}]}"#, "\"tool_calls\""),
        (text, r#"{"messages": [{"role": "user", "content": null}]}"#, "\"content\" is null"),
        (text, r#"{"messages": [{"role": "user", "content": 3}]}"#, "\"content\" is 3"),
        (text, r#"{"messages": [{"role": "user", "content": "a", "function_call": {}}]}"#, "\"function_call\""),
        (text, r#"{"messages": [{"role": "user", "content": "a"}, {"role": "gpt", "content": "b"}]}"#, "role \"gpt\""),
        (text, r#"{"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}"#, "\"weight\" is 0.5"),
        (text, r#"{"messages": [{"role": "user", "content": "a"}], "functions": [{}]}"#, "\"functions\""),
        (text, r#"{"messages": [{"role": "user", "content": "a"}], "tools": "{"}"#, "\"tools\" is not JSON"),
        (text, r#"{"messages": [{"role": "system", "content": "a"}], "system": "b"}"#, "besides its own"),
        (text, r#"{"conversations": [{"from": "alien", "value": "a"}]}"#, "\"alien\""),
        (text, r#"{"conversations": [{"from": "gpt", "value": null}]}"#, "\"value\" is null"),
        (text, r#"{"conversations": [{"from": "function_call", "value": "f()"}]}"#, "function_call"),
    ] {
        let e = read(&reader, &format!("{{\"input_ids\": [1, 2]}}\n\n{line}\n")).unwrap_err().to_string();
        assert!(e.contains("train.jsonl, line 3") && e.contains(words), "{line}: {e}");
    }
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

/// Shows tools, tool calls and every role.
const TOOLS: &str = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
     {{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// What is trained of a line, and the whole text.
fn trained_of(template: &str, line: &str) -> (String, String) {
    let t = byte_level();
    let template = ChatTemplate::new(template, "", "<|im_end|>").unwrap();
    let example = one(&with_tokenizer(&t, Some(&template), END), line);
    (trained(&t, &example), t.decode(&example.ids, false).unwrap())
}

#[test]
fn tool_calls_and_tools_are_shown_and_only_answers_are_trained() {
    let line = r#"{"tools": [{"function": {"name": "f"}}], "messages": [{"role": "user", "content": "a", "tool_calls": null},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "r"}, {"role": "assistant", "content": "b"}]}"#
        .replace('\n', " ");
    let (learnt, text) = trained_of(TOOLS, &line);
    assert_eq!(learnt, "{\"name\": \"f\", \"arguments\": {}}<|im_end|>b<|im_end|>");
    assert!(text.starts_with("[{\"function\": {\"name\": \"f\"}}]<|im_start|>user\na<|im_end|>"), "{text}");
    assert!(text.contains("<|im_start|>tool\nr<|im_end|>"), "{text}");
    let as_text = line.replace(r#"[{"function": {"name": "f"}}]"#, r#""[{\"function\": {\"name\": \"f\"}}]""#);
    assert_eq!(trained_of(TOOLS, &as_text), (learnt, text));

    let t = byte_level();
    let blind = ChatTemplate::new(&CHATML.replace("m.content", "(m.content or '')"), "", "").unwrap();
    let reader = with_tokenizer(&t, Some(&blind), END);
    let e = read(&reader, &line).unwrap_err().to_string();
    assert!(e.contains("does not show \"tools\"") && e.contains("\"f\""), "{e}");
    let e = read(&reader, &line.replace("tools\":", "no\":")).unwrap_err().to_string();
    assert!(e.contains("message 2") && e.contains("does not show \"tool_calls\""), "{e}");
}

#[test]
fn messages_of_weight_0_and_those_of_a_prompt_are_not_trained() {
    let weighted =
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "weight": 1, "name": "bot"}]}"#
            .replace('\n', " ");
    assert_eq!(trained_of(CHATML, &weighted).0, "d<|im_end|>");
    let continued = r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]}"#
        .replace('\n', " ");
    assert_eq!(trained_of(CHATML, &continued), trained_of(CHATML, &weighted));
}

#[test]
fn pairs_are_two_completions_of_one_prompt() {
    let t = stories();
    let reader = with_tokenizer(&t, None, 2);
    let pair = |prompt: &str, chosen: &str, rejected: &str| {
        let completion = |text: &str| one(&reader, &format!(r#"{{"prompt": "{prompt}", "completion": "{text}"}}"#));
        Example { rejected: Some(Box::new(completion(rejected))), ..completion(chosen) }
    };
    let expected = pair("Once upon", " a time", " a cat");
    let lines = [
        r#"{"prompt": "Once upon", "chosen": " a time", "rejected": " a cat"}"#,
        r#"{"prompt": null, "chosen": "Once upon time", "rejected": "Once upon tigers"}"#,
        r#"{"chosen": "Once upon a time", "rejected": "Once upon"}"#,
        r#"{"prompt": "Once upon a time there was a little girl", "chosen": " a", "rejected": " b"}"#,
    ];
    assert_eq!(one(&reader, lines[0]), expected);
    assert_eq!(one(&reader, lines[1]), pair("Once upon", " time", " tigers"), "the shared words, not letters");
    assert_eq!(one(&reader, lines[2]), pair("Once", " upon a time", " upon"), "an answer is never empty");
    let reader = Reader { max_length: Some(expected.longest()), ..reader };
    let split = read(&reader, &[lines[0], lines[3]].join("\n")).unwrap();
    assert_eq!((split.examples.len(), split.n_truncated, split.n_dropped), (1, 1, 1));
    assert_eq!(split.longest.unwrap().n_tokens, expected.longest());
    let e = read(&Reader { long: Long::Window, ..reader }, lines[3]).unwrap_err().to_string();
    assert!(e.contains("line 1") && e.contains("`long` window"), "{e}");
    let e = read(&Reader { long: Long::Whole, ..reader }, &[lines[0], lines[3]].join("\n")).unwrap_err().to_string();
    assert!(e.contains("line 2") && e.contains("`long` whole"), "{e}");
}

#[test]
fn pairs_of_messages_have_several_forms() {
    let t = byte_level();
    let template = ChatTemplate::new(CHATML, "", "").unwrap();
    let reader = with_tokenizer(&t, Some(&template), END);
    let [user, chosen, rejected] = [("user", "a"), ("assistant", "b"), ("assistant", "c")]
        .map(|(role, text)| format!(r#"{{"role": "{role}", "content": "{text}"}}"#));
    let mut all = Vec::new();
    for line in [
        format!(r#"{{"prompt": [{user}], "chosen": [{chosen}], "rejected": [{rejected}]}}"#),
        format!(r#"{{"prompt": [{user}], "chosen": "b", "rejected": "c"}}"#),
        format!(r#"{{"chosen": [{user}, {chosen}], "rejected": [{user}, {rejected}]}}"#),
        format!(r#"{{"prompt": "a", "chosen": [{user}, {chosen}], "rejected": [{user}, {rejected}]}}"#),
        format!(r#"{{"prompt": "a", "chosen": [{chosen}], "rejected": [{rejected}]}}"#),
    ] {
        all.push(one(&reader, &line));
    }
    let sequences: Vec<_> = all[0].sequences().map(|s| (t.decode(&s.ids, false).unwrap(), trained(&t, s))).collect();
    let text = |answer: &str| format!("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n");
    assert_eq!(sequences, ["b", "c"].map(|answer| (text(answer), format!("{answer}<|im_end|>"))));
    assert!(all.iter().all(|example| *example == all[0]));
}

#[test]
fn sharegpt_and_alpaca_lines_are_conversations() {
    let messages = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}]}"#
        .replace('\n', " ");
    let expected = trained_of(CHATML, &messages);
    assert_eq!(expected.0, "b<|im_end|>");
    for line in [
        r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
        r#"{"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
        r#"{"system": "s", "conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
        r#"{"instruction": "a", "input": "", "output": "b", "system": "s", "history": []}"#,
    ] {
        assert_eq!(trained_of(CHATML, line), expected, "{line}");
    }
    let (_, text) = trained_of(CHATML, r#"{"instruction": "a", "input": "x", "output": "b"}"#);
    assert!(text.contains("user\na\nx<|im_end|>"), "{text}");
    let calls = r#"{"tools": "[]", "conversations": [{"from": "human", "value": "a"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"}, {"from": "observation", "value": "r"},
        {"from": "gpt", "value": "b"}]}"#
        .replace('\n', " ");
    let (learnt, text) = trained_of(TOOLS, &calls);
    assert_eq!(learnt, "{\"name\": \"f\", \"arguments\": {}}<|im_end|>b<|im_end|>");
    assert!(text.contains("<|im_start|>tool\nr"), "{text}");
    // Without a chat template an instruction is a line of a prompt.
    let t = byte_level();
    let example = one(&with_tokenizer(&t, None, END), r#"{"instruction": "a", "input": "x", "output": "b"}"#);
    assert_eq!(t.decode(&example.ids, false).unwrap(), "a\nx\nb<|im_end|>");
    assert_eq!(trained(&t, &example), "b<|im_end|>");
}

#[test]
fn a_line_may_set_variables_of_the_template() {
    let source = "{{ '<|im_start|>' if shouts }}".to_owned() + CHATML;
    let line = r#"{"messages": [{"role": "assistant", "content": "a"}], "chat_template_kwargs": {"shouts": true}}"#;
    assert!(trained_of(&source, line).1.starts_with("<|im_start|><|im_start|>assistant"));
}

#[test]
fn lists_and_tables_are_read_as_lines_are() {
    let t = byte_level();
    let template = ChatTemplate::new(CHATML, "", "").unwrap();
    let reader = with_tokenizer(&t, Some(&template), END);
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        reader.read_file(&path).map(|split| split.examples).map_err(|e| e.to_string())
    };
    let lines =
        "{\"prompt\": \"a, \\\"b\\\"\\nc\", \"completion\": \"d\"}\n{\"prompt\": \"\", \"completion\": \"hello\"}\n";
    let expected = read("a.jsonl", lines.as_bytes()).unwrap();
    let list = format!("\u{FEFF}[{}]", lines.trim().replace('\n', ",\n "));
    assert_eq!(read("a.json", list.as_bytes()).unwrap(), expected);
    assert_eq!(read("b.json", lines.as_bytes()).unwrap(), expected, "lines under the name of a list");
    let table = "\u{FEFF}id,prompt,completion\r\n1,\"a, \"\"b\"\"\nc\",d\r\n2,,hello\r\n";
    assert_eq!(read("a.csv", table.as_bytes()).unwrap(), expected);
    let tabs = "completion\tprompt\nd\t\"a, \"\"b\"\"\nc\"\nhello\t\n";
    assert_eq!(read("a.tsv", tabs.as_bytes()).unwrap(), expected);
    assert_eq!(read("b.csv", tabs.replace('\t', ";").as_bytes()).unwrap(), expected);

    let chat = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let cell = "messages,text\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"a\"\"}, \
        {\"\"role\"\": \"\"assistant\"\", \"\"content\"\": \"\"b\"\"}]\",";
    assert_eq!(read("c.csv", cell.as_bytes()).unwrap(), read("c.jsonl", chat.as_bytes()).unwrap());
    let turns = "prompt\tcompletion\n[{\"role\": \"user\", \"content\": \"a\"}]\t[{\"role\": \"assistant\", \"content\": \"b\"}]";
    assert_eq!(read("c.tsv", turns.as_bytes()).unwrap(), read("c.jsonl", chat.as_bytes()).unwrap());
    for (name, bytes, words) in [
        ("d.json", "[{\"text\": \"a\"}, {\"text\": 1}]", "d.json, element 2: \"text\" is the number 1"),
        ("d.json", "[{\"text\": \"a\"}", "not a list in JSON"),
        ("d.json", "[1]", "d.json, element 1: found the number 1"),
        ("d.csv", "text\na\nb,c\n", "line: 3"),
        ("d.csv", "question,answer\na,b\n", "question, answer"),
        ("d.csv", "text,text\na,b\n", "columns 1 and 2"),
        ("d.csv", "messages\n[{'role': 'user'}]\n", "json.dumps"),
        ("d.csv", "text\n", "no examples"),
        ("d.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("d.parquet", "PAR1", "not a Parquet table"),
    ] {
        let e = read(name, bytes.as_bytes()).unwrap_err();
        assert!(e.contains(name) && e.contains(words), "{e}");
    }
    let utf16: Vec<u8> = "\u{FEFF}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(read("e.jsonl", &utf16).unwrap_err().contains("UTF-16"));
}

#[test]
fn parquet_tables_of_pyarrow_are_read_as_lines_are() {
    let t = byte_level();
    let template = ChatTemplate::new(TOOLS, "", "").unwrap();
    let reader = with_tokenizer(&t, Some(&template), END);
    let tables = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables");
    let examples = reader.read_file(&tables.join("messages.parquet")).unwrap().examples;
    let lines = r#"{"messages": [{"role": "user", "content": "hello é"}, {"role": "assistant", "content": "hello"}]}
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"x": 1}}}]}, {"role": "tool", "content": "r", "tool_call_id": "1"}, {"role": "assistant", "content": "b", "weight": 0}]}"#;
    assert_eq!(examples, read(&reader, lines).unwrap().examples);
    let e = reader.read_file(&tables.join("texts.parquet")).unwrap_err().to_string();
    assert!(e.contains("texts.parquet, row 3") && e.contains("\"text\" is null"), "{e}");
    let ids = tokens_only().read_file(&tables.join("ids.parquet")).unwrap().examples;
    assert_eq!(ids[0], Example { ids: vec![1, 2, 3], labels: vec![IGNORED, 2, 3], rejected: None });
    assert_eq!(ids[1].labels, [4, 5]);
}

#[test]
fn folders_may_hold_other_names_parts_and_documents() {
    let reader = tokens_only();
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("data/train-00000-of-00002.jsonl", "{\"input_ids\": [1, 2]}");
    put("data/train-00001-of-00002.jsonl", "{\"input_ids\": [3, 4]}");
    put("data/validation.json", "[{\"input_ids\": [5, 6]}]");
    let data = reader.read(dir.path()).unwrap();
    assert_eq!(data.train.examples.iter().map(|e| e.ids[0]).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(data.valid.unwrap().examples[0].ids, [5, 6]);
    put("data/valid.jsonl", "{\"input_ids\": [5, 6]}");
    let e = reader.read(dir.path()).unwrap_err();
    assert!(
        e.to_string().contains("both valid.jsonl and validation.json") && e.kind() == crate::ErrorKind::Usage,
        "{e}"
    );

    let t = byte_level();
    let reader = with_tokenizer(&t, None, END);
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("b.txt", "\u{FEFF}hello\r\n"), ("a/c.md", "# a"), (".hidden.txt", "x"), ("d.pdf", "x")] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let texts: Vec<_> = reader.read(dir.path()).unwrap().train.examples.iter().map(|e| trained(&t, e)).collect();
    assert_eq!(texts, ["# a<|im_end|>", "hello\r\n<|im_end|>"]);
    std::fs::write(dir.path().join("b.txt"), [0xff, 0x61]).unwrap();
    let e = reader.read(dir.path()).unwrap_err().to_string();
    assert!(e.contains("b.txt") && e.contains("UTF-8"), "{e}");
}

#[test]
fn folders_with_missing_parts_or_tables_of_other_names_are_refused() {
    let reader = tokens_only();
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "{\"input_ids\": [1, 2]}").unwrap();
    };
    let error = || reader.read(dir.path()).unwrap_err().to_string();
    put("README.md");
    put("en/alpaca.jsonl");
    assert!(error().contains("en/alpaca.jsonl but no train.*"), "{}", error());
    put("train-00000-of-00003-0a1b.jsonl");
    put("train-00002-of-00003-0a1c.jsonl");
    assert!(error().contains("no train-00001-of-00003.jsonl"), "{}", error());
    put("train-00001-of-00003.jsonl");
    assert_eq!(reader.read(dir.path()).unwrap().train.examples.len(), 3);
    put("train-00000-of-00002.jsonl");
    assert!(error().contains("both"), "{}", error());
}
