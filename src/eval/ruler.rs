//! Retrieval tasks after RULER (arXiv 2404.06654), hidden in a text.
//!
//! The tasks are RULER's: one code, one code among others, several codes of one name, and variable
//! tracking. The sentences and the texts are our own.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::haystack::{Haystack, Part};
use super::needle::{fitted, key, room};
use super::sample::Sample;
use crate::checkpoint::model_files::ModelFiles;
use crate::data::rng::seeded;
use crate::error::Result;

/// A RULER task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RulerTask {
    /// One code.
    Single,
    /// One code, and three codes of other names.
    MultiKey,
    /// Four codes of one name. The answer must name all of them.
    MultiValue,
    /// A number, and a chain of names that refer to it. The answer must name all of them.
    VariableTracking,
}

impl RulerTask {
    /// All tasks.
    pub const ALL: [Self; 4] = [Self::Single, Self::MultiKey, Self::MultiValue, Self::VariableTracking];

    /// Name of the task.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::MultiKey => "multi-key",
            Self::MultiValue => "multi-value",
            Self::VariableTracking => "variable-tracking",
        }
    }
}

/// Names for the codes.
const NAMES: [&str; 24] = [
    "anchor", "barrel", "candle", "dragon", "engine", "falcon", "garden", "hammer", "island", "jacket", "kettle",
    "ladder", "marble", "needle", "orchard", "pebble", "quarry", "ribbon", "saddle", "temple", "umbrella", "violin",
    "window", "yacht",
];
/// Training samples use other random streams than evaluation samples.
const TRAINING_STREAM: u64 = 1 << 41;
/// Names in a chain.
const CHAIN: usize = 4;

/// The hidden facts, the question and its answers.
struct Riddle {
    hidden: Vec<String>,
    question: String,
    answers: Vec<String>,
    max_tokens: usize,
}

/// Held-out questions of one task for every length.
pub fn ruler_samples(
    files: &ModelFiles,
    haystack: &Haystack,
    task: RulerTask,
    lengths: &[usize],
    n_samples: usize,
    seed: u64,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for &length in lengths {
        for i in 0..n_samples {
            let mut rng = seeded(seed, (length as u64) << 24 | (task as u64) << 20 | i as u64);
            let sample = hidden(files, haystack, Part::HeldOut, task, length, &mut rng)?;
            samples.push(Sample { id: format!("ruler-{}-{length}-{i}", task.name()), ..sample });
        }
    }
    Ok(samples)
}

/// Questions of one task for training, with other text and other codes.
pub fn ruler_training(
    files: &ModelFiles,
    haystack: &Haystack,
    task: RulerTask,
    length: usize,
    n: usize,
    seed: u64,
) -> Result<Vec<Sample>> {
    let one = |i: usize| {
        let mut rng = seeded(seed, TRAINING_STREAM + ((task as u64) << 20 | i as u64));
        let sample = hidden(files, haystack, Part::Training, task, length, &mut rng)?;
        Ok(Sample { id: format!("ruler-training-{}-{i}", task.name()), ..sample })
    };
    (0..n).map(one).collect()
}

fn hidden(
    files: &ModelFiles,
    haystack: &Haystack,
    part: Part,
    task: RulerTask,
    length: usize,
    rng: &mut impl Rng,
) -> Result<Sample> {
    let riddle = riddle(task, part, rng);
    let prompt = scattered(files, haystack, part, length, &riddle, rng)?;
    let Riddle { answers, max_tokens, .. } = riddle;
    Ok(Sample { id: String::new(), document: None, prompt, answers, length, depth: None, max_tokens })
}

fn riddle(task: RulerTask, part: Part, rng: &mut impl Rng) -> Riddle {
    let names: Vec<&str> = NAMES.sample(rng, CHAIN).copied().collect();
    let code = |rng: &mut _| key(part, rng);
    let ask_for = |name: &str| format!("What is the code of the {name}? Answer with the number alone.");
    match task {
        RulerTask::Single | RulerTask::MultiKey => {
            let n = if task == RulerTask::Single { 1 } else { 4 };
            let codes: Vec<String> = (0..n).map(|_| code(rng)).collect();
            let hidden = names.iter().zip(&codes).map(|(name, code)| format!("The code of the {name} is {code}."));
            Riddle {
                hidden: hidden.collect(),
                question: ask_for(names[0]),
                answers: vec![codes[0].clone()],
                max_tokens: 24,
            }
        }
        RulerTask::MultiValue => {
            let codes: Vec<String> = (0..4).map(|_| code(rng)).collect();
            let name = names[0];
            Riddle {
                hidden: codes.iter().map(|code| format!("A code of the {name} is {code}.")).collect(),
                question: format!("What are all the codes of the {name}? Answer with the numbers alone."),
                answers: codes,
                max_tokens: 64,
            }
        }
        RulerTask::VariableTracking => {
            let number = rng.random_range(10_000..100_000);
            let mut hidden = vec![format!("Let the {} be {number}.", names[0])];
            hidden.extend(names.windows(2).map(|pair| format!("Let the {} be what the {} is.", pair[1], pair[0])));
            Riddle {
                hidden,
                question: format!("Which things are {number}? Answer with their names alone."),
                answers: names.iter().map(|name| name.to_string()).collect(),
                max_tokens: 48,
            }
        }
    }
}

/// The prompt: an excerpt with the hidden facts at random positions, in order if they build on each
/// other.
fn scattered(
    files: &ModelFiles,
    haystack: &Haystack,
    part: Part,
    length: usize,
    riddle: &Riddle,
    rng: &mut impl Rng,
) -> Result<String> {
    let ask = |text: &str| {
        format!("Some facts are hidden in the following text. Remember them.\n\n{text}\n\n{}", riddle.question)
    };
    let around = files.prompt_ids(&ask(&riddle.hidden.join(" ")), true)?.len();
    let excerpt = haystack.excerpt(part, room(length, around)?, rng);
    let mut places: Vec<f64> = riddle.hidden.iter().map(|_| rng.random_range(0.0..1.0)).collect();
    places.sort_by(f64::total_cmp);
    let mut hidden: Vec<&str> = riddle.hidden.iter().map(String::as_str).collect();
    if riddle.answers.len() < 2 {
        hidden.shuffle(rng); // otherwise the fact in question would always come first
    }
    fitted(files, length, excerpt, |sentences| {
        let mut all = sentences.to_vec();
        for (place, fact) in places.iter().zip(&hidden).rev() {
            all.insert((place * (sentences.len() + 1) as f64) as usize, fact);
        }
        ask(&all.join(" "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn riddles_hide_their_answers() {
        for task in RulerTask::ALL {
            for i in 0..20 {
                let riddle = riddle(task, Part::HeldOut, &mut seeded(1, i));
                let all = riddle.hidden.join(" ");
                let found = riddle.answers.iter().filter(|a| all.contains(a.as_str())).count();
                assert_eq!(found, riddle.answers.len(), "{task:?}: {all}");
                let n = match task {
                    RulerTask::Single => (1, 1),
                    RulerTask::MultiKey => (4, 1),
                    _ => (4, 4),
                };
                assert_eq!((riddle.hidden.len(), riddle.answers.len()), n, "{task:?}");
            }
        }
    }
}
