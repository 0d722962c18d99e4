//! Requests that were good before a random change: each gets an answer, and none harms the server.

use longreach::serve::Finish;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value as Json, json};

use super::harness::saying;

/// Requests that use every field.
fn good() -> Vec<(&'static str, Json)> {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    vec![
        (
            "/v1/completions",
            json!({
                "model": "stories", "prompt": ["a dog", "a cat"], "max_tokens": 3, "temperature": 0.5, "top_p": 0.9,
                "top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": -0.5,
                "logit_bias": {"7": 1.5}, "n": 2, "best_of": 2, "seed": 3, "stop": ["x"], "logprobs": 2, "echo": true,
                "stream": false, "longreach": {"sink": 4, "lag": 8, "keep": 0.5},
            }),
        ),
        ("/v1/completions", json!({"prompt": [1, 2, 3], "stream": true, "stream_options": {"include_usage": true}})),
        (
            "/v1/chat/completions",
            json!({
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": [{"type": "text", "text": "a"}]},
                    {"role": "assistant", "content": null, "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                    {"role": "tool", "tool_call_id": "c", "content": "b"},
                ],
                "tools": [tool], "tool_choice": "auto", "logprobs": true, "top_logprobs": 2, "max_completion_tokens": 4,
                "chat_template_kwargs": {"a": 1}, "user": "u",
            }),
        ),
        (
            "/v1/chat/completions",
            json!({
                "messages": [{"role": "user", "content": "a"}], "stream": true,
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
            }),
        ),
    ]
}

/// Changes a value somewhere inside: to one of another kind, or by taking away or repeating a part.
fn change(value: &mut Json, rng: &mut StdRng) {
    let strange = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}é🦙"),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!({"": {"": null}}),
        json!("x".repeat(3000)),
        json!([1, "a", null]),
    ];
    let goes_deeper = rng.random_bool(0.7);
    match value {
        Json::Object(map) if goes_deeper && !map.is_empty() => {
            let key = map.keys().nth(rng.random_range(0..map.len())).cloned().unwrap();
            match rng.random_range(0..10) {
                0 => drop(map.remove(&key)),
                1 => {
                    let value = map[&key].clone();
                    map.insert(format!("{key}x"), value);
                }
                _ => change(&mut map[&key], rng),
            }
        }
        Json::Array(list) if goes_deeper && !list.is_empty() => {
            let at = rng.random_range(0..list.len());
            match rng.random_range(0..10) {
                0 => drop(list.remove(at)),
                1 => list.extend(vec![list[at].clone(); 40]),
                _ => change(&mut list[at], rng),
            }
        }
        other => *other = strange.choose(rng).unwrap().clone(),
    }
}

#[test]
fn changed_requests_are_answered_or_refused() {
    let (server, _jobs) = saying(&[(5, "a")], Finish::Stop);
    let mut rng = StdRng::seed_from_u64(11);
    let good = good();
    let mut counts = std::collections::BTreeMap::new();
    for i in 0..1500 {
        let (path, mut body) = good.choose(&mut rng).unwrap().clone();
        for _ in 0..rng.random_range(0..4) {
            change(&mut body, &mut rng);
        }
        let mut bytes = body.to_string().into_bytes();
        if rng.random_bool(0.2) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random_range(0..=255);
        }
        let reply = server.send(&format!("POST {path}"), &[("content-type", "application/json")], &bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned();
        assert!(matches!(reply.status, 200 | 400 | 404), "request {i} {path} {shown}: {reply:?}");
        if reply.status != 200 {
            reply.error();
        }
        *counts.entry(reply.status).or_insert(0) += 1;
    }
    assert!(counts[&200] > 100 && counts[&400] > 400, "{counts:?}");
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "a"})).status, 200);
}
