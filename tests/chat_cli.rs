//! `longreach chat` with lines on standard input: turns, commands, files, signals and what is no text.
#![cfg(feature = "chat")]

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use program::{Run, arg, project, run_with};

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
const LRSA: [&str; 6] = ["--sink", "4", "--lag", "8", "--keep", "0.25"];

/// The bundled model with a chat template.
fn with_template(dir: &Path) -> PathBuf {
    let to = dir.join("model");
    std::fs::create_dir(&to).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(project("assets/stories260k").join(file), to.join(file)).unwrap();
    }
    std::fs::write(to.join("chat_template.jinja"), TEMPLATE).unwrap();
    to
}

fn chat(model: &str, flags: &[&str], input: &str) -> Run {
    let args = [&["chat", "--device", "cpu", "--model", model, "--seed", "3"], flags].concat();
    run_with(&args, input, &[])
}

#[test]
fn lines_are_turns_and_the_output_is_plain() {
    let input = "Once upon a time\n/attention dense\nThen \\\nshe\n/quit\nnever asked\n";
    let got = chat("stories260k", &["--temp", "0", "--max-tokens", "12"], input);
    assert_eq!(got.code, 0, "{got:?}");
    assert!(got.stdout.starts_with(", there was a little girl"), "{got:?}");
    assert_eq!(got.stdout.lines().count(), 2, "{got:?}");
    assert!(!got.stdout.contains('\x1b') && !got.stderr.contains('\x1b'), "{got:?}");
    assert_eq!(got.stderr.matches("no chat template").count(), 1, "{got:?}");
    assert_eq!(got.stderr.matches("[12 tokens at ").count(), 2, "{got:?}");
    assert!(got.stderr.contains("/continue"), "{got:?}");
    // Without colours, dropped tokens have brackets.
    let document = "The dog ran to the big tree and sat down. ".repeat(5);
    let kept =
        chat("stories260k", &[&LRSA[..], &["--max-tokens", "3"]].concat(), &format!("{document}\n/kept\n/tokens\n"));
    assert!(kept.stdout.contains("[-") && kept.stdout.contains("conversation: "), "{kept:?}");
}

#[test]
fn a_saved_conversation_resumes_to_the_letter() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_template(dir.path());
    let file = dir.path().join("talk.longreach");
    for attention in [&LRSA[..], &["--attention", "dense"]] {
        let flags = [attention, &["--max-tokens", "16"]].concat();
        let first = format!("Once upon a time there was a girl\n/save {}\nAnd then\n/regenerate\n", file.display());
        let unbroken = chat(arg(&model), &flags, &first);
        assert_eq!(unbroken.code, 0, "{unbroken:?}");
        let args = ["chat", "--device", "cpu", "--model", arg(&model), "--resume", arg(&file)];
        let resumed = run_with(&args, "And then\n/regenerate\n", &[]);
        assert_eq!(resumed.code, 0, "{resumed:?}");
        let first_line = unbroken.stdout.find('\n').unwrap() + 1;
        assert!(unbroken.stdout.ends_with(&resumed.stdout), "{unbroken:?} {resumed:?}");
        assert!(resumed.stdout.len() > 20 && unbroken.stdout.len() >= first_line + resumed.stdout.len());
        assert!(resumed.stderr.contains("tokens in the cache"), "{resumed:?}");
    }
    std::fs::write(&file, "no conversation").unwrap();
    let args = ["chat", "--device", "cpu", "--model", arg(&model), "--resume", arg(&file)];
    let refused = run_with(&args, "hello\n", &[]);
    assert!(refused.code == 1 && refused.stderr.contains("is no saved conversation"), "{refused:?}");
}

