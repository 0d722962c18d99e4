//! Runs every example and checks for the line that it prints only on success.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use longreach::gpu::software_adapter;

/// The time of the latest change to a file, or below a folder.
fn newest(path: &Path) -> SystemTime {
    let own = path.metadata().and_then(|m| m.modified()).expect("a source has a time");
    let children = std::fs::read_dir(path).into_iter().flatten().map(|e| newest(&e.expect("a folder is read").path()));
    if path.is_dir() { children.max().unwrap_or(own) } else { own }
}

/// The command that runs an example: the binary that `cargo test` built, or `cargo run` if that is
/// missing or older than its sources (`cargo test --test examples` builds no examples).
fn command(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile_dir = test.parent().and_then(Path::parent).expect("a test lies in target/<profile>/deps");
    let built: PathBuf = profile_dir.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let sources = [root.join("src"), root.join("shaders"), root.join("examples").join(format!("{name}.rs"))];
    let changed = sources.iter().map(|s| newest(s)).max();
    if built.metadata().and_then(|m| m.modified()).ok() > changed {
        return Command::new(built);
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // These variables, which cargo sets for this test, would make build scripts run again.
    for (key, _) in std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("CARGO_PKG_")) {
        cargo.env_remove(key);
    }
    for key in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"] {
        cargo.env_remove(key);
    }
    cargo.current_dir(root).args(["run", "--quiet", "--locked", "--example", name]);
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(profile_dir.parent().expect("a profile lies in target")).arg("--");
    cargo
}

/// Runs an example with arguments and returns its output.
fn run(name: &str, args: &[&str]) -> String {
    let out = command(name).args(args).output().unwrap_or_else(|e| panic!("{name} does not start: {e}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{name} {args:?} failed:\n{stdout}{stderr}");
    stdout.into_owned()
}

/// The devices to run examples on: the CPU, and the software adapter if there is one (required in
/// CI).
fn devices() -> Vec<String> {
    let _ = common::software_device();
    let software = software_adapter().map(|a| a.index.to_string());
    std::iter::once("cpu".to_string()).chain(software).collect()
}

#[test]
fn a_device_holds_numbers() {
    for device in devices() {
        let out = run("01_device", &[&device]);
        assert!(out.contains("in use with 2^18 numbers: 1048576 bytes"), "{out}");
        assert!(out.contains("their sum, read back: 131072"), "{out}");
    }
    assert!(run("01_device", &[]).contains("opened auto: "));
}

#[test]
fn one_kernel_agrees_with_its_reference() {
    for device in devices() {
        let out = run("02_one_kernel", &[&device]);
        assert!(
            out.contains("matmul/tile (nt f32) wrote out[") && out.ends_with("device and reference agree\n"),
            "{out}"
        );
    }
}

#[test]
fn a_gradient_is_the_slope() {
    let out = run("03_a_gradient", &[]);
    let slope = |which: &str| {
        let line = out.lines().find(|l| l.starts_with(which)).unwrap_or_else(|| panic!("{out}"));
        line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).unwrap_or_else(|| panic!("{out}"))
    };
    let (analytic, numeric) = (slope("slope by the gradient"), slope("slope by two more losses"));
    assert!(analytic != 0.0 && (analytic - numeric).abs() < 1e-7, "{out}");
}

#[test]
fn a_new_kernel_passes_every_check() {
    let out = run("06_add_a_kernel", &[]);
    for part in ["example/relu2: shader", "gradient ", "example/relu2 agrees", "example/relu2_backward agrees"] {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
    if let Some(adapter) = software_adapter() {
        assert!(out.contains(&format!("{} (vulkan): example/relu2_backward agrees", adapter.name)), "{out}");
    }
}

#[test]
fn a_tiny_model_learns() {
    for device in devices() {
        let out = run("04_train_tiny", &[&device]);
        assert!(out.contains("the loss halved"), "{out}");
    }
}

#[test]
fn a_text_is_generated_twice() {
    for device in devices() {
        let out = run("05_generate", &[&device]);
        // The greedy text of this model is published; both caches begin with it.
        assert_eq!(out.matches("Once upon a time, there was a little girl named Lily").count(), 2, "{out}");
        assert!(out.contains("entries kept a head"), "{out}");
    }
}
