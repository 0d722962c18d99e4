//! Errors: their status codes, their objects, and the field that they name.

use longreach::serve::{Event, Failure, Finish, Options, Refused};
use serde_json::{Value as Json, json};

use super::harness::{MOST_WAITING, Reply, Server, saying};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[test]
fn every_wrong_field_is_named() {
    let (server, jobs) = saying(&[(5, "a")], Finish::Stop);
    let both: &[(Json, &str)] = &[
        (json!({"model": 3}), "model"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": []}), "stream_options"),
        (json!({"stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": 1e-30}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"top_k": 1.5}), "top_k"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"repetition_penalty": 1e300}), "repetition_penalty"),
        (json!({"frequency_penalty": 2.1}), "frequency_penalty"),
        (json!({"presence_penalty": -2.1}), "presence_penalty"),
        (json!({"logit_bias": []}), "logit_bias"),
        (json!({"logit_bias": {"512": 1}}), "logit_bias"),
        (json!({"logit_bias": {"-1": 1}}), "logit_bias"),
        (json!({"logit_bias": {"a": 1}}), "logit_bias"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias"),
        (json!({"logit_bias": {"5": "1"}}), "logit_bias"),
        (json!({"seed": 0.5}), "seed"),
        (json!({"seed": 1e300}), "seed"),
        (json!({"n": 0}), "n"),
        (json!({"n": 17}), "n"),
        (json!({"max_tokens": -2}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": "many"}), "max_tokens"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": 3}), "stop"),
        (json!({"stop": [["a"]]}), "stop"),
        (json!({"stop": vec!["a"; 17]}), "stop"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"longreach": "dense"}), "longreach"),
        (json!({"longreach": {"attention": "sparse"}}), "longreach.attention"),
        (json!({"longreach": {"attention": "dense", "lag": 8}}), "longreach.attention"),
        (json!({"longreach": {"lag": 0}}), "longreach.lag"),
        (json!({"longreach": {"keep": 1.5}}), "longreach.keep"),
        (json!({"longreach": {"keep": 0.001, "lag": 8}}), "longreach"),
        (json!({"longreach": {"partition": 8}}), "longreach.partition"),
    ];
    let chat: &[(Json, &str)] = &[
        (json!({"messages": null}), "messages"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a"}}]}]}),
            "messages[0].content[0]",
        ),
        (json!({"logprobs": 1}), "logprobs"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"audio": {"voice": "a"}}), "audio"),
        (json!({"prediction": {}}), "prediction"),
        (json!({"functions": []}), "functions"),
        (json!({"function_call": "auto"}), "function_call"),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"reasoning_effort": "low"}), "reasoning_effort"),
        (json!({"store": true}), "store"),
        (json!({"tools": "all"}), "tools"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs"),
        (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
        (json!({"response_format": "json"}), "response_format"),
        (json!({"response_format": {}}), "response_format.type"),
        (json!({"response_format": {"type": "xml"}}), "response_format.type"),
        (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}),
            "response_format.json_schema.schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strange"}}}}),
            "response_format.json_schema.schema",
        ),
    ];
    let text: &[(Json, &str)] = &[
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": 3}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [[]]}), "prompt"),
        (json!({"prompt": [1, 512]}), "prompt"),
        (json!({"prompt": [1, -1]}), "prompt"),
        (json!({"prompt": [1, "a"]}), "prompt"),
        (json!({"prompt": ["a", 1]}), "prompt"),
        (json!({"prompt": vec!["a"; 257]}), "prompt"),
        (json!({"max_completion_tokens": 0, "max_tokens": 3}), "max_completion_tokens"),
        (json!({"max_completion_tokens": 3, "max_tokens": -3}), "max_tokens"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"logprobs": true}), "logprobs"),
        (json!({"echo": 1}), "echo"),
        (json!({"prompt": vec![vec![5; 60]; 200], "n": 16, "logprobs": 20, "echo": true}), "logprobs"),
    ];
    let ask = |path: &str, base: &Json, (more, param): &(Json, &str)| {
        let mut request = base.clone();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = server.post(path, &request);
        let error = reply.error();
        assert_eq!((reply.status, &error["type"]), (400, &json!("invalid_request_error")), "{path} {more}: {error}");
        assert_eq!(error["param"], **param, "{path} {more}: {error}");
    };
    let (messages, prompt) = (json!({"messages": [{"role": "user", "content": "a"}]}), json!({"prompt": "a"}));
    both.iter().chain(chat).for_each(|case| ask(CHAT, &messages, case));
    both.iter().chain(text).for_each(|case| ask(TEXT, &prompt, case));
    assert!(jobs.try_recv().is_err(), "no job was made");
}

