//! Tests of the conversation without a terminal, on the CPU with the bundled model.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::machine::{Chat, Next};
use super::run::ChatCommand;
use super::screen::Screen;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    command: ChatCommand,
}

/// A screen that remembers, and that stops answers after some tokens or chunks.
#[derive(Default)]
struct Paper {
    said: String,
    told: String,
    notes: String,
    marked: Vec<(String, bool)>,
    stops_after: Option<usize>,
    n_seen: usize,
}

impl Screen for Paper {
    fn say(&mut self, text: &str) {
        self.said += text;
        self.n_seen += 1;
    }
    fn end_answer(&mut self) {
        self.said.push('|');
    }
    fn tell(&mut self, text: &str) {
        self.told += text;
        self.told.push('\n');
    }
    fn note(&mut self, line: &str) {
        self.notes += line;
        self.notes.push('\n');
    }
    fn marked(&mut self, pieces: &[(String, bool)]) {
        self.marked = pieces.to_vec();
    }
    fn read(&mut self, _: usize, _: usize) {
        self.n_seen += 1;
    }
    fn is_stopped(&self) -> bool {
        self.stops_after.is_some_and(|n| self.n_seen >= n)
    }
    fn has_colours(&self) -> bool {
        false
    }
}

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

/// The bundled model with a chat template.
fn with_template(dir: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
    let to = dir.join("model");
    std::fs::create_dir_all(&to).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    std::fs::write(to.join("chat_template.jinja"), TEMPLATE).unwrap();
    to
}

fn open(model: &str, flags: &[&str]) -> Chat {
    let seed = if flags.contains(&"--seed") { &[][..] } else { &["--seed", "5"] };
    let line = [&["chat", "--device", "cpu", "--model", model], seed, flags].concat();
    Line::parse_from(line).command.open(&mut Paper::default()).unwrap()
}

const LRSA: &[&str] = &["--sink", "4", "--lag", "8", "--keep", "0.25", "--max-tokens", "20"];

/// Takes a line; returns what the screen got.
fn take(chat: &mut Chat, line: &str) -> Paper {
    let mut paper = Paper::default();
    assert_eq!(chat.take(line, &mut paper).unwrap_or_else(|e| panic!("{line}: {e}")), Next::Stay);
    paper
}

/// Takes a line and stops after `n` pieces; a chunk of the prompt is one.
fn take_some(chat: &mut Chat, line: &str, n: usize) -> Paper {
    let mut paper = Paper { stops_after: Some(n), ..Paper::default() };
    chat.take(line, &mut paper).unwrap();
    paper
}

fn refusal(chat: &mut Chat, line: &str) -> String {
    chat.take(line, &mut Paper::default()).unwrap_err().to_string()
}

#[test]
fn turns_share_a_cache_and_the_lines_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_template(dir.path());
    let mut chat = open(model.to_str().unwrap(), LRSA);
    let first = take(&mut chat, "Once upon a time there was a girl");
    assert!(first.notes.starts_with('[') && first.notes.contains(" in the cache"), "{}", first.notes);
    assert!(!first.notes.contains("reused"));
    let second = take(&mut chat, "And then");
    assert!(second.notes.contains("reused") && second.notes.contains("x smaller)"), "{}", second.notes);
    assert_eq!(chat.turns.turns.len(), 2);
    assert_eq!(second.said.trim_end_matches('|'), chat.turns.turns[1].answer);
    let tokens = take(&mut chat, "/tokens").told;
    assert!(
        tokens.starts_with("conversation: ")
            && tokens.contains(" of 512, ")
            && tokens.contains("; a dense one takes 0."),
        "{tokens}"
    );
    let kept = take(&mut chat, "/kept");
    let text: String = kept.marked.iter().map(|(text, _)| text.as_str()).collect();
    assert!(text.contains("Once upon a time") && kept.marked.iter().any(|(_, kept)| !kept), "{text}");
    assert!(kept.notes.contains("heads"), "{}", kept.notes);
    take(&mut chat, "/undo");
    assert_eq!(chat.turns.turns.len(), 1);
    take(&mut chat, "/clear");
    assert!(take(&mut chat, "/tokens").told.contains("0 tokens of 512, 512 left\ncache: empty"));
    assert!(refusal(&mut chat, "/undo").contains("nothing to take back"));
    assert!(refusal(&mut chat, "/regenerate").contains("no question"));
    assert!(refusal(&mut chat, "/kept").contains("nothing was read"));
    assert_eq!(chat.take("/quit", &mut Paper::default()).unwrap(), Next::Leave);
}

