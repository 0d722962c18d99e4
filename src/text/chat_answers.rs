//! Finds the assistant's answers in the text that a chat template wrote, each with its end mark.
//!
//! Templates rewrite answers: they trim them, leave thoughts out, add empty thoughts, or write tool
//! calls in a form of their own. So nothing here looks for the content of a message. The template
//! renders the conversation again with a marker in place of one answer. What both renderings have
//! in common after the marker is not part of the answer, and so the answer ends there.
//!
//! - An answer starts where its prompt ends, because a model that generates it is given the prompt:
//!   the messages before it, with the generation prompt. If the text shows earlier messages
//!   differently than the prompt does, what follows the content of the previous message decides, or
//!   else the generation prompt alone. If the template opens the answer with less than that, the
//!   answer starts at the first letter that depends on it.
//! - The end mark is what a template writes after the last answer of a conversation, without the
//!   white space after it: the model stops at the mark and never generates that space. If the
//!   template writes only white space, that is the mark.

use super::conversation::{Conversation, Message};
use crate::error::{Error, Result};
use serde_json::Value as Json;
use std::ops::Range;

/// Renders a conversation, with a generation prompt or without.
pub type Render<'a> = &'a dyn Fn(&Conversation, bool) -> Result<String>;

/// A conversation with its text.
pub struct Shown<'a> {
    pub conversation: &'a Conversation,
    pub text: &'a str,
    pub eos_token: &'a str,
    pub render: Render<'a>,
}

/// What a template wrote of one message.
struct Payload {
    /// From the first letter that depends on the message.
    range: Range<usize>,
    /// The message with the marker in it.
    marked: Message,
    /// Whether the marker stands for the whole answer, or only for the names of its tool calls.
    is_whole: bool,
}

/// Most bytes of all renderings that look for the answers of one conversation: a text of 2 MB with a
/// thousand answers.
const MAX_RENDERED: usize = 1 << 31;

/// Text around the marker.
struct Around {
    before: String,
    after: String,
}

