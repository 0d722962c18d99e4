//! Untrusted files: for any bytes, a reader returns quickly, without a panic and in bounded memory.
//!
//! The memory is bounded in proportion to the file. Readers other than that of Parquet may not
//! panic even inside a `catch_unwind`. The inputs are named attacks, and valid files mutated with a
//! fixed seed. `scripts/fuzz` fuzzes the same readers for longer, from the same seeds and guided by
//! coverage. Add its findings here.

#[path = "hostile/attacks.rs"]
mod attacks;
#[path = "hostile/mutate.rs"]
mod mutate;
#[path = "hostile/readers.rs"]
mod readers;
#[path = "hostile/seeds.rs"]
mod seeds;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use mutate::Mutator;

/// Number of mutated inputs per reader.
const N_MUTATED: usize = 1500;
/// Time limit per input, far above what any needs, for slow machines.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes at which the allocator refuses: a failed test is better than a swapping machine.
const LAST_RESORT: isize = 2 << 30;

thread_local! {
    /// Bytes allocated by this thread, now and at the peak.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// The system allocator with a count per thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) -> bool {
    let (held, most) = HELD.get();
    HELD.set((held + change, most.max(held + change)));
    held + change < LAST_RESORT
}

// SAFETY: every call goes to the system's allocator unchanged, or is refused with null as the trait
// allows.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller upholds the same contract.
        if count(layout.size() as isize) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Memory limit of a reader: bytes per byte of the file, plus a constant.
struct Bound {
    per_byte: usize,
    base: usize,
    /// Whether a caught panic is a failure, too.
    no_caught_panics: bool,
}

fn bound(reader: &str) -> Bound {
    let mib = 1 << 20;
    let (per_byte, base) = match reader {
        // Values and tensors come with tags, names and shapes; the number of small integers is
        // bounded.
        "gguf" | "gguf_split" => (24, 32 * mib),
        "safetensors" => (24, mib),
        // The library keeps JSON trees and several maps of the vocabulary, and compiles patterns.
        "tokenizer" => (400, 64 * mib),
        "gguf_tokenizer" => (100, 64 * mib),
        // Encoding takes a few hundred bytes per byte of text.
        "dataset" => (400, 4 * mib),
        // Cells are copied as they are read and once more as JSON.
        "csv" => (400, 4 * mib),
        // A packed page may unpack to a thousand times its length.
        "parquet" => (4000, 64 * mib),
        // JSON trees, and a table of the weights of at most 4096 layers.
        "model_json" => (200, 32 * mib),
        // The text and the syntax tree; a template runs on a thread of its own, whose memory
        // tests/hostile_templates.rs counts.
        "chat_template" => (400, 64 * mib),
        other => panic!("no bound for {other}"),
    };
    // Nothing can predict whether the library for Parquet would panic on a damaged page.
    Bound { per_byte, base, no_caught_panics: reader != "parquet" }
}

/// Runs a reader and reports a panic, too much memory or too much time.
fn survive(reader: readers::Reader, scratch: &Path, bytes: &[u8], bound: &Bound) -> Result<(), String> {
    let (before, start, panics) = (HELD.get().0, Instant::now(), PANICS.get());
    HELD.set((before, before));
    let outcome = std::panic::catch_unwind(|| reader(scratch, bytes));
    let most = usize::try_from(HELD.get().1 - before).unwrap_or(0);
    let allowed = bound.per_byte * bytes.len() + bound.base;
    let wrong = match () {
        () if outcome.is_err() || (bound.no_caught_panics && PANICS.get() > panics) => "it panicked".to_owned(),
        () if most > allowed => format!("it took {most} bytes, more than {allowed}"),
        () if start.elapsed() > PATIENCE => format!("it took {:?}", start.elapsed()),
        () => return Ok(()),
    };
    Err(format!("{wrong}, reading {}", excerpt(bytes)))
}

fn excerpt(bytes: &[u8]) -> String {
    format!("b\"{}\" ({} bytes)", bytes[..bytes.len().min(2000)].escape_ascii(), bytes.len())
}

/// Counts the panics of each thread, including caught ones.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

