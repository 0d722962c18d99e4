//! A server on a free port with a scripted engine, and a client of plain TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::serve::{
    Catalogue, Door, Event, Finish, Job, Metrics, Options, Refused, Served, State, TokenLogprob, serve,
};
use longreach::text::chat_template::ChatTemplate;
use serde_json::Value as Json;

/// Shows the tools, then the messages.
pub const TEMPLATE: &str = "{% if tools %}<tool_call>{% for t in tools %}{{ t.function.name }}{% endfor %}{% endif %}{% for m in messages %}\
     {{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

/// Most jobs that the scripted queue takes.
pub const MOST_WAITING: usize = 200;

/// The engine: a thread that does with each job what its script says.
struct Scripted {
    jobs: Mutex<Sender<Job>>,
    refused: Arc<Mutex<Option<Refused>>>,
    stopped: Arc<AtomicBool>,
}

impl Door for Scripted {
    fn submit(&self, job: Job) -> Result<(), Refused> {
        match &*self.refused.lock().unwrap() {
            Some(refused @ Refused::Full { .. }) => Err(refused.clone()),
            Some(Refused::Dead(why)) if why == "panic" => panic!("a door that fails"),
            _ => {
                self.jobs.lock().unwrap().send(job).unwrap();
                Ok(())
            }
        }
    }

    fn most_waiting(&self) -> usize {
        MOST_WAITING
    }

    fn ready(&self) -> Result<(), Refused> {
        match &*self.refused.lock().unwrap() {
            None | Some(Refused::Full { .. }) => Ok(()),
            Some(Refused::Dead(why)) if why == "panic" => Ok(()),
            Some(refused) => Err(refused.clone()),
        }
    }

    fn close(&self, _grace: Duration) {
        *self.refused.lock().unwrap() = Some(Refused::Stopping);
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }
}

/// A running server. It is shut down when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    /// What the door answers to the next jobs.
    pub refused: Arc<Mutex<Option<Refused>>>,
    /// Whether the server has ended its grace period.
    pub stopped: Arc<AtomicBool>,
    shutdown: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server whose engine does this with each job.
    pub fn new(script: impl FnMut(Job) + Send + 'static) -> Self {
        Self::with(Options::default(), Some(TEMPLATE), script)
    }

    pub fn with(options: Options, template: Option<&str>, script: impl FnMut(Job) + Send + 'static) -> Self {
        let mut files = ModelFiles::bundled(None).unwrap();
        files.template = template.map(|source| ChatTemplate::new(source, "<s>", "</s>").unwrap());
        let lrsa = Attention::Lrsa(Lrsa::new(4, 8, 0.5).unwrap());
        let served = |name: &str, attention| Served { name: name.into(), attention };
        let models = vec![served("stories", Attention::Dense), served("org/tales", lrsa)];
        let catalogue = Catalogue { files: files.into(), models, max_positions: 64, created: 7 };
        let (jobs, inbox) = channel::<Job>();
        thread::spawn(move || inbox.into_iter().for_each(script));
        let (refused, stopped) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let door = Scripted { jobs: Mutex::new(jobs), refused: refused.clone(), stopped: stopped.clone() };
        let state = Arc::new(State::new(catalogue, Box::new(door), Arc::new(Metrics::default()), options));
        let (shutdown, asked) = tokio::sync::oneshot::channel::<()>();
        let (bound, address) = channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let signal = async {
                    _ = asked.await;
                };
                serve(listener, state, signal).await.unwrap();
            });
        });
        let address = address.recv().unwrap();
        Self { address, refused, stopped, shutdown: Some(shutdown), thread: Some(thread) }
    }

    /// Asks the server to stop.
    pub fn stop(&mut self) {
        drop(self.shutdown.take());
    }

    /// Waits until the server has returned.
    pub fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap();
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends a request with these headers and reads the reply.
    pub fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.connect();
        _ = stream.write_all(&request(line, headers, body)); // the server may answer before the end
        Reply::read(&mut stream)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path}"), &[], b"")
    }

    pub fn post(&self, path: &str, body: &Json) -> Reply {
        self.send(&format!("POST {path}"), &[], body.to_string().as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// The bytes of a request. Without a header `host` it has that of the loopback.
pub fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += "host: localhost\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|(name, _)| *name == "transfer-encoding") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// A reply of the server.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    /// Reads a reply to its end, or to where the connection breaks off.
    pub fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..n]);
        }
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let headers: Vec<(String, String)> = lines.filter_map(field).collect();
        let is_chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if is_chunked { joined(body) } else { body.to_owned() };
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The error object, after a check that it has all fields.
    pub fn error(&self) -> Json {
        let error = self.json()["error"].clone();
        let keys: Vec<&String> = error.as_object().unwrap_or_else(|| panic!("{self:?}")).keys().collect();
        assert_eq!(keys, ["message", "type", "param", "code"], "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        error
    }

    /// The data of the server-sent events.
    pub fn events(&self) -> Vec<String> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"), "{self:?}");
        self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// The chunks before `[DONE]`.
    pub fn chunks(&self) -> Vec<Json> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{self:?}");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

/// The body of chunks.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0).min(rest.len());
        body += &rest[..size];
        chunks = rest[size..].trim_start_matches("\r\n");
    }
    body
}

/// The logarithm that the scripts report for an id.
pub fn logprob(id: u32) -> TokenLogprob {
    TokenLogprob { id, logprob: -0.5, top: vec![(id + 1, -0.25), (id, -0.5)] }
}

/// Answers every answer of a job with these tokens, and then ends it.
pub fn say(job: &Job, tokens: &[(u32, &str)], finish: Finish) {
    _ = job.events.send(Event::Started { cached_tokens: 2 });
    if job.prompt_logprobs {
        let known = |(i, &id): (usize, &u32)| (i > 0).then(|| logprob(id));
        _ = job.events.send(Event::Prompt(job.prompt.iter().enumerate().map(known).collect()));
    }
    for answer in 0..job.n {
        for &(id, text) in tokens.iter().take(job.max_tokens) {
            let logprob = job.logprobs.map(|_| logprob(id));
            _ = job.events.send(Event::Token { answer, id, text: text.into(), logprob });
        }
        let generated_tokens = tokens.len().min(job.max_tokens);
        _ = job.events.send(Event::Ended { answer, finish, generated_tokens });
    }
}

/// A server that says this to every job, and hands the jobs on.
pub fn saying(tokens: &'static [(u32, &'static str)], finish: Finish) -> (Server, Receiver<Job>) {
    let (seen, jobs) = channel();
    let server = Server::new(move |job: Job| {
        say(&job, tokens, finish);
        _ = seen.send(job);
    });
    (server, jobs)
}
