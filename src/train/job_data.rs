//! The data of a job: reads it, holds out validation data, and says how examples fill the batches.

use super::distill::Teacher;
use super::job::TrainJob;
use super::keep::{Draws, Keep, LONGEST_DENSE};
use super::observer::Observer;
use crate::attention::Attention;
use crate::checkpoint::model_files::ModelFiles;
use crate::data::dataset::{Dataset, Example, Reader, Split};
use crate::data::hold_out::HoldOut;
use crate::data::long::default_overlap;
use crate::data::sampler::{BatchLimit, Batching, Sampler};
use crate::data::sources::files::Files;
use crate::data::token_count::TokenCount;
use crate::data::token_statistics::TokenStatistics;
use crate::error::{Context, Error, Result};
use crate::text::tokenizer::Tokenizer;

/// The tokens of a batch that `batch_tokens` auto chooses, at least and at most. A tile of a product
/// has 64 rows and 64 columns: 512 tokens and a hidden size of 576 make 72 tiles, which keep the
/// processors of most GPUs busy, and every weight that is read or unpacked serves 512 rows. On the
/// CPU, SmolLM2-135M trains faster up to 512 tokens and no faster with more.
const AUTO_TOKENS: (usize, usize) = (512, 1024);
/// Batches of fewer tokens on average are worth a note.
const FEW_TOKENS: f64 = 256.0;

impl TrainJob {
    /// The reader of the job's data for a model.
    pub fn reader<'a>(&self, files: &'a ModelFiles) -> Reader<'a> {
        let overlap = self.overlap.or(self.max_length.map(default_overlap)).unwrap_or(0);
        let (max_length, pairs) = (self.max_length, self.objective.takes_pairs());
        Reader { max_length, long: self.long, overlap, pairs, ..Reader::of_model(files) }
    }

    /// What the job holds out of its training data.
    pub fn hold_out(&self) -> Option<HoldOut> {
        self.valid_fraction.map(|fraction| HoldOut { fraction, seed: self.seed })
    }

    /// What a batch of examples of these lengths holds.
    pub fn batch_limit(&self, lengths: &[usize]) -> BatchLimit {
        match self.batch_tokens {
            None => BatchLimit::Examples(self.batch_size),
            Some(TokenCount::Tokens(n)) => BatchLimit::Tokens(n),
            Some(TokenCount::Auto) => {
                let longest = lengths.iter().max().copied().unwrap_or(0);
                BatchLimit::Tokens(longest.clamp(AUTO_TOKENS.0, AUTO_TOKENS.1))
            }
        }
    }

    /// How the job visits examples of these lengths.
    pub fn batching(&self, lengths: &[usize]) -> Batching {
        let Self { accumulate, order, seed, .. } = *self;
        Batching { limit: self.batch_limit(lengths), accumulate, order, seed }
    }

    /// A sampler of examples of these lengths at the start of a run.
    pub fn sampler(&self, lengths: Vec<usize>) -> Result<Sampler> {
        let batching = self.batching(&lengths);
        Sampler::new(lengths, batching)
    }
}

/// The number of tokens of each example; of a preference pair, those of both sequences.
pub(super) fn lengths_of(examples: &[Example]) -> Vec<usize> {
    examples.iter().map(Example::n_tokens).collect()
}

/// Tokens of the longest sequence.
pub(super) fn longest_of(examples: &[Example]) -> usize {
    examples.iter().map(Example::longest).max().unwrap_or(0)
}

/// The number of tokens of each sequence.
fn sequence_lengths(examples: &[Example]) -> Vec<usize> {
    examples.iter().flat_map(Example::sequences).map(|sequence| sequence.ids.len()).collect()
}

/// What a run of the job sees of its training examples.
pub(super) fn statistics_of(job: &TrainJob, attention: Attention, examples: &[Example]) -> Result<TokenStatistics> {
    let lengths = lengths_of(examples);
    let labelled = examples.iter().flat_map(Example::sequences).map(Example::n_targets).sum();
    let batching = job.batching(&lengths);
    TokenStatistics::of(lengths, (&sequence_lengths(examples), labelled), batching, attention)
}

/// What a message adds where examples are cut and windows are possible.
fn or_windows(job: &TrainJob) -> &'static str {
    if job.objective.takes_pairs() { "" } else { " (`long` window keeps all their text)" }
}

