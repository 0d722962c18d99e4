//! `longreach data`: shows training data as a model would learn it.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::args::{AttentionArgs, AttentionName, ModelArgs};
use super::flags::with_flags;
use super::forecast_table::data_lines;
use super::output::{note, print_line};
use crate::checkpoint::model_files::ModelFiles;
use crate::data::dataset::Form;
use crate::data::long::Long;
use crate::data::sampler::Order;
use crate::data::sources::files::Files;
use crate::data::survey::{Listed, Part, Shown, Statistics, histogram, survey};
use crate::data::token_count::TokenCount;
use crate::data::token_statistics::TokenStatistics;
use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;
use crate::train::{ObjectiveKind, TrainJob};

/// Most tokens shown of an example.
const MAX_TOKENS: usize = 2000;
/// Most places listed in the text output.
const MAX_PLACES: usize = 10;

/// Flags of `data`.
#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder or file with training data, as for train, or moby-dick
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// Number of training examples to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,
    /// Most tokens of an example; --long says what becomes of longer ones
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// What becomes of examples longer than --max-length
    #[arg(long, value_enum, default_value_t)]
    long: Long,
    /// Tokens that a window repeats from the one before [default: an eighth of --max-length]
    #[arg(long, value_name = "N")]
    overlap: Option<usize>,
    /// Without validation data, show what train holds out of the training examples for it
    #[arg(long, value_name = "F")]
    valid_fraction: Option<f64>,
    /// Seed that draws the held-out examples and the order, as in train
    #[arg(long, value_name = "N", default_value_t)]
    seed: u64,
    /// Sequences per batch, as in train
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch_size: usize,
    /// Tokens per batch, as in train
    #[arg(long, value_name = "N|auto")]
    batch_tokens: Option<TokenCount>,
    /// Batches per optimiser step, as in train
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,
    /// Order of the examples in an epoch
    #[arg(long, value_enum, default_value_t)]
    order: Order,
    #[command(flatten)]
    attention: AttentionArgs,
    /// Objective to read the data for, as for train: of lines with a preference pair and another
    /// form, dpo and orpo learn from the pair
    #[arg(long, value_enum, default_value_t)]
    objective: ObjectiveKind,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl DataArgs {
    /// A training run on the data.
    fn job(&self) -> TrainJob {
        TrainJob {
            data: self.data.clone(),
            objective: self.objective,
            max_length: self.max_length,
            long: self.long,
            overlap: self.overlap,
            valid_fraction: self.valid_fraction,
            seed: self.seed,
            batch_size: self.batch_size,
            batch_tokens: self.batch_tokens,
            accumulate: self.accumulate,
            order: self.order,
            ..TrainJob::default()
        }
    }
}

/// Runs the command. Fails at the end if records were refused, because training would fail.
pub fn run(args: &DataArgs) -> Result<()> {
    let job = args.job();
    job.validate()?;
    Files::check_named(&args.data)?;
    let files = args.model.open()?;
    let (attention, _) = args.attention.resolve_list(files.recorded, AttentionName::Lrsa)?;
    let reader = job.reader(&files);
    let parts = survey(&reader, &args.data, job.hold_out(), args.examples, MAX_TOKENS)?;
    if let Some(text) = reader.tokenizer.and_then(Tokenizer::take_note) {
        note(&format!("note: {text}"));
    }
    let training = parts.first().filter(|train| !train.lengths.is_empty());
    let of = |train: &Part| {
        let labelled = train.learnt.iter().sum();
        let batching = job.batching(&train.lengths);
        TokenStatistics::of(train.lengths.clone(), (&train.tokens, labelled), batching, attention)
    };
    let training = training.map(of).transpose()?;
    if args.json {
        let parts: Vec<Json> = parts.iter().map(to_json).collect();
        print_line(&json!({ "parts": parts, "training": training }).to_string())?;
    } else {
        let is_coloured =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        parts.iter().try_for_each(|part| print_part(part, is_coloured))?;
        training.iter().flat_map(data_lines).try_for_each(|line| print_line(&line))?;
    }
    note_on_positions(args, &files, &parts);
    check_pairs(&job, &parts)?;
    match parts.iter().find_map(|part| Some((part.refused.first.first()?, part.refused.n))) {
        Some(((place, why), n)) => {
            Err(Error::new(format!("records that training refuses: {n}, the first of them {place}: {why}")))
        }
        None => Ok(()),
    }
}

