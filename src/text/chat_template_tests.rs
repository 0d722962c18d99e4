//! Tests of the chat templates, with templates written for them in the style of well-known model
//! families.

use super::*;
use crate::formats::gguf::Value;

const CHATML: &str = "{% for message in messages %}\n    {{- '<|im_start|>' + message['role'] + '\\n' + message.content + \
     '<|im_end|>' + '\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n";
const BRACKETS: &str = "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 is even) %}\
     {{ raise_exception('roles must alternate') }}{% endif %}{% if m.role == 'user' %}{{ '[INST] ' + m.content.strip() + \
     ' [/INST]' }}{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}";
const MARKED: &str = "{% for m in messages %}\n<{{ m.role }}>\n  {% if m.role == 'assistant' %}\n  {%- generation -%}\n\
     {{ m.content }}<end>\n  {%- endgeneration %}\n  {% else %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}";
/// Renders reasoning in the last answer only.
const FORGETFUL: &str = "{% for m in messages %}{{ '<|' + m.role + '|>\\n' }}{% if m.role == 'assistant' and loop.last %}\
     {{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ m.content + '<|end|>\\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";

fn talk() -> Vec<Message> {
    [("user", "Hi."), ("assistant", "Hello, end."), ("user", "Bye."), ("assistant", "Bye!")]
        .map(|(role, content)| Message::new(role, content))
        .to_vec()
}

fn chat(messages: &[Message]) -> Conversation {
    messages.to_vec().into()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, "<s>", "</s>").unwrap()
}

/// The parts of the text that the assistant must produce.
fn answers(source: &str, messages: &[Message]) -> Vec<String> {
    let (text, spans) = template(source).render_with_assistant_spans(&chat(messages)).unwrap();
    assert_eq!(text, template(source).render(&chat(messages), false).unwrap());
    spans.into_iter().map(|span| text[span].to_owned()).collect()
}

#[test]
fn text_is_what_transformers_gives() {
    let text = template(CHATML).render(&chat(&talk()[..1]), true).unwrap();
    assert_eq!(text, "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n");
    let text = template(BRACKETS).render(&chat(&talk()), false).unwrap();
    assert_eq!(text, "<s>[INST] Hi. [/INST] Hello, end.</s>[INST] Bye. [/INST] Bye!</s>");
    assert_eq!(
        template(MARKED).render(&chat(&talk()[..2]), false).unwrap(),
        "<user>\nHi.\n<assistant>\nHello, end.<end>"
    );
}

#[test]
fn answers_are_found_without_marks() {
    assert_eq!(answers(CHATML, &talk()), ["Hello, end.<|im_end|>", "Bye!<|im_end|>"]);
    assert_eq!(answers(BRACKETS, &talk()), [" Hello, end.</s>", " Bye!</s>"]);
    assert_eq!(answers(FORGETFUL, &talk()), ["Hello, end.<|end|>", "<think>\n\n</think>\n\nBye!<|end|>"]);
    assert!(answers(CHATML, &talk()[..1]).is_empty());
}

#[test]
fn short_and_empty_answers_are_not_mistaken_for_their_marks() {
    for content in ["", "im", "end", "\n", "think"] {
        let messages = [Message::new("user", content), Message::new("assistant", content)];
        assert_eq!(answers(CHATML, &messages), [format!("{content}<|im_end|>")]);
        assert_eq!(answers(FORGETFUL, &messages), [format!("<think>\n\n</think>\n\n{content}<|end|>")]);
    }
}

#[test]
fn generation_blocks_mark_the_answers_and_nothing_else() {
    assert_eq!(answers(MARKED, &talk()), ["Hello, end.<end>", "Bye!<end>"]);
    let odd = [Message::new("user", "\u{F0000}\u{F0001}"), Message::new("assistant", "\u{F0002}")];
    assert_eq!(answers(MARKED, &odd), ["\u{F0002}<end>"]);
}