/// Reads a job's data, holds out validation data, and rejects sequences longer than the model's
/// positions. Notes what is cut, skipped and held out.
pub fn read_data(job: &TrainJob, files: &ModelFiles, observer: &mut dyn Observer) -> Result<Dataset> {
    let limit = job.max_positions.unwrap_or(files.config().max_positions);
    let whose = if job.max_positions.is_some() { "`max_positions`" } else { "the model" };
    if let Some(n) = job.max_length.filter(|&n| n > limit) {
        return Err(Error::usage(format!(
            "`max_length` {n} exceeds the {limit} positions that {whose} allows: lower it, or {}",
            files.length_advice(n, job.max_positions.is_none())
        )));
    }
    Files::check_named(&job.data)?;
    let hold_out = job.hold_out();
    if hold_out.is_some() {
        Files::find(&job.data)?.check_no_valid()?;
    }
    let reader = job.reader(files);
    let mut data = reader.read(&job.data)?;
    if let Some(note) = reader.tokenizer.and_then(Tokenizer::take_note) {
        observer.note(&note);
    }
    let splits = [("training", Some(&data.train)), ("validation", data.valid.as_ref())];
    let splits: Vec<(&str, &Split)> = splits.into_iter().filter_map(|(name, split)| Some((name, split?))).collect();
    for (name, split) in &splits {
        job.objective.check(&split.examples).with_context(|| job.data.display().to_string())?;
        note_losses(name, split, job, observer);
    }
    let longest = splits.iter().filter_map(|(_, split)| split.longest.as_ref()).max_by_key(|longest| longest.n_tokens);
    // What `max_length` has cut is within the limit.
    if let Some(longest) = longest.filter(|_| job.max_length.is_none()) {
        let (n, place) = (longest.n_tokens, &longest.place);
        if n > limit {
            return Err(Error::usage(format!(
                "the longest example, {place}, has {n} tokens, more than the {limit} positions that {whose} allows: cut \
                 examples with `max_length` {limit}{}, or {}",
                or_windows(job),
                files.length_advice(n, job.max_positions.is_none())
            )));
        }
    }
    let longest = splits.iter().map(|(_, split)| longest_of(&split.examples)).max().unwrap_or(0);
    if let Some(text) = files.length_note(longest) {
        observer.note(&format!("examples are longer than the model's positions: {text}"));
    }
    if let Some(hold_out) = hold_out {
        let n = data.train.examples.len();
        let valid = hold_out.take_from(&mut data.train)?;
        observer.note(&format!(
            "{} of {n} training examples are held out for validation (`valid_fraction` {}, `seed` {})",
            valid.examples.len(),
            hold_out.fraction,
            hold_out.seed
        ));
        data.valid = Some(valid);
    } else if job.eval_every > 0 && data.valid.is_none() {
        observer.note(&format!(
            "`eval_every` has nothing to evaluate: {} has no validation data, such as valid.jsonl; `valid_fraction` 0.1 \
             holds out a tenth of the examples",
            job.data.display()
        ));
    }
    Ok(data)
}

fn note_losses(name: &str, split: &Split, job: &TrainJob, observer: &mut dyn Observer) {
    let n = split.n_records;
    if let (Some(max), 1..) = (job.max_length, split.n_truncated) {
        observer.note(&format!(
            "{} of {n} {name} examples are longer than `max_length` {max} and are truncated{}",
            split.n_truncated,
            or_windows(job)
        ));
    }
    if let (Some(max), 1..) = (job.max_length, split.n_windowed) {
        observer.note(&format!(
            "{} of {n} {name} examples are longer than `max_length` {max} and are cut into windows: {} examples and \
             windows in all",
            split.n_windowed,
            split.examples.len()
        ));
    }
    if split.n_packed > 0 {
        observer.note(&format!(
            "{} of {n} {name} examples are packed: each document in them is an example, which makes {} examples",
            split.n_packed,
            split.examples.len()
        ));
    }
    if split.n_parts_dropped > 0 {
        let parts = if split.n_packed > 0 { "windows and documents" } else { "windows" };
        let count = split.n_parts_dropped;
        observer.note(&format!("{count} {parts} of {name} examples are skipped: they have no token to train on"));
    }
    if split.n_dropped > 0 {
        observer
            .note(&format!("{} of {n} {name} examples are skipped: they have no token to train on", split.n_dropped));
    }
}

