//! Validates translated shaders with the reference programs of Khronos, if they are installed.
//!
//! They are optional: without them a translation stays unvalidated. A program reads the shader from
//! standard input and has limited time. On Debian the packages are `spirv-tools` and
//! `glslang-tools`.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::gpu::shader::translate::Target;

/// Time limit for one shader; our longest takes a fraction of a second.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Objections that say nothing about a kernel, and why.
const BESIDE_THE_POINT: [(&str, &str); 1] = [
    // Releases from 2025 on; they stop at the first objection.
    (
        "VUID-StandaloneSpirv-None-10684",
        "this spirv-val objects to how naga 30 decorates arrays of workgroups, which drivers ignore",
    ),
];

/// The result of validating a shader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Accepted by the program of this name.
    Accepted(&'static str),
    /// Not validated, for this reason.
    NotJudged(String),
    /// Rejected, with the program's message.
    Refused(String),
}

/// The program that validates a language, with its arguments, if there is one.
fn program(target: Target) -> Option<(&'static str, &'static [&'static str])> {
    match target {
        Target::SpirV => Some(("spirv-val", &["--target-env", "vulkan1.1", "-"])),
        Target::GlslEs => Some(("glslangValidator", &["--stdin", "-S", "comp"])),
        Target::Msl | Target::Hlsl => None,
    }
}

/// Runs the validator of a shader's language.
pub(super) fn judge(target: Target, code: &[u8]) -> Verdict {
    let Some((name, arguments)) = program(target) else {
        return Verdict::NotJudged(format!("no portable validator for {}", target.name()));
    };
    let mut command = Command::new(name);
    command.args(arguments);
    match run(command, code, TIME_LIMIT) {
        Ok((true, _)) => Verdict::Accepted(name),
        Ok((false, said)) => match BESIDE_THE_POINT.iter().find(|(phrase, _)| said.contains(phrase)) {
            Some((_, why)) => Verdict::NotJudged(why.to_string()),
            None => Verdict::Refused(format!("{name}: {}", said.trim())),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => Verdict::NotJudged(format!("{name} is not installed")),
        Err(e) => Verdict::Refused(format!("{name} could not be run: {e}")),
    }
}

/// Runs a program on an input. Returns whether it exited with 0, and all its output. Kills it when
/// the time is over.
fn run(mut command: Command, input: &[u8], limit: Duration) -> std::io::Result<(bool, String)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        // A program may close its input early; its exit status decides.
        scope.spawn(|| stdin.map(|mut pipe| pipe.write_all(input)));
        let out = scope.spawn(|| read_all(stdout));
        let err = scope.spawn(|| read_all(stderr));
        let success = wait(&mut child, limit);
        let said = [out, err].map(|reader| reader.join().expect("reading a pipe does not panic"));
        Ok((success?, said.concat()))
    })
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    // Output read before an error is still shown.
    let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::new(ErrorKind::TimedOut, format!("no answer within {limit:?}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let start = Instant::now();
        let e = run(shell("exec sleep 60"), b"", Duration::from_millis(50)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn both_streams_and_large_inputs_pass() {
        let input = vec![b'x'; 1 << 20];
        let (success, said) = run(shell("cat; echo no >&2; exit 3"), &input, TIME_LIMIT).unwrap();
        assert!(!success && said.len() == input.len() + 3 && said.ends_with("no\n"));
        assert_eq!(run(shell("exit 0"), &input, TIME_LIMIT).unwrap(), (true, String::new()));
    }

    #[test]
    fn a_missing_program_is_told_apart() {
        let e = run(Command::new("longreach-has-no-such-program"), b"", TIME_LIMIT).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    }
}
