//! The line editor of a terminal: history, several lines, completion and hints.

use std::borrow::Cow;
use std::cell::Cell;
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::config::{ColorMode, CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};

use super::command::{COMMANDS, Entry, Takes};
use super::lines::Said;
use super::multiline::{is_open, unfold};
use crate::cli::output::note;
use crate::error::{Error, Result};

const PROMPT: &str = "> ";
/// Lines that the history keeps.
const HISTORY_LINES: usize = 1000;
/// Longer texts do not go into the history.
const MAX_HISTORY_BYTES: usize = 64 << 10;
/// Names of attentions to complete.
const ATTENTIONS: [&str; 5] = ["dense", "lrsa", "2x", "4x", "8x"];

/// The editor with its history.
pub struct LineEditor {
    editor: Editor<Assistant, FileHistory>,
    history: Option<PathBuf>,
    /// Whether the last key was Ctrl-C at an empty prompt.
    is_interrupted: bool,
}

/// The file of the history in the platform's cache folder, if there is one.
pub fn history_path() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = match std::env::consts::OS {
        "windows" => var("LOCALAPPDATA"),
        "macos" => var("HOME").map(|home| home.join("Library/Caches")),
        _ => var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|home| home.join(".cache"))),
    };
    folder.map(|folder| folder.join("longreach").join("chat-history"))
}

