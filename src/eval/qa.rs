//! Questions about long documents: the paragraphs with the answer among others, up to a given
//! length.

use std::collections::HashSet;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::haystack::Part;
use super::qa_files::{QaFile, Question};
use super::sample::{Conversation, QuestionGrid, Sample, conversation};
use crate::checkpoint::model_files::ModelFiles;
use crate::data::rng::seeded;
use crate::error::{Error, Result};

/// Most tokens of an answer.
const MAX_TOKENS: usize = 32;

/// Source of documents: one part of a file, at one length.
struct Draw<'a> {
    files: &'a ModelFiles,
    file: &'a QaFile,
    part: Part,
    length: usize,
    per_document: usize,
    seed: u64,
}

/// A document with the questions about it.
struct Document<'a> {
    text: String,
    /// Indices of the paragraphs, in order.
    paragraphs: Vec<usize>,
    questions: Vec<&'a Question>,
}

/// Held-out questions for every length. They are the same for each length if each question has its own
/// document, as always in HotpotQA. Questions about the same document are consecutive.
pub fn qa_samples(files: &ModelFiles, file: &QaFile, grid: &QuestionGrid) -> Result<Vec<Sample>> {
    let QuestionGrid { n_samples, per_text: per_document, seed, .. } = *grid;
    let mut samples = Vec::new();
    for &length in &grid.lengths {
        let draw = Draw { files, file, part: Part::HeldOut, length, per_document, seed };
        let mut of_length = Vec::new();
        draw.documents(&mut |document| {
            of_length.extend(document.samples(length, per_document > 1));
            of_length.len() < n_samples
        })?;
        ensure_enough(of_length.len(), n_samples, "questions", length)?;
        samples.extend(of_length.into_iter().take(n_samples));
    }
    Ok(samples)
}

/// Documents for training, from other articles.
pub fn qa_training(
    files: &ModelFiles,
    file: &QaFile,
    length: usize,
    n_documents: usize,
    per_document: usize,
    seed: u64,
) -> Result<Vec<Conversation>> {
    let draw = Draw { files, file, part: Part::Training, length, per_document, seed };
    let mut conversations = Vec::new();
    draw.documents(&mut |document| {
        conversations.push(document.conversation());
        conversations.len() < n_documents
    })?;
    ensure_enough(conversations.len(), n_documents, "documents", length)?;
    Ok(conversations)
}

fn ensure_enough(found: usize, wanted: usize, what: &str, length: usize) -> Result<()> {
    if found >= wanted {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the file has {found} of {wanted} {what} for prompts of {length} tokens: ask for fewer (`samples`, `steps`, `questions`) or \
         longer ones"
    )))
}

impl<'a> Draw<'a> {
    /// Makes documents until no questions are left or `take` returns false. Uses each question at
    /// most once.
    fn documents(&self, take: &mut dyn FnMut(Document<'a>) -> bool) -> Result<()> {
        if self.file.is_hotpot && self.per_document > 1 {
            return Err(Error::usage("`questions`: HotpotQA has one question about each set of paragraphs"));
        }
        let mut order = self.file.questions_of(self.part);
        order.shuffle(&mut seeded(self.seed, self.part as u64));
        let mut asked = HashSet::new();
        for &number in &order {
            if asked.contains(&number) {
                continue;
            }
            let mut rng = seeded(self.seed, (self.length as u64) << 32 | number as u64);
            // Skip a question whose paragraphs do not fit into the prompt.
            let Some(mut document) = self.document(&self.file.questions[number], &mut rng)? else { continue };
            asked.insert(number);
            if self.per_document > 1 {
                let is_answered =
                    |q: &&usize| self.file.questions[**q].gold.iter().all(|p| document.paragraphs.contains(p));
                let mut others: Vec<usize> = order.iter().filter(is_answered).copied().collect();
                others.retain(|q| !asked.contains(q));
                others.shuffle(&mut rng);
                for other in others {
                    let question = &self.file.questions[other];
                    if document.questions.len() < self.per_document
                        && self.n_tokens(&document.prompt(question))? <= self.length
                    {
                        asked.insert(other);
                        document.questions.push(question);
                    }
                }
            }
            if !take(document) {
                break;
            }
        }
        Ok(())
    }

    fn n_tokens(&self, prompt: &str) -> Result<usize> {
        Ok(self.files.prompt_ids(prompt, true)?.len())
    }

    /// A document with the paragraphs that answer a question, filled with others up to the length.
    fn document(&self, question: &'a Question, rng: &mut impl Rng) -> Result<Option<Document<'a>>> {
        let mut chosen = question.gold.clone();
        let mut used = self.n_tokens(&Document::new(self.file, chosen.clone()).prompt(question))?;
        if used > self.length {
            return Ok(None);
        }
        let tokenizer = self.files.tokenizer()?;
        // After 12 paragraphs that do not fit, the document counts as full.
        let mut misses = 0;
        let strangers = self.file.distractors(question, self.part);
        let mut own = question.other.iter().copied();
        while misses < 12 {
            let Some(paragraph) = own.next().or_else(|| strangers.choose(rng).copied()) else { break };
            // 8 more tokens for "Document 12: " and an empty line.
            let n = tokenizer.encode(&self.file.paragraphs[paragraph].0, false)?.len() + 8;
            if used + n > self.length || chosen.contains(&paragraph) {
                misses += 1;
                continue;
            }
            used += n;
            chosen.push(paragraph);
        }
        chosen.shuffle(rng);
        let mut document = Document::new(self.file, chosen);
        document.questions.push(question);
        Ok(Some(document))
    }
}

impl Document<'_> {
    fn new(file: &QaFile, paragraphs: Vec<usize>) -> Self {
        let mut text =
            "Answer the question from the documents below. Give only the answer, in a few words.\n\n".to_string();
        for (i, &paragraph) in paragraphs.iter().enumerate() {
            text += &format!("Document {}: {}\n\n", i + 1, file.paragraphs[paragraph].0);
        }
        Self { text, paragraphs, questions: Vec::new() }
    }

    fn prompt(&self, question: &Question) -> String {
        format!("{}{}", self.text, asked(question))
    }

    /// One sample per question, each with the whole document.
    fn samples(&self, length: usize, is_named: bool) -> Vec<Sample> {
        let sample = |question: &&Question| {
            let place = self.paragraphs.iter().position(|p| question.gold.contains(p)).unwrap_or(0);
            let is_in_one_place = question.gold.len() == 1;
            Sample {
                id: format!("qa-{length}-{}", question.id),
                document: is_named.then(|| format!("qa-{length}-{}", self.questions[0].id)),
                prompt: self.prompt(question),
                answers: question.answers.clone(),
                length,
                depth: is_in_one_place.then(|| (place as f64 + 0.5) / self.paragraphs.len() as f64),
                max_tokens: MAX_TOKENS,
            }
        };
        self.questions.iter().map(sample).collect()
    }

    /// All questions as one conversation, with the document in the first turn.
    fn conversation(&self) -> Conversation {
        let turn = |question: &&Question| (asked(question), question.answers[0].clone());
        conversation(&self.text, self.questions.iter().map(turn))
    }
}

fn asked(question: &Question) -> String {
    format!("Question: {}", question.text)
}
