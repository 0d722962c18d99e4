//! Limits of size and time, keys and hosts, clients that leave, and the end of the server.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use longreach::serve::{Event, Failure, Finish, Job, Options};
use serde_json::json;

use super::harness::{Reply, Server, TEMPLATE, request, say, saying};

const TEXT: &str = "POST /v1/completions";
const SHORT: Duration = Duration::from_millis(200);

fn with(options: Options) -> Server {
    Server::with(options, Some(TEMPLATE), |job| say(&job, &[(5, "a")], Finish::Stop))
}

#[test]
fn large_bodies_are_refused() {
    let server = with(Options { body_bytes: 1000, ..Options::default() });
    let long = json!({"prompt": "a", "user": "x".repeat(1000)}).to_string();
    let reply = server.send(TEXT, &[], long.as_bytes());
    assert_eq!((reply.status, &reply.error()["code"]), (413, &json!("request_too_large")));
    let chunked = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    let reply = server.send(TEXT, &[("transfer-encoding", "chunked")], chunked.as_bytes());
    assert_eq!((reply.status, &reply.error()["code"]), (413, &json!("request_too_large")));
    let short = json!({"prompt": "a", "user": "x".repeat(900)}).to_string();
    let chunked = format!("{:x}\r\n{short}\r\n0\r\n\r\n", short.len());
    assert_eq!(server.send(TEXT, &[], short.as_bytes()).status, 200);
    assert_eq!(server.send(TEXT, &[("transfer-encoding", "chunked")], chunked.as_bytes()).status, 200);
}

