//! Requests to a model hub: redirects without the token, limits on time, and retries as the hub asks.

use crate::error::{Error, ErrorKind};
use indicatif::ProgressBar;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use ureq::http::Uri;
use ureq::http::header::{HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use ureq::{Agent, Body};

/// A step of a download, for who watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A file begins, with the bytes of it that are there, and its size if the hub names it.
    File { name: &'a str, have: u64, size: Option<u64> },
    /// So many bytes of the file are there.
    Bytes(u64),
    /// All bytes are there, and their SHA-256 is compared with the announced one.
    Checking,
    /// The file is whole. If the hub named its SHA-256, it is right.
    Whole { is_checked: bool },
    /// It waits before another try, for this reason.
    Waiting(&'a str),
}

/// Watches a download. It ends the download at the next step by breaking.
pub type Watch<'a> = &'a dyn Fn(Step<'_>) -> ControlFlow<()>;

/// Most redirects of one request.
const MAX_REDIRECTS: usize = 10;
/// Time between two looks at whether the download is to end, during a pause.
const LOOK: Duration = Duration::from_millis(100);
/// Longest pause between two tries when the hub names none.
const LONGEST_OWN_PAUSE: Duration = Duration::from_secs(8);

/// Why a download failed.
pub(super) enum Failure {
    /// The hub was unreachable or the transfer did not finish. The cache may help.
    Unreachable(Error),
    /// The hub rejected the request.
    Refused(Error),
}

/// The result of a request or a download.
pub(super) type Fetch<T> = Result<T, Failure>;

pub(super) fn refused(why: impl Into<String>) -> Failure {
    Failure::Refused(Error::new(why))
}

pub(super) fn unreachable(why: impl Into<String>) -> Failure {
    Failure::Unreachable(Error::new(why))
}

/// How long a transfer may take, and how often it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To connect, TLS included.
    pub connect: Duration,
    /// Without a byte, and to answer a request.
    pub silence: Duration,
    /// Fewest bytes per second, on average over `silence`.
    pub slowest: u64,
    /// Tries in a row that bring nothing.
    pub tries: u32,
    /// The first pause between two tries; it doubles.
    pub pause: Duration,
    /// The longest pause that a hub may ask for.
    pub longest_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            slowest: 1024,
            tries: 5,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// What the headers of an answer say about a file, from the first server on the way that knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta {
    pub commit: Option<String>,
    pub etag: Option<String>,
    /// Size of a file that the hub stores elsewhere.
    pub size: Option<u64>,
}

impl Meta {
    fn add(&mut self, headers: &HeaderMap) {
        let text = |name: &'static str| text(headers, &HeaderName::from_static(name));
        if self.commit.is_none() && headers.contains_key("x-repo-commit") {
            self.commit = text("x-repo-commit");
            self.etag = text("x-linked-etag").or_else(|| text("etag"));
            self.size = text("x-linked-size").and_then(|size| size.parse().ok());
        }
    }
}

/// An answer after all redirects. Its body is not read yet.
pub(super) struct Answer {
    pub status: u16,
    pub meta: Meta,
    pub headers: HeaderMap,
    pub body: Body,
}

impl Answer {
    /// A header of the last server.
    pub fn header(&self, name: &'static str) -> Option<String> {
        text(&self.headers, &HeaderName::from_static(name))
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// An HTTP client of one hub.
pub(super) struct Client<'a> {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    pub limits: Limits,
    /// Says what is downloaded and why it waits.
    pub bar: ProgressBar,
    /// Hears of every step, and may end the download.
    pub watch: Option<Watch<'a>>,
}

impl Client<'_> {
    pub fn new(endpoint: &str, token: Option<&str>, limits: Limits, bar: ProgressBar) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("longreach/", env!("CARGO_PKG_VERSION")))
            // The size that a server announces must be that of the file.
            .accept_encoding("identity")
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.silence))
            .timeout_per_read(Some(limits.silence))
            .timeout_per_write(Some(limits.silence));
        let token = token.map(|token| format!("Bearer {token}"));
        Self { agent: config.build().new_agent(), endpoint: endpoint.to_owned(), token, limits, bar, watch: None }
    }

    /// Requests `path` below the hub's address, from byte `from` on. Waits and tries again if the
    /// hub asks for that or has a fault; any other status is the caller's.
    pub fn get(&self, path: &str, from: u64) -> Fetch<Answer> {
        let url = format!("{}/{path}", self.endpoint);
        let mut pause = self.limits.pause;
        for n in 1.. {
            let is_last = n >= self.limits.tries;
            let (asked, why) = match self.follow(&url, from)? {
                Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                    let asked = text(&answer.headers, &RETRY_AFTER).and_then(|text| seconds(&text));
                    (asked, format!("HTTP status {} for {path}", answer.status))
                }
                Ok(answer) => return Ok(answer),
                Err(e) => (None, format!("{path}: {e}")),
            };
            let wait = asked.unwrap_or(pause);
            if is_last || wait > self.limits.longest_pause {
                let asks = asked.map_or(String::new(), |wait| format!(" and asks to wait {} s", wait.as_secs()));
                return Err(unreachable(format!("{why}: the hub cannot answer now{asks}; try again later")));
            }
            self.pause(wait, &why)?;
            pause = (pause * 2).min(LONGEST_OWN_PAUSE);
        }
        Err(refused("no try is allowed"))
    }

    /// Waits before another try, unless the download is to end.
    pub fn pause(&self, wait: Duration, why: &str) -> Fetch<()> {
        let before = self.bar.message();
        self.bar.set_message(format!("{why}; waiting {} s", wait.as_secs()));
        let until = Instant::now() + wait;
        loop {
            self.tell(Step::Waiting(why))?;
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => break,
                left => std::thread::sleep(left.min(LOOK)),
            }
        }
        self.bar.set_message(before);
        Ok(())
    }

    /// Tells who watches of a step. Fails if the download is to end.
    pub fn tell(&self, step: Step<'_>) -> Fetch<()> {
        match self.watch.map(|watch| watch(step)) {
            Some(ControlFlow::Break(())) => {
                Err(Failure::Refused(Error::of_kind(ErrorKind::Interrupted, "the download was ended")))
            }
            _ => Ok(()),
        }
    }

    /// Sends a request and follows its redirects. The inner error is a temporary one.
    fn follow(&self, url: &str, from: u64) -> Fetch<Result<Answer, ureq::Error>> {
        let home = url.parse::<Uri>().ok().filter(has_host).ok_or_else(|| refused(format!("'{url}' is not a URL")))?;
        let (mut at, mut meta) = (home.clone(), Meta::default());
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(at.clone());
            if let Some(token) = self.token.as_ref().filter(|_| origin(&at) == origin(&home)) {
                request = request.header("Authorization", token);
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let (head, body) = match request.call() {
                Ok(response) => response.into_parts(),
                Err(e) if is_passing(&e) => return Ok(Err(e)),
                Err(e) => return Err(no_answer(&at, &e, &self.limits)),
            };
            meta.add(&head.headers);
            let status = head.status.as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(Ok(Answer { status, meta, headers: head.headers, body }));
            }
            let Some(location) = text(&head.headers, &LOCATION) else {
                return Err(unreachable(format!("{at} redirects without a readable address")));
            };
            let next = join(&at, &location).ok_or_else(|| {
                unreachable(format!("{at} redirects to '{location}', which is not an http or https address"))
            })?;
            if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(unreachable(format!("{at} redirects to {next}, which is not encrypted")));
            }
            at = next;
        }
        Err(unreachable(format!("{url} redirects more than {MAX_REDIRECTS} times; check the hub's address")))
    }
}

