//! Questions about long documents: the paragraphs that answer a question between others, up to a wanted length.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::haystack::Part;
use super::qa_files::{QaFile, Question};
use super::sample::Sample;
use crate::data::model_files::ModelFiles;
use crate::data::rng::seeded;
use crate::error::{Error, Result};

/// Most tokens of an answer.
const MAX_TOKENS: usize = 32;

/// Held-out questions for every length; the same questions at each.
pub fn qa_samples(
    files: &ModelFiles,
    file: &QaFile,
    lengths: &[usize],
    n_samples: usize,
    seed: u64,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for &length in lengths {
        samples.extend(drawn(files, file, Part::HeldOut, length, n_samples, seed)?);
    }
    Ok(samples)
}

/// Questions to train on, from other articles.
pub fn qa_training(files: &ModelFiles, file: &QaFile, length: usize, n: usize, seed: u64) -> Result<Vec<Sample>> {
    drawn(files, file, Part::Training, length, n, seed)
}

fn drawn(files: &ModelFiles, file: &QaFile, part: Part, length: usize, n: usize, seed: u64) -> Result<Vec<Sample>> {
    let mut order = file.questions_of(part);
    order.shuffle(&mut seeded(seed, part as u64));
    let mut samples = Vec::new();
    for number in order {
        if samples.len() == n {
            break;
        }
        let mut rng = seeded(seed, (length as u64) << 32 | number as u64);
        // A paragraph that is longer than the whole prompt may be is passed over.
        samples.extend(sample(files, file, &file.questions[number], part, length, &mut rng)?);
    }
    if samples.len() < n {
        return Err(Error::usage(format!(
            "only {} of {n} questions fit into prompts of {length} tokens: ask for fewer or longer ones",
            samples.len()
        )));
    }
    Ok(samples)
}

fn sample(
    files: &ModelFiles,
    file: &QaFile,
    question: &Question,
    part: Part,
    length: usize,
    rng: &mut impl Rng,
) -> Result<Option<Sample>> {
    let mut chosen = question.gold.clone();
    let mut used = files.prompt_ids(&asked(file, question, &chosen), true)?.len();
    if used > length {
        return Ok(None);
    }
    let tokenizer = files.tokenizer()?;
    // A dozen that do not fit any more are enough to call it full.
    let mut misses = 0;
    let strangers = file.distractors(question, part);
    let mut own = question.other.iter().copied();
    while misses < 12 {
        let Some(paragraph) = own.next().or_else(|| strangers.choose(rng).copied()) else { break };
        // "Document 12: " and an empty line come on top.
        let n = tokenizer.encode(&file.paragraphs[paragraph].0, false)?.len() + 8;
        if used + n > length || chosen.contains(&paragraph) {
            misses += 1;
            continue;
        }
        used += n;
        chosen.push(paragraph);
    }
    chosen.shuffle(rng);
    let total = chosen.len();
    let place = chosen.iter().position(|p| question.gold.contains(p)).unwrap_or(0);
    let depth = (question.gold.len() == 1).then(|| (place as f64 + 0.5) / total as f64);
    Ok(Some(Sample {
        id: format!("qa-{length}-{}", question.id),
        prompt: asked(file, question, &chosen),
        answers: question.answers.clone(),
        length,
        depth,
        max_tokens: MAX_TOKENS,
    }))
}

fn asked(file: &QaFile, question: &Question, chosen: &[usize]) -> String {
    let mut text =
        "Answer the question from the documents below. Give only the answer, in a few words.\n\n".to_string();
    for (i, &paragraph) in chosen.iter().enumerate() {
        text += &format!("Document {}: {}\n\n", i + 1, file.paragraphs[paragraph].0);
    }
    text + "Question: " + &question.text
}