/// What a run should say of its training examples before it starts.
pub(super) fn notes_on(job: &TrainJob, files: &ModelFiles, attention: Attention, examples: &[Example]) -> Vec<String> {
    let dropout = files.adapter.as_ref().and_then(|adapter| note_on_dropout(job, adapter.config.dropout));
    let compression = note_on_compression(attention, examples);
    let draws = note_on_draws(job, attention, longest_of(examples));
    let batches = note_on_batches(job, &lengths_of(examples));
    [dropout, compression, draws, note_on_teacher(job), batches].into_iter().flatten().collect()
}

/// Says what a model that teaches itself may lose.
fn note_on_teacher(job: &TrainJob) -> Option<String> {
    job.distillation().filter(|distill| distill.teacher == Teacher::Oneself).map(|_| {
        "with `teacher` self nothing holds the model to what it was, and it can lose all but its task: compare \
         `longreach eval perplexity` on other text with and without the adapter, or use `teacher` base"
            .into()
    })
}

/// Says that the dropout `own` of the continued adapter does not apply.
fn note_on_dropout(job: &TrainJob, own: f64) -> Option<String> {
    (job.dropout.is_none() && job.dropout_of_steps(own) < own).then(|| {
        format!(
            "the adapter has a dropout of {own}, but `objective` {} trains without it; `dropout` {own} applies it",
            job.objective.name()
        )
    })
}

/// Says what r the steps draw from if the job leaves it open and some text is compressed.
fn note_on_draws(job: &TrainJob, attention: Attention, longest: usize) -> Option<String> {
    let (None, Attention::Lrsa(own)) = (&job.keeps, attention) else { return None };
    let usual = job.draws(own, 0);
    if usual.keeps().is_empty() || longest <= own.longest_whole() {
        return None;
    }
    let list = |draws: &Draws| Keep::list(draws.keeps());
    let long = job.draws(own, longest);
    let of_long = match long == usual {
        true => String::new(),
        false => format!(
            "; steps with a text of more than {LONGEST_DENSE} tokens take it from {}, because dense ones would take most \
             of the time: a model that only such steps train is worse with the dense cache",
            list(&long)
        ),
    };
    Some(format!(
        "the steps take r from {} in random order (1 is the dense cache){of_long}; `keep` takes another list",
        list(&usual)
    ))
}

/// Says how many examples LRSA compresses, if it is few: nothing of a text is dropped before it has
/// S + 2L tokens.
fn note_on_compression(attention: Attention, examples: &[Example]) -> Option<String> {
    let Attention::Lrsa(lrsa) = attention else { return None };
    let lengths = sequence_lengths(examples);
    let what = if lengths.len() == examples.len() { "examples" } else { "sequences" };
    let shortest = lrsa.longest_whole();
    let n = lengths.iter().filter(|&&n| n > shortest).count();
    let longest = *lengths.iter().max()?;
    if 2 * n >= lengths.len() {
        return None;
    }
    // Half of the longest text is then in whole partitions that can be compressed.
    let lag = longest.saturating_sub(lrsa.sink()) / 4;
    let advice = match 1 << lag.checked_ilog2().unwrap_or(0) {
        lag @ 8.. if lag < lrsa.lag() => format!("; `lag` {lag} compresses the longest one, of {longest} tokens"),
        _ => String::new(),
    };
    Some(format!(
        "LRSA compresses {n} of {} training {what}: those of more than {shortest} tokens (sink + 2 lag); the others \
         train with dense attention{advice}",
        lengths.len()
    ))
}

