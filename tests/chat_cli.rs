//! `longreach chat` with lines on standard input: turns, commands, files, signals and what is no text.
#![cfg(feature = "chat")]

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use program::{Run, arg, project, run_with};

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
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
    let kept = chat("stories260k", &[&LRSA[..], &["--max-tokens", "3"]].concat(), &format!("{document}\n/kept\n/tokens\n"));
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

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

/// An answer long enough to be interrupted: it takes the positions that the flag allows.
#[cfg(unix)]
const LONG: &[&str] = &["--max-positions", "100000", "--max-tokens", "90000", "--temp", "1", "--attention", "lrsa"];

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_and_keeps_what_was_said() {
    // Without its stop tokens the model would go on; with them it may end, so ask until one is stopped.
    let mut program = start("stories260k", LONG);
    let mut stdin = program.stdin.take().unwrap();
    let mut stdout = program.stdout.take().unwrap();
    let mut errors = BufReader::new(program.stderr.take().unwrap());
    let mut log = String::new();
    let mut is_stopped = false;
    for _ in 0..20 {
        writeln!(stdin, "Once upon a time").unwrap();
        let mut piece = [0; 1];
        stdout.read_exact(&mut piece).unwrap();
        signal(&program, "-INT");
        // The line after the answer, and what follows it.
        while errors.read_line(&mut log).unwrap() > 0 && !log.lines().last().unwrap_or_default().starts_with('[') {}
        writeln!(stdin, "/continue").unwrap();
        while errors.read_line(&mut log).unwrap() > 0 {
            let last = log.lines().last().unwrap_or_default();
            is_stopped |= last.contains("stopped: /continue goes on");
            if last.starts_with("error:") || last.starts_with('[') {
                break;
            }
        }
        if is_stopped {
            break;
        }
    }
    assert!(is_stopped, "{log}");
    writeln!(stdin, "/quit").unwrap();
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    errors.read_to_string(&mut log).unwrap();
    let code = program.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 1)) && !log.contains("panicked"), "{code:?} {log}");
}

#[cfg(unix)]
#[test]
fn a_signal_at_the_prompt_or_two_in_an_answer_end_the_program() {
    for (line, names, allowed) in [
        ("/tokens\n", &["-INT"][..], &[130][..]),
        ("/tokens\n", &["-TERM"], &[130]),
        ("Once upon a time\n", &["-TERM"], &[130]),
        ("Once upon a time\n", &["-INT", "-INT"], &[130]),
    ] {
        let mut program = start("stories260k", LONG);
        let mut stdin = program.stdin.take().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        let mut stdout = BufReader::new(program.stdout.take().unwrap());
        let mut piece = [0; 1];
        stdout.read_exact(&mut piece).unwrap(); // the program works, or has worked
        let drain = std::thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = stdout.read_to_end(&mut rest);
        });
        for name in names {
            // The second may find the program at its prompt, which ends it too.
            std::thread::sleep(std::time::Duration::from_millis(50));
            signal_if_there(&program, name);
        }
        let code = program.wait().unwrap().code();
        assert!(code.is_some_and(|code| allowed.contains(&code)), "{line:?} {names:?}: {code:?}");
        drain.join().unwrap();
        drop(stdin);
    }
}

/// Sends a signal to a program that may have ended. It was not waited for, so its id is its own.
#[cfg(unix)]
fn signal_if_there(child: &Child, name: &str) {
    let _ = Command::new("kill").args([name, &child.id().to_string()]).stderr(Stdio::null()).status();
}
