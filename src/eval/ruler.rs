//! Retrieval tasks after RULER (arXiv 2404.06654), hidden in a text.
//!
//! The tasks are RULER's: one code, one code among others, several codes of one name, and variable
//! tracking. The sentences and the texts are our own.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::haystack::{Haystack, Part};
use super::needle::{fitted, key, room};
use super::sample::{Conversation, QuestionGrid, Sample, conversation};
use crate::checkpoint::model_files::ModelFiles;
use crate::data::rng::seeded;
use crate::error::{Error, Result};

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

    /// Questions about one text.
    pub fn questions(self) -> usize {
        match self {
            Self::MultiKey => N_CODES,
            Self::Single | Self::MultiValue | Self::VariableTracking => 1,
        }
    }

    fn check_questions(self, per_text: usize) -> Result<()> {
        let most = self.questions();
        if (1..=most).contains(&per_text) {
            return Ok(());
        }
        Err(Error::usage(format!("`questions` {per_text}: the task {} has 1 to {most} about a text", self.name())))
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
/// Codes in a text of several.
const N_CODES: usize = 4;

/// The hidden facts and the questions about them.
struct Riddle {
    hidden: Vec<String>,
    questions: Vec<Question>,
    max_tokens: usize,
}

/// A question with the answers that it asks for.
struct Question {
    text: String,
    answers: Vec<String>,
}

/// A text with hidden facts and some of the questions about them.
struct Text {
    /// The user's message up to the question.
    start: String,
    questions: Vec<Question>,
    max_tokens: usize,
}

/// Held-out questions of one task for every length, at most [`RulerTask::questions`] about a text.
/// Questions about the same text are consecutive.
pub fn ruler_samples(
    files: &ModelFiles,
    haystack: &Haystack,
    task: RulerTask,
    grid: &QuestionGrid,
) -> Result<Vec<Sample>> {
    task.check_questions(grid.per_text)?;
    let mut samples = Vec::new();
    for &length in &grid.lengths {
        for i in 0..grid.n_samples.div_ceil(grid.per_text) {
            let mut rng = seeded(grid.seed, (length as u64) << 24 | (task as u64) << 20 | i as u64);
            let left = grid.n_samples - i * grid.per_text;
            let text = hidden(files, haystack, Part::HeldOut, task, (length, grid.per_text), &mut rng)?;
            let id = format!("ruler-{}-{length}-{i}", task.name());
            samples.extend(text.samples(&id, length).into_iter().take(left));
        }
    }
    Ok(samples)
}

/// Texts of one task for training, with other excerpts and other codes.
pub fn ruler_training(
    files: &ModelFiles,
    haystack: &Haystack,
    task: RulerTask,
    (length, per_text): (usize, usize),
    n: usize,
    seed: u64,
) -> Result<Vec<Conversation>> {
    task.check_questions(per_text)?;
    let one = |i: usize| {
        let mut rng = seeded(seed, TRAINING_STREAM + ((task as u64) << 20 | i as u64));
        Ok(hidden(files, haystack, Part::Training, task, (length, per_text), &mut rng)?.conversation())
    };
    (0..n).map(one).collect()
}

fn hidden(
    files: &ModelFiles,
    haystack: &Haystack,
    part: Part,
    task: RulerTask,
    (length, per_text): (usize, usize),
    rng: &mut impl Rng,
) -> Result<Text> {
    let mut riddle = riddle(task, part, rng);
    riddle.questions.truncate(per_text);
    let start = scattered(files, haystack, part, length, &riddle, rng)?;
    let Riddle { questions, max_tokens, .. } = riddle;
    Ok(Text { start, questions, max_tokens })
}

impl Text {
    /// One sample per question, each with the whole text. `id` is that of the text.
    fn samples(self, id: &str, length: usize) -> Vec<Sample> {
        let Self { start, questions, max_tokens } = self;
        let is_shared = questions.len() > 1;
        let sample = |(i, question): (usize, Question)| Sample {
            id: if is_shared { format!("{id}-{i}") } else { id.to_string() },
            document: is_shared.then(|| id.to_string()),
            prompt: start.clone() + &question.text,
            answers: question.answers,
            length,
            depth: None,
            max_tokens,
        };
        questions.into_iter().enumerate().map(sample).collect()
    }

    /// All questions as one conversation, with the text in the first turn.
    fn conversation(self) -> Conversation {
        let turn = |Question { text, mut answers }| (text, answers.swap_remove(0));
        conversation(&self.start, self.questions.into_iter().map(turn))
    }
}

fn riddle(task: RulerTask, part: Part, rng: &mut impl Rng) -> Riddle {
    let names: Vec<&str> = NAMES.sample(rng, CHAIN).copied().collect();
    let code = |rng: &mut _| key(part, rng);
    let ask_for = |(name, code): (&&str, &String)| Question {
        text: format!("What is the code of the {name}? Answer with the number alone."),
        answers: vec![code.clone()],
    };
    match task {
        RulerTask::Single | RulerTask::MultiKey => {
            let codes: Vec<String> = (0..task.questions()).map(|_| code(rng)).collect();
            let hidden = names.iter().zip(&codes).map(|(name, code)| format!("The code of the {name} is {code}."));
            Riddle {
                hidden: hidden.collect(),
                questions: names.iter().zip(&codes).map(ask_for).collect(),
                max_tokens: 24,
            }
        }
        RulerTask::MultiValue => {
            let codes: Vec<String> = (0..N_CODES).map(|_| code(rng)).collect();
            let name = names[0];
            let question = format!("What are all the codes of the {name}? Answer with the numbers alone.");
            Riddle {
                hidden: codes.iter().map(|code| format!("A code of the {name} is {code}.")).collect(),
                questions: vec![Question { text: question, answers: codes }],
                max_tokens: 64,
            }
        }
        RulerTask::VariableTracking => {
            let number = rng.random_range(10_000..100_000);
            let mut hidden = vec![format!("Let the {} be {number}.", names[0])];
            hidden.extend(names.windows(2).map(|pair| format!("Let the {} be what the {} is.", pair[1], pair[0])));
            let question = format!("Which things are {number}? Answer with their names alone.");
            let answers = names.iter().map(|name| name.to_string()).collect();
            Riddle { hidden, questions: vec![Question { text: question, answers }], max_tokens: 48 }
        }
    }
}

/// The prompt up to the question: an excerpt with the hidden facts at random positions, in order if
/// they build on each other. It fits into `length` tokens with each of the questions.
fn scattered(
    files: &ModelFiles,
    haystack: &Haystack,
    part: Part,
    length: usize,
    riddle: &Riddle,
    rng: &mut impl Rng,
) -> Result<String> {
    let start = |text: &str| format!("Some facts are hidden in the following text. Remember them.\n\n{text}\n\n");
    let facts = start(&riddle.hidden.join(" "));
    let mut longest = ("", 0);
    for question in &riddle.questions {
        let around = files.prompt_ids(&(facts.clone() + &question.text), true)?.len();
        if around > longest.1 {
            longest = (&question.text, around);
        }
    }
    let (question, around) = longest;
    let excerpt = haystack.excerpt(part, room(length, around)?, rng);
    let mut places: Vec<f64> = riddle.hidden.iter().map(|_| rng.random_range(0.0..1.0)).collect();
    places.sort_by(f64::total_cmp);
    let mut hidden: Vec<&str> = riddle.hidden.iter().map(String::as_str).collect();
    if riddle.questions.iter().all(|question| question.answers.len() < 2) {
        hidden.shuffle(rng); // otherwise the facts would come in the order of the questions
    }
    let mut prompt = fitted(files, length, excerpt, |sentences| {
        let mut all = sentences.to_vec();
        for (place, fact) in places.iter().zip(&hidden).rev() {
            all.insert((place * (sentences.len() + 1) as f64) as usize, fact);
        }
        start(&all.join(" ")) + question
    })?;
    prompt.truncate(prompt.len() - question.len());
    Ok(prompt)
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
                assert_eq!(riddle.questions.len(), task.questions(), "{task:?}");
                let (hidden, answers) = match task {
                    RulerTask::Single => (1, 1),
                    RulerTask::MultiKey => (4, 1),
                    _ => (4, 4),
                };
                assert_eq!(riddle.hidden.len(), hidden, "{task:?}");
                for Question { text, answers: right } in riddle.questions {
                    assert_eq!(right.len(), answers, "{task:?}: {text}");
                    assert!(right.iter().all(|answer| all.contains(answer)), "{task:?}: {text} {all}");
                }
            }
        }
    }
}
