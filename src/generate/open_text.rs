//! The text of a conversation with its tokens, and the session that has read them.
//!
//! A prompt goes on from where its tokens and those that were read stop being the same, or from the
//! last mark before that place. Tokens that a stopped reading has fed count like all others.

use std::ops::ControlFlow;

use super::mark::{Mark, thin};
use super::reply::{Progress, Reply};
use super::request::StoppedBy;
use super::session::Session;
use super::snapshot::Snapshot;
use crate::attention::Attention;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Executor;
use crate::model::llama::Llama;
use crate::text::stop_text::StopTexts;
use crate::text::tokenizer::Tokenizer;

/// The end of a prompt or an answer in the text. No token spans it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextEnd {
    /// Bytes of the text up to there.
    pub n_bytes: usize,
    /// Tokens of the text up to there.
    pub n_tokens: usize,
}

/// A conversation on the host, from which it continues without reading again.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedConversation {
    /// The text so far, and its tokens.
    pub text: String,
    pub ids: Vec<u32>,
    /// Number of ids fed to the cache.
    pub n_fed: usize,
    /// Tokens of the last prompt.
    pub n_prompt: usize,
    pub attention: Attention,
    pub snapshot: Snapshot,
    /// The ends of prompts and answers, in the order of the text.
    pub ends: Vec<TextEnd>,
    /// Marks to go back to, in the order of the text.
    pub marks: Vec<Mark>,
}

impl SavedConversation {
    /// Whether its cache has room for no more than `max_positions` tokens.
    pub fn fits(&self, max_positions: usize) -> bool {
        self.snapshot.capacity <= max_positions && self.snapshot.length <= max_positions
    }

    /// Fails for sizes that the model does not allow, and for ends outside the text.
    pub(super) fn check(&self, max_positions: usize) -> Result<()> {
        crate::ensure!(
            self.fits(max_positions),
            "it has room for {} tokens, and the model was made for {max_positions}",
            self.snapshot.capacity
        );
        crate::ensure!(self.n_fed <= self.ids.len(), "{} of {} tokens were fed", self.n_fed, self.ids.len());
        let is_within = |end: &TextEnd| self.text.is_char_boundary(end.n_bytes) && end.n_tokens <= self.ids.len();
        crate::ensure!(self.ends.iter().all(is_within), "an answer ends outside the text");
        Ok(())
    }
}

/// How a prompt goes on from the text.
pub(super) struct Way {
    /// The tokens of the prompt.
    pub(super) ids: Vec<u32>,
    /// The end in the text after which the prompt was split into tokens anew.
    end: TextEnd,
    /// Tokens that the cache keeps.
    n_reused: usize,
}

/// The text, its tokens, and the session that has read them.
pub(super) struct OpenText {
    pub(super) session: Session,
    pub(super) attention: Attention,
    pub(super) text: String,
    pub(super) ids: Vec<u32>,
    /// Number of ids fed to the cache. The last drawn one is not, nor is the rest of a prompt whose
    /// reading was stopped.
    pub(super) n_fed: usize,
    n_prompt: usize,
    /// Tokens before the newest question, if another question may go on from there.
    question_at: Option<usize>,
    ends: Vec<TextEnd>,
    marks: Vec<Mark>,
}

impl OpenText {
    /// A prompt of which nothing is read.
    pub(super) fn new(session: Session, tokenizer: &Tokenizer, reply: &Reply<'_>, ids: Vec<u32>) -> Result<Self> {
        let question_at = question_at(tokenizer, reply, TextEnd::default(), &ids, 0)?;
        let (attention, text, n_prompt) = (reply.attention, reply.prompt.to_string(), ids.len());
        let (ends, marks) = (Vec::new(), Vec::new());
        Ok(Self { session, attention, text, ids, n_fed: 0, n_prompt, question_at, ends, marks })
    }

    pub(super) fn save(&self, device: &mut dyn Executor) -> Result<SavedConversation> {
        Ok(SavedConversation {
            text: self.text.clone(),
            ids: self.ids.clone(),
            n_fed: self.n_fed,
            n_prompt: self.n_prompt,
            attention: self.attention,
            snapshot: Snapshot::of(&self.session, device)?,
            ends: self.ends.clone(),
            marks: self.marks.clone(),
        })
    }