#[test]
fn a_prompt_beyond_the_context_is_refused_with_the_numbers() {
    let (server, jobs) = saying(&[(5, "a")], Finish::Stop);
    for (path, request, numbers) in [
        (TEXT, json!({"prompt": vec![5; 64]}), ["64", "no room"]),
        (TEXT, json!({"prompt": vec![5; 65], "max_tokens": 0, "echo": true, "logprobs": 0}), ["64", "65"]),
        (CHAT, json!({"messages": [{"role": "user", "content": "a".repeat(500)}]}), ["64", "5"]),
    ] {
        let reply = server.post(path, &request);
        let error = reply.error();
        assert_eq!((reply.status, &error["code"]), (400, &json!("context_length_exceeded")), "{error}");
        assert!(numbers.iter().all(|number| error["message"].as_str().unwrap().contains(number)), "{error}");
        assert!(error["param"].is_string());
    }
    assert_eq!(server.post(TEXT, &json!({"prompt": vec![5; 64], "max_tokens": 0, "echo": true})).status, 200);
    assert_eq!(jobs.recv().unwrap().max_tokens, 0);
    // An answer gets what the context leaves.
    assert_eq!(server.post(TEXT, &json!({"prompt": vec![5; 60], "max_tokens": 5})).status, 200);
    assert_eq!(jobs.recv().unwrap().max_tokens, 4);
}

#[test]
fn more_prompts_than_the_queue_takes_are_refused_with_both_numbers() {
    let (server, jobs) = saying(&[(5, "a")], Finish::Stop);
    let error = server.post(TEXT, &json!({"prompt": vec!["a"; MOST_WAITING + 1]})).error();
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("201") && message.contains("200") && error["param"] == "prompt", "{error}");
    assert!(jobs.try_recv().is_err(), "no job was made");
    assert_eq!(server.post(TEXT, &json!({"prompt": vec!["a"; MOST_WAITING]})).status, 200);
}

