//! The tests of a study: the questions that every model answers, and two that need no questions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::eval::{
    AGREEMENT_METRICS, AgreementRequest, Outcome, PerplexityRequest, Policy, RulerTask, Sample, Subject, Task, Watch,
    agreement, answer_all, window_losses,
};

/// Tokens of a continuation in the test of agreement.
const CONTINUED: usize = 32;

/// The kind of a test beside the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestKind {
    /// A pass key hidden in a text.
    Needle,
    /// Named codes hidden in a text.
    Ruler(RulerTask),
    /// Loss on a text; its exponential is the perplexity.
    Perplexity,
    /// Agreement of greedy continuations with those of the same model under the dense cache.
    Agreement,
}

impl TestKind {
    const ALL: [Self; 7] = [
        Self::Needle,
        Self::Ruler(RulerTask::Single),
        Self::Ruler(RulerTask::MultiKey),
        Self::Ruler(RulerTask::MultiValue),
        Self::Ruler(RulerTask::VariableTracking),
        Self::Perplexity,
        Self::Agreement,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Needle => "needle",
            Self::Ruler(task) => task.name(),
            Self::Perplexity => "perplexity",
            Self::Agreement => "agreement",
        }
    }
}

/// A test beside the main one. As text and in JSON, `multi-key-4000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    pub kind: TestKind,
    /// Most tokens of a prompt or window.
    pub length: usize,
}

impl FromStr for Test {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (name, length) = text.rsplit_once('-')?;
            let kind = TestKind::ALL.into_iter().find(|kind| kind.name() == name)?;
            let shortest = if kind == TestKind::Perplexity { 2 } else { 1 }; // the first token is not predicted
            let length = length.parse().ok().filter(|&n| n >= shortest)?;
            Some(Self { kind, length })
        };
        parse().ok_or_else(|| {
            let names = TestKind::ALL.map(TestKind::name).join(", ");
            Error::usage(format!(
                "'{text}' is no test: give a kind and the tokens of a prompt, such as needle-4000; the kinds are {names}"
            ))
        })
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind.name(), self.length)
    }
}

impl Serialize for Test {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Test {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The contents of a test.
pub enum TestSet {
    Questions { task: Task, samples: Vec<Sample> },
    Perplexity { ids: Vec<u32>, length: usize, windows: usize },
    Agreement { ids: Vec<u32>, length: usize, prompts: usize },
}

impl TestSet {
    /// Names of the metrics.
    pub fn metrics(&self) -> Vec<String> {
        match self {
            Self::Questions { task, .. } => task.metrics().map(String::from).to_vec(),
            Self::Perplexity { .. } => vec!["loss".into()],
            Self::Agreement { .. } => AGREEMENT_METRICS.map(String::from).to_vec(),
        }
    }

    /// Ids of the answers, in order.
    pub fn ids(&self) -> Vec<String> {
        match self {
            Self::Questions { samples, .. } => samples.iter().map(|sample| sample.id.clone()).collect(),
            Self::Perplexity { length, windows, .. } => {
                (0..*windows).map(|i| format!("perplexity-{length}-{i}")).collect()
            }
            Self::Agreement { length, prompts, .. } => {
                (0..*prompts).map(|i| format!("agreement-{length}-{i}")).collect()
            }
        }
    }

    /// Most tokens of a prompt with its answer.
    pub fn longest(&self) -> usize {
        match self {
            Self::Questions { samples, .. } => samples.iter().map(|s| s.length + s.max_tokens).max().unwrap_or(0),
            Self::Perplexity { length, .. } => *length,
            Self::Agreement { length, .. } => length + CONTINUED,
        }
    }

    /// The outcomes of a model under one policy, in the order of the ids.
    pub fn run(&self, subject: &mut Subject<'_>, policy: &Policy, watch: &mut Watch<'_>) -> Result<Vec<Outcome>> {
        let policies = std::slice::from_ref(policy);
        match self {
            Self::Questions { task, samples } => answer_all(subject, *task, samples, policies, watch),
            &Self::Agreement { ref ids, length, prompts } => {
                let request = AgreementRequest { ids, length, n_samples: prompts, n_continued: CONTINUED };
                agreement(subject, &request, policies, watch)
            }
            &Self::Perplexity { ref ids, length, windows } => {
                let request = PerplexityRequest { ids, length, stride: length, max_windows: windows };
                let losses = window_losses(subject, &request, policy, watch)?;
                let outcome = |(id, window): (String, crate::eval::WindowLoss)| Outcome {
                    attention: policy.name().to_string(),
                    id,
                    document: None,
                    length,
                    depth: None,
                    answer: String::new(),
                    expected: vec![],
                    scores: vec![window.sum / window.n as f64],
                    prompt_tokens: window.tokens,
                    kv_entries: window.kv_entries,
                };
                Ok(self.ids().into_iter().zip(losses).map(outcome).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_by_kind_and_length() {
        for kind in TestKind::ALL {
            let test = Test { kind, length: 4000 };
            assert_eq!(test.to_string().parse::<Test>().unwrap(), test);
            let json = serde_json::to_string(&test).unwrap();
            assert_eq!(serde_json::from_str::<Test>(&json).unwrap(), test);
        }
        for bad in ["", "needle", "needle-", "needle-0", "-4000", "multi-4000", "needle-4k", "qa-1000"] {
            let e = bad.parse::<Test>().expect_err(bad).to_string();
            assert!(e.contains("needle-4000") && e.contains("multi-key"), "{bad}: {e}");
        }
    }
}