/// Says what `batch_tokens` auto chose, or that batches are too short to use a device well.
fn note_on_batches(job: &TrainJob, lengths: &[usize]) -> Option<String> {
    if let (Some(TokenCount::Auto), BatchLimit::Tokens(most)) = (job.batch_tokens, job.batch_limit(lengths)) {
        return Some(format!("`batch_tokens` auto: a batch holds whole examples of up to {most} tokens together"));
    }
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().div_ceil(job.batch_size).max(1) as f64;
    (job.batch_tokens.is_none() && lengths.len() > job.batch_size && mean < FEW_TOKENS).then(|| {
        format!(
            "a batch has {mean:.0} tokens on average, too few to use a device well; `batch_tokens` auto puts more examples \
             into a batch"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Lrsa;
    use crate::data::long::Long;
    use crate::train::ObjectiveKind;

    #[test]
    fn batch_tokens_auto_is_the_longest_example_within_bounds() {
        let auto = TrainJob { batch_tokens: Some(TokenCount::Auto), ..TrainJob::default() };
        for (lengths, tokens) in [(&[3, 40][..], 512), (&[3, 700, 5], 700), (&[9000, 20], 1024), (&[], 512)] {
            assert_eq!(auto.batch_limit(lengths), BatchLimit::Tokens(tokens));
        }
        let given = TrainJob { batch_tokens: Some(TokenCount::Tokens(77)), ..TrainJob::default() };
        assert_eq!(given.batch_limit(&[900]), BatchLimit::Tokens(77));
        assert_eq!(TrainJob::default().batch_limit(&[900]), BatchLimit::Examples(1));
    }

    #[test]
    fn a_run_says_what_its_steps_take() {
        let lrsa = Attention::Lrsa(Lrsa::new(16, 128, 0.25).unwrap());
        let note = |job: &TrainJob, longest| note_on_draws(job, lrsa, longest).unwrap_or_default();
        let job = TrainJob::default();
        assert!(note(&job, 1000).contains("0.25, 0.125, 1, 1 in random order (1 is the dense cache)"));
        assert!(!note(&job, 8000).contains("more than"));
        let mixed = note(&job, 9000);
        assert!(
            mixed.contains("0.25, 0.125, 1, 1 in random order") && mixed.contains("from 0.25, 0.125, 0.5,"),
            "{mixed}"
        );
        assert_eq!(note(&job, 16 + 2 * 128), "", "nothing is compressed");
        assert_eq!(note(&TrainJob { keeps: Some(vec![]), ..job.clone() }, 1000), "");
        assert_eq!(note_on_draws(&job, Attention::Dense, 1000), None);
    }

    #[test]
    fn a_model_that_teaches_itself_is_warned_of() {
        let note = |distill, teacher| note_on_teacher(&TrainJob { distill, teacher, ..TrainJob::default() });
        assert!(note(0.5, Teacher::Oneself).unwrap().contains("`teacher` base"));
        assert_eq!([note(0.5, Teacher::Base), note(0.0, Teacher::Oneself)], [None, None]);
    }

    #[test]
    fn a_run_says_that_pairs_are_learnt_without_the_adapters_dropout() {
        let note = |objective, dropout, own| {
            note_on_dropout(&TrainJob { objective, dropout, ..TrainJob::default() }, own).unwrap_or_default()
        };
        for (objective, name) in [(ObjectiveKind::Dpo, "dpo"), (ObjectiveKind::Orpo, "orpo")] {
            assert!(note(objective, None, 0.1).contains(&format!("`objective` {name} trains without it")));
            assert_eq!(note(objective, None, 0.0), "");
            assert_eq!(note(objective, Some(0.1), 0.1) + &note(objective, Some(0.0), 0.1), "", "given");
        }
        assert_eq!(note(ObjectiveKind::Sft, None, 0.1), "");
    }

    #[test]
    fn small_batches_are_worth_a_note() {
        let note = |job: &TrainJob, lengths: &[usize]| note_on_batches(job, lengths).unwrap_or_default();
        let job = TrainJob::default();
        assert!(note(&job, &[40; 9]).contains("40 tokens on average"));
        assert!(note(&job, &[400; 9]).is_empty() && note(&job, &[40]).is_empty());
        let four = TrainJob { batch_size: 4, ..job.clone() };
        assert!(note(&four, &[40; 9]).contains("120 tokens") && note(&four, &[40; 4]).is_empty());
        let auto = TrainJob { batch_tokens: Some(TokenCount::Auto), ..job.clone() };
        assert!(note(&auto, &[40; 9]).contains("up to 512 tokens"));
        assert!(note(&TrainJob { batch_tokens: Some(TokenCount::Tokens(64)), ..job }, &[40; 9]).is_empty());
    }

    #[test]
    fn the_reader_has_the_jobs_rule_for_long_examples() {
        let files = ModelFiles::bundled(None).unwrap();
        let job = TrainJob { max_length: Some(64), long: Long::Window, ..TrainJob::default() };
        let reader = job.reader(&files);
        assert_eq!((reader.max_length, reader.long, reader.overlap), (Some(64), Long::Window, 8));
        assert_eq!(TrainJob { overlap: Some(3), ..job }.reader(&files).overlap, 3);
    }
}
