//! The shapes of answers, and what of a request reaches the engine.

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::serve::{Finish, Job};
use serde_json::{Value as Json, json};

use super::harness::{Server, say, saying};

const HELLO: &[(u32, &str)] = &[(261, "Hel"), (262, "lo"), (263, "")];

/// Takes what differs from run to run out of an answer, after a check.
fn steady(mut answer: Json) -> Json {
    let object = answer.as_object_mut().unwrap();
    let id = object.remove("id").unwrap();
    assert!(id.as_str().is_some_and(|id| id.len() > 20), "{id}");
    assert!(object.remove("created").unwrap().as_u64().unwrap() > 1_700_000_000);
    assert!(object.remove("system_fingerprint").unwrap().is_string());
    answer
}

fn hi() -> Json {
    json!({"messages": [{"role": "user", "content": "Hi"}]})
}

fn with(mut request: Json, more: Json) -> Json {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

fn bytes(id: u32) -> Vec<u8> {
    let tokenizer = ModelFiles::bundled(None).unwrap();
    tokenizer.tokenizer().unwrap().token_bytes(512).unwrap()[id as usize].clone()
}

fn text(id: u32) -> String {
    String::from_utf8(bytes(id)).unwrap()
}

#[test]
fn models_are_listed_and_found() {
    let (server, _jobs) = saying(HELLO, Finish::Stop);
    let list = server.get("/v1/models").json();
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&json!("list"), 2));
    let dense = json!({
        "id": "stories", "object": "model", "created": 7, "owned_by": "longreach", "root": "stories",
        "max_model_len": 64, "attention": "dense",
    });
    assert_eq!(list["data"][0], dense);
    assert_eq!(server.get("/v1/models/stories").json(), dense);
    assert_eq!(server.get("/v1/models/org/tales").json()["id"], "org/tales");
    assert_eq!(server.get("/v1/models/org%2Ftales").json(), list["data"][1]);
    let missing = server.get("/v1/models/gpt-4");
    assert_eq!((missing.status, &missing.error()["code"]), (404, &json!("model_not_found")));
    assert_eq!((server.get("/health").status, server.get("/health").json()), (200, json!({"status": "ok"})));
}

#[test]
fn a_chat_is_answered_whole() {
    let (server, jobs) = saying(HELLO, Finish::Stop);
    let answer = server.post("/v1/chat/completions", &with(hi(), json!({"model": "org/tales"})));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let job = jobs.recv().unwrap();
    let n = job.prompt.len();
    assert_eq!(
        steady(answer.json()),
        json!({
            "object": "chat.completion", "model": "org/tales",
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": "Hello", "refusal": null},
                "logprobs": null, "finish_reason": "stop",
            }],
            "usage": {
                "prompt_tokens": n, "completion_tokens": 3, "total_tokens": n + 3,
                "prompt_tokens_details": {"cached_tokens": 2},
            },
        })
    );
    let tokenizer = ModelFiles::bundled(None).unwrap();
    let prompt = tokenizer.tokenizer().unwrap().encode("user: Hi\nassistant:", false).unwrap();
    assert_eq!((job.model, job.prompt, job.max_tokens), (1, prompt, 64 - n));
    assert_eq!((job.attention, job.stop), (Attention::Lrsa(Lrsa::new(4, 8, 0.5).unwrap()), vec![2]));
}

#[test]
fn a_chat_is_streamed_in_chunks() {
    let (server, _jobs) = saying(HELLO, Finish::Length);
    let request = with(hi(), json!({"stream": true, "stream_options": {"include_usage": true}, "n": 2}));
    let chunks: Vec<Json> = server.post("/v1/chat/completions", &request).chunks().into_iter().map(steady).collect();
    let chunk = |index: usize, delta: Json, finish: Option<&str>| {
        json!({
            "object": "chat.completion.chunk", "model": "stories",
            "choices": [{"index": index, "delta": delta, "logprobs": null, "finish_reason": finish}], "usage": null,
        })
    };
    let role = json!({"role": "assistant", "content": "", "refusal": null});
    let mut expected = vec![chunk(0, role.clone(), None), chunk(1, role, None)];
    for index in 0..2 {
        expected.push(chunk(index, json!({"content": "Hel"}), None));
        expected.push(chunk(index, json!({"content": "lo"}), None));
        expected.push(chunk(index, json!({}), Some("length")));
    }
    let usage = chunks.last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(6)));
    assert_eq!(chunks[..chunks.len() - 1], expected);
    let without = server.post("/v1/chat/completions", &with(hi(), json!({"stream": true}))).chunks();
    assert!(without.iter().all(|chunk| chunk.get("usage").is_none() && chunk["choices"] != json!([])));
    assert!(without.iter().all(|chunk| chunk["id"] == without[0]["id"]));
}

