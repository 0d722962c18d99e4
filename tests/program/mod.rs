//! Shared by the command-line tests: running the program, and the files it reads.

#![allow(dead_code)] // each test file uses its own part

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longreach::formats::host_tensor::HostTensor;
use longreach::formats::safetensors_file::Checkpoint;

/// The exit status and output of a run.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The JSON object on stdout of a successful run.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Runs the program with `input` on stdin and the variables `env`. Fails if it panics.
pub fn run_with(args: &[&str], input: &str, env: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
    command.args(args).envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // A program that rejects its arguments closes stdin unread; that is not a failure.
    let _ = child.stdin.take().expect("stdin is a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
    let code = output.status.code().expect("no signal ends the program");
    let run = Run { code, stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(!run.stderr.contains("panicked"), "{args:?}: {}", run.stderr);
    run
}

/// Runs the program.
pub fn run(args: &[&str]) -> Run {
    run_with(args, "", &[])
}

/// A path inside the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// The folder of a golden case.
pub fn golden(case: &str) -> PathBuf {
    project("tests/golden").join(case)
}

/// Every tensor of a safetensors file.
pub fn tensors(path: &Path) -> HashMap<String, HostTensor> {
    let file = Checkpoint::open(path).unwrap();
    file.names().map(|name| (name.to_string(), file.read(name).unwrap())).collect()
}

/// The rows of an integer matrix, or a vector as one row.
pub fn rows(tensor: &HostTensor) -> Vec<Vec<i64>> {
    let values = tensor.to_i64().unwrap();
    values.chunks(*tensor.shape.last().unwrap()).map(<[i64]>::to_vec).collect()
}

/// Writes lists of lists as JSON; returns the path.
pub fn write_lists(dir: &Path, name: &str, lists: &[Vec<i64>]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, serde_json::to_string(lists).unwrap()).unwrap();
    path
}

/// A copy of the small golden model in `dir`, whose files a test may damage.
pub fn copy_model(dir: &Path) -> PathBuf {
    let to = dir.join("model");
    std::fs::create_dir(&to).unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(golden("llama-gqa").join(file), to.join(file)).unwrap();
    }
    to
}
