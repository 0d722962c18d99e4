//! A question about a text with its right answers, and the scores of each task.

use super::score;
use serde::{Deserialize, Serialize};

/// A question for the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Id, the same for every model and attention, so that results can be paired.
    pub id: String,
    /// Id of its document, if several samples share one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// The user's message: the text and the question.
    pub prompt: String,
    /// Right answers. [`Task::Ruler`] requires all of them; the other tasks accept any one.
    pub answers: Vec<String>,
    /// Intended maximum number of prompt tokens.
    pub length: usize,
    /// Relative position of the answer in the text, from 0 (start) to 1 (end), if it is in one
    /// place.
    pub depth: Option<f64>,
    /// Most tokens of an answer.
    pub max_tokens: usize,
}

/// Grid of questions about texts.
#[derive(Clone, Debug)]
pub struct QuestionGrid {
    /// Most tokens of a prompt.
    pub lengths: Vec<usize>,
    /// Questions per length.
    pub n_samples: usize,
    /// Most questions per text.
    pub per_text: usize,
    /// Seed of the texts and the questions.
    pub seed: u64,
}

/// A conversation: user messages with the right answers.
pub type Conversation = Vec<(String, String)>;

/// A conversation about a text, which stands in front of the first question.
pub(super) fn conversation(text: &str, questions: impl Iterator<Item = (String, String)>) -> Conversation {
    let user = |i: usize, question: String| if i == 0 { format!("{text}{question}") } else { question };
    questions.enumerate().map(|(i, (question, answer))| (user(i, question), answer)).collect()
}

/// How answers are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A number hidden in a text. Scores: whether the first number of the answer is right, and the
    /// fraction of its leading digits that are.
    Needle,
    /// Several facts hidden in a text. Scores: whether the answer contains all of them, and the
    /// fraction it contains.
    Ruler,
    /// Questions about documents. Scores: exact match and F1 with SQuAD's normalisation.
    Qa,
    /// Like [`Task::Qa`], but a wrong yes or no has F1 = 0, as in HotpotQA.
    HotpotQa,
}

impl Task {
    /// Names of the two metrics, the strict one first.
    pub fn metrics(self) -> [&'static str; 2] {
        match self {
            Task::Needle => ["exact", "digits"],
            Task::Ruler => ["all found", "found"],
            Task::Qa | Task::HotpotQa => ["exact match", "F1"],
        }
    }

    /// Both scores of an answer, 0 to 1.
    pub fn score(self, answer: &str, right: &[String]) -> [f64; 2] {
        let best = |f: &dyn Fn(&str) -> f64| right.iter().map(|r| f(r)).fold(0.0, f64::max);
        match self {
            Task::Needle => {
                let digits = score::first_number(answer);
                [best(&|r| f64::from(digits == r)), best(&|r| score::leading_share(digits, r))]
            }
            Task::Ruler => {
                let found = right.iter().filter(|r| score::contains_word(answer, r)).count();
                [f64::from(found == right.len()), found as f64 / right.len().max(1) as f64]
            }
            Task::Qa => [best(&|r| score::exact_match(answer, r)), best(&|r| score::f1(answer, r))],
            Task::HotpotQa => [best(&|r| score::exact_match(answer, r)), best(&|r| score::f1_hotpot(answer, r))],
        }
    }
}