#[test]
fn unknown_paths_methods_and_models_are_error_objects() {
    let (server, _jobs) = saying(&[(5, "a")], Finish::Stop);
    for path in ["/", "/v1", "/v1/chat", "/v2/models", "/../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd"] {
        let reply = server.get(path);
        assert_eq!((reply.status, &reply.error()["code"]), (404, &json!("not_found")), "{path}");
    }
    for part in
        ["embeddings", "responses", "images/generations", "audio/speech", "moderations", "files", "fine_tuning/jobs"]
    {
        let reply = server.post(&format!("/v1/{part}"), &json!({"input": "a"}));
        let error = reply.error();
        assert_eq!((reply.status, &error["code"]), (404, &json!("not_supported")));
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
    for (line, allowed) in
        [("GET /v1/chat/completions", "POST"), ("DELETE /v1/models", "GET,HEAD"), ("PUT /health", "GET,HEAD")]
    {
        let reply = server.send(line, &[], b"");
        assert_eq!((reply.status, &reply.error()["code"]), (405, &json!("method_not_allowed")), "{line}");
        assert_eq!(reply.header("allow"), Some(allowed));
    }
    let reply = server.post(CHAT, &json!({"model": "gpt-4", "messages": [{"role": "user", "content": "a"}]}));
    let error = reply.error();
    assert_eq!((reply.status, &error["code"], &error["param"]), (404, &json!("model_not_found"), &json!("model")));
}

#[test]
fn without_a_template_there_is_no_chat() {
    let server = Server::with(Options::default(), None, |_| {});
    let error = server.post(CHAT, &json!({"messages": [{"role": "user", "content": "a"}]})).error();
    assert!(error["message"].as_str().unwrap().contains("/v1/completions"), "{error}");
    let server = Server::with(Options::default(), Some("{{ raise_exception('roles must alternate') }}"), |_| {});
    let error = server.post(CHAT, &json!({"messages": [{"role": "user", "content": "a"}]})).error();
    assert!(
        error["message"].as_str().unwrap().contains("roles must alternate") && error["param"] == "messages",
        "{error}"
    );
}

/// The reply where every job fails like this, at once or after its first token.
fn failing(failure: &Failure, is_late: bool, request: &Json) -> Reply {
    let failure = failure.clone();
    let server = Server::new(move |job| {
        if is_late {
            _ = job.events.send(Event::Started { cached_tokens: 0 });
            _ = job.events.send(Event::Token { answer: 0, id: 5, text: "a".into(), logprob: None });
        }
        _ = job.events.send(Event::Failed(failure.clone()));
    });
    server.post(TEXT, request)
}

#[test]
fn failures_of_the_engine_have_their_status_or_end_a_stream() {
    for (failure, status, kind) in [
        (Failure::TooLarge("the cache needs 9 GiB".into()), 400, "invalid_request_error"),
        (Failure::Deadline, 504, "server_error"),
        (Failure::Stopping, 503, "server_error"),
        (Failure::Engine("the device was lost".into()), 500, "server_error"),
    ] {
        let stream = json!({"prompt": "a", "stream": true});
        for (is_late, request) in
            [(false, json!({"prompt": "a"})), (true, json!({"prompt": "a"})), (false, stream.clone())]
        {
            let reply = failing(&failure, is_late, &request);
            assert_eq!((reply.status, &reply.error()["type"]), (status, &json!(kind)), "{failure:?} {request}");
        }
        let reply = failing(&failure, true, &stream);
        let events = reply.events();
        assert_eq!((reply.status, events.len()), (200, 2), "{events:?}");
        let last: Json = serde_json::from_str(&events[1]).unwrap();
        assert_eq!((&last["error"]["type"], &last["error"]["status"]), (&json!(kind), &json!(status)));
    }
    let silent = Server::new(drop);
    let reply = silent.post(TEXT, &json!({"prompt": "a"}));
    assert_eq!((reply.status, &reply.error()["type"]), (500, &json!("server_error")));
}

#[test]
fn a_closed_door_says_why() {
    let (server, _jobs) = saying(&[(5, "a")], Finish::Stop);
    for (refused, status, code, retry, health) in [
        (Refused::Full { retry_after_s: 9 }, 429, "queue_full", Some("9"), 200),
        (Refused::Loading, 503, "loading", Some("1"), 503),
        (Refused::Stopping, 503, "stopping", None, 503),
        (Refused::Dead("lost".into()), 503, "engine_failed", None, 503),
    ] {
        *server.refused.lock().unwrap() = Some(refused.clone());
        let reply = server.post(TEXT, &json!({"prompt": "a"}));
        assert_eq!((reply.status, &reply.error()["code"]), (status, &json!(code)), "{refused:?}");
        assert_eq!(reply.header("retry-after"), retry);
        assert_eq!(server.get("/health").status, health, "{refused:?}");
        *server.refused.lock().unwrap() = None;
        assert_eq!(server.post(TEXT, &json!({"prompt": "a"})).status, 200);
    }
}

#[test]
fn a_panic_fails_one_request() {
    let (server, _jobs) = saying(&[(5, "a")], Finish::Stop);
    *server.refused.lock().unwrap() = Some(Refused::Dead("panic".into()));
    let reply = server.post(TEXT, &json!({"prompt": "a"}));
    assert_eq!((reply.status, &reply.error()["type"]), (500, &json!("server_error")));
    let mut refused = server.refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *refused = None;
    drop(refused);
    server.refused.clear_poison();
    assert_eq!(server.post(TEXT, &json!({"prompt": "a"})).status, 200);
}

#[test]
fn metrics_count_requests() {
    let (server, _jobs) = saying(&[(5, "a")], Finish::Stop);
    server.post(TEXT, &json!({"prompt": "a"}));
    server.post(TEXT, &json!({"prompt": 3}));
    server.get("/nowhere");
    let reply = server.get("/metrics");
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "longreach_http_requests_total{route=\"/v1/completions\",status=\"200\"} 1",
        "longreach_http_requests_total{route=\"/v1/completions\",status=\"400\"} 1",
        "longreach_http_requests_total{route=\"other\",status=\"404\"} 1",
        "# TYPE longreach_running_sequences gauge",
    ] {
        assert!(reply.body.lines().any(|known| known == line), "{line}\n{}", reply.body);
    }
}
