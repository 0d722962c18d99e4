//! Tools: what the template sees, and how calls come back.

use longreach::checkpoint::model_files::ModelFiles;
use longreach::serve::{Finish, Options};
use serde_json::{Value as Json, json};

use super::harness::{Server, saying};

const CHAT: &str = "/v1/chat/completions";
const CALLING: &[(u32, &str)] = &[
    (5, "I look"),
    (6, " it up.\n<tool"),
    (7, "_call>\n{\"name\": \"weather\", \"argum"),
    (8, "ents\": {\"city\": \"Paris\"}}\n</tool_call"),
    (9, ">\n<tool_call>{\"name\": \"weather\"}</tool_call>"),
];

fn asking(more: Json) -> Json {
    let weather = json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}});
    let mut request = json!({"messages": [{"role": "user", "content": "Hi"}], "tools": [weather]});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[test]
fn calls_come_back_whole() {
    let (server, _jobs) = saying(CALLING, Finish::Stop);
    let choice = server.post(CHAT, &asking(json!({}))).json()["choices"][0].clone();
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &json!("I look it up."))
    );
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    let functions: Vec<&Json> = calls.iter().map(|call| &call["function"]).collect();
    assert_eq!(
        functions,
        [
            &json!({"name": "weather", "arguments": "{\"city\":\"Paris\"}"}),
            &json!({"name": "weather", "arguments": "{}"})
        ]
    );
    let ids: Vec<&str> = calls.iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert!(ids.iter().all(|id| id.starts_with("call_")) && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn calls_are_streamed_after_the_text() {
    let (server, _jobs) = saying(CALLING, Finish::Stop);
    let chunks = server.post(CHAT, &asking(json!({"stream": true}))).chunks();
    let deltas: Vec<&Json> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let text: String = deltas.iter().filter_map(|delta| delta["content"].as_str()).collect();
    assert_eq!(text, "I look it up.");
    let calls: Vec<&Json> = deltas.iter().filter_map(|delta| delta["tool_calls"].as_array()).flatten().collect();
    assert_eq!((calls.len(), &calls[0]["index"], &calls[1]["index"]), (2, &json!(0), &json!(1)));
    assert_eq!(
        (&calls[0]["type"], &calls[0]["function"]["arguments"]),
        (&json!("function"), &json!("{\"city\":\"Paris\"}"))
    );
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn without_tools_marks_are_text() {
    let (server, jobs) = saying(CALLING, Finish::Stop);
    let all: String = CALLING.iter().map(|(_, text)| *text).collect();
    for request in [asking(json!({"tools": []})), asking(json!({"tool_choice": "none"}))] {
        let choice = server.post(CHAT, &request).json()["choices"][0].clone();
        assert_eq!(
            (&choice["finish_reason"], choice["message"]["content"].as_str()),
            (&json!("stop"), Some(all.as_str()))
        );
        let files = ModelFiles::bundled(None).unwrap();
        let prompt = files.tokenizer().unwrap().decode(&jobs.recv().unwrap().prompt, true).unwrap();
        assert!(!prompt.contains("weather"), "{prompt}");
    }
}

#[test]
fn an_unfinished_call_is_text() {
    let (server, _jobs) = saying(&[(5, "<tool_call>{\"name\": \"weath")], Finish::Length);
    let choice = server.post(CHAT, &asking(json!({}))).json()["choices"][0].clone();
    assert_eq!(choice["message"]["content"], "<tool_call>{\"name\": \"weath");
    assert_eq!((&choice["finish_reason"], choice["message"].get("tool_calls")), (&json!("length"), None));
}

#[test]
fn tools_that_cannot_be_used_are_refused() {
    for (template, reason) in [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "does not show \"tools\""),
        ("{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}", "known form"),
    ] {
        let server = Server::with(Options::default(), Some(template), |_| {});
        let error = server.post(CHAT, &asking(json!({}))).error();
        assert!(error["message"].as_str().unwrap().contains(reason) && error["param"] == "tools", "{error}");
    }
    let (server, _jobs) = saying(CALLING, Finish::Stop);
    let error = server.post(CHAT, &asking(json!({"response_format": {"type": "json_object"}}))).error();
    assert_eq!(error["param"], "response_format");
}

#[test]
fn a_call_can_be_required() {
    let (server, jobs) = saying(&[(5, "{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}")], Finish::Stop);
    let named = json!({"type": "function", "function": {"name": "weather"}});
    for choice in [json!("required"), named] {
        let choice = server.post(CHAT, &asking(json!({"tool_choice": choice}))).json()["choices"][0].clone();
        assert_eq!(choice["finish_reason"], "tool_calls");
        assert_eq!(choice["message"]["tool_calls"][0]["function"]["name"], "weather");
        // The answer begins with a brace.
        let allowed = jobs.recv().unwrap().constraint.unwrap().allowed().unwrap();
        let files = ModelFiles::bundled(None).unwrap();
        let tokenizer = files.tokenizer().unwrap();
        let texts: Vec<String> = (0..512u32)
            .filter(|id| allowed[*id as usize / 32] >> (id % 32) & 1 == 1)
            .map(|id| tokenizer.decode(&[id], false).unwrap())
            .collect();
        assert!(!texts.is_empty() && texts.iter().all(|text| text.starts_with('{')), "{texts:?}");
    }
    let gemma = "{% for t in tools %}{{ t.function.name }}{% endfor %}<start_function_call>{{ messages[0].content }}";
    let server = Server::with(Options::default(), Some(gemma), |_| {});
    let refused = server.post(CHAT, &asking(json!({"tool_choice": "required"})));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tool_choice")));
}
