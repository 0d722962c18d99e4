//! Counters of a running server, and their text for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and gauges. The engine writes those about jobs, the server those about requests.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Sequences that are being read or answered.
    pub running: AtomicU64,
    /// Jobs that wait for memory or for their turn.
    pub waiting: AtomicU64,
    /// Bytes reserved for the caches of running sequences, and the limit.
    pub cache_bytes: AtomicU64,
    pub cache_limit_bytes: AtomicU64,
    /// Bytes of stored prefixes.
    pub prefix_bytes: AtomicU64,
    /// Tokens of prompts, those among them that came from stored prefixes, and generated tokens.
    pub prompt_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub generated_tokens: AtomicU64,
    /// Jobs that were dropped because nobody waits for them, or because their deadline passed.
    pub cancelled: AtomicU64,
    pub expired: AtomicU64,
    /// Open connections.
    pub connections: AtomicU64,
    /// Answered requests by route and status code.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Metrics {
    /// Counts a request that was answered with this status code. `route` is one of a few names.
    pub fn count(&self, route: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *requests.entry((route, status)).or_default() += 1;
    }

    /// All values in Prometheus's text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let gauge = "gauge";
        let counter = "counter";
        for (name, kind, help, value) in [
            ("running_sequences", gauge, "Sequences that are being read or answered.", &self.running),
            ("waiting_jobs", gauge, "Jobs that wait for memory or for their turn.", &self.waiting),
            ("cache_bytes", gauge, "Bytes reserved for the caches of running sequences.", &self.cache_bytes),
            ("cache_limit_bytes", gauge, "Most bytes for the caches of running sequences.", &self.cache_limit_bytes),
            ("prefix_bytes", gauge, "Bytes of stored prefixes.", &self.prefix_bytes),
            ("connections", gauge, "Open connections.", &self.connections),
            ("prompt_tokens_total", counter, "Tokens of prompts.", &self.prompt_tokens),
            ("cached_tokens_total", counter, "Tokens of prompts from stored prefixes.", &self.cached_tokens),
            ("generated_tokens_total", counter, "Generated tokens.", &self.generated_tokens),
            ("cancelled_jobs_total", counter, "Jobs that nobody waited for any more.", &self.cancelled),
            ("expired_jobs_total", counter, "Jobs that took longer than their deadline.", &self.expired),
        ] {
            let value = value.load(Ordering::Relaxed);
            head(&mut text, name, kind, help);
            _ = writeln!(text, "longreach_{name} {value}");
        }
        let name = "http_requests_total";
        head(&mut text, name, counter, "Answered requests by route and status code.");
        let requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for ((route, status), count) in &*requests {
            _ = writeln!(text, "longreach_{name}{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    _ = writeln!(text, "# HELP longreach_{name} {help}\n# TYPE longreach_{name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_value_with_its_help_and_type() {
        let metrics = Metrics::default();
        metrics.generated_tokens.store(7, Ordering::Relaxed);
        metrics.count("/health", 200);
        metrics.count("/health", 200);
        metrics.count("other", 404);
        let text = metrics.text();
        assert!(text.contains("\nlongreach_generated_tokens_total 7\n"), "{text}");
        assert!(text.contains("\nlongreach_http_requests_total{route=\"/health\",status=\"200\"} 2\n"), "{text}");
        let values = text.lines().filter(|line| !line.starts_with('#')).count();
        let heads = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
        assert_eq!((values, heads("# HELP"), heads("# TYPE")), (13, 12, 12));
    }
}
