//! Converts a line of training data to tokens and labels.
//!
//! Labels that count: for a prompt with a completion, the completion and EOS; for messages, the
//! assistant's answers with their end marks; for a text, all tokens; for token ids, the given
//! labels; for a preference pair, the chosen answer in one sequence and the rejected one in another.

use super::example::{Example, IGNORED};
use super::line::Line;
use super::long::Long;
use super::turns::Chat;
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Error, Result};
use crate::text::chat_template::ChatTemplate;
use crate::text::conversation::Message;
use crate::text::tokenizer::Tokenizer;
use std::ops::Range;

/// Settings for converting lines to tokens.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// Needed by every form except `input_ids`.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Needed by `messages`.
    pub template: Option<&'a ChatTemplate>,
    /// Added after completions and texts, if set.
    pub eos: Option<u32>,
    /// Rows of the model's embedding. All ids must be smaller.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub max_length: Option<usize>,
    /// What becomes of longer ones.
    pub long: Long,
    /// Tokens that neighbouring windows share; at most `max_length` - 2.
    pub overlap: usize,
    /// Whether a line with a preference pair and another form, such as `messages`, is read as the
    /// pair.
    pub pairs: bool,
}

/// Most bytes of text in one line. Encoding needs a few hundred bytes of memory per byte of text,
/// and longer texts have more tokens than a batch may have.
pub const MAX_TEXT_BYTES: usize = 8 << 20;

impl<'a> Reader<'a> {
    /// A reader for a model, without a maximum length.
    pub fn of_model(files: &'a ModelFiles) -> Self {
        Self {
            tokenizer: files.tokenizer().ok(),
            template: files.template.as_ref(),
            eos: files.stop.first(),
            vocab_size: files.config().vocab,
            max_length: None,
            long: Long::default(),
            overlap: 0,
            pairs: false,
        }
    }

    /// The examples of a line, not truncated: one, or the documents of a packed line.
    pub fn examples_of(&self, line: Line) -> Result<Vec<Example>> {
        match line {
            Line::Tokens(documents) => {
                for document in &documents {
                    self.check_tokens(document)?;
                }
                Ok(documents)
            }
            Line::Preference { chosen, rejected } => {
                let (chosen, rejected) = (self.example_of(*chosen)?, self.example_of(*rejected)?);
                Ok(vec![Example { rejected: Some(Box::new(rejected)), ..chosen }])
            }
            line => Ok(vec![self.example_of(line)?]),
        }
    }

    /// Tokens and labels of a line of text.
    fn example_of(&self, line: Line) -> Result<Example> {
        let n_bytes = line.text_bytes();
        crate::ensure!(
            n_bytes <= MAX_TEXT_BYTES,
            "the line has {n_bytes} bytes of text; at most {MAX_TEXT_BYTES} are supported: split it"
        );
        let example = self.converted(line)?;
        self.check_tokens(&example)?;
        Ok(example)
    }

    /// Fails if an id or a label is not in the vocabulary.
    fn check_tokens(&self, example: &Example) -> Result<()> {
        let n = self.vocab_size;
        for id in &example.ids {
            crate::ensure!(
                (*id as usize) < n,
                "a token has the id {id}, but the model has only {n} ids: is this its tokenizer?"
            );
        }
        for label in example.labels.iter().filter(|label| **label != IGNORED) {
            crate::ensure!((*label as usize) < n, "a label is {label}, but the model has only {n} ids");
        }
        Ok(())
    }

    fn converted(&self, line: Line) -> Result<Example> {
        match line {
            Line::Completion { prompt, completion } => completed(self.tokenizer()?, &prompt, &completion, self.eos),
            Line::Text(text) => {
                let mut ids = self.tokenizer()?.encode(&text, true)?;
                end_with(&mut ids, self.eos);
                let labels = labels_of(&ids)?;
                Ok(Example { ids, labels, rejected: None })
            }
            Line::Instruction { system, instruction, output } => self.instructed(system, instruction, output),
            Line::Chat(chat) => self.answered(chat),
            Line::Tokens(_) | Line::Preference { .. } => unreachable!("examples_of takes them apart"),
        }
    }

    fn tokenizer(&self) -> Result<&'a Tokenizer> {
        self.tokenizer.ok_or_else(|| {
            Error::new("the line contains text, but the model has no tokenizer; use {\"input_ids\": […]} lines instead")
        })
    }

    /// An instruction is a user's message, or a prompt of plain lines for a model without a chat
    /// template.
    fn instructed(&self, system: Option<String>, instruction: String, output: String) -> Result<Example> {
        if self.template.is_none() {
            let prompt: String = system.into_iter().chain([instruction]).map(|part| part + "\n").collect();
            return completed(self.tokenizer()?, &prompt, &output, self.eos);
        }
        let mut messages: Vec<Message> = system.into_iter().map(|system| Message::new("system", system)).collect();
        messages.extend([Message::new("user", instruction), Message::new("assistant", output)]);
        let is_learnt = vec![true; messages.len()];
        self.answered(Chat { conversation: messages.into(), is_learnt })
    }

    /// Tokens of a conversation. The labels count for tokens that lie entirely in the learnt
    /// answers.
    fn answered(&self, chat: Chat) -> Result<Example> {
        let Some(template) = self.template else {
            crate::bail!(
                "the line contains messages, but the model has no chat template; put a chat_template.jinja next to its \
                config.json, or use {{\"prompt\", \"completion\"}} lines"
            );
        };
        let (text, spans) = template.render_with_answers(&chat.conversation, |i| chat.is_learnt[i])?;
        chat.conversation.check_tools_shown(&text)?;
        chat.conversation.check_calls_shown(&text)?;
        let tokens = self.tokenizer()?.encode_with_offsets(&text, false)?;
        let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        let mut labels = labels_of(&ids)?;
        let is_in = |span: &Range<usize>, range: &Range<usize>| span.start <= range.start && range.end <= span.end;
        let mut spans = spans.iter().peekable();
        for (label, (_, range)) in labels.iter_mut().zip(&tokens) {
            while spans.next_if(|span| span.end < range.end).is_some() {}
            if !spans.peek().is_some_and(|span| is_in(span, range)) {
                *label = IGNORED;
            }
        }
        Ok(Example { ids, labels, rejected: None })
    }
}

/// Tokens of prompt, completion and EOS. The labels of the prompt do not count. Prompt and
/// completion are encoded separately, because at inference the prompt is encoded alone.
fn completed(tokenizer: &Tokenizer, prompt: &str, completion: &str, eos: Option<u32>) -> Result<Example> {
    let mut ids = tokenizer.encode_prompt(prompt)?;
    let n_prompt = ids.len();
    ids.extend(match prompt.is_empty() {
        true => tokenizer.encode(completion, false)?,
        false => tokenizer.encode_continuation(completion)?,
    });
    end_with(&mut ids, eos);
    let mut labels = labels_of(&ids)?;
    labels[..n_prompt].fill(IGNORED);
    Ok(Example { ids, labels, rejected: None })
}

fn labels_of(ids: &[u32]) -> Result<Vec<i32>> {
    ids.iter().map(|&id| Ok(i32::try_from(id)?)).collect()
}

/// Appends EOS unless the last id already is EOS.
fn end_with(ids: &mut Vec<u32>, eos: Option<u32>) {
    if let Some(eos) = eos.filter(|eos| ids.last() != Some(eos)) {
        ids.push(eos);
    }
}
