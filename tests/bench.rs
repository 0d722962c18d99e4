//! Benchmarks: the time of each command, the rows of a report, and comparisons and plots of
//! reports.

mod common;
mod program;

use std::collections::BTreeSet;

use longreach::bench::{Activity, KernelRow, ModelRow, Report, Roofline, kernel_rows};
use longreach::gpu::{Clock, Command, CpuExecutor, Executor, Features, Recording, Timing, Work};
use longreach::kernels::case::{Case, Recorded};
use longreach::kernels::matmul;
use program::{Run, run};

/// A case with a large matrix product, recorded on the device.
fn product(device: &mut dyn Executor) -> Recorded {
    let case: Option<Case> = matmul::cases().into_iter().find(|c| c.bench);
    case.expect("matrix products have a case for benchmarks").record(device).unwrap()
}

/// Runs a recording with and without timing: the results are the same, every dispatch has a
/// positive time, and the sum is at most the time on the host's clock.
fn timings_of_a_product(device: &mut dyn Executor) -> Vec<Timing> {
    let recorded = product(device);
    device.run(&recorded.recording).unwrap();
    let untimed = recorded.outputs[0].read(device).unwrap();
    let mut clear = Recording::new();
    clear.clear(recorded.outputs[0].span());
    device.run(&clear).unwrap();
    device.wait().unwrap();
    let start = std::time::Instant::now();
    let timings = device.run_timed(&recorded.recording).unwrap();
    let wall = start.elapsed().as_secs_f64();
    assert_eq!(timings.len(), recorded.recording.commands().len());
    assert_eq!(recorded.outputs[0].read(device).unwrap(), untimed);
    let total: f64 = timings.iter().map(|t| t.seconds).sum();
    assert!(total > 1e-4 && total <= wall, "{total} s of commands in {wall} s");
    let longest = timings.iter().map(|t| t.seconds).fold(0.0, f64::max);
    assert!(timings[0].seconds >= 0.1 * longest, "the forward product is no small part: {timings:?}");
    timings
}

#[test]
fn the_cpu_executor_times_each_command_by_the_hosts_clock() {
    let timings = timings_of_a_product(&mut CpuExecutor::<f32>::new());
    assert!(timings.iter().all(|t| t.clock == Clock::Host));
}

#[test]
fn a_gpu_times_each_command_by_its_own_clock_where_it_has_one() {
    let Some(mut device) = common::software_device() else { return };
    let timings = timings_of_a_product(&mut device);
    let has_clock = common::test_adapter_or_skip().unwrap().features.contains(&"timestamps");
    let clock = if has_clock { Clock::Device } else { Clock::Host };
    assert!(timings.iter().all(|t| t.clock == clock), "{timings:?}");
}

#[test]
fn a_gpu_without_timestamps_goes_by_the_hosts_clock() {
    let Some(mut device) = common::minimal_device() else { return };
    let timings = timings_of_a_product(&mut device);
    assert!(timings.iter().all(|t| t.clock == Clock::Host));
}

fn report_of(args: &[&str]) -> Report {
    let Run { code, stdout, stderr } = run(&[&["bench", "--json", "--seconds", "0"], args].concat());
    assert_eq!(code, 0, "{stderr}");
    Report::from_json(&stdout).unwrap()
}

fn assert_figures(report: &Report, n_runs: usize) {
    let roofline = report.roofline.expect("kernels were measured");
    assert!(roofline.gflop_per_s > 0.01 && roofline.gb_per_s > 0.01, "{roofline:?}");
    assert!(!report.kernels.is_empty());
    for row in &report.kernels {
        let times = row.best_seconds > 0.0 && row.best_seconds <= row.median_seconds && row.median_seconds < 100.0;
        assert!(times && row.bytes > 0 && row.gb_per_s > 0.0, "{row:?}");
        assert!(row.of_roofline > 0.0 && row.of_roofline < 1e4, "{row:?}");
    }
    assert_eq!(report.runs.len(), n_runs);
    for row in &report.runs {
        let speed = row.tokens_per_s.expect("a steady time");
        assert!(row.first_seconds > Some(0.0) && speed > 0.0 && speed.is_finite(), "{row:?}");
        assert!(row.peak_bytes > 1 << 16, "{row:?}");
        let is_generation = matches!(row.activity, Activity::Prefill | Activity::Decode | Activity::DecodeTogether);
        assert_eq!(row.kv_bytes > 0, is_generation, "{row:?}");
    }
}

