//! Standard output and text input of the subcommands.
//!
//! A closed pipe ends the program quietly, as it ends other filters: `longreach info | head -1`.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::flags::with_flags;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::small_file::text_of;

/// Writes text to stdout and flushes it.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Error::of_kind(ErrorKind::ClosedOutput, "standard output is closed"))
        }
        done => done.context("writing to standard output"),
    }
}

/// Writes a line to stdout.
pub fn print_line(line: &str) -> Result<()> {
    print(&format!("{line}\n"))
}

/// Writes a line to stderr, with flags in place of the settings that it names. Unlike `eprintln!`,
/// it ignores a closed pipe, so the work continues.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", with_flags(line));
}

/// Exit status of a program that the user ended.
pub const INTERRUPTED: i32 = 130;

/// Exit status of a program whose output nobody reads: that of one that SIGPIPE ended.
const CLOSED_OUTPUT: i32 = 141;

/// Tells an error on stderr; returns the exit status. A closed standard output is no error to tell.
pub fn status(e: &Error) -> i32 {
    match e.kind() {
        ErrorKind::ClosedOutput => CLOSED_OUTPUT,
        ErrorKind::Interrupted => {
            note(&e.to_string());
            INTERRUPTED
        }
        kind => {
            note(&format!("error: {e}"));
            if kind == ErrorKind::Usage { 2 } else { 1 }
        }
    }
}

/// A spinner on stderr that counts `counted`; hidden if stderr is not a terminal or `quiet` is set.
pub fn spinner(quiet: bool, counted: &str) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(&format!("{{spinner}} {{pos}} {counted}  {{elapsed}}  {{wide_msg}}"));
    let bar = ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A progress bar on stderr with the estimated time left.
pub fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}  {elapsed} (eta {eta})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// The text of a file, without the line break at its end.
pub fn read_text_file(path: &Path) -> Result<String> {
    let read = || -> Result<String> { text_of(std::fs::read(path)?) };
    Ok(without_last_line_break(read().with_context(|| format!("reading {}", path.display()))?))
}

/// The text on standard input, as [`read_text_file`] reads it.
pub fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("reading standard input")?;
    Ok(without_last_line_break(text_of(bytes).context("reading standard input")?))
}

fn without_last_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// A word as a POSIX shell takes it: in single quotes if it has other than plain characters.
pub fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A usage error about the content of a file.
pub fn in_file(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::usage(format!("{}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_blanks_are_quoted() {
        for (word, quoted) in [("runs/a-1", "runs/a-1"), ("my run", "'my run'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(shell_word(word), quoted);
        }
    }

    #[test]
    fn one_line_break_at_the_end_is_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        for (content, text) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("a", "a"),
            ("\n", ""),
            (" a ", " a "),
            ("\u{feff}a\n", "a"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read_text_file(&path).unwrap(), text);
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let e = read_text_file(&path).unwrap_err().to_string();
        assert!(e.contains("text") && e.contains("UTF-8"), "{e}");
    }
}
