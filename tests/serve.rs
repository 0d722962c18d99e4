//! `longreach serve` as a program: it answers as `generate` does, serves adapters by name, and ends in
//! order.
#![cfg(feature = "serve")]

mod program;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use program::{arg, run};
use serde_json::{Value as Json, json};

/// A running server.
struct Server {
    child: Child,
    address: String,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
        command.args(["serve", "--model", "stories260k", "--port", "0", "--device", "cpu"]).args(args);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        let (mut address, mut line) = (String::new(), String::new());
        while !line.starts_with("ready") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "the server ended before it was ready");
            if let Some(rest) = line.strip_prefix("listening on ") {
                address = rest.trim().to_owned();
            }
        }
        Self { child, address, stderr }
    }

    /// The status and the object of an answer.
    fn post(&self, path: &str, body: &Json) -> (u16, Json) {
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        let mut answer = agent
            .post(format!("{}{path}", self.address))
            .header("Content-Type", "application/json")
            .send(body.to_string())
            .expect("the server answers");
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    fn complete(&self, body: Json) -> Json {
        let (status, answer) = self.post("/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Ends it as a service manager does; returns the exit status and what it said.
    #[cfg(unix)]
    fn terminate(mut self) -> (Option<i32>, String) {
        // SAFETY: the child has not been waited for, so that its number is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

const PROMPT: &str = "Once upon a time there was a dog";

/// The text that `generate` writes with these flags.
fn generated(flags: &[&str]) -> String {
    let base =
        ["generate", "--model", "stories260k", "--prompt", PROMPT, "--max-tokens", "40", "--json", "--device", "cpu"];
    run(&[&base[..], flags].concat()).json()["text"].as_str().unwrap().to_owned()
}

#[test]
fn it_answers_as_generate_does() {
    let server = Server::start(&["--chunk", "16"]);
    let ask = |more: Json| {
        let mut body = json!({"prompt": PROMPT, "max_tokens": 40});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.complete(body)["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask(json!({})), generated(&[]));
    let lrsa = ["--attention", "lrsa", "--sink", "4", "--lag", "8", "--keep", "0.25"];
    assert_eq!(ask(json!({"longreach": {"sink": 4, "lag": 8, "keep": 0.25}})), generated(&lrsa));
    let warm = ["--temp", "0.8", "--top-p", "0.9", "--seed", "7"];
    assert_eq!(ask(json!({"temperature": 0.8, "top_p": 0.9, "seed": 7})), generated(&warm));
    let penalties = generated(&["--frequency-penalty", "1.5", "--presence-penalty", "-0.5"]);
    assert_eq!(ask(json!({"frequency_penalty": 1.5, "presence_penalty": -0.5})), penalties);
    assert_ne!(penalties, generated(&[]));
    let (status, error) = server.post("/embeddings", &json!({"input": "a"}));
    assert!(status >= 400 && error["error"]["message"].as_str().unwrap().contains("embeddings"), "{error}");
}

#[test]
fn adapters_answer_by_their_names_and_with_their_attention() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("train.jsonl");
    std::fs::write(&data, "{\"prompt\": \"The dog\", \"completion\": \" barks and barks and barks.\"}\n".repeat(8))
        .unwrap();
    let adapter = dir.path().join("adapter");
    let train = ["train", "--model", "stories260k", "--data", arg(&data), "--out", arg(&adapter), "--steps", "12"];
    let more = ["--lr", "0.02", "--sink", "2", "--lag", "8", "--keep", "0.25", "--device", "cpu"];
    assert_eq!(run(&[&train[..], &more].concat()).code, 0);
    let server = Server::start(&["--adapter", &format!("barks={}", arg(&adapter))]);
    let text = |model: &str| {
        let answer = server.complete(json!({"model": model, "prompt": PROMPT, "max_tokens": 40}));
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let adapted = generated(&["--adapter", arg(&adapter)]);
    assert_eq!(text("stories260k"), generated(&[]));
    assert_eq!(text("barks"), adapted);
    assert_ne!(adapted, generated(&[]));
    let (status, error) = server.post("/completions", &json!({"model": "meows", "prompt": "a"}));
    assert_eq!((status, error["error"]["code"].as_str()), (404, Some("model_not_found")));
}

#[test]
fn what_cannot_start_says_why() {
    let wrong = |args: &[&str], expected: &str| {
        let got = run(&[&["serve", "--model", "stories260k"], args].concat());
        assert!(got.code == 2 && got.stderr.contains(expected), "{got:?}");
    };
    wrong(&["--adapter", "barks"], "--adapter mine=");
    wrong(&["--adapter", "stories260k=somewhere"], "two models are called stories260k");
    wrong(&["--parallel", "0"], "at least 1");
    wrong(&["--cache-memory", "lots"], "2GiB");
    wrong(&["--port", "0", "--host", "203.0.113.7"], "--host");
    let server = Server::start(&[]);
    let port = server.address.trim_end_matches("/v1").rsplit(':').next().unwrap().to_owned();
    wrong(&["--port", &port], "another --port");
    let none = run(&["serve", "--model", "stories260k", "--adapter", "a=/no/such/place"]);
    assert!(none.code != 0 && none.stderr.contains("the adapter a"), "{none:?}");
}

#[cfg(unix)]
#[test]
fn a_signal_lets_answers_finish() {
    let server = Server::start(&[]);
    let address = server.address.clone();
    let slow = thread::spawn(move || {
        let body = json!({"prompt": PROMPT, "max_tokens": 450, "logit_bias": {"300": 100}}).to_string();
        let answer = ureq::post(format!("{address}/completions")).header("Content-Type", "application/json").send(body);
        answer.map(|mut answer| answer.body_mut().read_to_string().unwrap()).map_err(|e| e.to_string())
    });
    thread::sleep(Duration::from_millis(40));
    let (code, said) = server.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("running answers may finish"), "{said}");
    // Asked in time, the answer is whole; asked too late, the connection is refused.
    match slow.join().unwrap() {
        Ok(text) => assert_eq!(serde_json::from_str::<Json>(&text).unwrap()["usage"]["completion_tokens"], 450),
        Err(why) => assert!(why.contains("refused") || why.contains("503"), "{why}"),
    }
}