#[test]
fn a_cut_answer_continues_as_if_it_had_not_been_cut() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_template(dir.path());
    for model in [model.to_str().unwrap(), "stories260k"] {
        let greedy = ["--temp", "0", "--sink", "4", "--lag", "8"];
        let mut whole = open(model, &[&greedy[..], &["--max-tokens", "24"]].concat());
        let mut parts = open(model, &[&greedy[..], &["--max-tokens", "8"]].concat());
        let once = take(&mut whole, "Lily went to the park").said;
        let mut said = take(&mut parts, "Lily went to the park").said;
        let next = take(&mut parts, "/continue");
        assert!(
            next.notes.contains("read 1,") || next.notes.contains("read 1 at"),
            "only the last token: {}",
            next.notes
        );
        said += &next.said;
        said += &take_some(&mut parts, "/continue", 5).said;
        said += &take(&mut parts, "/continue").said;
        let said = said.replace('|', "");
        assert!(said.starts_with(once.trim_end_matches('|')), "{model}: {said:?} {once:?}");
        assert_eq!(parts.turns.turns[0].answer, said);
        let again = take(&mut parts, "/regenerate");
        assert!(again.notes.contains("read 0, reused"), "{}", again.notes);
        assert!(said.starts_with(again.said.trim_end_matches('|')), "{said:?} {:?}", again.said);
    }
    assert!(refusal(&mut open("stories260k", &[]), "/continue").contains("no answer was cut"));
}

#[test]
fn a_stopped_regenerate_keeps_the_old_answer_and_a_new_one_reads_nothing() {
    let mut chat = open("stories260k", LRSA);
    let document = "The dog ran to the big tree and sat down. ".repeat(6);
    take(&mut chat, &document);
    let before = chat.turns.clone();
    let stopped = take_some(&mut chat, "/regenerate", 0);
    assert!(!chat.turns.turns[0].answer.is_empty());
    if !stopped.notes.contains("the old one stays") {
        // Without a chunk to read, the first token comes before the first look at Ctrl-C.
        assert_ne!(chat.turns, before);
    }
    let again = take(&mut chat, "/regenerate");
    assert!(again.notes.contains("read 0, reused"), "{}", again.notes);
    assert_ne!(chat.turns.turns[0].answer, before.turns[0].answer, "another seed");
    assert_eq!(chat.turns.turns.len(), 1);
    // With another attention everything is read, and a stop comes before the first token.
    take(&mut chat, "/attention dense");
    let old = chat.turns.clone();
    let stopped = take_some(&mut chat, "/regenerate", 1);
    assert!(stopped.notes.contains("the old one stays"), "{}", stopped.notes);
    assert_eq!(chat.turns, old);
    assert!(refusal(&mut chat, "/kept").contains("dense"));
}

#[test]
fn a_question_without_an_answer_is_kept_and_can_be_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a story.txt");
    std::fs::write(&file, "Tom had a red ball.\n").unwrap();
    let mut chat = open("stories260k", LRSA);
    let told = take(&mut chat, &format!("/document {}", file.display())).notes;
    assert!(told.contains(" tokens, ") && told.contains("% of the 512"), "{told}");
    let stopped = take_some(&mut chat, "One day", 1);
    assert!(stopped.notes.contains("what was read stays: /regenerate asks again"), "{}", stopped.notes);
    assert!(chat.turns.turns.is_empty() && chat.turns.unanswered.is_some());
    let again = take(&mut chat, "/regenerate");
    assert!(again.notes.contains("read 0, reused"), "what was read stays: {}", again.notes);
    assert_eq!(
        (chat.turns.turns[0].document.as_str(), chat.turns.turns[0].question.as_str()),
        ("Tom had a red ball.", "One day")
    );
    let long = "word ".repeat(600);
    let e = refusal(&mut chat, &long);
    assert!(e.contains("leaves no room"), "{e}");
    assert_eq!(chat.turns.turns.len(), 1);
    // The conversation goes on where it was, without reading it again.
    let next = take(&mut chat, "Then");
    assert!(next.notes.contains("reused"), "{}", next.notes);
    assert_eq!(chat.turns.turns.len(), 2);
    for (line, word) in [
        ("/document /no/such/file", "/no/such/file"),
        ("/helo", "did you mean /help?"),
        ("/attention 3", "is no attention"),
        ("/sampling temp=-1", "`temperature`"),
        ("/system Be brief.", "chat template"),
        ("/model no/such/model", "no/such/model"),
        ("/load /no/such/file", "no saved conversation"),
        ("/continue x", "takes nothing"),
    ] {
        let e = refusal(&mut chat, line);
        assert!(e.contains(word), "{line}: {e}");
    }
    assert_eq!(chat.turns.turns.len(), 2);
    assert!(take(&mut chat, " /is this a command?").said.len() > 1);
    assert_eq!(chat.turns.turns[2].question, "/is this a command?");
}