#[test]
fn a_chat_reports_probabilities_of_tokens() {
    let (server, jobs) = saying(HELLO, Finish::Stop);
    let asked = json!({"logprobs": true, "top_logprobs": 2});
    let entry = |id: u32| {
        let one = |id: u32, logprob: f64| json!({"token": text(id), "logprob": logprob, "bytes": bytes(id)});
        let mut entry = one(id, -0.5);
        entry["top_logprobs"] = json!([one(id + 1, -0.25), one(id, -0.5)]);
        entry
    };
    let all = json!([entry(261), entry(262), entry(263)]);
    let whole = server.post("/v1/chat/completions", &with(hi(), asked.clone())).json();
    assert_eq!(whole["choices"][0]["logprobs"], json!({"content": all, "refusal": null}));
    assert_eq!(jobs.recv().unwrap().logprobs, Some(2));
    let chunks = server.post("/v1/chat/completions", &with(hi(), with(asked, json!({"stream": true})))).chunks();
    let streamed = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(Json::Array(streamed.flatten().cloned().collect()), all, "also those whose text is held back");
}

#[test]
fn texts_are_continued_whole_and_in_chunks() {
    let (server, jobs) = saying(HELLO, Finish::Stop);
    let request = json!({"prompt": ["Once", [1, 403]], "n": 2, "max_tokens": 2});
    let answer = server.post("/v1/completions", &request).json();
    let choice = |index: usize| json!({"index": index, "text": "Hello", "logprobs": null, "finish_reason": "stop"});
    assert_eq!(steady(answer.clone())["object"], "text_completion");
    assert_eq!(answer["choices"], json!([choice(0), choice(1), choice(2), choice(3)]));
    let prompts: Vec<Vec<u32>> = (0..2).map(|_| jobs.recv().unwrap().prompt).collect();
    assert_eq!(prompts[1], [1, 403]);
    assert_eq!(answer["usage"]["prompt_tokens"], prompts.concat().len());
    assert_eq!(
        (&answer["usage"]["completion_tokens"], &answer["usage"]["prompt_tokens_details"]),
        (&json!(8), &json!({"cached_tokens": 4}))
    );
    let streamed = server.post("/v1/completions", &with(request, json!({"stream": true, "echo": true}))).chunks();
    let files = ModelFiles::bundled(None).unwrap();
    let second = files.tokenizer().unwrap().decode(&[1, 403], true).unwrap();
    for index in 0..4 {
        let of = || streamed.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
        let texts: Vec<&str> = of().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(texts, [["Once", &second][index / 2], "Hel", "lo", ""]);
        assert_eq!(of().next_back().unwrap()["finish_reason"], "stop");
    }
}