/// Five activities, dense and LRSA.
const ROWS_A_LENGTH: usize = 10;

#[test]
fn a_quick_benchmark_on_the_cpu_gives_figures_that_can_be_compared_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let plots = dir.path().join("plots");
    let model = ["--device", "cpu", "--config", "tiny", "--lengths", "300,40", "--only", "norm/"];
    let report = report_of(&[&model[..], &["--profile", "--plot", plots.to_str().unwrap()]].concat());
    assert_figures(&report, 2 * ROWS_A_LENGTH);
    assert!(report.kernels.iter().all(|r| r.variant == "reference" && r.case.starts_with("norm/")));
    let kv = |attention: &str| {
        let is_it = |r: &&ModelRow| r.activity == Activity::Prefill && r.attention == attention && r.length == 300;
        report.runs.iter().find(is_it).unwrap().kv_bytes
    };
    assert!(kv("lrsa 4x") < kv("dense"), "{} against {}", kv("lrsa 4x"), kv("dense"));
    assert_eq!(report.profiles.len(), 4, "LoRA and full, dense and LRSA");
    for profile in &report.profiles {
        let (first, n) = (profile.kernels[0].seconds, profile.kernels.len());
        assert!(n > 15 && profile.kernels.iter().all(|k| k.seconds <= first && k.dispatches > 0), "{profile:?}");
        let names: Vec<&str> = profile.kernels.iter().map(|k| k.kernel.as_str()).collect();
        assert!(names.contains(&"attend/backward_key") && names.contains(&"adamw/update"), "{names:?}");
        assert_eq!(names.contains(&"lrsa/lag_score"), profile.attention == "lrsa 4x", "{names:?}");
    }
    for stem in ["train-time", "prefill-time", "decode-time", "memory", "kv-cache"] {
        let svg = std::fs::read_to_string(plots.join(format!("{stem}.svg"))).unwrap();
        assert!(svg.contains("length of the sequence (tokens)") && svg.contains("LRSA"), "{svg}");
        let png = std::fs::read(plots.join(format!("{stem}.png"))).unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    }
    compare_with_slower(&report, dir.path());
}

#[test]
fn decoding_in_a_filled_cache_is_measured_dense_and_with_two_fractions_kept() {
    let report = report_of(&["--device", "cpu", "--config", "tiny", "--part", "cache", "--cache-tokens", "3000"]);
    let rows: Vec<(&str, usize, bool)> =
        report.runs.iter().map(|r| (r.attention.as_str(), r.length, r.tokens_per_s.unwrap() > 0.0)).collect();
    assert_eq!(rows, [("dense", 3000, true), ("lrsa 2x", 3000, true), ("lrsa 4x", 3000, true)]);
    assert!(report.runs.iter().all(|r| r.activity == Activity::DecodeFilled && report.kernels.is_empty()));
    // 4 layers, 2 KV heads of 16 channels, keys and values of 4 bytes; two tokens were fed after
    // the first time.
    let bytes = |entries: u64| entries * 4 * 2 * 2 * 16 * 4;
    let kept = |k: u64| bytes(16 + 22 * k + 128 + (3002 - 16) % 128);
    assert_eq!(report.runs.iter().map(|r| r.kv_bytes).collect::<Vec<_>>(), [bytes(3002), kept(64), kept(32)]);
}

