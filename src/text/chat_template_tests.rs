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

fn message(json: serde_json::Value) -> Message {
    Message::from_fields(json.as_object().unwrap().clone()).unwrap()
}

fn said(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(*role, *content)).collect()
}

/// Leaves thoughts out of answers before the last question, as Qwen3 does, shows the others in tags,
/// and trims contents.
const THOUGHTFUL: &str = "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}\
     {% endif %}{% endfor %}{% for m in messages %}{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}\
     {% set c = m.content or '' %}{% set t = m.reasoning_content or '' %}{% if '</think>' in c %}\
     {% set t = c.split('</think>')[0].split('<think>')[-1].strip() %}{% set c = c.split('</think>')[-1].strip() %}{% endif %}\
     {% if loop.index0 > ns.last %}{{ '<think>\n' + t + '\n</think>\n\n' }}{% endif %}{{ c.strip() }}\
     {% for call in m.tool_calls or [] %}{{ '<call>' + call.function.name + (call.function.arguments | tojson) + '</call>' }}{% endfor %}\
     {% else %}{{ m.content | trim }}{% endif %}{{ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";

#[test]
fn answers_are_what_the_template_shows_of_them() {
    let talk = said(&[
        ("user", "a"),
        ("assistant", "<think>\nhm\n</think>\n\n b "),
        ("user", " c"),
        ("assistant", "<think>\nx\n</think>\n\nd"),
    ]);
    assert_eq!(answers(THOUGHTFUL, &talk), ["b<|end|>", "<think>\nx\n</think>\n\nd<|end|>"]);
    let plain = said(&[("user", "a"), ("assistant", " b"), ("user", "c")]);
    assert_eq!(answers(THOUGHTFUL, &plain), ["b<|end|>"]);
    let apart = message(serde_json::json!({"role": "assistant", "reasoning_content": "why", "content": "d"}));
    let talk = [Message::new("user", "a"), apart];
    assert_eq!(answers(THOUGHTFUL, &talk), ["<think>\nwhy\n</think>\n\nd<|end|>"]);
}

#[test]
fn tool_calls_are_part_of_the_answer_and_results_are_not() {
    let call = serde_json::json!({"id": "1", "function": {"name": "f", "arguments": {"x": 1}}});
    let calling = message(serde_json::json!({"role": "assistant", "content": null, "tool_calls": [call]}));
    let result = message(serde_json::json!({"role": "tool", "tool_call_id": "1", "content": "<|end|>r"}));
    let talk = [Message::new("user", "a"), calling, result, Message::new("assistant", "b")];
    let expected = ["<think>\n\n</think>\n\n<call>f{\"x\": 1}</call><|end|>", "<think>\n\n</think>\n\nb<|end|>"];
    assert_eq!(answers(THOUGHTFUL, &talk), expected);
    // A template that counts the messages without tool calls, and moves the system prompt into the last question.
    let mistral = "{% set ask = messages | selectattr('role', 'equalto', 'user') | list | last %}{% for m in messages \
         | rejectattr('role', 'equalto', 'tool') | selectattr('tool_calls', 'undefined') %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
         {{ raise_exception('alternate') }}{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'user' %}\
         {{ '[INST]' + ('S ' if m == ask else '') + m.content + '[/INST]' }}{% elif m.tool_calls is defined %}\
         {{ '[CALLS][{\"name\": \"' + m.tool_calls[0].function.name + '\"}]' + eos_token }}{% elif m.role == 'tool' %}\
         {{ '[RESULTS]' + m.content + '[/RESULTS]' }}{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}";
    let mut longer = talk.to_vec();
    longer.extend(said(&[("user", "c"), ("assistant", "d")]));
    assert_eq!(answers(mistral, &longer), ["[CALLS][{\"name\": \"f\"}]</s>", "b</s>", "d</s>"]);
}

#[test]
fn a_generation_prompt_that_says_more_than_the_answer_is_not_learnt() {
    let r1 = "{% for m in messages %}{% if m.role == 'user' %}{{ '<u>' + m.content }}{% else %}\
        {{ '<a>\n' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ '<a>\n<think>\n' }}{% endif %}";
    let talk = said(&[("user", "a"), ("assistant", "<b>"), ("user", "c"), ("assistant", "<think>x</think>d")]);
    assert_eq!(answers(r1, &talk), ["<b></s>", "d</s>"]);
    let open = "{% for m in messages %}{{ '<' + m.role + '>\n' + m.content + '</s>' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<assistant>\n<think>\n' }}{% endif %}";
    let talk = said(&[("user", "a"), ("assistant", "<think>\nx</think>d"), ("user", "a"), ("assistant", "plain")]);
    assert_eq!(answers(open, &talk), ["x</think>d</s>", "plain</s>"]);
}