#[test]
fn lm_eval_finds_the_probabilities_of_a_text() {
    let (server, jobs) = saying(HELLO, Finish::Length);
    let ids = ModelFiles::bundled(None).unwrap().tokenizer().unwrap().encode("Once upon", true).unwrap();
    let n = ids.len();
    let request = json!({
        "model": "stories", "prompt": [ids], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true,
    });
    let answer = server.post("/v1/completions", &request).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "Once uponHel");
    let report = &choice["logprobs"];
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(report[list].as_array().unwrap().len(), n + 1, "{list}");
    }
    assert_eq!((&report["token_logprobs"][0], &report["top_logprobs"][0]), (&Json::Null, &Json::Null));
    for (i, &id) in ids.iter().enumerate().skip(1) {
        assert_eq!(report["token_logprobs"][i], -0.5);
        let top = report["top_logprobs"][i].as_object().unwrap();
        assert_eq!(top.values().filter_map(Json::as_f64).fold(f64::MIN, f64::max), -0.25);
        assert_eq!(top[&text(id)], -0.5);
    }
    let offsets: Vec<u64> = report["text_offset"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap()).collect();
    assert_eq!((offsets[0], offsets[1], offsets[n]), (0, 0, "Once upon".len() as u64));
    assert!(offsets.is_sorted());
    let job = jobs.recv().unwrap();
    assert_eq!((job.seed, job.logprobs, job.prompt_logprobs, job.max_tokens), (1234, Some(1), true, 1));
    assert_eq!(job.draw.sampling.temperature, 0.0);
    let stream = server.post("/v1/completions", &with(request.clone(), json!({"stream": true}))).chunks();
    let tokens: Vec<Json> = stream
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["text_offset"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(Json::Array(tokens), report["text_offset"]);
    let none = server.post("/v1/completions", &with(request, json!({"max_tokens": 0, "logprobs": null}))).json();
    assert_eq!((&none["choices"][0]["text"], &none["choices"][0]["logprobs"]), (&json!("Once upon"), &Json::Null));
}

#[test]
fn a_special_token_takes_no_room_in_the_text() {
    let (server, _jobs) = saying(&[(261, "Hel"), (1, ""), (262, "lo")], Finish::Stop);
    let request = json!({"prompt": "Once", "logprobs": 0});
    let n = text(261).chars().count();
    let whole = server.post("/v1/completions", &request).json();
    let report = &whole["choices"][0]["logprobs"];
    assert_eq!(report["tokens"], json!([text(261), text(1), text(262)]));
    assert_eq!(report["text_offset"], json!([0, n, n]));
    let chunks = server.post("/v1/completions", &with(request, json!({"stream": true}))).chunks();
    let offsets = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["text_offset"].as_array());
    assert_eq!(offsets.flatten().cloned().collect::<Json>(), report["text_offset"]);
}

/// The job of a request.
fn job(path: &str, request: Json) -> Job {
    let (server, jobs) = saying(HELLO, Finish::Stop);
    let reply = server.post(path, &request);
    assert_eq!(reply.status, 200, "{reply:?}");
    jobs.recv().unwrap()
}

#[test]
fn settings_reach_the_engine() {
    let request = json!({
        "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5,
        "frequency_penalty": -1.0, "presence_penalty": 2, "logit_bias": {"5": -100, "6": 1.5}, "seed": -3,
        "stop": ["a", "b"], "max_completion_tokens": 9, "max_tokens": 8, "n": 3,
        "longreach": {"sink": 2, "keep": 0.25}, "user": "me", "metadata": {"a": 1}, "store": false, "service_tier": "auto",
        "some_field_of_another_server": true, "modalities": ["text"],
    });
    let job = job("/v1/chat/completions", with(hi(), with(request, json!({"model": "org/tales"}))));
    let sampling = job.draw.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.5, 0.25, 7));
    assert_eq!((sampling.min_p, sampling.repetition_penalty), (0.125, 1.5));
    assert_eq!((sampling.frequency_penalty, sampling.presence_penalty), (-1.0, 2.0));
    assert_eq!(job.draw.logit_bias, [(5, -100.0), (6, 1.5)]);
    assert_eq!((job.seed, job.max_tokens, job.n), (-3i64 as u64, 9, 3));
    assert_eq!(job.stop_texts, ["a", "b"]);
    assert_eq!(job.attention, Attention::Lrsa(Lrsa::new(2, 8, 0.25).unwrap()), "the lag is the model's");
    assert!(job.constraint.is_none() && job.deadline.is_none() && job.shown.is_empty());
}