#[test]
fn large_headers_are_refused() {
    let server = with(Options { header_bytes: 8 << 10, ..Options::default() });
    assert_eq!(server.send("GET /health", &[("x-long", &"a".repeat(10 << 10))], b"").status, 431);
    let many: Vec<(String, &str)> = (0..150).map(|i| (format!("x-{i}"), "a")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(server.send("GET /health", &many, b"").status, 431);
    assert_eq!(server.send("GET /health", &[("x-long", &"a".repeat(4 << 10))], b"").status, 200);
}

/// Sends bytes one at a time until the server has had enough, and reads its reply.
fn drip(server: &Server, at_once: &[u8], slowly: &[u8]) -> Reply {
    let mut stream = server.connect();
    stream.write_all(at_once).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let bytes = slowly.to_vec();
    let dripping = thread::spawn(move || {
        for byte in bytes {
            if writer.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    let reply = Reply::read(&mut stream);
    drop(stream);
    dripping.join().unwrap();
    reply
}

#[test]
fn slow_requests_are_ended() {
    let server = with(Options { body_time: SHORT, header_time: SHORT, ..Options::default() });
    let body = json!({"prompt": "a", "user": "x".repeat(80)}).to_string();
    let whole = request(TEXT, &[], body.as_bytes());
    let (head, body) = whole.split_at(whole.len() - body.len());
    let began = Instant::now();
    let reply = drip(&server, head, body);
    assert_eq!((reply.status, &reply.error()["code"]), (408, &json!("request_timeout")));
    let reply = drip(&server, b"", &request("GET /health", &[("x-long", &"a".repeat(100))], b""));
    assert!(matches!(reply.status, 0 | 408), "{reply:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let short = json!({"prompt": "a"}).to_string();
    let (begin, end) = short.split_at(short.len() - 3);
    let head =
        [request(TEXT, &[("content-length", &short.len().to_string()), ("transfer-encoding", "")], b"")].concat();
    let head = String::from_utf8(head).unwrap().replace("transfer-encoding: \r\n", "");
    assert_eq!(drip(&server, format!("{head}{begin}").as_bytes(), end.as_bytes()).status, 200, "slow, but in time");
}

#[test]
fn bodies_share_their_memory() {
    let time = Duration::from_secs(2);
    let server = with(Options { body_bytes: 100, all_body_bytes: 100, body_time: time, ..Options::default() });
    let whole = request(TEXT, &[], &[b' '; 100]);
    let half = || {
        let mut stream = server.connect();
        stream.write_all(&whole[..whole.len() - 50]).unwrap();
        thread::sleep(time / 4);
        stream
    };
    // The second one waits for the first, and then keeps the memory until its own time is over.
    let slow = [half(), half()];
    let reply = server.post("/v1/completions", &json!({"prompt": "a"}));
    assert_eq!((reply.status, &reply.error()["code"]), (503, &json!("too_many_bodies")));
    for mut stream in slow {
        assert_eq!(Reply::read(&mut stream).status, 408);
    }
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "a"})).status, 200);
}

#[test]
fn connections_are_limited() {
    let server = with(Options { connections: 2, header_time: SHORT, ..Options::default() });
    let _idle = [server.connect(), server.connect()];
    let began = Instant::now();
    assert_eq!(server.get("/health").status, 200, "idle connections are closed, and then it is our turn");
    assert!(began.elapsed() >= SHORT / 2);
}

/// A server whose engine sends tokens until nobody listens, and then says so.
fn endless(options: Options, text: &'static str) -> (Server, std::sync::mpsc::Receiver<Instant>) {
    let (left, at) = channel();
    let server = Server::with(options, Some(TEMPLATE), move |job: Job| {
        _ = job.events.send(Event::Started { cached_tokens: 0 });
        let token = || Event::Token { answer: 0, id: 5, text: text.into(), logprob: None };
        let end = Instant::now() + Duration::from_secs(8);
        while job.events.send(token()).is_ok() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        _ = left.send(Instant::now());
    });
    (server, at)
}

#[test]
fn the_engine_learns_that_a_client_has_left() {
    for stream in [false, true] {
        let (server, left) = endless(Options::default(), "a");
        let body = json!({"prompt": "a", "stream": stream}).to_string();
        let mut client = server.connect();
        client.write_all(&request(TEXT, &[], body.as_bytes())).unwrap();
        if stream {
            let mut start = [0; 300];
            client.read_exact(&mut start).unwrap();
        } else {
            thread::sleep(Duration::from_millis(50));
        }
        let began = Instant::now();
        drop(client);
        let at = left.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(at.duration_since(began) < Duration::from_secs(3), "stream {stream}: {:?}", at.duration_since(began));
    }
}

#[test]
fn a_client_that_reads_nothing_is_left() {
    const LONG: &str = concat!("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
    let long: &'static str = LONG.repeat(1000).leak();
    let (server, left) = endless(Options { write_time: SHORT, ..Options::default() }, long);
    let body = json!({"prompt": "a", "stream": true}).to_string();
    let mut client = server.connect();
    let began = Instant::now();
    client.write_all(&request(TEXT, &[], body.as_bytes())).unwrap();
    let at = left.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(at.duration_since(began) < Duration::from_secs(5), "{:?}", at.duration_since(began));
}

#[test]
fn a_stream_without_news_sends_comments() {
    let options = Options { keep_alive: Duration::from_millis(20), ..Options::default() };
    let server = Server::with(options, Some(TEMPLATE), |job: Job| {
        _ = job.events.send(Event::Started { cached_tokens: 0 });
        thread::sleep(SHORT);
        say(&job, &[], Finish::Stop);
    });
    let reply = server.post("/v1/completions", &json!({"prompt": "a", "stream": true}));
    assert!(reply.body.matches(":\n\n").count() >= 3, "{reply:?}");
    assert!(reply.body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_deadline_is_part_of_the_job() {
    let (seen, jobs) = channel();
    let options = Options { answer_time: Some(Duration::from_secs(100)), ..Options::default() };
    let server = Server::with(options, Some(TEMPLATE), move |job| {
        say(&job, &[], Finish::Stop);
        seen.send(job.deadline).unwrap();
    });
    server.post("/v1/completions", &json!({"prompt": "a"}));
    let left = jobs.recv().unwrap().unwrap().duration_since(Instant::now()).as_secs();
    assert!((90..=100).contains(&left), "{left}");
}

#[test]
fn a_deadline_beyond_the_clock_is_none() {
    let (seen, jobs) = channel();
    let options = Options { answer_time: Some(Duration::from_secs(u64::MAX)), ..Options::default() };
    let server = Server::with(options, Some(TEMPLATE), move |job| {
        say(&job, &[], Finish::Stop);
        seen.send(job.deadline).unwrap();
    });
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "a"})).status, 200);
    assert_eq!(jobs.recv().unwrap(), None);
}