#[test]
fn the_assistant_may_speak_first() {
    let default =
        "{% if messages[0]['role'] == 'system' %}{{ messages[0].content }}{% else %}{{ 'You are kind.\n' }}{% endif %}";
    let source = default.to_owned() + CHATML;
    let talk = said(&[("assistant", "hello"), ("user", "a"), ("assistant", "b")]);
    assert_eq!(answers(&source, &talk), ["hello<|im_end|>", "b<|im_end|>"]);
    let twice = said(&[("user", "a"), ("assistant", "b"), ("assistant", "c")]);
    assert_eq!(answers(&source, &twice), ["b<|im_end|>", "c<|im_end|>"]);
}

#[test]
fn templates_that_refuse_parts_of_a_conversation_show_the_whole() {
    let whole = "{% if messages | length != 4 %}{{ raise_exception('four messages') }}{% endif %}".to_owned() + CHATML;
    assert_eq!(answers(&whole, &talk()), ["Hello, end.<|im_end|>", "Bye!<|im_end|>"]);
}

#[test]
fn the_end_mark_is_what_the_template_writes_after_an_answer() {
    let between = "{% for m in messages %}{{ m.role + ': ' + m.content }}{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    assert_eq!(answers(between, &talk()), ["Hello, end.</s>", "Bye!"]);
    let lines = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    assert_eq!(answers(lines, &talk()), ["Hello, end.\n", "Bye!\n"]);
}

#[test]
fn answers_that_are_not_wanted_are_left_out_also_of_generation_blocks() {
    for source in [CHATML, MARKED] {
        let (text, spans) = template(source).render_with_answers(&chat(&talk()), |i| i == 3).unwrap();
        assert_eq!(spans.len(), 1);
        assert!(text[spans[0].clone()].starts_with("Bye!"));
    }
}

#[test]
fn contents_in_parts_are_joined_unless_the_template_shows_parts() {
    let parts =
        serde_json::json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]});
    let one = chat(&[message(parts)]);
    assert_eq!(template("{{ messages[0].content }}").render(&one, false).unwrap(), "a\nb");
    let shows = "{% for p in messages[0].content %}{{ p.text }}{% endfor %}";
    assert_eq!(template(shows).render(&one, false).unwrap(), "ab");
    let image = serde_json::json!({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]});
    let e = template("x").render(&chat(&[message(image)]), false).unwrap_err().to_string();
    assert!(e.contains("message 1: part 1") && e.contains("image_url"), "{e}");
}