/// Fails for preference pairs among other examples and for data that the objective cannot learn
/// from, as training does. Pairs alone are no failure: a note names the objectives for them.
fn check_pairs(job: &TrainJob, parts: &[Part]) -> Result<()> {
    let of =
        |part: &Part, pairs: bool| part.forms.iter().any(|(form, n)| (*form == Form::Preference) == pairs && *n > 0);
    let has = |pairs: bool| parts.iter().any(|part| of(part, pairs));
    match (has(true), has(false), job.objective.takes_pairs()) {
        (true, true, false) => Err(Error::new(
            "preference pairs and other examples are mixed, which training refuses: keep them in data sets of their own",
        )),
        (_, true, true) => Err(Error::new(format!(
            "`objective` {} learns from preference pairs alone, and the data has other examples",
            job.objective.name()
        ))),
        (true, false, false) => {
            note("note: these are preference pairs: train learns from them with `objective` dpo or orpo");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Says whether train refuses an example that is longer than the model allows.
fn note_on_positions(args: &DataArgs, files: &ModelFiles, parts: &[Part]) {
    let longest = parts.iter().flat_map(|part| &part.tokens).max().copied().unwrap_or(0);
    let limit = args.model.max_positions.unwrap_or(files.config().max_positions);
    if longest > limit {
        note(&format!(
            "note: the longest example has {longest} tokens, more than the {limit} positions allowed: train refuses it; cut \
             examples with `max_length` {limit}, or {}",
            files.length_advice(longest, args.model.max_positions.is_none())
        ));
    }
}

fn print_part(part: &Part, is_coloured: bool) -> Result<()> {
    let files = match part.files.as_slice() {
        [one] => one.display().to_string(),
        [first, ..] => format!("{} files, the first {}", part.files.len(), first.display()),
        [] => String::new(),
    };
    let forms: Vec<_> = part.forms.iter().map(|(form, n)| format!("{n} {}", form.name())).collect();
    let from = if part.is_held_out { "held out of" } else { "in" };
    print_line(&format!("{}: {} examples {from} {files}", part.name, part.lengths.len()))?;
    print_line(&format!("  forms    {}", if forms.is_empty() { "none".to_owned() } else { forms.join(", ") }))?;
    let (tokens, learnt) = (Statistics::of(&part.tokens), Statistics::of(&part.learnt));
    let line = |s: Statistics| {
        format!("min {}, median {}, mean {:.1}, max {}, {} in all", s.min, s.median, s.mean, s.max, s.total)
    };
    print_line(&format!("  tokens   {}", line(tokens)))?;
    let percent = if tokens.total == 0 { 0.0 } else { 100.0 * learnt.total as f64 / tokens.total as f64 };
    print_line(&format!("  learnt   {} ({percent:.0} %)", line(learnt)))?;
    let bins: Vec<_> = histogram(&part.tokens).iter().map(|(most, n)| format!("≤{most}: {n}")).collect();
    print_line(&format!("  lengths  {}", bins.join("  ")))?;
    let lists = [
        ("cut", &part.cut),
        ("cut into windows", &part.windowed),
        ("left out", &part.left_out),
        ("refused", &part.refused),
    ];
    for (what, listed) in lists {
        print_places(what, listed)?;
    }
    for (i, shown) in part.shown.iter().enumerate() {
        print_line(&format!(
            "\nexample {}: {}, {}, {} tokens, {} learnt",
            i + 1,
            shown.place,
            shown.form.name(),
            shown.n_tokens,
            shown.n_learnt
        ))?;
        print_line(&marked(shown, is_coloured))?;
        if let Some(rejected) = &shown.rejected {
            print_line(&format!("rejected: {} tokens, {} learnt", rejected.n_tokens, rejected.n_learnt))?;
            print_line(&marked(rejected, is_coloured))?;
        }
    }
    print_line("")
}

fn print_places(what: &str, listed: &Listed) -> Result<()> {
    if listed.n > 0 {
        print_line(&format!("  {what}: {}", listed.n))?;
    }
    for (place, why) in listed.first.iter().take(MAX_PLACES) {
        print_line(&format!("    {}: {}", harmless(place), harmless(&with_flags(why))))?;
    }
    match listed.n.saturating_sub(MAX_PLACES) {
        0 => Ok(()),
        more => print_line(&format!("    and {more} more")),
    }
}

/// The text of an example with its learnt parts in brackets, and in green if `is_coloured`.
fn marked(shown: &Shown, is_coloured: bool) -> String {
    let (green, plain) = if is_coloured { ("\u{1b}[32m", "\u{1b}[0m") } else { ("", "") };
    let piece = |(text, is_learnt): &(String, bool)| match is_learnt {
        true => format!("{green}⟦{}⟧{plain}", harmless(text)),
        false => harmless(text),
    };
    let more = if shown.n_more > 0 { format!(" … and {} more tokens", shown.n_more) } else { String::new() };
    shown.pieces.iter().map(piece).collect::<String>() + &more
}

/// The text with control characters as escapes, because data must not control the terminal.
fn harmless(text: &str) -> String {
    let letter = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    text.chars().map(letter).collect()
}

fn to_json(part: &Part) -> Json {
    let statistics = |numbers: &[usize]| {
        let s = Statistics::of(numbers);
        json!({ "min": s.min, "median": s.median, "mean": s.mean, "max": s.max, "total": s.total })
    };
    let listed = |listed: &Listed| {
        let entry = |(place, why): &(String, String)| json!({ "place": place, "reason": why });
        json!({ "count": listed.n, "first": listed.first.iter().map(entry).collect::<Vec<_>>() })
    };
    let bin = |(most, n): (usize, usize)| json!({ "up_to": most, "examples": n });
    let piece = |(text, is_learnt): &(String, bool)| json!({ "text": text, "learnt": is_learnt });
    let sequence = |shown: &Shown| {
        json!({
            "place": shown.place,
            "form": shown.form.name(),
            "tokens": shown.n_tokens,
            "learnt": shown.n_learnt,
            "input_ids": shown.ids,
            "labels": shown.labels,
            "pieces": shown.pieces.iter().map(piece).collect::<Vec<_>>(),
            "more_tokens": shown.n_more,
        })
    };
    let shown = |shown: &Shown| {
        let mut of_example = sequence(shown);
        if let Some(rejected) = &shown.rejected {
            of_example["rejected"] = sequence(rejected);
        }
        of_example
    };
    let forms: serde_json::Map<_, _> = part.forms.iter().map(|(form, n)| (form.name().to_owned(), json!(n))).collect();
    json!({
        "name": part.name,
        "files": part.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "held_out": part.is_held_out,
        "examples": part.lengths.len(),
        "forms": forms,
        "tokens": statistics(&part.tokens),
        "learnt": statistics(&part.learnt),
        "lengths": histogram(&part.tokens).into_iter().map(bin).collect::<Vec<_>>(),
        "cut": listed(&part.cut),
        "windowed": listed(&part.windowed),
        "left_out": listed(&part.left_out),
        "refused": listed(&part.refused),
        "shown": part.shown.iter().map(shown).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learnt_parts_are_in_brackets_and_control_letters_are_escaped() {
        let pieces = vec![("a\u{1b}[2J\n".to_owned(), false), ("b".to_owned(), true)];
        let shown = Shown {
            place: String::new(),
            form: Form::Text,
            n_tokens: 9,
            n_learnt: 1,
            pieces,
            ids: vec![],
            labels: vec![],
            n_more: 7,
            rejected: None,
        };
        assert_eq!(marked(&shown, false), "a\\u{1b}[2J\n⟦b⟧ … and 7 more tokens");
        assert_eq!(marked(&shown, true), "a\\u{1b}[2J\n\u{1b}[32m⟦b⟧\u{1b}[0m … and 7 more tokens");
    }
}
