//! The commands of a conversation: their names, what they do, and how a line is read.

use std::path::PathBuf;

use crate::cli::paths::expand;
use crate::error::{Error, Result};

/// What a command takes after its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    /// A file, which may be completed.
    File,
    /// A model or an adapter: also a file.
    Model,
    Attention,
    Text,
}

/// A command in the list.
pub struct Entry {
    pub name: &'static str,
    /// What follows the name, for help and hints.
    pub usage: &'static str,
    pub help: &'static str,
    pub takes: Takes,
}

const fn entry(name: &'static str, usage: &'static str, takes: Takes, help: &'static str) -> Entry {
    Entry { name, usage, help, takes }
}

/// All commands, in the order of `/help`.
pub const COMMANDS: &[Entry] = &[
    entry("help", "", Takes::Nothing, "list the commands"),
    entry("document", "FILE", Takes::File, "put a text file in front of the next question"),
    entry("regenerate", "", Takes::Nothing, "answer the last question again"),
    entry("continue", "", Takes::Nothing, "go on with an answer that was cut or stopped"),
    entry("undo", "", Takes::Nothing, "take back the last question and its answer"),
    entry("clear", "", Takes::Nothing, "begin anew with the same settings"),
    entry("system", "[TEXT]", Takes::Text, "show or set the system message; /system none removes it"),
    entry("attention", "[dense|lrsa|8x|SINK,LAG,KEEP]", Takes::Attention, "show or set the attention"),
    entry("kept", "", Takes::Nothing, "show which tokens the compressed cache kept"),
    entry("tokens", "", Takes::Nothing, "show tokens, cache and the room that is left"),
    entry("sampling", "[temp=T top_p=P …|default]", Takes::Text, "show or set the sampling"),
    entry("seed", "[N]", Takes::Text, "show or set the seed"),
    entry("model", "[M]", Takes::Model, "show or change the model; the messages stay"),
    entry("adapter", "A|none", Takes::Model, "change the adapter; the messages stay"),
    entry("save", "FILE", Takes::File, "save the conversation with its cache"),
    entry("load", "FILE", Takes::File, "go on with a saved conversation"),
    entry("quit", "", Takes::Nothing, "end the program, as Ctrl-D does"),
];

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Help,
    Document(PathBuf),
    Regenerate,
    Continue,
    Undo,
    Clear,
    System(Option<String>),
    Attention(Option<String>),
    Kept,
    Tokens,
    Sampling(Vec<String>),
    Seed(Option<u64>),
    Model(Option<String>),
    Adapter(Option<PathBuf>),
    Save(PathBuf),
    Load(PathBuf),
    Quit,
}

/// Whether a text is a command: one line that begins with a slash.
pub fn is_command(text: &str) -> bool {
    text.starts_with('/') && !text.trim_end().contains('\n')
}

/// Reads a command. The errors say which command may be meant, or what it takes.
pub fn parse(line: &str) -> Result<Command> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (name.trim_start_matches('/'), rest.trim());
    let entry = COMMANDS.iter().find(|entry| entry.name == name).ok_or_else(|| unknown(name))?;
    if entry.takes == Takes::Nothing && !rest.is_empty() {
        return Err(Error::usage(format!("/{name} takes nothing after it")));
    }
    let some = || Some(rest.to_string()).filter(|text| !text.is_empty());
    let needed = || match rest.is_empty() {
        true => Err(Error::usage(format!("/{name} needs {}", entry.usage))),
        false => Ok(path(rest)),
    };
    Ok(match name {
        "help" => Command::Help,
        "document" => Command::Document(needed()?),
        "regenerate" => Command::Regenerate,
        "continue" => Command::Continue,
        "undo" => Command::Undo,
        "clear" => Command::Clear,
        "system" => Command::System(some()),
        "attention" => Command::Attention(some()),
        "kept" => Command::Kept,
        "tokens" => Command::Tokens,
        "sampling" => Command::Sampling(rest.split_whitespace().map(str::to_string).collect()),
        "seed" => Command::Seed(some().map(|text| seed(&text)).transpose()?),
        "model" => Command::Model(some().map(|text| path(&text).to_string_lossy().into_owned())),
        "adapter" if rest == "none" => Command::Adapter(None),
        "adapter" => Command::Adapter(Some(needed()?)),
        "save" => Command::Save(needed()?),
        "load" => Command::Load(needed()?),
        _ => Command::Quit,
    })
}