    /// Continues a saved text. Marks that do not fit are left out.
    pub(super) fn restore(device: &mut dyn Executor, model: &mut Llama, saved: SavedConversation) -> Result<Self> {
        let SavedConversation { text, ids, n_fed, n_prompt, attention, snapshot, ends, marks: saved_marks } = saved;
        let session = snapshot.session(device, model, attention, &ids[..n_fed])?;
        let mut marks: Vec<Mark> = Vec::new();
        for mark in saved_marks {
            let is_next = marks.last().is_none_or(|last| last.n_tokens < mark.n_tokens);
            if is_next && mark.check(&session).is_ok() {
                marks.push(mark);
            }
        }
        thin(&mut marks);
        Ok(Self { session, attention, text, ids, n_fed, n_prompt, question_at: None, ends, marks })
    }

    /// Whether the prompt is the text up to what the last answer says, so that the answer is continued.
    fn is_said(&self, reply: &Reply<'_>) -> bool {
        self.attention == reply.attention && self.ids.len() > self.n_prompt && self.text == reply.prompt
    }

    /// How the prompt goes on from this text; `None` if it has to be read from the start.
    pub(super) fn way(&self, tokenizer: &Tokenizer, reply: &Reply<'_>) -> Result<Option<Way>> {
        if self.attention != reply.attention {
            return Ok(None);
        }
        let is_common = |end: &&TextEnd| reply.prompt.starts_with(&self.text[..end.n_bytes]);
        let end = self.ends.iter().rev().find(is_common).copied().unwrap_or_default();
        let rest = reply.encode(tokenizer, end.n_bytes, reply.prompt.len())?;
        let ids = [&self.ids[..end.n_tokens], &rest].concat();
        let n_same = n_same(&ids, &self.ids[..self.n_fed]);
        let (total, session) = (ids.len(), &self.session);
        // A text that grows beyond a switch of its frequencies is fed again where it is.
        let can_stay = n_same == self.n_fed && (total >= session.length() || session.is_alike([total; 2]));
        let alike = |mark: &&Mark| mark.n_tokens <= n_same && session.is_alike([mark.length, total]);
        let place = match can_stay {
            true => Some(self.n_fed),
            false => self.marks.iter().rev().find(alike).map(|mark| mark.n_tokens),
        };
        Ok(place.filter(|&n| n > 0).map(|n_reused| Way { ids, end, n_reused }))
    }

    /// Takes the prompt in place of the text, and goes back to where they part.
    pub(super) fn follow(
        &mut self,
        device: &mut dyn Executor,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
        way: Way,
    ) -> Result<()> {
        let is_said = self.is_said(reply);
        if way.n_reused < self.n_fed {
            self.go_back(device, way.n_reused)?;
        } else if self.n_fed >= self.n_prompt && !is_said {
            self.mark(device)?; // the question that follows may be taken back
        }
        self.ends.retain(|end| end.n_bytes <= way.end.n_bytes);
        let marked = self.marks.last().map_or(0, |mark| mark.n_tokens);
        self.question_at = question_at(tokenizer, reply, way.end, &way.ids, marked)?;
        self.text.clear();
        self.text.push_str(reply.prompt);
        self.ids = way.ids;
        if !is_said {
            self.n_prompt = self.ids.len();
        }
        Ok(())
    }

    /// Goes back to the mark at `n` tokens.
    fn go_back(&mut self, device: &mut dyn Executor, n: usize) -> Result<()> {
        self.marks.retain(|mark| mark.n_tokens <= n);
        let mark = self.marks.last().filter(|mark| mark.n_tokens == n);
        let mark = mark.ok_or_else(|| Error::new(format!("the conversation has no mark at {n} tokens")))?;
        mark.go_back(device, &mut self.session, &self.ids[..n])?;
        self.n_fed = n;
        Ok(())
    }

    /// The text back at its last mark, after an error that leaves the state of the cache unknown. `None`
    /// without a mark, or if the device is lost.
    pub(super) fn recovered(mut self, device: &mut dyn Executor, e: &Error) -> Option<Self> {
        if e.kind() == ErrorKind::DeviceLost {
            return None;
        }
        self.drop_stale_marks();
        let n = self.marks.last()?.n_tokens;
        self.go_back(device, n).ok()?;
        Some(self)
    }

    /// Drops the marks of a text that was fed again with other frequencies since.
    fn drop_stale_marks(&mut self) {
        let session = &self.session;
        self.marks.retain(|mark| session.is_alike([mark.length; 2]));
    }

    /// Marks the place up to which the text is read, unless there is a mark.
    fn mark(&mut self, device: &mut dyn Executor) -> Result<()> {
        self.drop_stale_marks();
        let is_marked = self.marks.last().is_some_and(|mark| mark.n_tokens == self.n_fed);
        if self.n_fed > 0 && !is_marked && Mark::is_small_at(&self.session) {
            self.marks.push(Mark::of(&self.session, device)?);
            thin(&mut self.marks);
        }
        Ok(())
    }