impl Shown<'_> {
    /// The byte ranges of the answers with these numbers, in ascending order. Leaves out answers
    /// that the template does not show.
    pub fn answers(&self, numbers: &[usize]) -> Result<Vec<Range<usize>>> {
        // Each answer takes a few renderings of the whole conversation.
        let n_bytes = numbers.len().saturating_mul(self.text.len());
        crate::ensure!(n_bytes <= MAX_RENDERED, "the conversation has too many answers to find each: split it");
        let mark = self.absent_letter()?;
        let mut spans: Vec<Range<usize>> = Vec::new();
        // From the last one, which shows its end mark even if the template refuses shorter
        // conversations.
        let mut known_mark = String::new();
        for &i in numbers.iter().rev() {
            let Some(payload) = self.payload(i, mark)? else { continue };
            let end = self.end(i, &payload, mark, &mut known_mark).ok_or_else(|| lost(i))?;
            let start = self.start(i, &payload, mark).ok_or_else(|| lost(i))?;
            crate::ensure!(start <= end && spans.last().is_none_or(|next| end <= next.start), "{}", lost(i));
            spans.push(start..end);
        }
        spans.reverse();
        Ok(spans)
    }

    /// A private-use letter that occurs neither in the text nor in the conversation.
    fn absent_letter(&self) -> Result<char> {
        let said = serde_json::to_string(&self.conversation.messages)?;
        let mut free = ('\u{100000}'..='\u{10FFFD}').filter(|c| !said.contains(*c) && !self.text.contains(*c));
        free.next().ok_or_else(|| Error::new("the conversation holds all 65,534 private-use characters"))
    }

    fn with(&self, i: usize, message: Message, n: usize) -> Conversation {
        let Conversation { messages, tools, documents, variables } = self.conversation;
        let mut changed = Conversation {
            messages: messages[..n].to_vec(),
            tools: tools.clone(),
            documents: documents.clone(),
            variables: variables.clone(),
        };
        changed.messages[i] = message;
        changed
    }

    /// Renders the first `n` messages with `message` as number `i`. `None` if the template refuses
    /// them or does not show the marker.
    fn around(&self, i: usize, message: &Message, n: usize, add_generation_prompt: bool, mark: char) -> Option<Around> {
        let shown = (self.render)(&self.with(i, message.clone(), n), add_generation_prompt).ok()?;
        let (first, last) = (shown.find(mark)?, shown.rfind(mark)?);
        Some(Around { before: shown[..first].to_owned(), after: shown[last + mark.len_utf8()..].to_owned() })
    }

    /// What the template wrote of message `i`. `None` if it does not show the message at all.
    fn payload(&self, i: usize, mark: char) -> Result<Option<Payload>> {
        let n = self.conversation.messages.len();
        let message = &self.conversation.messages[i];
        let plain = Message::new(message.role(), mark);
        for (marked, is_whole) in
            [Some((plain.clone(), true)), with_marked_calls(message, mark).map(|m| (m, false))].into_iter().flatten()
        {
            let Some(around) = self.around(i, &marked, n, false, mark) else { continue };
            if let Some(rest) = self.text.strip_suffix(around.after.as_str()) {
                let from = n_common(rest, &around.before);
                return Ok(Some(Payload { range: from..rest.len(), marked, is_whole }));
            }
        }
        match (self.render)(&self.with(i, plain, n), false) {
            Ok(shown) if shown == self.text => Ok(None),
            _ => Err(lost(i)),
        }
    }

    /// Where the end mark of an answer ends. Remembers the mark, which is usually the same for all.
    fn end(&self, i: usize, payload: &Payload, mark: char, known: &mut String) -> Option<usize> {
        let after = &self.text[payload.range.end..];
        if payload.is_whole && !known.is_empty() && after.starts_with(known.as_str()) {
            return Some(payload.range.end + known.len());
        }
        let tail = match i + 1 == self.conversation.messages.len() {
            true => after.to_owned(),
            false => self.around(i, &payload.marked, i + 1, false, mark)?.after,
        };
        let kept = match tail.trim_end() {
            "" if tail.is_empty() => self.eos_token, // of templates that write it before the next message
            "" => &tail,
            kept => kept,
        };
        let n = if after.starts_with(kept) { kept.len() } else { 0 };
        if payload.is_whole {
            *known = kept[..n].to_owned();
        }
        Some(payload.range.end + n)
    }

    /// Where an answer starts.
    fn start(&self, i: usize, payload: &Payload, mark: char) -> Option<usize> {
        let end = payload.range.end;
        let first =
            |n: usize| Conversation { messages: self.conversation.messages[..n].to_vec(), ..self.conversation.clone() };
        let prompt = (self.render)(&first(i), true).ok();
        if let Some(prompt) = prompt.as_ref().filter(|p| !p.is_empty() && p.len() <= end && self.text.starts_with(*p)) {
            return Some(prompt.len());
        }
        let previous = self.after_previous(i, mark);
        if let Some(start) = previous.and_then(|(_, prompt_end)| prompt_end).filter(|start| *start <= end) {
            return Some(start);
        }
        // The header alone, as the template writes it after the messages before, or after all.
        let header = |conversation: &Conversation, prompt: Option<String>| {
            let prompt = prompt.or_else(|| (self.render)(conversation, true).ok())?;
            let header = prompt.strip_prefix((self.render)(conversation, false).ok()?.as_str())?.to_owned();
            (!header.is_empty()).then_some(header)
        };
        let header = header(&first(i), prompt).or_else(|| header(self.conversation, None));
        let found = header.and_then(|header| {
            let from = previous.map_or(0, |(content_end, _)| content_end);
            let to = ceil_boundary(self.text, end.min(payload.range.start + header.len()));
            Some(from + self.text.get(from..to)?.rfind(&header)? + header.len())
        });
        found.or(payload.is_whole.then_some(payload.range.start))
    }

    /// Where the content of the message before ends in the text, and where the prompt of the answer
    /// ends, if the text goes on after that content as the prompt does.
    fn after_previous(&self, i: usize, mark: char) -> Option<(usize, Option<usize>)> {
        let previous = i.checked_sub(1)?;
        let mut fields = self.conversation.messages[previous].fields().clone();
        *fields.get_mut("content").filter(|content| content.is_string())? = Json::String(mark.into());
        let marked = Message::from_fields(fields).ok()?;
        let shown = self.around(previous, &marked, self.conversation.messages.len(), false, mark)?.after;
        let content_end = self.text.strip_suffix(shown.as_str())?.len();
        let prompt = self.around(previous, &marked, i, true, mark).map(|around| around.after);
        let is_whole = |prompt: &String| !prompt.is_empty() && shown.starts_with(prompt.as_str());
        Some((content_end, prompt.filter(is_whole).map(|prompt| content_end + prompt.len())))
    }
}

/// The message with the marker as the name of each function that it calls.
fn with_marked_calls(message: &Message, mark: char) -> Option<Message> {
    let mut fields = message.fields().clone();
    let calls = fields.get_mut("tool_calls")?.as_array_mut().filter(|calls| !calls.is_empty())?;
    for call in calls {
        let function = if call.get("function").is_some() { &mut call["function"] } else { call };
        *function.get_mut("name")? = Json::String(mark.into());
    }
    Message::from_fields(fields).ok()
}

/// Bytes that two texts have in common at the start, whole letters only.
fn n_common(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum()
}

fn ceil_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

fn lost(i: usize) -> Error {
    Error::new(format!(
        "cannot find the answer of message {} in the output of the chat template: the template changes other messages \
        with it, and has no {{% generation %}} blocks; use {{\"prompt\", \"completion\"}} lines of strings instead",
        i + 1
    ))
}