impl LineEditor {
    /// Opens the editor with the history of a file.
    pub fn open(history: Option<PathBuf>, has_colours: bool) -> Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failed)?
            .completion_type(CompletionType::List)
            .color_mode(if has_colours { ColorMode::Enabled } else { ColorMode::Disabled })
            .bracketed_paste(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Assistant { has_colours, files: FilenameCompleter::new(), is_typed: Cell::new(false) }));
        if let Some(path) = &history {
            prepare(path);
            let _ = editor.load_history(path); // absent at first
        }
        Ok(Self { editor, history, is_interrupted: false })
    }

    /// Waits for the next text. Ctrl-C at an empty prompt ends the program the second time.
    pub fn next(&mut self) -> Result<Said> {
        if let Some(helper) = self.editor.helper() {
            helper.is_typed.set(false);
        }
        let line = self.editor.readline(PROMPT);
        let was_interrupted = std::mem::take(&mut self.is_interrupted);
        match line {
            Ok(line) => {
                self.remember(&line);
                Ok(Said::Text(unfold(&line)))
            }
            Err(ReadlineError::Eof) => Ok(Said::End),
            Err(ReadlineError::Interrupted) => {
                let is_empty = self.editor.helper().is_none_or(|helper| !helper.is_typed.get());
                if is_empty && was_interrupted {
                    return Ok(Said::End);
                }
                if is_empty {
                    note("(Ctrl-C once more, Ctrl-D or /quit ends the program)");
                }
                self.is_interrupted = is_empty;
                Ok(Said::Nothing)
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// Adds a text to the history and its file. A history that cannot be written costs nothing else.
    fn remember(&mut self, line: &str) {
        if line.trim().is_empty() || line.len() > MAX_HISTORY_BYTES {
            return;
        }
        let is_new = self.editor.add_history_entry(line).unwrap_or(false);
        if let (true, Some(path)) = (is_new, &self.history)
            && let Err(e) = self.editor.append_history(path)
        {
            note(&format!("note: the history {} cannot be written: {e}", path.display()));
            self.history = None;
        }
    }
}

fn failed(e: ReadlineError) -> Error {
    Error::new(e.to_string()).context("reading a line from the terminal")
}

/// Creates the folder of the history, and makes a file that is there readable by its owner only.
fn prepare(path: &Path) {
    if let Some(folder) = path.parent() {
        let _ = std::fs::create_dir_all(folder);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    }
}

/// Completes, hints and tells when a text is whole.
struct Assistant {
    has_colours: bool,
    files: FilenameCompleter,
    /// Whether the line has text.
    is_typed: Cell<bool>,
}

impl Helper for Assistant {}

impl Validator for Assistant {
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_open(ctx.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        let Some((name, rest)) = typed.split_once(' ') else { return Ok((0, commands(typed))) };
        let takes = named(name).map_or(Takes::Nothing, |entry| entry.takes);
        match takes {
            Takes::File | Takes::Model => self.files.complete_path(line, pos),
            Takes::Attention => {
                let fit = ATTENTIONS.iter().filter(|attention| attention.starts_with(rest));
                Ok((typed.len() - rest.len(), fit.map(|attention| pair(attention)).collect()))
            }
            Takes::Nothing | Takes::Text => Ok((pos, Vec::new())),
        }
    }
}

fn pair(text: &str) -> Pair {
    Pair { display: text.trim_end().to_string(), replacement: text.to_string() }
}

/// The commands that begin as typed, with a blank where something follows.
fn commands(typed: &str) -> Vec<Pair> {
    let Some(begun) = typed.strip_prefix('/') else { return Vec::new() };
    let fit = COMMANDS.iter().filter(|entry| entry.name.starts_with(begun));
    fit.map(|entry| pair(&format!("/{}{}", entry.name, if entry.usage.is_empty() { "" } else { " " }))).collect()
}

/// The command of a name with its slash.
fn named(name: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| name.strip_prefix('/') == Some(entry.name))
}

/// The rest of a command, and what it takes.
struct Rest {
    shown: String,
    /// The part that the right arrow inserts.
    n_name: usize,
}

impl Hint for Rest {
    fn display(&self) -> &str {
        &self.shown
    }

    fn completion(&self) -> Option<&str> {
        Some(&self.shown[..self.n_name]).filter(|name| !name.is_empty())
    }
}

impl Hinter for Assistant {
    type Hint = Rest;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Rest> {
        self.is_typed.set(!line.is_empty());
        (self.has_colours && pos == line.len()).then(|| rest(line)).flatten()
    }
}

/// The hint for a line: of the only command that it begins, the rest of the name and what it takes.
fn rest(line: &str) -> Option<Rest> {
    let begun = line.strip_prefix('/').filter(|begun| !begun.is_empty())?;
    let whole = COMMANDS.iter().find(|entry| begun.strip_suffix(' ').unwrap_or(begun) == entry.name);
    if let Some(entry) = whole.filter(|entry| !entry.usage.is_empty()) {
        let gap = if begun.ends_with(' ') { "" } else { " " };
        return Some(Rest { shown: format!("{gap}{}", entry.usage), n_name: 0 });
    }
    let mut fit = COMMANDS.iter().filter(|entry| entry.name.starts_with(begun) && entry.name != begun);
    let (entry, None) = (fit.next()?, fit.next()) else { return None };
    let name = &entry.name[begun.len()..];
    Some(Rest { shown: format!("{name} {}", entry.usage).trim_end().to_string(), n_name: name.len() })
}

#[cfg(test)]
mod tests {
    use rustyline::history::MemHistory;

    use super::*;

    #[test]
    fn commands_files_and_attentions_are_completed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("notes.txt"), "").unwrap();
        let assistant = Assistant { has_colours: true, files: FilenameCompleter::new(), is_typed: Cell::new(false) };
        let history = MemHistory::new();
        let complete = |line: &str| {
            let (at, found) = assistant.complete(line, line.len(), &Context::new(&history)).unwrap();
            found.into_iter().map(|pair| format!("{}{}", &line[..at], pair.replacement)).collect::<Vec<_>>()
        };
        assert_eq!(complete("/s"), ["/system ", "/sampling ", "/seed ", "/save "]);
        assert_eq!(complete("/ke"), ["/kept"]);
        assert_eq!(complete("/attention d"), ["/attention dense"]);
        assert!(complete("/nothing x").is_empty() && complete("/system x").is_empty() && complete("hello").is_empty());
        let typed = format!("/document {}/no", dir.path().display());
        assert_eq!(complete(&typed), [format!("{typed}tes.txt")]);
    }

    #[test]
    fn the_hint_is_the_rest_of_the_only_command() {
        let shown = |line: &str| rest(line).map(|hint| (hint.shown[..hint.n_name].to_string(), hint.shown));
        assert_eq!(shown("/doc"), Some(("ument".into(), "ument FILE".into())));
        assert_eq!(shown("/save"), Some((String::new(), " FILE".into())));
        assert_eq!(shown("/seed "), Some((String::new(), "[N]".into())));
        for none in ["/s", "/", "hello", "/kept", "/nothing", "/save x", ""] {
            assert_eq!(shown(none), None, "{none}");
        }
    }
}
