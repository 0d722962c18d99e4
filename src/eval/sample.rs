//! One question about a text, with its right answers.

use super::score;
use serde::{Deserialize, Serialize};

/// A question to be answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its name, the same for every model and attention, so that results can be paired.
    pub id: String,
    /// The name of its text, where several samples ask about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// What the user says: the text and the question.
    pub prompt: String,
    /// Right answers: all are wanted by [`Task::Ruler`], any one of them by the others.
    pub answers: Vec<String>,
    /// Most tokens that the prompt was to have.
    pub length: usize,
    /// Where in the text the answer lies, 0 its beginning and 1 its end; where it lies in one place.
    pub depth: Option<f64>,
    /// Most tokens of an answer.
    pub max_tokens: usize,
}

/// How answers are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A number hidden in a text: the answer's first number is right; how many of its leading digits are.
    Needle,
    /// Several things hidden in a text: all are in the answer; how many are.
    Ruler,
    /// Questions about documents: exact match and F1 as SQuAD normalises them.
    Qa,
    /// What HotpotQA does differently: a wrong yes or no has no F1.
    HotpotQa,
}

impl Task {
    /// Names of its two figures, the strict one first.
    pub fn metrics(self) -> [&'static str; 2] {
        match self {
            Task::Needle => ["exact", "digits"],
            Task::Ruler => ["all found", "found"],
            Task::Qa | Task::HotpotQa => ["exact match", "F1"],
        }
    }

    /// Both figures of an answer, 0 to 1.
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
