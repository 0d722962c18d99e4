//! Runs of `longreach train` that are killed, stopped or started twice: nothing is lost, and a run
//! that resumes ends with the bits of one that was not interrupted.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::stories::MODEL;
use serde_json::Value;

/// A folder with training data of eight texts, and validation data of other words.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let text = |words: &str, i: usize| {
            let words: Vec<&str> = words.split(' ').collect();
            let text: Vec<&str> = (0..60).map(|j| words[(i * 7 + j * j) % words.len()]).collect();
            format!("{{\"text\": \"{}\"}}\n", text.join(" "))
        };
        let lines = |words: &str| (0..8).map(|i| text(words, i)).collect::<String>();
        let sea = "the old sea captain looked over a wide grey water and saw one small white whale far away";
        let honey = "nobody ever ate green honey under her quiet wooden table before Sunday though many tried";
        std::fs::write(data.join("train.jsonl"), lines(sea)).unwrap();
        std::fs::write(data.join("valid.jsonl"), lines(honey)).unwrap();
        Self { dir }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, name: &str, more: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
        command.args(["train", "--device", "cpu", "--model", MODEL, "--sink", "4", "--lag", "16", "--data"]);
        command.arg(self.dir.path().join("data")).arg("--out").arg(self.out(name)).args(more.split_whitespace());
        command
    }

    fn run(&self, name: &str, more: &str) -> Output {
        self.command(name, more).output().unwrap()
    }

    /// Whether an adapter generates.
    fn generates(&self, adapter: &Path) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
        command.args(["generate", "--device", "cpu", "--model", MODEL, "--prompt", "a", "--max-tokens", "1"]);
        command.arg("--adapter").arg(adapter).output().unwrap().status.success()
    }

    fn start(&self, name: &str, more: &str) -> Child {
        self.command(name, more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

fn stderr(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn steps_and_losses(out: &Path) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    let line = |line: &str| serde_json::from_str::<Value>(line).ok();
    text.lines().filter_map(line).map(|l| (l["step"].as_u64().unwrap(), l["loss"].to_string())).collect()
}

/// Waits until a run has logged so many steps.
fn wait_for_steps(out: &Path, n: usize) {
    let begun = Instant::now();
    while steps_and_losses(out).len() < n {
        assert!(begun.elapsed() < Duration::from_secs(120), "no {n} steps in {}", out.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_run_that_is_killed_ends_as_one_that_is_not() {
    let bench = Bench::new();
    for (name, flags, file) in [
        (
            "lora",
            "--steps 40 --save-every 3 --batch-size 2 --accumulate 2 --dropout 0.2 --keep 1,0.5..0.25 --eval-every 3",
            "adapter_model.safetensors",
        ),
        ("full", "--steps 30 --save-every 4 --method full --optimizer lion", "model.safetensors"),
        ("streamed", "--steps 30 --save-every 2 --chunk 32 --recompute --distill 0.5", "adapter_model.safetensors"),
        (
            "windows",
            "--steps 30 --save-every 2 --eval-every 4 --dropout 0.2 --accumulate 2 --valid-fraction 0.3 --long window \
             --max-length 48 --overlap 6 --batch-tokens 100 --order length",
            "adapter_model.safetensors",
        ),
    ] {
        if flags.contains("--valid-fraction") {
            std::fs::remove_file(bench.dir.path().join("data/valid.jsonl")).unwrap();
        }
        let whole = bench.run(&format!("{name}-whole"), flags);
        assert!(whole.status.success(), "{}", stderr(&whole));
        let out = bench.out(name);
        for n in [1, 6, 14] {
            let mut child = bench.start(name, flags);
            wait_for_steps(&out, n);
            child.kill().unwrap();
            child.wait().unwrap();
            let has = |file: &str| out.join(file).is_file();
            assert!(!has("adapter_config.json") || bench.generates(&out), "{name}: what a kill leaves is whole");
        }
        let end = bench.run(name, flags);
        assert!(end.status.success(), "{name}: {}", stderr(&end));
        let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        let expected = bench.out(&format!("{name}-whole"));
        assert!(read(&out) == read(&expected), "{name}: the weights differ");
        assert_eq!(steps_and_losses(&out), steps_and_losses(&expected), "{name}");
        let eval = |dir: &Path| std::fs::read_to_string(dir.join("eval.jsonl")).unwrap();
        assert_eq!(eval(&out), eval(&expected), "{name}");
        let hidden = |dir: &Path| {
            std::fs::read_dir(dir).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with('.'))
        };
        assert!(!hidden(&out) && !hidden(&out.join("checkpoints")) && !out.join("checkpoints/unfinished").exists());
        let again = bench.run(name, flags);
        assert!(again.status.code() == Some(2) && stderr(&again).contains("is finished"), "{}", stderr(&again));
    }
}

#[cfg(unix)]
#[test]
fn a_stopped_run_saves_and_goes_on() {
    let bench = Bench::new();
    let out = bench.out("out");
    let flags = "--steps 40 --eval-every 40";
    let whole = bench.run("whole", flags);
    assert!(whole.status.success(), "{}", stderr(&whole));
    for signal in ["-INT", "-TERM"] {
        let before = steps_and_losses(&out).len();
        let child = bench.start("out", flags);
        wait_for_steps(&out, before + 3);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(130), "{}", stderr(&done));
        assert!(stderr(&done).contains("the same command goes on from there"), "{}", stderr(&done));
        assert!(out.join("adapter_model.safetensors").is_file());
    }
    let end = bench.run("out", &format!("{flags} --resume"));
    assert!(end.status.success() && stderr(&end).contains("resumes after step"), "{}", stderr(&end));
    let read = |dir: &Path| std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    assert!(read(&out) == read(&bench.out("whole")));
    let nothing = bench.run("nothing", "--steps 1 --resume");
    assert!(nothing.status.code() == Some(2) && stderr(&nothing).contains("no run to resume"));
}

#[test]
fn a_folder_takes_one_run_at_a_time_and_no_other_run() {
    let bench = Bench::new();
    let out = bench.out("out");
    let mut first = bench.start("out", "--steps 100000 --save-every 3 --rank 4");
    wait_for_steps(&out, 4);
    let second = bench.run("out", "--steps 100000 --save-every 3 --rank 4");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.status.code() == Some(2) && stderr(&second).contains("another run is writing"), "{second:?}");
    let other = bench.run("out", "--steps 2 --rank 8");
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("--rank 4, not 8") && stderr(&other).contains("--overwrite"), "{other:?}");
    let other = bench.run("out", "--steps 2 --rank 8 --overwrite");
    assert!(other.status.success(), "{}", stderr(&other));
    let config = std::fs::read_to_string(out.join("adapter_config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["r"], 8);
    assert_eq!(steps_and_losses(&out).len(), 2);
}

#[test]
fn the_best_state_is_kept_and_named() {
    let bench = Bench::new();
    // The validation texts have other words, so the loss on them soon rises.
    let flags = "--steps 200 --eval-every 10 --lr 3e-3 --early-stop 2";
    let done = bench.run("out", flags);
    let said = stderr(&done);
    assert!(done.status.success() && said.contains("no lower validation loss since step"), "{said}");
    let text = std::fs::read_to_string(bench.out("out").join("eval.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let best = lines.iter().min_by(|a, b| a["loss"].as_f64().unwrap().total_cmp(&b["loss"].as_f64().unwrap())).unwrap();
    let last = lines.last().unwrap()["step"].as_u64().unwrap();
    assert_eq!(last, best["step"].as_u64().unwrap() + 20, "two evaluations without a lower loss");
    let checkpoint = bench.out("out").join("checkpoints").join(format!("step-{}", best["step"]));
    assert!(said.contains(checkpoint.to_str().unwrap()), "{said}");
    assert!(bench.generates(&checkpoint));
}

#[test]
fn a_run_that_learns_nothing_says_so() {
    let bench = Bench::new();
    let done = bench.run("out", "--steps 30 --lr 1e6 --clip 0");
    let said = if done.status.success() { "worse at the end" } else { "diverged" };
    assert!(stderr(&done).contains(said), "{}", stderr(&done));
}

#[test]
fn a_dry_run_says_what_the_run_takes_and_writes_nothing() {
    let bench = Bench::new();
    let flags = "--steps 5 --batch-size 2 --recompute";
    let done = bench.run("out", &format!("{flags} --dry-run --json"));
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(!bench.out("out").exists(), "nothing is written");
    let forecast: Value = serde_json::from_slice(&done.stdout).unwrap();
    let planned: u64 = forecast["memory"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
    let run = bench.run("out", &format!("{flags} --json"));
    let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
    let used = summary["peak_bytes"].as_u64().unwrap();
    // The plan is for the two longest examples, which no step need have drawn together.
    assert!(used <= planned && planned - used < used / 10, "planned {planned} bytes, used {used}");
    assert!(forecast["steps"] == 5 && forecast["seconds_per_step"].as_f64().unwrap() > 0.0, "{forecast}");
    assert!(stderr(&run).contains("device memory of the largest step"), "{}", stderr(&run));
}
