//! Reads question files in the formats of SQuAD (versions 1 and 2) and HotpotQA.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

use super::haystack::Part;
use crate::error::{Context, Error, Result};
use crate::small_file::read_bytes;

/// Largest file in bytes. HotpotQA's has 46 MB.
const MAX_BYTES: u64 = 1 << 30;

/// A question with its answers and paragraphs.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Id in the file.
    pub id: String,
    pub text: String,
    /// Alternative right answers.
    pub answers: Vec<String>,
    /// Paragraphs needed for the answer.
    pub gold: Vec<usize>,
    /// Paragraphs that the file lists with the question but that are not needed.
    pub other: Vec<usize>,
    /// Index of its article, or in HotpotQA of the question itself. The split into training and
    /// held-out is by group.
    group: usize,
    /// Held out, but about an article of a training question (HotpotQA). Such questions are not
    /// used.
    is_known: bool,
}

/// All questions of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct QaFile {
    pub questions: Vec<Question>,
    /// Text and group of each paragraph.
    pub paragraphs: Vec<(String, usize)>,
    /// Whether the file is HotpotQA, which has slightly different scores.
    pub is_hotpot: bool,
    n_groups: usize,
}

#[derive(Deserialize)]
struct Squad {
    data: Vec<SquadArticle>,
}

#[derive(Deserialize)]
struct SquadArticle {
    paragraphs: Vec<SquadParagraph>,
}

#[derive(Deserialize)]
struct SquadParagraph {
    context: String,
    qas: Vec<SquadQuestion>,
}

#[derive(Deserialize)]
struct SquadQuestion {
    id: String,
    question: String,
    answers: Vec<SquadAnswer>,
}

#[derive(Deserialize)]
struct SquadAnswer {
    text: String,
}

#[derive(Deserialize)]
struct Hotpot {
    #[serde(rename = "_id")]
    id: String,
    question: String,
    answer: String,
    context: Vec<(String, Vec<String>)>,
    supporting_facts: Vec<(String, serde_json::Value)>,
}

impl QaFile {
    /// Reads a file in either format. Skips questions without an answer (SQuAD 2).
    pub fn read(path: &Path) -> Result<Self> {
        let name = || format!("reading {}", path.display());
        let bytes = read_bytes(path, MAX_BYTES).with_context(name)?;
        let is_list = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
        let shape = |e: serde_json::Error| {
            Error::new(format!(
                "{}: {e}; expected SQuAD's {{\"data\": [{{\"paragraphs\": …}}]}} or HotpotQA's [{{\"_id\", \"question\", \
                 \"answer\", \"context\", \"supporting_facts\"}}]",
                path.display()
            ))
        };
        let file = if is_list {
            Self::of_hotpot(serde_json::from_slice(&bytes).map_err(shape)?)
        } else {
            Self::of_squad(serde_json::from_slice(&bytes).map_err(shape)?)
        };
        if file.questions.is_empty() {
            return Err(Error::usage(format!("{} has no question with an answer", path.display())));
        }
        Ok(file)
    }

    fn of_squad(squad: Squad) -> Self {
        let (mut questions, mut paragraphs) = (Vec::new(), Vec::new());
        let n_groups = squad.data.len();
        for (group, article) in squad.data.into_iter().enumerate() {
            for SquadParagraph { context, qas } in article.paragraphs {
                for SquadQuestion { id, question, answers } in qas {
                    if answers.is_empty() {
                        continue;
                    }
                    let answers = answers.into_iter().map(|a| a.text).collect();
                    let gold = vec![paragraphs.len()];
                    let other = vec![];
                    questions.push(Question { id, text: question, answers, gold, other, group, is_known: false });
                }
                paragraphs.push((context, group));
            }
        }
        Self { questions, paragraphs, is_hotpot: false, n_groups }
    }

    fn of_hotpot(items: Vec<Hotpot>) -> Self {
        let (mut questions, mut paragraphs) = (Vec::new(), Vec::new());
        let n_groups = items.len();
        let mut known: HashSet<String> = HashSet::new();
        let trained = Part::Training.range(n_groups);
        for item in &items[trained.clone()] {
            known.extend(item.supporting_facts.iter().map(|(title, _)| title.clone()));
        }
        for (group, item) in items.into_iter().enumerate() {
            let is_known = !trained.contains(&group) && item.supporting_facts.iter().any(|(t, _)| known.contains(t));
            let (mut gold, mut other) = (Vec::new(), Vec::new());
            for (title, sentences) in item.context {
                let is_gold = item.supporting_facts.iter().any(|(t, _)| *t == title);
                if is_gold { &mut gold } else { &mut other }.push(paragraphs.len());
                paragraphs.push((format!("{title}: {}", sentences.concat()), group));
            }
            let answers = vec![item.answer];
            questions.push(Question { id: item.id, text: item.question, answers, gold, other, group, is_known });
        }
        Self { questions, paragraphs, is_hotpot: true, n_groups }
    }

    /// Whether a group belongs to a part.
    fn is_in(&self, group: usize, part: Part) -> bool {
        part.range(self.n_groups).contains(&group)
    }

    /// Indices of a part's questions. No article answers questions of both parts.
    pub fn questions_of(&self, part: Part) -> Vec<usize> {
        let is_asked = |q: &Question| self.is_in(q.group, part) && !q.is_known;
        (0..self.questions.len()).filter(|&q| is_asked(&self.questions[q])).collect()
    }

    /// Indices of a part's paragraphs from other articles than the question's.
    pub fn distractors(&self, question: &Question, part: Part) -> Vec<usize> {
        let fits = |&p: &usize| self.paragraphs[p].1 != question.group && self.is_in(self.paragraphs[p].1, part);
        (0..self.paragraphs.len()).filter(fits).collect()
    }
}