#[test]
fn another_question_about_a_document_reads_only_the_question() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("story.txt");
    std::fs::write(&file, "The dog ran to the big tree and sat down. ".repeat(16)).unwrap();
    let model = with_template(dir.path());
    for model in [model.to_str().unwrap(), "stories260k"] {
        let mut chat = open(model, LRSA);
        take(&mut chat, &format!("/document {}", file.display()));
        let first = take(&mut chat, "Who sat down");
        assert!(!first.notes.contains("reused"), "{}", first.notes);
        take(&mut chat, "And then");
        take(&mut chat, "/undo");
        take(&mut chat, "/undo");
        take(&mut chat, &format!("/document {}", file.display()));
        let second = take(&mut chat, "Lily was sad").notes;
        let reused = second.split("reused ").nth(1).map(|rest| rest[..rest.find(';').unwrap()].to_string());
        // Each of the sixteen sentences has 18 tokens.
        assert!(reused.is_some_and(|n| n.parse::<usize>().unwrap() >= 16 * 18), "{second}");
    }
}

#[test]
fn a_loaded_conversation_answers_to_the_letter_as_the_unbroken_one() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_template(dir.path());
    let model = model.to_str().unwrap();
    let path = dir.path().join("talk.longreach");
    let dense = ["--attention", "dense", "--max-tokens", "20"];
    for flags in [LRSA, &dense[..]] {
        let mut first = open(model, &[flags, &["--system", "Tell a story", "--repetition-penalty", "1.1"]].concat());
        take(&mut first, "Once upon a time there was a girl");
        take(&mut first, "/regenerate");
        let saved = take(&mut first, &format!("/save {}", path.display()));
        assert!(saved.notes.contains("saved 1 answer and"), "{}", saved.notes);
        // Only the seed of the file counts.
        let mut second = open(model, &["--seed", "99"]);
        let loaded = take(&mut second, &format!("/load {}", path.display()));
        assert!(loaded.notes.contains(" tokens in the cache; attention: "), "{}", loaded.notes);
        assert_eq!(
            (&second.turns, &second.settings, second.attention),
            (&first.turns, &first.settings, first.attention)
        );
        for question in ["And then", "/regenerate", "/continue", "The end"] {
            if question == "/continue" && !first.turns.is_cut {
                continue;
            }
            let [one, two] = [&mut first, &mut second].map(|chat| take(chat, question));
            assert_eq!(one.said, two.said, "{question}");
            let reused = |paper: &Paper| {
                paper.notes.split("reused ").nth(1).map(|rest| rest[..rest.find(';').unwrap()].to_string())
            };
            assert_eq!(reused(&one), reused(&two), "{} {}", one.notes, two.notes);
        }
        assert_eq!(first.turns, second.turns);
    }
}

#[test]
fn a_conversation_of_another_model_is_read_anew() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_template(dir.path());
    let path = dir.path().join("talk");
    let mut first = open("stories260k", LRSA);
    take(&mut first, "Once upon a time");
    take(&mut first, &format!("/save {}", path.display()));
    let mut weights = std::fs::read(model.join("model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(model.join("model.safetensors"), weights).unwrap();
    let mut other = open(model.to_str().unwrap(), &[]);
    let loaded = take(&mut other, &format!("/load {}", path.display()));
    assert!(loaded.notes.contains("another model, stories260k, so the next question reads"), "{}", loaded.notes);
    assert_eq!(other.turns.turns, first.turns.turns);
    let next = take(&mut other, "Then");
    assert!(next.said.len() > 1 && !next.notes.contains("reused"), "{}", next.notes);
    // The flags of the command line win over the file, and another attention reads anew.
    let file = path.to_str().unwrap();
    let mut resumed = open("stories260k", &["--resume", file, "--attention", "dense", "--temp", "0"]);
    assert_eq!(resumed.turns, first.turns);
    assert!(!take(&mut resumed, "Then").notes.contains("reused"));
    // A file that is none leaves the conversation as it is.
    std::fs::write(&path, "nothing").unwrap();
    let before = resumed.turns.clone();
    assert!(refusal(&mut resumed, &format!("/load {file}")).contains("no saved conversation"));
    assert_eq!(resumed.turns, before);
}

#[test]
fn a_smaller_limit_than_that_of_a_saved_cache_reads_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talk");
    let mut first = open("stories260k", LRSA);
    take(&mut first, "Once upon a time");
    take(&mut first, &format!("/save {}", path.display()));
    let mut resumed = open("stories260k", &["--resume", path.to_str().unwrap(), "--max-positions", "300"]);
    assert_eq!(resumed.turns, first.turns);
    let next = take(&mut resumed, "Then");
    assert!(next.said.len() > 1 && !next.notes.contains("reused"), "{}", next.notes);
    let loaded = take(&mut resumed, &format!("/load {}", path.display())).notes;
    assert!(loaded.contains("room for 512 tokens, more than the limit of 300, so the next question reads"), "{loaded}");
    assert_eq!((&resumed.turns, resumed.attention), (&first.turns, first.attention));
    // The file stays, and its cache counts where it fits.
    let mut whole = open("stories260k", &["--resume", path.to_str().unwrap()]);
    assert!(take(&mut whole, "Then").notes.contains("reused"));
}

