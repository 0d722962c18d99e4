//! Expands `~` at the start of path flags: shells leave it in `--out=~/x`, in quotes and in service files.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Command, ValueHint};

/// The command with `~` expanded in all flags that take a path, also those of its subcommands.
pub fn expanding(command: Command) -> Command {
    command
        .mut_args(|arg| match arg.get_value_hint() {
            ValueHint::AnyPath => arg.value_parser(PathBufValueParser::new().map(|path| expanded(path, home))),
            _ => arg,
        })
        .mut_subcommands(expanding)
}

/// A path with `~` at its start expanded.
#[cfg(feature = "chat")]
pub fn expand(path: &str) -> PathBuf {
    expanded(path.into(), home)
}

fn home() -> Option<PathBuf> {
    std::env::home_dir()
}

/// `~` and `~/x` below the home folder; any other path as it is.
fn expanded(path: PathBuf, home: impl FnOnce() -> Option<PathBuf>) -> PathBuf {
    let below = path.strip_prefix("~").map(Path::to_owned);
    match below.ok().and_then(|below| Some(home()?.join(below))) {
        Some(path) => path,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn only_a_tilde_alone_is_the_home_folder() {
        let expand = |path: &str| expanded(path.into(), || Some("/home/me".into()));
        for (path, expected) in [
            ("~", "/home/me"),
            ("~/x/y", "/home/me/x/y"),
            ("~you/x", "~you/x"),
            ("./~/x", "./~/x"),
            ("a/~", "a/~"),
            ("/~", "/~"),
            ("", ""),
        ] {
            assert_eq!(expand(path), Path::new(expected), "{path}");
        }
        assert_eq!(expanded("~/x".into(), || None), Path::new("~/x"));
    }

    #[test]
    fn the_flags_of_subcommands_are_expanded() {
        let Some(home) = home() else { return };
        for out in [&["--out", "~/x"][..], &["--out=~/x"]] {
            let line = ["longreach", "train", "--model", "m", "--data", "~"].iter().chain(out);
            let matches = expanding(Cli::command()).try_get_matches_from(line).unwrap();
            let train = matches.subcommand_matches("train").unwrap();
            assert_eq!(train.get_one::<PathBuf>("out"), Some(&home.join("x")));
            assert_eq!(train.get_one::<PathBuf>("data"), Some(&home.join("")));
        }
        let line = ["longreach", "generate", "--model", "m", "--prompt", "~/x"];
        let matches = expanding(Cli::command()).try_get_matches_from(line).unwrap();
        let generate = matches.subcommand_matches("generate").unwrap();
        assert_eq!(generate.get_one::<String>("prompt").unwrap(), "~/x", "a text is no path");
    }
}
