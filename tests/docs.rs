//! Checks the documents: links and commands hold, prose wraps, and no registry's host is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Maximum columns of a line of prose.
const MAX_COLUMNS: usize = 100;
/// Hosts that a document may name. Packages are named without a host, since the registry differs by
/// machine.
const HOSTS: &[&str] =
    &["127.0.0.1:8080", "arxiv.org", "github.com", "huggingface.co", "keepachangelog.com", "rustup.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The Markdown files of the repository root and below `docs/` and `assets/`: paths from the root,
/// sorted.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = ["docs", "assets"].map(PathBuf::from).to_vec();
    let is_markdown = |path: &Path| path.extension().is_some_and(|e| e == "md");
    for entry in fs::read_dir(root()).unwrap() {
        let name = PathBuf::from(entry.unwrap().file_name());
        found.extend(is_markdown(&name).then_some(name));
    }
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(root().join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                open.push(path);
            } else if is_markdown(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The hand-written documents: no logs, no generated reports.
fn guides() -> Vec<PathBuf> {
    let named = ["README.md", "ARCHITECTURE.md", "docs/study.md", "docs/app/README.md", "docs/conformance/README.md"];
    let named = named.map(PathBuf::from);
    let is_guide = |path: &PathBuf| path.starts_with("docs/guide") || named.contains(path);
    documents().into_iter().filter(is_guide).collect()
}

/// Numbered lines (from 1) outside and inside code fences, without the fences.
fn split(text: &str) -> [Vec<(usize, &str)>; 2] {
    let mut parts = [Vec::new(), Vec::new()];
    let mut is_code = false;
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else {
            parts[usize::from(is_code)].push((i + 1, line));
        }
    }
    assert!(!is_code, "a code fence is not closed");
    parts
}

/// The text without code fences, with its line breaks.
fn prose(text: &str) -> String {
    let [prose, _] = split(text);
    prose.iter().map(|(_, line)| format!("{line}\n")).collect()
}

/// The code spans of a text, each joined to one line.
fn code_spans(text: &str) -> Vec<String> {
    let spans = text.split('`').skip(1).step_by(2);
    spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The targets of links and images outside code.
fn link_targets(text: &str) -> Vec<String> {
    let without_code: String = prose(text).split('`').step_by(2).collect();
    let targets = without_code.split("](").skip(1);
    targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_string()).collect()
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The words of a shell command without quotes, up to a comment, redirection or pipe.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#' | '>' | '|') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The arguments of every call of the program in a document, in fences and code spans.
fn calls(text: &str) -> Vec<Vec<String>> {
    let [prose_lines, code] = split(text);
    assert!(!prose_lines.is_empty(), "a document has prose");
    let joined: String = code.iter().map(|(_, line)| format!("{line}\n")).collect::<String>().replace("\\\n", " ");
    let fenced = joined.lines().flat_map(|line| line.split("&&")).map(str::to_string);
    let commands = fenced.chain(code_spans(&prose(text)));
    let mut found = Vec::new();
    for command in commands {
        let mut words = words(&command).into_iter().skip_while(|w| w.contains('=') && !w.starts_with('-'));
        if words.next().as_deref() == Some("longreach") {
            found.push(words.collect());
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let (mut wrong, mut n) = (Vec::new(), 0);
    for document in documents() {
        for target in link_targets(&read(&root().join(&document))) {
            if target.contains("://") {
                continue;
            }
            n += 1;
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let here = root().join(&document);
            let path = if file.is_empty() { here } else { here.parent().unwrap().join(file) };
            if !path.exists() {
                wrong.push(format!("{}: {target} does not exist", document.display()));
            } else if !heading.is_empty() && !prose(&read(&path)).lines().any(|l| is_heading(l, heading)) {
                wrong.push(format!("{}: {target} names no heading", document.display()));
            }
        }
    }
    assert!(n > 30, "the documents hold links; {n} were found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn documents_name_no_registry() {
    let (mut wrong, mut n) = (Vec::new(), 0);
    for document in documents() {
        for rest in read(&root().join(&document)).split("://").skip(1) {
            let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
            let host = rest.split(|c| !is_host(c)).next().unwrap_or_default();
            n += 1;
            if !HOSTS.contains(&host) {
                wrong.push(format!("{}: {host}", document.display()));
            }
        }
    }
    assert!(n > 3, "the documents hold addresses; {n} were found");
    assert!(wrong.is_empty(), "\n{}\nName the package, or add a public host to HOSTS.", wrong.join("\n"));
}

fn is_heading(line: &str, name: &str) -> bool {
    line.starts_with('#') && anchor(line.trim_start_matches('#')) == name
}

#[test]
fn prose_wraps() {
    let mut wrong = Vec::new();
    for document in guides() {
        let text = read(&root().join(&document));
        let text = text.split("\n## File map").next().unwrap(); // the map has one long line per file
        let [lines, _] = split(text);
        for (number, line) in lines {
            // A table or image cannot be wrapped, nor can a link on its own line.
            let is_whole = line.starts_with('|') || line.starts_with("![") || !line.trim().contains(' ');
            if !is_whole && line.chars().count() > MAX_COLUMNS {
                wrong.push(format!("{}:{number}: {} columns", document.display(), line.chars().count()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\nWrap prose at {MAX_COLUMNS} columns.", wrong.join("\n"));
}

#[test]
fn the_command_line_takes_what_the_documents_show() {
    let (mut wrong, mut n) = (Vec::new(), 0);
    for document in guides() {
        for args in calls(&read(&root().join(&document))) {
            let is_off =
                |verb: &String| verb == "app" && !cfg!(feature = "app") || verb == "chat" && !cfg!(feature = "chat");
            if args.first().is_some_and(is_off) {
                continue;
            }
            n += 1;
            // With --help the program parses the flags before it and runs nothing.
            let mut program = Command::new(env!("CARGO_BIN_EXE_longreach"));
            let out = program.args(&args).arg("--help").output().expect("the program starts");
            if !out.status.success() {
                let why = String::from_utf8_lossy(&out.stderr);
                let why = why.lines().next().unwrap_or_default();
                wrong.push(format!("{}: longreach {}: {why}", document.display(), args.join(" ")));
            }
        }
    }
    assert!(n > 50, "the documents show commands; {n} were found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_scanner_reads_markdown() {
    let text = "A [link](a.md#b) and `[code](no.md)`, `longreach\nx \"1 2\"`.\n```sh\n[x](y)\nA=1 longreach z \\\n  --p > f # c\n```\n";
    assert_eq!(link_targets(text), ["a.md#b"]);
    assert_eq!(calls(text), [vec!["z", "--p"], vec!["x", "1 2"]]);
    assert_eq!(anchor(" How *exact*, it is: 4x"), "how-exact-it-is-4x");
    assert!(is_heading("## How exact it is", "how-exact-it-is"));
}