#[test]
fn without_settings_the_model_s_files_and_openai_s_defaults_count() {
    let first = job("/v1/completions", json!({"prompt": "Once", "stop": "x"}));
    assert_eq!((first.max_tokens, first.n, first.logprobs, first.prompt_logprobs), (16, 1, None, false));
    assert_eq!((first.draw.sampling.temperature, first.attention), (0.0, Attention::Dense));
    assert_eq!(first.stop_texts, ["x"]);
    let newer = job("/v1/completions", json!({"prompt": "Once", "max_completion_tokens": 9, "max_tokens": 8}));
    assert_eq!(newer.max_tokens, 9, "the newer name counts, as in a chat");
    let second = job("/v1/completions", json!({"prompt": "Once", "longreach": {"attention": "lrsa"}}));
    assert_ne!(first.seed, second.seed, "seeds are drawn");
    assert!(matches!(second.attention, Attention::Lrsa(lrsa) if lrsa.lag() == Lrsa::DEFAULT_LAG));
    let dense =
        job("/v1/completions", json!({"model": "org/tales", "prompt": "Once", "longreach": {"attention": "dense"}}));
    assert_eq!(dense.attention, Attention::Dense);
    let long = vec![5; 60];
    assert_eq!(job("/v1/completions", json!({"prompt": long})).max_tokens, 4, "what the context leaves");
}

#[test]
fn variables_reach_the_template() {
    let template = "{{ mood }}{% for m in messages %}{{ m.content }}{% endfor %}";
    let (seen, jobs) = std::sync::mpsc::channel();
    let server = Server::with(Default::default(), Some(template), move |job| {
        super::harness::say(&job, HELLO, Finish::Stop);
        seen.send(job).unwrap();
    });
    let request = with(hi(), json!({"chat_template_kwargs": {"mood": "glad"}}));
    assert_eq!(server.post("/v1/chat/completions", &request).status, 200);
    let files = ModelFiles::bundled(None).unwrap();
    assert_eq!(files.tokenizer().unwrap().decode(&jobs.recv().unwrap().prompt, true).unwrap(), "gladHi");
}

#[test]
fn an_answer_in_a_form_has_a_constraint() {
    let schema =
        json!({"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": false});
    for format in [
        json!({"type": "json_object"}),
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}),
    ] {
        let job = job("/v1/chat/completions", with(hi(), json!({"response_format": format})));
        let mut constraint = job.constraint.unwrap();
        let allowed = constraint.allowed().unwrap();
        let brace = ModelFiles::bundled(None).unwrap().tokenizer().unwrap().token_bytes(512).unwrap();
        let brace = brace.iter().position(|bytes| bytes == b"{").unwrap();
        let is_allowed = |id: usize| allowed[id / 32] >> (id % 32) & 1 == 1;
        assert!(is_allowed(brace) && !is_allowed(2) && !is_allowed(1), "{format}");
    }
    assert!(job("/v1/chat/completions", with(hi(), json!({"response_format": {"type": "text"}}))).constraint.is_none());
}

#[test]
fn thoughts_come_apart_from_the_answer() {
    let template = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}{% if not quick %}<think>\n{% endif %}";
    let pieces = [(5, "Hm"), (6, "m.\n</thi"), (7, "nk>\n\nHe"), (8, "llo.")];
    let server = Server::with(Default::default(), Some(template), move |job| say(&job, &pieces, Finish::Stop));
    let message =
        |more: Json| server.post("/v1/chat/completions", &with(hi(), more)).json()["choices"][0]["message"].clone();
    let thoughtful = message(json!({}));
    assert_eq!((&thoughtful["reasoning_content"], &thoughtful["content"]), (&json!("Hmm."), &json!("Hello.")));
    let quick = message(json!({"chat_template_kwargs": {"quick": true}}));
    assert_eq!((&quick["content"], quick.get("reasoning_content")), (&json!("Hmm.\n</think>\n\nHello."), None));
    let chunks = server.post("/v1/chat/completions", &with(hi(), json!({"stream": true}))).chunks();
    let all = |field: &str| -> String {
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str()).collect()
    };
    assert_eq!((all("reasoning_content").as_str(), all("content").as_str()), ("Hmm.", "Hello."));
}