#[test]
fn templates_that_do_not_continue_are_refused_with_advice() {
    let backwards = "{% for m in messages[::-1] %}{{ m.role + m.content }}{% endfor %}";
    let e = template(backwards).render_with_assistant_spans(&chat(&talk())).unwrap_err().to_string();
    assert!(e.contains("message 2") && e.contains("completion"), "{e}");
}

#[test]
fn the_templates_own_refusals_and_mistakes_are_told() {
    let e = template(BRACKETS).render(&chat(&talk()[1..]), false).unwrap_err().to_string();
    assert!(e.contains("roles must alternate"), "{e}");
    assert!(ChatTemplate::new("{% for %}", "", "").unwrap_err().to_string().contains("parsing the chat template"));
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    assert!(template(endless).render(&chat(&[]), false).unwrap_err().to_string().contains("steps"));
}

#[test]
fn tools_variables_and_all_fields_of_messages_reach_the_template() {
    let source = "{{ tools[0].name }}{{ documents }}{{ enable_thinking }}{{ bos_token }}{{ messages[0].tool_calls[0].id }}{{ absent }}";
    let fields = serde_json::json!({"role": "assistant", "content": null, "tool_calls": [{"id": "7"}]});
    let mut conversation = chat(&[Message::from_fields(fields.as_object().unwrap().clone()).unwrap()]);
    conversation.tools = Some(serde_json::json!([{"name": "f"}]));
    conversation.documents = Some("d".into());
    conversation.variables.insert("enable_thinking".into(), 3.into());
    assert_eq!(template(source).render(&conversation, false).unwrap(), "fd3<s>7");
    conversation.variables.insert("bos_token".into(), "B".into());
    assert_eq!(template(source).render(&conversation, false).unwrap(), "fd3B7");
    conversation.variables.insert("tools".into(), "t".into());
    let e = template(source).render(&conversation, false).unwrap_err();
    assert!(e.to_string().contains("the name tools") && e.kind() == crate::ErrorKind::Usage);
}

#[test]
fn what_the_interpreter_cannot_do_is_an_error() {
    let e = template("{{ messages[:9:-1] }}").render(&chat(&talk()[..1]), false);
    assert!(e.is_err() || !cfg!(debug_assertions), "{e:?}"); // minijinja panics only with overflow checks
}

#[test]
fn each_source_of_a_template_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tokenizer_config.json");
    assert!(ChatTemplate::from_dir(dir.path()).unwrap().is_none());
    let read = |json: &str| {
        std::fs::write(&config, json).unwrap();
        ChatTemplate::from_dir(dir.path()).map(|t| t.map(|t| t.render(&chat(&[]), false).unwrap()))
    };
    assert_eq!(
        read(r#"{"chat_template": "A{{ bos_token }}", "bos_token": {"content": "<b>"}}"#).unwrap().unwrap(),
        "A<b>"
    );
    let named = r#"{"chat_template": [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    assert_eq!(read(named).unwrap().unwrap(), "D");
    let e = read(r#"{"chat_template": [{"name": "tool", "template": "T"}]}"#).unwrap_err().to_string();
    assert!(e.contains("tool"), "{e}");
    assert_eq!(read(r#"{"eos_token": null}"#).unwrap(), None);
    std::fs::write(dir.path().join("chat_template.jinja"), "J{{ eos_token }}").unwrap();
    assert_eq!(read(r#"{"chat_template": "A", "eos_token": "<e>"}"#).unwrap().unwrap(), "J<e>");

    let mut m = Metadata::default();
    assert!(ChatTemplate::from_gguf(&m).unwrap().is_none());
    m.insert("tokenizer.chat_template", Value::String("G{{ bos_token }}{{ eos_token }}".into()));
    m.insert("tokenizer.ggml.tokens", Value::Array(vec![Value::String("<0>".into()), Value::String("<1>".into())]));
    m.insert("tokenizer.ggml.bos_token_id", Value::U64(1));
    assert_eq!(ChatTemplate::from_gguf(&m).unwrap().unwrap().render(&chat(&[]), false).unwrap(), "G<1>");
}