#[test]
fn a_saved_conversation_brings_its_rope_scaling() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("talk");
    let file = path.to_str().unwrap();
    let scaled = [LRSA, &["--rope-scaling", "yarn:2"]].concat();
    let mut first = open("stories260k", &scaled);
    assert!(take(&mut first, "/tokens").told.contains(" of 1,024, "), "twice the positions of the model");
    take(&mut first, "Once upon a time");
    take(&mut first, &format!("/save {file}"));
    let mut resumed = open("stories260k", &["--resume", file]);
    assert!(take(&mut resumed, "Then").notes.contains("reused"));
    // Another scaling, or none in a conversation that runs, is refused.
    let line = ["chat", "--device", "cpu", "--model", "stories260k", "--resume", file, "--rope-scaling", "linear:2"];
    let e = Line::parse_from(line).command.open(&mut Paper::default()).err().unwrap().to_string();
    assert!(e.contains("held with `rope_scaling` yarn:2") && e.contains("open with linear:2"), "{e}");
    let mut plain = open("stories260k", LRSA);
    let e = refusal(&mut plain, &format!("/load {file}"));
    assert!(e.contains("open without it: start chat with `rope_scaling` yarn:2"), "{e}");
    assert!(plain.turns.turns.is_empty());
    // One that was held without a scaling goes on with one, and is read anew.
    take(&mut plain, "Once upon a time");
    take(&mut plain, &format!("/save {file}"));
    let mut stretched = open("stories260k", &[&scaled[..], &["--resume", file]].concat());
    assert_eq!(stretched.turns, plain.turns);
    assert!(!take(&mut stretched, "Then").notes.contains("reused"));
}

#[test]
fn what_is_too_long_names_the_scaling_with_which_it_fits() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("long.txt");
    std::fs::write(&long, "Once upon a time there was a girl. ".repeat(100)).unwrap();
    let mut chat = open("stories260k", LRSA);
    let e = refusal(&mut chat, &format!("/document {}", long.display()));
    assert!(e.contains("give a part of it, or start chat anew: stretch RoPE with `rope_scaling` yarn:"), "{e}");
    let question = std::fs::read_to_string(&long).unwrap();
    let e = refusal(&mut chat, &question);
    assert!(e.contains("leaves no room") && e.contains("; or start chat anew: stretch RoPE"), "{e}");
}

#[test]
fn settings_are_shown_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_template(dir.path());
    let mut chat = open(model.to_str().unwrap(), LRSA);
    assert_eq!(take(&mut chat, "/sampling").told, "temp=0.8 top_p=0.95 top_k=0 min_p=0 repetition_penalty=1\n");
    assert!(take(&mut chat, "/sampling temp=0").told.contains("greedy"));
    assert_eq!(take(&mut chat, "/seed").told, "seed 5\n");
    assert_eq!(take(&mut chat, "/seed 6").told, "seed 6\n");
    assert_eq!(take(&mut chat, "/system").told, "there is no system message\n");
    take(&mut chat, "/system Be brief.");
    assert_eq!(take(&mut chat, "/system").told, "Be brief.\n");
    take(&mut chat, "/system none");
    assert_eq!(chat.turns.system, None);
    assert!(take(&mut chat, "/attention 2x").notes.contains("attention: "));
    let help = take(&mut chat, "/help").told;
    assert!(super::command::COMMANDS.iter().all(|entry| help.contains(&format!("/{} ", entry.name))), "{help}");
    take(&mut chat, "Hello");
    let changed = take(&mut chat, "/model stories260k");
    assert!(changed.told.contains("stories260k on ") && changed.notes.contains("anew"), "{}", changed.notes);
    assert!(changed.notes.contains("no chat template"));
    assert!(take(&mut chat, "/adapter none").told.contains("stories260k on "));
    assert_eq!(chat.turns.turns.len(), 1);
}