    fn note_end(&mut self) {
        let end = TextEnd { n_bytes: self.text.len(), n_tokens: self.ids.len() };
        if self.ends.last() != Some(&end) {
            self.ends.push(end);
        }
    }

    /// Reads the rest of the prompt and answers. Returns the text, its tokens, and what ended it.
    pub(super) fn answer(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(String, usize, StoppedBy)> {
        let is_continued = self.ids.len() > self.n_prompt;
        let is_read = self.read(device, model, reply, watch)?;
        if self.n_fed == self.ids.len() {
            self.note_end();
            if !is_continued {
                self.mark(device)?;
            }
        }
        match is_read {
            true => self.talk(device, model, tokenizer, reply, watch),
            false => Ok((String::new(), 0, StoppedBy::Caller)),
        }
    }

    /// Feeds the rest of the prompt. Returns whether the callback let it end.
    fn read(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        reply: &Reply<'_>,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<bool> {
        let total = self.ids.len();
        self.session.expect(device, model, total)?;
        while self.n_fed < total {
            // A chunk ends where the question begins, with or without the mark: so the text has the same
            // bits when it is read from there.
            let end = self.question_at.filter(|&at| self.n_fed < at).unwrap_or(total);
            let n = reply.chunk.min(end - self.n_fed);
            self.session.feed(device, model, &self.ids[self.n_fed..self.n_fed + n])?;
            self.n_fed += n;
            if self.question_at == Some(self.n_fed) {
                self.mark(device)?;
            }
            if watch(Progress::Fed { done: self.n_fed, total }).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Answers a prompt that is fed. Returns the text, its tokens, and what ended it.
    fn talk(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(String, usize, StoppedBy)> {
        let before = self.ids.len();
        let mut stream = tokenizer.stream_after(&self.ids);
        let mut stops = StopTexts::new(reply.stop_texts);
        let mut said = String::new();
        let max_tokens = reply.max_tokens.min(reply.max_positions - before);
        let mut stopped_by = StoppedBy::MaxTokens;
        for n in 1..=max_tokens {
            let id = self.session.draw(device)?;
            if reply.stop.contains(&id) {
                stopped_by = StoppedBy::StopToken;
                break;
            }
            self.ids.push(id);
            // Models pad their tables with ids that no tokenizer has.
            let is_text = tokenizer.id_to_token(id).is_some();
            let piece = if is_text { stream.push(id)?.unwrap_or_default() } else { String::new() };
            self.text.push_str(&piece);
            let passed = stops.push(&piece);
            said.push_str(&passed.text);
            let wish = watch(Progress::Said { text: &passed.text, n_tokens: self.ids.len() });
            if passed.is_end {
                stopped_by = StoppedBy::StopText;
                break;
            }
            if wish.is_break() {
                stopped_by = StoppedBy::Caller;
                break;
            }
            if n < max_tokens {
                self.session.feed(device, model, &[id])?;
                self.n_fed += 1;
            }
        }
        // After a stop text, the text goes on before its last token ends.
        if stopped_by != StoppedBy::StopText {
            let rest = stream.finish()?.unwrap_or_default();
            self.text.push_str(&rest);
            said.push_str(&stops.push(&rest).text);
            said.push_str(&stops.finish());
            self.note_end();
        }
        Ok((said, self.ids.len() - before, stopped_by))
    }
}

/// How many tokens are the same at the start of two texts.
fn n_same(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Tokens of a prompt before its question, if at least a chunk of them follows the `marked` ones. The
/// prompt was split into tokens anew after `end`.
fn question_at(
    tokenizer: &Tokenizer,
    reply: &Reply<'_>,
    end: TextEnd,
    ids: &[u32],
    marked: usize,
) -> Result<Option<usize>> {
    let is_inside = |start: &usize| reply.prompt.is_char_boundary(*start) && *start > end.n_bytes;
    let Some(start) = reply.question_start.filter(is_inside) else { return Ok(None) };
    let before = reply.encode(tokenizer, end.n_bytes, start)?;
    // The last token is left out: another question may begin with it.
    let n_before = before.len().saturating_sub(1);
    let at = end.n_tokens + n_same(&ids[end.n_tokens..], &before[..n_before]);
    Ok((at >= marked + reply.chunk && at < ids.len()).then_some(at))
}
