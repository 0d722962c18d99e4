//! The pass key test: retrieve a number hidden in a long text.
//!
//! The test is from Mohtashami and Jaggi (arXiv 2305.16300), but in natural text, over a grid of
//! lengths and depths.

use rand::{Rng, RngExt};

use super::haystack::{Haystack, Part};
use super::sample::Sample;
use crate::checkpoint::model_files::ModelFiles;
use crate::data::rng::seeded;
use crate::error::{Error, Result};

/// Most tokens of an answer: seven digits, and words that some models add around them.
const MAX_TOKENS: usize = 24;
/// Training samples use other random streams than evaluation samples.
const TRAINING_STREAM: u64 = 1 << 40;

/// Grid of questions.
#[derive(Clone, Debug)]
pub struct NeedleGrid {
    /// Most tokens of a prompt.
    pub lengths: Vec<usize>,
    /// Relative positions of the key, 0 to 1.
    pub depths: Vec<f64>,
    /// Samples per length and depth.
    pub n_samples: usize,
    /// Seed of the excerpts and the keys.
    pub seed: u64,
}

/// Held-out questions for every length and depth.
pub fn needle_samples(files: &ModelFiles, haystack: &Haystack, grid: &NeedleGrid) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for &length in &grid.lengths {
        for (i, &depth) in grid.depths.iter().enumerate() {
            for j in 0..grid.n_samples {
                let stream = (length as u64) << 24 | (i * grid.n_samples + j) as u64;
                let mut rng = seeded(grid.seed, stream);
                let mut sample = hidden(files, haystack, Part::HeldOut, length, depth, &mut rng)?;
                sample.id = format!("needle-{length}-{depth:.3}-{j}");
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// Questions for training, with other text, other keys and random depths.
pub fn needle_training(
    files: &ModelFiles,
    haystack: &Haystack,
    length: usize,
    n: usize,
    seed: u64,
) -> Result<Vec<Sample>> {
    let one = |i: usize| {
        let mut rng = seeded(seed, TRAINING_STREAM + i as u64);
        let depth = rng.random_range(0.0..1.0);
        let sample = hidden(files, haystack, Part::Training, length, depth, &mut rng)?;
        Ok(Sample { id: format!("needle-training-{i}"), ..sample })
    };
    (0..n).map(one).collect()
}

fn hidden(
    files: &ModelFiles,
    haystack: &Haystack,
    part: Part,
    length: usize,
    depth: f64,
    rng: &mut impl Rng,
) -> Result<Sample> {
    if !(0.0..=1.0).contains(&depth) {
        return Err(Error::usage(format!("the depth {depth} is outside the text: 0 is its start, 1 its end")));
    }
    let key = key(part, rng);
    let needle = format!("The pass key is {key}. Remember it. {key} is the pass key.");
    let question = |text: &str| {
        format!(
            "A pass key is hidden in the following text. Find it and remember it.\n\n{text}\n\nWhat is the pass key? Answer with \
             the number alone."
        )
    };
    let around = files.prompt_ids(&question(&needle), true)?.len();
    let excerpt = haystack.excerpt(part, room(length, around)?, rng);
    let prompt = fitted(files, length, excerpt, |sentences| {
        let at = (depth * sentences.len() as f64).round() as usize;
        let mut all = sentences.to_vec();
        all.insert(at, &needle);
        question(&all.join(" "))
    })?;
    let answers = vec![key];
    Ok(Sample {
        id: String::new(),
        document: None,
        prompt,
        answers,
        length,
        depth: Some(depth),
        max_tokens: MAX_TOKENS,
    })
}

/// Number of tokens left for an excerpt.
pub(super) fn room(length: usize, around: usize) -> Result<usize> {
    length.checked_sub(around).filter(|&n| n > 0).ok_or_else(|| {
        Error::usage(format!("a prompt of {length} tokens has no room for a text: the question alone takes {around}"))
    })
}

/// The prompt with as many of the first sentences as fit into `length` tokens.
pub(super) fn fitted(
    files: &ModelFiles,
    length: usize,
    mut sentences: Vec<&str>,
    prompt: impl Fn(&[&str]) -> String,
) -> Result<String> {
    loop {
        let text = prompt(&sentences);
        // Tokens were counted per sentence. The whole text can have a few more.
        if sentences.is_empty() || files.prompt_ids(&text, true)?.len() <= length {
            return Ok(text);
        }
        sentences.pop();
    }
}

/// A random number of seven digits. A hash splits the numbers into training and held-out ones, so
/// the split has no pattern.
pub(super) fn key(part: Part, rng: &mut impl Rng) -> String {
    loop {
        let key: u64 = rng.random_range(1_000_000..10_000_000);
        let is_held_out = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1;
        if is_held_out == (part == Part::HeldOut) {
            return key.to_string();
        }
    }
}