fn seed(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::usage(format!("/seed takes a whole number from 0, and {text} is none")))
}

/// A path as it is typed: in quotes, or with a backslash before each blank, and with `~`.
fn path(text: &str) -> PathBuf {
    let quoted = ['"', '\''].into_iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q));
    match quoted {
        Some(inner) => expand(inner),
        None => expand(&text.replace("\\ ", " ")),
    }
}

fn unknown(name: &str) -> Error {
    let hint = match meant(name) {
        Some(command) => format!("did you mean /{command}? "),
        None => String::new(),
    };
    Error::usage(format!(
        "there is no command /{name}: {hint}/help lists the commands; a blank before the slash makes the line a question"
    ))
}

/// The command that a wrong name may stand for: the first that it begins, else the nearest one.
fn meant(name: &str) -> Option<&'static str> {
    let names = || COMMANDS.iter().map(|entry| entry.name);
    let lower = name.to_lowercase();
    let begun = names().find(|command| !lower.is_empty() && command.starts_with(&lower));
    let near = || names().map(|command| (distance(&lower, command), command)).min().filter(|(d, _)| *d <= 2);
    begun.or_else(|| near().map(|(_, command)| command))
}

/// The number of letters to insert, remove or replace to get from one word to the other. Words of
/// more than 20 letters are far from every command.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(21).collect(), to.chars().collect());
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_take_what_the_list_says() {
        for (line, command) in [
            ("/help", Command::Help),
            ("/quit  ", Command::Quit),
            ("/document a b.txt", Command::Document("a b.txt".into())),
            (r"/document a\ b.txt", Command::Document("a b.txt".into())),
            ("/document \"a b.txt\"", Command::Document("a b.txt".into())),
            ("/save  x", Command::Save("x".into())),
            ("/system", Command::System(None)),
            ("/system Be brief. ", Command::System(Some("Be brief.".into()))),
            ("/adapter none", Command::Adapter(None)),
            ("/seed 7", Command::Seed(Some(7))),
            ("/sampling temp=1  top_p=0.5", Command::Sampling(vec!["temp=1".into(), "top_p=0.5".into()])),
            ("/attention 8x", Command::Attention(Some("8x".into()))),
        ] {
            assert_eq!(parse(line).unwrap(), command, "{line}");
        }
        for entry in COMMANDS {
            let with = format!("/{} x", entry.name);
            assert_eq!(parse(&with).is_ok(), entry.takes != Takes::Nothing && entry.name != "seed", "{with}");
            let alone = parse(&format!("/{}", entry.name));
            let needs = !entry.usage.is_empty() && !entry.usage.starts_with('[');
            assert_eq!(alone.is_err(), needs, "{}", entry.name);
        }
    }

    #[test]
    fn an_unknown_command_says_which_is_meant() {
        for (line, name) in [
            ("/regen", "regenerate"),
            ("/Help", "help"),
            ("/sve x", "save"),
            ("/exit", "quit"),
            ("/quti", "quit"),
            ("/", ""),
            ("/tokesn", "tokens"),
            ("/résumé", ""),
        ] {
            let e = parse(line).unwrap_err().to_string();
            let hint = format!("did you mean /{name}?");
            assert_eq!(e.contains("did you mean"), !name.is_empty(), "{e}");
            assert!(name.is_empty() || e.contains(&hint), "{e}");
        }
        assert!(parse(&format!("/{}", "x".repeat(1 << 20))).is_err());
        assert!(!is_command(" /help") && !is_command("/a\nb") && is_command("/a\n") && !is_command(""));
    }
}