#[test]
fn keys_open_all_paths_but_health() {
    let server = with(Options { keys: vec!["one".into(), "two".into()], ..Options::default() });
    assert_eq!(server.get("/health").status, 200);
    let body = json!({"prompt": "a"}).to_string();
    for path in ["GET /v1/models", "GET /metrics", "GET /nowhere", TEXT] {
        for wrong in [None, Some("Bearer three"), Some("Bearer on"), Some("one"), Some("Bearer ")] {
            let headers: Vec<(&str, &str)> = wrong.iter().map(|key| ("authorization", *key)).collect();
            let reply = server.send(path, &headers, body.as_bytes());
            assert_eq!((reply.status, &reply.error()["code"]), (401, &json!("invalid_api_key")), "{path} {wrong:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
    for key in ["Bearer one", "Bearer two"] {
        assert_eq!(server.send(TEXT, &[("authorization", key)], body.as_bytes()).status, 200);
    }
}

#[test]
fn a_loopback_server_answers_to_loopback_names_only() {
    let server = with(Options::default());
    let status = |headers: &[(&str, &str)]| server.send("GET /v1/models", headers, b"").status;
    for host in ["localhost", "localhost:99", "127.0.0.1", "[::1]:8000"] {
        assert_eq!(status(&[("host", host)]), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.1:8000", ""] {
        assert_eq!(status(&[("host", host)]), 403, "{host}");
    }
    assert_eq!(status(&[("origin", "http://localhost:3000")]), 200);
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        let reply = server.send("GET /v1/models", &[("origin", origin)], b"");
        assert_eq!((reply.status, &reply.error()["code"]), (403, &json!("host_not_allowed")), "{origin}");
    }
    let open = with(Options { any_host: true, ..Options::default() });
    assert_eq!(open.send("GET /v1/models", &[("host", "evil.example")], b"").status, 200);
}

#[test]
fn web_pages_need_an_allowed_origin() {
    let page = "https://page.example";
    let preflight = [
        ("origin", page),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let closed = with(Options { any_host: true, ..Options::default() });
    let reply = closed.send("OPTIONS /v1/completions", &preflight, b"");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (405, None));
    let open = with(Options { origins: vec![page.into()], keys: vec!["one".into()], ..Options::default() });
    let reply = open.send("OPTIONS /v1/completions", &preflight, b"");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(page)), "without a key");
    assert_eq!(reply.header("access-control-allow-headers"), Some("authorization"));
    let reply = open.send("GET /v1/models", &[("origin", page), ("authorization", "Bearer one")], b"");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(page)));
    assert_eq!(open.send("GET /v1/models", &[("origin", "https://other.example")], b"").status, 403);
}

#[test]
fn a_stopping_server_lets_answers_finish() {
    let (go, wait) = channel::<()>();
    let mut server = Server::new(move |job: Job| {
        _ = job.events.send(Event::Started { cached_tokens: 0 });
        wait.recv().unwrap();
        say(&job, &[(5, "late")], Finish::Stop);
    });
    let mut client = server.connect();
    let body = json!({"prompt": "a"}).to_string();
    client.write_all(&request(TEXT, &[], body.as_bytes())).unwrap();
    let mut idle = server.connect();
    thread::sleep(Duration::from_millis(100));
    server.stop();
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0, "idle connections are closed");
    thread::sleep(Duration::from_millis(100));
    assert!(std::net::TcpStream::connect(server.address).is_err(), "no more connections");
    go.send(()).unwrap();
    let reply = Reply::read(&mut client);
    assert_eq!((reply.status, &reply.json()["choices"][0]["text"]), (200, &json!("late")));
    server.join();
    assert!(!server.stopped.load(Ordering::SeqCst));
}

#[test]
fn after_the_grace_period_the_rest_fails() {
    let (handed, jobs) = channel();
    let options = Options { grace: SHORT, ..Options::default() };
    let mut server = Server::with(options, Some(TEMPLATE), move |job| handed.send(job).unwrap());
    let mut client = server.connect();
    let body = json!({"prompt": "a"}).to_string();
    client.write_all(&request(TEXT, &[], body.as_bytes())).unwrap();
    let job: Job = jobs.recv().unwrap();
    server.stop();
    while !server.stopped.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(5));
    }
    job.events.send(Event::Failed(Failure::Stopping)).unwrap();
    let reply = Reply::read(&mut client);
    assert_eq!((reply.status, &reply.error()["code"]), (503, &json!("stopping")));
    server.join();
}

#[test]
fn a_connection_serves_several_requests() {
    let (server, _jobs) = saying(&[(5, "a")], Finish::Stop);
    let mut stream = server.connect();
    let keep = |line: &str, body: &str| {
        String::from_utf8(request(line, &[], body.as_bytes())).unwrap().replace("connection: close\r\n", "")
    };
    for _ in 0..3 {
        stream.write_all(keep(TEXT, &json!({"prompt": "a"}).to_string()).as_bytes()).unwrap();
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 200"));
    }
}