/// Writes the report and a copy in which one kernel takes twice as long and another is missing, and
/// compares them.
fn compare_with_slower(report: &Report, dir: &std::path::Path) {
    let mut slower = report.clone();
    slower.kernels[0].best_seconds *= 2.0;
    let missing = slower.kernels.pop().unwrap();
    let [old, new] = [("old.json", report), ("new.json", &slower)].map(|(name, report)| {
        let path = dir.join(name);
        std::fs::write(&path, report.to_json().unwrap()).unwrap();
        path.to_str().unwrap().to_string()
    });
    let Run { code, stdout, stderr } = run(&["bench", "--compare", &old, &new]);
    assert_eq!(code, 0, "{stderr}");
    let slow: Vec<&str> = stdout.lines().filter(|l| l.ends_with("SLOWER")).collect();
    assert!(slow.len() == 1 && slow[0].contains(&report.kernels[0].case) && slow[0].contains("2.00"), "{stdout}");
    assert!(stdout.contains(&format!("only in the old report: {}", missing.kernel)), "{stdout}");
    assert!(stdout.contains("1 more than 10 % slower or larger, 0 more than 10 % faster or smaller"), "{stdout}");
}

#[test]
fn plans_of_memory_can_be_compared_and_recomputed_ones_are_rows_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let [plain, recomputed, larger] =
        ["plain.json", "recomputed.json", "larger.json"].map(|name| dir.path().join(name));
    let memory = ["--device", "cpu", "--part", "memory", "--config", "tiny", "--lengths", "300"];
    let report = report_of(&memory);
    let mut grown = report.clone();
    grown.runs[0].peak_bytes *= 2;
    let recomputing = report_of(&[&memory[..], &["--recompute"]].concat());
    for (path, report) in [(&plain, &report), (&recomputed, &recomputing), (&larger, &grown)] {
        std::fs::write(path, report.to_json().unwrap()).unwrap();
    }
    let compared = |new: &std::path::Path| {
        let Run { code, stdout, stderr } = run(&["bench", "--compare", plain.to_str().unwrap(), new.to_str().unwrap()]);
        assert_eq!(code, 0, "{stderr}");
        stdout
    };
    let text = compared(&larger);
    assert_eq!(text.lines().filter(|l| l.ends_with("LARGER") && l.contains("2.00")).count(), 1, "{text}");
    assert!(text.contains("4 figures in both, 1 more than 10 % slower or larger, 0"), "{text}");
    let text = compared(&recomputed);
    assert!(text.contains("0 figures in both") && text.contains("train, LoRA, recomputed, dense, 300"), "{text}");
}

#[test]
fn a_quick_benchmark_on_a_gpu_gives_figures() {
    let Some(adapter) = common::test_adapter_or_skip() else { return };
    let index = adapter.index.to_string();
    let report = report_of(&["--device", &index, "--config", "tiny", "--lengths", "40", "--only", "elementwise"]);
    assert_figures(&report, ROWS_A_LENGTH);
    assert!(report.device.contains(&adapter.name), "{}", report.device);
}

#[test]
fn what_cannot_be_measured_is_bad_usage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("other.json");
    std::fs::write(&file, "{\"rows\": []}").unwrap();
    let file = file.to_str().unwrap();
    for (args, word) in [
        (&["--lengths", "1"][..], "--lengths 1"),
        (&["--seconds=-1"], "--seconds"),
        (&["--part", "kernels", "--plot", "x"], "--plot"),
        (&["--part", "cache"], "--cache-tokens"),
        (&["--part", "kernels", "--cache-tokens", "9"], "--part kernels"),
        (&["--part", "memory", "--cache-tokens", "9"], "--part memory"),
        (&["--cache-tokens", "0"], "--cache-tokens 0"),
        (&["--device", "cpu", "--part", "kernels", "--only", "no such kernel"], "no such kernel"),
        (&["--compare", file, file], "make it anew"),
    ] {
        let Run { code, stdout, stderr } = run(&[&["bench"], args].concat());
        assert!(code == 2 && stdout.is_empty() && stderr.contains(word), "{args:?}: {code} {stdout}{stderr}");
    }
}

/// A kernel's work names its parameters, constants and buffers, and those names are right.
#[test]
fn the_work_of_every_kernel_can_be_computed() {
    let mut seen = BTreeSet::new();
    for case in longreach::conformance::all_cases() {
        let device = &mut CpuExecutor::<f32>::new();
        let recorded = case.record(device).unwrap();
        for command in recorded.recording.commands() {
            let Command::Dispatch(d) = command else { continue };
            if seen.insert(d.kernel.label) {
                let work = d.work(&mut |span| device.read_words(span)).unwrap();
                assert!(work.bytes > 0, "{}", d.kernel.name());
                for (alternative, _) in d.alternatives(Features::ALL) {
                    let same = alternative.work(&mut |span| device.read_words(span)).unwrap();
                    assert_eq!(same, work, "{} stands in for {}", alternative.kernel.name(), d.kernel.name());
                }
            }
        }
    }
    assert!(seen.len() > 35, "{seen:?}");
}