#[test]
fn a_null_content_is_an_empty_text_unless_the_template_shows_null() {
    let null = serde_json::json!({"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]});
    let talk = chat(&[Message::new("user", "a"), message(null)]);
    let show = |content: &str| {
        let source = format!("{{% for m in messages %}}<{{{{ {content} }}}}>{{% endfor %}}");
        template(&source).render(&talk, false).unwrap()
    };
    assert_eq!(show("m.content"), "<a><>");
    assert_eq!(show("'x' + m.content"), "<xa><x>");
    assert_eq!(show("'y' if m.content is none else m.content"), "<a><y>");
}

#[test]
fn arguments_in_json_text_become_objects_if_the_template_shows_those() {
    let call = |arguments: serde_json::Value| {
        let calls = serde_json::json!([{"function": {"name": "f", "arguments": arguments}}]);
        chat(&[message(serde_json::json!({"role": "assistant", "content": "", "tool_calls": calls}))])
    };
    let show = |source: &str, arguments: &str| {
        let source =
            format!("{{% for m in messages %}}{{% for c in m.tool_calls or [] %}}{source}{{% endfor %}}{{% endfor %}}");
        template(&source).render(&call(arguments.into()), false).map_err(|e| e.to_string())
    };
    assert_eq!(show("{{ c.function.arguments | tojson }}", "{\"a\":1}").unwrap(), "{\"a\": 1}");
    assert_eq!(show("{{ c.function.arguments | tojson }}", "").unwrap(), "{}");
    assert_eq!(show("{{ c.function.arguments }}", "{\"a\":1}").unwrap(), "{\"a\":1}");
    assert!(show("{{ c.function.arguments | tojson }}", "{a}").unwrap_err().contains("message 1: the arguments"));
    assert_eq!(show("{{ c.function.name }}", "{a}").unwrap(), "f");
}

#[test]
fn tools_have_a_template_of_their_own_where_the_model_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let plain = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let tools = "{{ tools[0].function.name }}: {% for m in messages %}{{ m.content }}{% endfor %}";
    let config = |named: Json| serde_json::json!({ "chat_template": named }).to_string();
    let list = serde_json::json!([{"name": "default", "template": plain}, {"name": "tool_use", "template": tools}]);
    std::fs::write(dir.path().join("tokenizer_config.json"), config(list)).unwrap();
    let asked = Conversation {
        tools: Some(serde_json::json!([{"type": "function", "function": {"name": "weather"}}])),
        ..chat(&talk()[..1])
    };
    let both = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
    assert_eq!(both.render(&asked, true).unwrap(), "weather: Hi.");
    assert_eq!(both.render(&chat(&talk()[..1]), true).unwrap(), "Hi.");
    let e = template(plain).render(&asked, true).unwrap_err().to_string();
    assert!(e.contains("does not show \"tools\"") && e.contains("weather"), "{e}");
}

#[test]
fn both_templates_are_written_for_both_formats() {
    let with = |tools: Option<&str>| template("D").with_tool_use(tools).unwrap();
    let text = |text: &str| Value::String(text.into());
    let both = with(Some("T"));
    let mut metadata = Metadata::default();
    metadata.insert("tokenizer.ggml.tokens", Value::Array(vec![text("<0>"), text("<1>")]));
    metadata.insert("tokenizer.ggml.bos_token_id", Value::U64(1));
    for (key, value) in both.to_gguf() {
        metadata.insert(key, value);
    }
    let found = |key: &str| metadata.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
    assert_eq!(found("tokenizer.chat_template"), Some(text("D")));
    assert_eq!(found("tokenizer.chat_template.tool_use"), Some(text("T")));
    assert_eq!(found("tokenizer.chat_templates"), Some(Value::Array(vec![text("tool_use")])));
    let read = ChatTemplate::from_gguf(&metadata).unwrap().unwrap();
    assert_eq!((read.source(), read.tool_use_source()), ("D", Some("T")));
    let dir = tempfile::tempdir().unwrap();
    let config = serde_json::json!({ "chat_template": both.to_config() }).to_string();
    std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    let read = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
    assert_eq!((read.source(), read.tool_use_source()), ("D", Some("T")));
    let one = with(None);
    assert_eq!((one.to_config(), one.tool_source(), one.tool_use_source()), (Json::String("D".into()), "D", None));
    assert_eq!(one.to_gguf(), [("tokenizer.chat_template".to_string(), text("D"))]);
}

#[test]
fn the_template_for_tools_says_what_arguments_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let plain = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let tools = "{% for t in tools %}{{ t.function.name }}: {% endfor %}{% for m in messages %}{{ m.content }}\
                 {% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}";
    let list = serde_json::json!([{"name": "default", "template": plain}, {"name": "tool_use", "template": tools}]);
    let config = serde_json::json!({ "chat_template": list }).to_string();
    std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    let call = serde_json::json!([{"function": {"name": "weather", "arguments": "{\"city\": \"Paris\"}"}}]);
    let called = message(serde_json::json!({"role": "assistant", "content": "", "tool_calls": call}));
    let asked = Conversation {
        tools: Some(serde_json::json!([{"type": "function", "function": {"name": "weather"}}])),
        ..chat(&[called])
    };
    let both = ChatTemplate::from_dir(dir.path()).unwrap().unwrap();
    assert_eq!(both.render(&asked, false).unwrap(), "weather: {\"city\": \"Paris\"}");
}

/// Phi-4-mini reads tools from a system message alone.
#[test]
fn tools_go_into_the_system_message_where_a_template_looks_for_them_there() {
    let source = "{% for m in messages %}{% if m['role'] == 'system' and 'tools' in m and m['tools'] is not none %}\
                  {{ '<|system|>' + m['content'] + '<|tool|>' + m['tools'] + '<|/tool|>' }}{% else %}\
                  {{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}";
    let source = source.replace("m['", "message['").replace(" m ", " message ");
    let source = source + "{% if add_generation_prompt %}<|assistant|>{% endif %}";
    let phi = template(&source);
    let tools = Some(serde_json::json!([{"type": "function", "function": {"name": "weather"}}]));
    let shown = |messages: &[(&str, &str)]| {
        let messages: Vec<Message> = messages.iter().map(|(role, text)| Message::new(*role, *text)).collect();
        phi.render(&Conversation { tools: tools.clone(), ..messages.into() }, false).unwrap()
    };
    let listed = "<|tool|>[{\"name\":\"weather\"}]<|/tool|>";
    for text in ["Hi", "What is the weather?"] {
        assert_eq!(shown(&[("user", text)]), format!("<|system|>{listed}<|user|>{text}<|end|>"));
    }
    assert_eq!(
        shown(&[("system", "Be brief."), ("user", "Hi")]),
        format!("<|system|>Be brief.{listed}<|user|>Hi<|end|>")
    );
    let answered: Conversation = vec![Message::new("user", "Hi"), Message::new("assistant", "Ho")].into();
    let (text, spans) = phi.render_with_answers(&Conversation { tools, ..answered }, |i| i == 1).unwrap();
    assert_eq!(spans.iter().map(|span| &text[span.clone()]).collect::<Vec<_>>(), ["Ho<|end|>"]);
}
