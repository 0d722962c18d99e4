//! Bodies that are no requests: each gets an error object, and none harms the server.

use longreach::serve::Finish;
use serde_json::json;

use super::harness::saying;

/// Texts that are no JSON objects, or objects with a value of a wrong kind in every field.
fn bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "null",
        "true",
        "3",
        "\"a\"",
        "[]",
        "[{}]",
        "{",
        "}",
        "{}}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1,}",
        "{'a':1}",
        "{a:1}",
        "{\"prompt\":\"\u{0}\"",
        "{\"prompt\":1e999}",
        "{\"prompt\":-}",
        "{\"prompt\":01}",
        "{\"prompt\":NaN}",
        "{\"prompt\":\"\\ud800\"}",
        "{\"prompt\":\"\\x\"}",
        "{\"prompt\":\"\n\"}",
        "{\"prompt\":\"a\"} x",
        "// a\n{}",
        "\u{feff}{\"prompt\": 3}",
        "prompt=a&n=3",
        "--boundary\r\n",
        "<xml/>",
        // Keys that mean something to a parser of JSON.
        r#"{"$serde_json::private::RawValue":"{\"prompt\":\"a\"}"}"#,
        r#"{"prompt":{"$serde_json::private::RawValue":"\"a\""}}"#,
        r#"{"prompt":{"$serde_json::private::Number":"1"}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    bodies.extend([b"\xff\xfe{\0}\0".to_vec(), b"{\"prompt\":\"\xff\"}".to_vec(), vec![0; 1000], vec![0xC0; 64]]);
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 100_000] {
            let nested = format!("{{\"prompt\":{}1{}}}", open.repeat(depth), close.repeat(depth));
            bodies.push(nested.into_bytes());
            bodies.push(format!("{{\"prompt\":{}", open.repeat(depth)).into_bytes());
        }
    }
    let values = ["[]", "{}", "[[[[]]]]", "\"\u{202e}\"", "-1", "1e300", "{\"a\":{\"b\":[null]}}"];
    for field in ["prompt", "messages", "stop", "logit_bias", "longreach", "seed", "temperature", "stream_options", "n"]
    {
        for value in values.iter().filter(|value| field != "prompt" || !value.starts_with('"')) {
            bodies.push(format!("{{\"{field}\":{value}}}").into_bytes());
        }
    }
    bodies.push(format!("{{\"prompt\":{:?}, \"{}\":1}}", 3, "k".repeat(1 << 20)).into_bytes());
    bodies.push(format!("{{\"model\":{:?}}}", "m".repeat(1 << 20)).into_bytes());
    bodies.push(format!("{{\"prompt\":[{}0.5]}}", "1,".repeat(200_000)).into_bytes());
    bodies
}

#[test]
fn hostile_bodies_are_refused_and_the_server_goes_on() {
    let (server, jobs) = saying(&[(5, "a")], Finish::Stop);
    let bodies = bodies();
    assert!(bodies.len() > 100);
    for path in ["/v1/completions", "/v1/chat/completions"] {
        for body in &bodies {
            let reply = server.send(&format!("POST {path}"), &[("content-type", "application/json")], body);
            let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert!(matches!(reply.status, 400 | 404), "{path} {start}: {reply:?}");
            assert!(reply.body.len() < 8000, "{path} {start}: {} bytes", reply.body.len());
            reply.error();
        }
    }
    assert!(jobs.try_recv().is_err());
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "a"})).status, 200);
}

#[test]
fn what_is_no_http_ends_its_own_connection() {
    let (server, _jobs) = saying(&[(5, "a")], Finish::Stop);
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
    ] {
        use std::io::Write;
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        _ = stream.shutdown(std::net::Shutdown::Write);
        let reply = super::harness::Reply::read(&mut stream);
        assert!(reply.status == 0 || (400..=505).contains(&reply.status), "{reply:?}");
    }
    assert_eq!(server.get("/health").status, 200);
}