/// Scheme, host and port of an address: what may see the token.
fn origin(uri: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let port = uri.port_u16().or(match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    });
    (uri.scheme_str(), uri.host().map(str::to_ascii_lowercase), port)
}

fn has_host(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

/// The address that a redirect from `at` names: absolute, or relative to `at`.
fn join(at: &Uri, location: &str) -> Option<Uri> {
    let root = || Some(format!("{}://{}", at.scheme_str()?, at.authority()?));
    let is_absolute = location.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':'));
    let text = if is_absolute {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", at.scheme_str()?)
    } else if location.starts_with('/') {
        root()? + location
    } else if location.starts_with('?') {
        root()? + at.path() + location
    } else {
        root()? + &at.path()[..=at.path().rfind('/')?] + location
    };
    text.split('#').next()?.parse().ok().filter(has_host)
}

/// The pause that `Retry-After` asks for: seconds, or a date.
fn seconds(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    Some((date.to_utc() - chrono::Utc::now()).to_std().unwrap_or_default())
}

/// Whether another try may succeed at once: the connection broke.
fn is_passing(e: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(e, ureq::Error::Io(e) if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

fn no_answer(at: &Uri, e: &ureq::Error, limits: &Limits) -> Failure {
    let host = at.host().unwrap_or_default();
    let why = match e {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            format!("no connection to {host} within {} s", limits.connect.as_secs())
        }
        ureq::Error::Timeout(_) => format!("{host} sent nothing for {} s", limits.silence.as_secs()),
        other => format!("{host}: {other}"),
    };
    unreachable(format!("{why}; check the network, or give a local path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined_and_nonsense_is_refused() {
        let at: Uri = "http://hub:81/org/name/resolve/main/f?x=1".parse().unwrap();
        for (location, to) in [
            ("https://cdn/x?y=1#z", Some("https://cdn/x?y=1")),
            ("//cdn/x", Some("http://cdn/x")),
            ("/a/b", Some("http://hub:81/a/b")),
            ("g", Some("http://hub:81/org/name/resolve/main/g")),
            ("?y=2", Some("http://hub:81/org/name/resolve/main/f?y=2")),
            ("ftp://cdn/x", None),
            ("file:///etc/passwd", None),
            ("/a b", None),
            ("http://", None),
        ] {
            assert_eq!(join(&at, location), to.map(|to| to.parse().unwrap()), "{location}");
        }
    }

    #[test]
    fn the_token_is_for_one_origin() {
        let origin = |text: &str| {
            let uri: Uri = text.parse().unwrap();
            let (scheme, host, port) = origin(&uri);
            (scheme.map(str::to_owned), host, port)
        };
        assert_eq!(origin("https://hub/a"), origin("https://HUB:443/b"));
        for other in ["http://hub/a", "https://hub:444/a", "https://cdn.hub/a"] {
            assert_ne!(origin("https://hub/a"), origin(other));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(seconds(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = chrono::Utc::now() + chrono::TimeDelta::seconds(90);
        let wait = seconds(&later.to_rfc2822()).unwrap().as_secs();
        assert!((80..=90).contains(&wait), "{wait}");
    }
}
