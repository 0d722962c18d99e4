//! A small hub on loopback for the tests of downloads, which answers as a test tells it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Hub, Limits};

/// What the hub was asked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub path: String,
    /// The first byte of a `Range`.
    pub from: Option<usize>,
    pub token: Option<String>,
}

/// What the hub answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The announced length, if it is not that of the body.
    pub length: Option<usize>,
    /// The pause before the answer.
    pub delay: Duration,
    /// The pause before each byte.
    pub pause: Duration,
}

impl Reply {
    /// An answer that is sent at once.
    pub fn new(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { status, headers, body: body.to_vec(), length: None, delay: Duration::ZERO, pause: Duration::ZERO }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Answers in place of the shelf, given the request and how many came before it.
pub type Rule = Box<dyn Fn(&Request, usize) -> Option<Reply> + Send>;

/// Sets the rule of a shelf, and forgets what was asked before.
pub fn set_rule(shelf: &Mutex<Shelf>, rule: impl Fn(&Request, usize) -> Option<Reply> + Send + 'static) {
    let mut shelf = shelf.lock().unwrap();
    shelf.asked.clear();
    shelf.rule = Some(Box::new(rule));
}

/// The files of the hub by model and name, and the requests it received.
#[derive(Default)]
pub struct Shelf {
    pub files: Vec<(String, Vec<u8>)>,
    pub commit: String,
    pub asked: Vec<Request>,
    pub rule: Option<Rule>,
}

impl Shelf {
    /// Answers `/ORG/NAME/resolve/REVISION/FILE` and `/api/models/ORG/NAME/revision/REVISION` like
    /// huggingface.co.
    fn reply(&self, request: &Request) -> Reply {
        if let Some((id, rest)) = request.path.strip_prefix("/api/models/").and_then(|p| p.split_once("/revision/")) {
            return self.list(id, rest.split('?').next().unwrap_or_default());
        }
        let parts: Option<(&str, &str, &str)> = request
            .path
            .trim_start_matches('/')
            .split_once("/resolve/")
            .and_then(|(id, rest)| rest.split_once('/').map(|(revision, file)| (id, revision, file)));
        let Some((id, revision, file)) = parts else { return Reply::new(404, &[], b"") };
        if !["main", "v2", &self.commit].contains(&revision) {
            return Reply::new(404, &[("X-Error-Code", "RevisionNotFound")], b"");
        }
        let name = format!("{id}/{file}");
        let Some((_, body)) = self.files.iter().find(|(path, _)| *path == name) else {
            return Reply::new(404, &[("X-Error-Code", "EntryNotFound")], b"");
        };
        let etag = format!("\"{}-{}\"", file.replace('/', "-"), body.len());
        let (etag, commit) = (("ETag", etag.as_str()), ("X-Repo-Commit", self.commit.as_str()));
        match request.from {
            None => Reply::new(200, &[etag, commit], body),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                Reply::new(206, &[etag, commit, ("Content-Range", &range)], &body[from..])
            }
        }
    }
}

impl Shelf {
    /// The list of a model's files.
    fn list(&self, id: &str, revision: &str) -> Reply {
        let of_model =
            self.files.iter().filter_map(|(path, body)| Some((path.strip_prefix(id)?.strip_prefix('/')?, body)));
        let files: Vec<String> =
            of_model.map(|(file, body)| format!(r#"{{"rfilename": "{file}", "size": {}}}"#, body.len())).collect();
        if files.is_empty() {
            return Reply::new(404, &[("X-Error-Code", "RepoNotFound")], b"");
        }
        if !["main", "v2", &self.commit].contains(&revision) {
            return Reply::new(404, &[("X-Error-Code", "RevisionNotFound")], b"");
        }
        let text = format!(r#"{{"sha": "{}", "gated": false, "siblings": [{}]}}"#, self.commit, files.join(", "));
        Reply::new(200, &[("Content-Type", "application/json")], text.as_bytes())
    }
}

pub const COMMIT: &str = "c0ffee0000000000000000000000000000000000";
pub const OTHER: &str = "decaf00000000000000000000000000000000000";

/// A hub whose client tries twice, without a pause to wait for.
pub fn hasty(endpoint: &str, cache: &Path) -> Hub {
    let limits = Limits { pause: Duration::from_millis(1), tries: 2, ..Limits::default() };
    Hub { endpoint: endpoint.into(), cache: cache.into(), token: None, offline: false, progress: false, limits }
}

/// Starts a hub on loopback. It runs until the process ends.
pub fn serve(files: &[(&str, &str)]) -> (String, Arc<Mutex<Shelf>>) {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    let shelf = Arc::new(Mutex::new(Shelf { files, commit: COMMIT.into(), ..Shelf::default() }));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::clone(&shelf);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shelf = Arc::clone(&shared);
            // Ignore clients that close the connection early.
            std::thread::spawn(move || drop(answer(stream, &shelf)));
        }
    });
    (endpoint, shelf)
}

fn answer(mut stream: TcpStream, shelf: &Mutex<Shelf>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut request = Request { path: first.split(' ').nth(1).unwrap_or_default().into(), ..Request::default() };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.from = value.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok(),
            "authorization" => request.token = Some(value.to_owned()),
            _ => {}
        }
    }
    let reply = {
        let mut shelf = shelf.lock().unwrap();
        let n = shelf.asked.len();
        shelf.asked.push(request.clone());
        let special = shelf.rule.as_ref().and_then(|rule| rule(&request, n));
        special.unwrap_or_else(|| shelf.reply(&request))
    };
    std::thread::sleep(reply.delay);
    write!(stream, "HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status)?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\n\r\n", reply.length.unwrap_or(reply.body.len()))?;
    if reply.pause.is_zero() {
        return stream.write_all(&reply.body);
    }
    for byte in reply.body {
        std::thread::sleep(reply.pause);
        stream.write_all(&[byte])?;
    }
    Ok(())
}