/// The work of the first dispatch of a kernel in a case.
fn work_of(case: &str, kernel: &str) -> Work {
    let cases = longreach::kernels::cases().into_iter().chain(longreach::attention::cases());
    let case = cases.into_iter().find(|c| c.name == case).unwrap_or_else(|| panic!("no case {case}"));
    let mut device = CpuExecutor::<f32>::new();
    let recording = case.record(&mut device).unwrap().recording.promoted();
    device.run(&recording).unwrap();
    let dispatch = recording.dispatches().find(|d| d.kernel.label == kernel);
    dispatch.unwrap().work(&mut |span| device.read_words(span)).unwrap()
}

#[test]
fn work_is_what_the_formula_needs() {
    let square = work_of("matmul/linear: bench 512x512x512", "matmul/tile");
    assert_eq!((square.flops, square.bytes), (2 << 27, (3 * 4) << 18));
    let row = work_of("matmul/linear: bf16 weights beyond 16 bits 2x400x402", "matmul/tile");
    assert_eq!(row.bytes, 4 * 2 * 400 + 2 * 400 * 402 + 4 * 2 * 402);
    // State, gradients, and values and two moments that are read and written.
    let update = work_of("adamw/update: odd size, clipped", "adamw/update");
    assert_eq!((update.flops, update.bytes), (15 * 1234, 4 * (2 + 7 * 1234)));
    // 5 tokens of 3 heads of 6: in, out, positions, and for each token and pair a cosine and a
    // sine.
    let rope = work_of("rope/rope: odd 5x3x6", "rope/rope");
    assert_eq!((rope.flops, rope.bytes), (6 * 5 * 3 * 3, 4 * (2 * 90 + 5 + 2 * 5 * 3)));
    let gradient = work_of("norm/rms_norm: odd 5x37", "norm/rms_norm_backward");
    assert_eq!((gradient.flops, gradient.bytes), (7 * 185, 4 * (3 * 185 + 37 + 5)));
}

#[test]
fn the_work_of_attention_is_that_of_the_keys_it_sees() {
    // Dense: query t sees t + 1 keys; 6 heads of 12.
    let pairs: u64 = [37, 1, 70].map(|n: u64| n * (n + 1) / 2).iter().sum();
    let flops = |kernel: &str| work_of("attend: dense, odd sizes", kernel).flops;
    let kernels = ["attend/forward", "attend/backward_query", "attend/backward_key"];
    assert_eq!(kernels.map(flops), [4, 6, 8].map(|n| n * 12 * 6 * pairs));
    // One query a tile: 18, 13 and 8 keys; 4 heads of 12.
    let decode = work_of("attend/decode: a ring that wraps", "attend/decode");
    assert_eq!(decode.flops, 4 * 12 * 4 * (18 + 13 + 8));
}

#[test]
fn kernels_are_measured_by_the_hosts_clock_where_there_is_no_other() {
    let Some(mut device) = common::minimal_device() else { return };
    let roofline = Roofline { gflop_per_s: 10.0, gb_per_s: 2.0 };
    let mut seen = Vec::new();
    let mut watch = |row: &KernelRow| seen.push(row.kernel.clone());
    let rows = kernel_rows(&mut device, &roofline, "lrsa/keep", 0.0, &mut watch).unwrap();
    assert_eq!(seen, ["lrsa/keep_mark", "lrsa/keep_pack"]);
    for row in rows {
        assert!(row.variant == "portable" && row.best_seconds > 1e-6 && row.gb_per_s > 0.0, "{row:?}");
        let expected = row.bytes as f64 / 2e9 / row.best_seconds;
        assert!((row.of_roofline - expected).abs() < 1e-9, "no operations: memory is the roof: {row:?}");
    }
}
