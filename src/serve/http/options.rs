//! Settings of a server that do not depend on its model: keys, limits and times.

use std::time::Duration;

/// Settings of the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keys of which a request must have one. Empty: no key is needed.
    pub keys: Vec<String>,
    /// Origins of web pages that may use the server, such as `http://localhost:3000`, or `*` for all.
    pub origins: Vec<String>,
    /// Answer requests under any host name, also on a loopback address.
    pub any_host: bool,
    /// Most bytes of a request's body.
    pub body_bytes: usize,
    /// Most bytes of the bodies that are received or wait to be read, of all requests together. Further
    /// bodies wait.
    pub all_body_bytes: usize,
    /// Most bytes of a request's headers.
    pub header_bytes: usize,
    /// Most connections at once. Others wait until one closes.
    pub connections: usize,
    /// Most tokens of an answer to a request that sets no limit.
    pub max_tokens: usize,
    /// Most answers to one prompt.
    pub answers: usize,
    /// Most prompts of one request.
    pub prompts: usize,
    /// Longest time for the headers of a request, also of the next one on an open connection.
    pub header_time: Duration,
    /// Longest time for the body of a request, and longest wait for room for it.
    pub body_time: Duration,
    /// Longest time in which a client takes nothing of an answer that waits for it.
    pub write_time: Duration,
    /// Longest time for an answer, with its wait for the engine.
    pub answer_time: Option<Duration>,
    /// Time between comments in a stream that has nothing else to send.
    pub keep_alive: Duration,
    /// Time that running requests have to finish when the server stops.
    pub grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            origins: Vec::new(),
            any_host: false,
            body_bytes: 16 << 20,
            all_body_bytes: 256 << 20,
            header_bytes: 32 << 10,
            connections: 512,
            max_tokens: 2048,
            answers: 16,
            prompts: 256,
            header_time: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            write_time: Duration::from_secs(60),
            answer_time: None,
            keep_alive: Duration::from_secs(15),
            grace: Duration::from_secs(30),
        }
    }
}