#[test]
fn what_fails_is_told_and_the_next_line_counts() {
    let huge = "word ".repeat(200_000);
    let input = format!("/hepl\n{huge}\n/document /no/such/file\nOnce upon a time\n");
    let got = chat("stories260k", &["--max-tokens", "4", "--temp", "0"], &input);
    assert!(got.code == 1 && got.stderr.contains("3 of the lines failed"), "{}", got.stderr);
    for word in ["did you mean /help?", "leaves no room for an answer", "/no/such/file"] {
        assert!(got.stderr.contains(word), "{word}: {}", got.stderr);
    }
    assert!(got.stdout.starts_with(", there"), "{}", got.stdout);
    for (flags, word) in [
        (&["--max-tokens", "0"][..], "--max-tokens must be at least 1"),
        (&["--system", "Be brief."], "--system"),
        (&["--temp", "-1"], "--temp"),
        (&["--resume", "/no/such/file"], "/no/such/file"),
    ] {
        let got = chat("stories260k", flags, "hello\n");
        assert!(got.code > 0 && got.stderr.contains(word) && got.stdout.is_empty(), "{got:?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let mut program = start("stories260k", &["--max-tokens", "4", "--temp", "0"]);
    let mut stdin = program.stdin.take().unwrap();
    stdin.write_all(b"\xff\xfe\x00\nOnce upon a time\n\"\"\"never closed").unwrap();
    drop(stdin);
    let out = program.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert!(out.status.code() == Some(1) && !stderr.contains("panicked"), "{stderr}");
    assert!(stderr.contains("not a text in UTF-8") && stdout.starts_with(", there"), "{stderr} {stdout}");
    assert_eq!(stderr.matches("[4 tokens").count(), 2, "the block counts to the end: {stderr}");
}

/// Starts the program with pipes.
fn start(model: &str, flags: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longreach"));
    command.args(["chat", "--device", "cpu", "--model", model, "--seed", "3"]).args(flags);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Signals, to a program whose answers never end: its stop token is one that the model does not say.
#[cfg(unix)]
mod signals {
    use super::*;

    const LONG: &[&str] = &["--max-positions", "100000", "--max-tokens", "90000", "--attention", "lrsa"];

    fn endless(dir: &Path) -> PathBuf {
        let model = with_template(dir);
        let path = model.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["eos_token_id"] = 3.into();
        std::fs::write(path, config.to_string()).unwrap();
        model
    }

    fn send(child: &Child, signal: i32) {
        // SAFETY: the program was not waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    #[test]
    fn ctrl_c_stops_the_answer_and_keeps_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut program = start(arg(&endless(dir.path())), LONG);
        let mut stdin = program.stdin.take().unwrap();
        let mut stdout = program.stdout.take().unwrap();
        let mut errors = BufReader::new(program.stderr.take().unwrap());
        let mut log = String::new();
        let mut until = |word: &str, log: &mut String| {
            let mut line = String::new();
            while !line.contains(word) {
                line.clear();
                assert!(errors.read_line(&mut line).unwrap() > 0, "no {word}: {log}");
                *log += &line;
            }
        };
        for line in ["Once upon a time", "/continue"] {
            writeln!(stdin, "{line}").unwrap();
            stdout.read_exact(&mut [0; 8]).unwrap();
            // The bytes may be the first answer's: by then the second has begun too, and goes on for long.
            std::thread::sleep(std::time::Duration::from_secs(1));
            send(&program, libc::SIGINT);
            until("stopped: /continue goes on", &mut log);
        }
        writeln!(stdin, "/tokens\n/quit").unwrap();
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("conversation: "), "{rest}");
        assert_eq!(program.wait().unwrap().code(), Some(0), "{log}");
    }

    #[test]
    fn a_signal_at_the_prompt_or_two_in_an_answer_end_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let model = endless(dir.path());
        for (line, signal) in [
            ("/tokens", libc::SIGINT),
            ("/tokens", libc::SIGTERM),
            ("Once upon a time", libc::SIGTERM),
            ("Once upon a time", libc::SIGINT),
        ] {
            let mut program = start(arg(&model), LONG);
            let mut stdin = program.stdin.take().unwrap();
            writeln!(stdin, "{line}").unwrap();
            let mut stdout = program.stdout.take().unwrap();
            stdout.read_exact(&mut [0; 8]).unwrap();
            let drain = std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()).is_ok());
            send(&program, signal);
            if signal == libc::SIGINT {
                // The program may not be at its prompt yet, or has stopped the answer.
                std::thread::sleep(std::time::Duration::from_millis(20));
                send(&program, signal);
            }
            while program.try_wait().unwrap().is_none() {
                std::thread::sleep(std::time::Duration::from_millis(100));
                if signal == libc::SIGINT {
                    send(&program, signal);
                }
            }
            assert_eq!(program.wait().unwrap().code(), Some(130), "{line}");
            assert!(drain.join().unwrap());
            drop(stdin);
        }
    }
}
