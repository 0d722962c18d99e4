//! Random chat templates that ask for too much: each ends in time and in bounded memory.
//!
//! A grammar writes programs of loops, macros and operators that grow, nest and compare values. The
//! memory is that of the whole process, since a template runs on a thread of its own. Templates
//! whose harm has a name are in `src/text/jinja/template_tests.rs`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use longreach::text::chat_template::{ChatTemplate, Message};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Number of templates.
const N_TEMPLATES: usize = 400;
/// Memory that a template may take in bytes.
const MAX_BYTES: usize = 400 << 20;
/// Time limit per template, for slow machines.
const PATIENCE: Duration = Duration::from_secs(30);

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system allocator with a count for the process.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Writes random programs.
struct Writer(StdRng);

impl Writer {
    fn pick(&mut self, choices: &[&str]) -> String {
        choices[self.0.random_range(0..choices.len())].to_owned()
    }

    /// An expression; deeper ones are made of others.
    fn expression(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.pick(&[
                "ns.a",
                "ns.b",
                "ns.c",
                "ns",
                "loop",
                "messages",
                "x",
                "f",
                "'ab'",
                "'é\\n'",
                "7",
                "2.5",
                "none",
                "range(9999)",
                "10**9",
            ]);
        }
        let (a, b) = (self.expression(depth - 1), self.expression(depth - 1));
        match self.0.random_range(0..12) {
            0 | 1 => format!("({a} {} {b})", self.pick(&["~", "+", "*", "%", "-", "//", "**", "/"])),
            2 => format!("[{a}, {b}]"),
            3 => format!("({a}, {b})"),
            4 => format!("{{'k': {a}, {b}: 1}}"),
            5 => format!("({a} {} {b})", self.pick(&["==", "<", "in", "and", "or", "is sameas"])),
            6 => {
                let filters = [
                    "list",
                    "string",
                    "tojson",
                    "tojson(indent=9)",
                    "join",
                    "sort",
                    "unique|list",
                    "reverse|list",
                    "length",
                    "upper",
                    "title",
                    "indent(99)",
                    "center(9999)",
                    "wordwrap(3)",
                    "batch(2)|list",
                    "items|list",
                    "e",
                    "map('string')|list",
                    "first",
                    "last",
                    "sum",
                    "int",
                    "trim",
                    "replace('a', 'bbbbbbbbb')",
                    "select|list",
                ];
                format!("({a}|{})", self.pick(&filters))
            }
            7 => format!(
                "({a}|{}({b}))",
                self.pick(&["join", "default", "center", "batch", "replace('a', 'b' ~ ", "map"])
            ),
            8 => {
                let methods =
                    ["upper()", "split()", "items()", "split('a')", "splitlines()", "strip()", "title()", "swapcase()"];
                format!("({a}).{}", self.pick(&methods))
            }
            9 => format!("({a}).{}({b})", self.pick(&["join", "format", "zfill", "count", "find", "ljust", "get"])),
            10 => format!("({a})[{}]", self.pick(&["::-1", "1:", "0", "-1", "::2"])),
            _ => self.pick(&["f(x)", "f(ns.a)", "f([x, x])", "loop(x)"]),
        }
    }

    fn statement(&mut self, depth: usize) -> String {
        let value = self.expression(2);
        match self.0.random_range(0..if depth == 0 { 3 } else { 8 }) {
            0 => format!("{{% set ns.{} = {value} %}}", self.pick(&["a", "b", "c"])),
            1 => format!("{{% set x = {value} %}}"),
            2 => format!("{{{{ {value} }}}}"),
            3 => format!(
                "{{% for x in {value} {} %}}{}{{% endfor %}}",
                self.pick(&["", "recursive", "if x"]),
                self.body(depth)
            ),
            4 => format!("{{% for i in range(99999) %}}{}{{% endfor %}}", self.body(depth)),
            5 => format!("{{% macro f(x) %}}{}{{% endmacro %}}", self.body(depth)),
            6 => format!("{{% set ns.a %}}{}{{% endset %}}", self.body(depth)),
            _ => format!("{{% if {value} %}}{}{{% else %}}{}{{% endif %}}", self.body(depth), self.body(depth)),
        }
    }

    fn body(&mut self, depth: usize) -> String {
        (0..self.0.random_range(1..4)).map(|_| self.statement(depth.saturating_sub(1))).collect()
    }
}

#[test]
fn random_programs_end_in_time_and_in_bounded_memory() {
    let mut writer = Writer(StdRng::seed_from_u64(21));
    let (mut n_done, mut n_refused) = (0, 0);
    for _ in 0..N_TEMPLATES {
        let start = "{% set ns = namespace(a='ab', b=['a'], c={'k': 1}) %}{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set x = 3 %}";
        let source = start.to_owned() + &writer.body(3);
        let Ok(template) = ChatTemplate::new(&source, "<s>", "</s>") else { continue };
        let (before, started) = (HELD.load(Ordering::Relaxed), Instant::now());
        MOST.store(before, Ordering::Relaxed);
        match template.render(&vec![Message::new("user", "Hi.")].into(), true) {
            Ok(_) => n_done += 1,
            Err(_) => n_refused += 1,
        }
        let most = MOST.load(Ordering::Relaxed) - before;
        assert!(most < MAX_BYTES, "{most} bytes for {source}");
        assert!(started.elapsed() < PATIENCE, "{:?} for {source}", started.elapsed());
    }
    assert!(n_done > 20 && n_refused > 100, "{n_done} templates end, {n_refused} are refused");
}