fn survives_attacks_and_mutations(name: &str) {
    count_panics();
    let reader = readers::READERS.iter().find(|(n, _)| *n == name).expect("a reader of this name").1;
    let dir = tempfile::tempdir().unwrap();
    let (scratch, bound) = (dir.path(), bound(name));
    let seeds = seeds::seeds(name, scratch);
    reader(scratch, &seeds[0]); // one-time allocations do not count for a file
    let mut inputs: Vec<(String, Vec<u8>)> =
        seeds.iter().enumerate().map(|(i, seed)| (format!("seed {i}"), seed.clone())).collect();
    inputs.extend(attacks::attacks(name).into_iter().map(|(what, bytes)| (what.to_owned(), bytes)));
    let mut mutator = Mutator::new(7, seeds);
    let mutations = (0..N_MUTATED).map(|i| (format!("mutation {i}"), mutator.next()));
    let wrong: Vec<String> = inputs
        .into_iter()
        .chain(mutations)
        .filter_map(|(what, bytes)| Some(format!("{what}: {}", survive(reader, scratch, &bytes, &bound).err()?)))
        .take(10)
        .collect();
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

#[test]
fn gguf_files() {
    survives_attacks_and_mutations("gguf");
}

#[test]
fn split_gguf_files() {
    survives_attacks_and_mutations("gguf_split");
}

#[test]
fn safetensors_files() {
    survives_attacks_and_mutations("safetensors");
}

#[test]
fn tokenizer_files() {
    survives_attacks_and_mutations("tokenizer");
}

#[test]
fn gguf_tokenizers() {
    survives_attacks_and_mutations("gguf_tokenizer");
}

#[test]
fn training_data() {
    survives_attacks_and_mutations("dataset");
}

#[test]
fn training_data_in_tables() {
    survives_attacks_and_mutations("csv");
    survives_attacks_and_mutations("parquet");
}

#[test]
fn json_files_of_a_model() {
    survives_attacks_and_mutations("model_json");
}

#[test]
fn chat_templates() {
    survives_attacks_and_mutations("chat_template");
}

#[test]
fn the_seeds_are_valid_so_that_mutations_reach_far() {
    let dir = tempfile::tempdir().unwrap();
    for (i, bytes) in seeds::seeds("tokenizer", dir.path()).iter().enumerate() {
        let read = longreach::text::tokenizer::Tokenizer::from_json_bytes(bytes);
        assert!(read.is_ok(), "tokenizer seed {i}: {}", read.err().unwrap());
    }
    for (i, bytes) in seeds::seeds("gguf_tokenizer", dir.path()).iter().enumerate() {
        let path = dir.path().join("t.gguf");
        std::fs::write(&path, bytes).unwrap();
        let file = longreach::formats::gguf::Gguf::open(&path).unwrap();
        let read = longreach::text::tokenizer::Tokenizer::from_gguf(&file.metadata);
        assert!(read.is_ok(), "GGUF tokenizer seed {i}: {}", read.err().unwrap());
    }
    let parts = &seeds::seeds("gguf_split", dir.path())[0];
    let second = parts.windows(4).rposition(|word| word == b"GGUF").unwrap();
    std::fs::write(dir.path().join("m-00002-of-00002.gguf"), &parts[second..]).unwrap();
    let first = dir.path().join("m-00001-of-00002.gguf");
    std::fs::write(&first, &parts[..second]).unwrap();
    let model = longreach::checkpoint::weights::WeightSource::open(&first);
    assert!(model.is_ok(), "{}", model.err().unwrap());
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, &seeds::seeds("gguf", dir.path())[0]).unwrap();
    let model = longreach::checkpoint::weights::WeightSource::open(&path);
    assert!(model.is_ok(), "{}", model.err().unwrap());
    for (i, bytes) in seeds::seeds("chat_template", dir.path()).iter().enumerate() {
        let text = std::str::from_utf8(bytes).unwrap();
        let read = longreach::text::chat_template::ChatTemplate::new(text, "", "");
        assert!(read.is_ok(), "template seed {i}: {}", read.err().unwrap());
    }
}
