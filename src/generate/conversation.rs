//! A conversation that reuses its KV cache across turns, so that a long document is fed only once.
//!
//! A compressed cache cannot be rewound. So the host keeps a copy of the cache as it was before the
//! last answer, from which another answer begins. The copy stays while that answer is continued. If
//! the next prompt starts neither with the text so far nor with the text before the last answer
//! (another document, different attention), a new cache is filled from the start. A cache
//! that becomes too small moves to a larger one.

use std::ops::ControlFlow;

use super::Session;
use super::request::StoppedBy;
use super::snapshot::Snapshot;
use crate::attention::{Attention, Cache};
use crate::error::{Error, Result};
use crate::gpu::Executor;
use crate::kernels::sample::Sampling;
use crate::model::llama::Llama;
use crate::text::stop_text::StopTexts;
use crate::text::tokenizer::Tokenizer;

/// Minimum capacity of a new cache in tokens, if the model allows as many.
const MIN_CAPACITY: usize = 1024;

/// Most bytes of a cache that the host keeps a copy of.
const MAX_COPY_BYTES: u64 = 256 << 20;

/// How to answer.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    /// The whole conversation, up to the start of the answer.
    pub prompt: &'a str,
    pub attention: Attention,
    pub sampling: Sampling,
    /// Maximum tokens of the answer.
    pub max_tokens: usize,
    /// Prompt tokens per chunk; also the interval of progress reports.
    pub chunk: usize,
    /// Whether to prepend the tokenizer's start token; false if the chat template writes it.
    pub add_special: bool,
    /// Tokens that end the answer.
    pub stop: &'a [u32],
    /// Texts that end the answer, also within tokens.
    pub stop_texts: &'a [String],
    /// Seed of the draws of this answer.
    pub seed: u64,
    /// Maximum length of the sequence.
    pub max_positions: usize,
}

/// Progress passed to the callback.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// `done` of the prompt's `total` tokens are fed.
    Fed { done: usize, total: usize },
    /// A token of the answer with the text that it completes; the conversation now has `n_tokens`
    /// tokens.
    Said { text: &'a str, n_tokens: usize },
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    /// Tokens of the conversation, including the answer.
    pub n_tokens: usize,
    /// Tokens of the answer.
    pub n_said: usize,
    /// Tokens reused from the cache of earlier turns.
    pub n_reused: usize,
    /// Entries of one head's cache in a layer with full attention, and bytes in all layers.
    pub kv_entries: usize,
    pub kv_bytes: u64,
    /// What ended it.
    pub stopped_by: StoppedBy,
}

/// A KV cache and the text it was filled with.
#[derive(Default)]
pub struct Conversation {
    open: Option<Open>,
    /// The conversation before the last answer.
    before: Option<SavedConversation>,
}

/// A conversation on the host, from which it continues without reading again.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedConversation {
    /// The text so far, and its tokens.
    pub text: String,
    pub ids: Vec<u32>,
    /// Number of ids fed to the cache.
    pub n_fed: usize,
    pub attention: Attention,
    pub snapshot: Snapshot,
    /// The conversation before the last answer, if there is a copy of it.
    pub before: Option<Box<SavedConversation>>,
}

struct Open {
    session: Session,
    attention: Attention,
    /// The text so far, and its tokens.
    text: String,
    ids: Vec<u32>,
    /// Number of ids fed to the cache; the last drawn one is not.
    n_fed: usize,
    /// Whether the tokens are those of the text. Not after an interrupted prompt, which is fed again
    /// from the start, nor after a stop text, which the answer does not show.
    is_whole: bool,
}

impl Conversation {
    /// The conversation so far; after a stop text it has the whole last token.
    pub fn text(&self) -> &str {
        self.open.as_ref().map_or("", |o| &o.text)
    }

    /// Tokens of the conversation so far.
    pub fn ids(&self) -> &[u32] {
        self.open.as_ref().map_or(&[], |o| &o.ids)
    }

    /// The cache, unless nothing was read since the last error. A last token that nothing followed is
    /// not in it.
    pub fn cache(&self) -> Option<&Cache> {
        self.open.as_ref().map(|open| &open.session.cache)
    }

    /// The attention used for the last answer.
    pub fn attention(&self) -> Option<Attention> {
        self.open.as_ref().map(|o| o.attention)
    }

    /// The conversation on the host. After an error it is that before the last answer; `None` if
    /// nothing was read.
    pub fn save(&self, device: &mut dyn Executor) -> Result<Option<SavedConversation>> {
        let before = self.before.clone().map(Box::new);
        match self.open.as_ref().filter(|open| open.is_whole) {
            Some(open) => Ok(Some(SavedConversation { before, ..open.save(device)? })),
            None => Ok(self.before.clone().map(|now| SavedConversation { before, ..now })),
        }
    }

    /// Continues a saved conversation. Fails if it does not fit the model, and is then empty. A copy
    /// from before the last answer that does not fit is left out.
    pub fn restore(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        saved: SavedConversation,
        max_positions: usize,
    ) -> Result<()> {
        *self = Self::default();
        saved.check(max_positions)?;
        self.open = Some(Open::restore(device, model, &saved, saved.snapshot.capacity)?);
        self.before = saved.before.map(|before| *before).filter(|before| before.check(max_positions).is_ok());
        Ok(())
    }

    /// Answers. If the callback breaks, prefill or answer stops. The next turn continues after an
    /// interrupted answer; an interrupted prompt is fed again from the start.
    pub fn answer(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Answer> {
        reply.sampling.validate()?;
        // A continued answer keeps the copy from before its first part.
        let is_continued = self.before.is_some() && self.is_at_end_of(reply);
        let mut open = self.opened(device, model, tokenizer, reply)?;
        let n_reused = open.n_fed;
        // After an error the state of the cache is unknown.
        let is_read = open.read(device, model, reply, watch)?;
        if is_read && n_reused < open.n_fed && !is_continued {
            let is_small = open.session.cache.n_bytes() <= MAX_COPY_BYTES;
            self.before = if is_small { Some(open.save(device)?) } else { None };
        }
        let (text, n_said, stopped_by) = match is_read {
            true => open.talk(device, model, tokenizer, reply, watch)?,
            false => (String::new(), 0, StoppedBy::Caller),
        };
        let cache = &open.session.cache;
        let (kv_entries, kv_bytes) = (cache.n_entries(), cache.n_bytes());
        let n_tokens = open.ids.len();
        self.open = Some(open);
        Ok(Answer { text, n_tokens, n_said, n_reused, kv_entries, kv_bytes, stopped_by })
    }

    /// Whether the prompt is exactly the text so far, so that the last answer is continued.
    fn is_at_end_of(&self, reply: &Reply<'_>) -> bool {
        let Some(open) = &self.open else { return false };
        open.is_whole && open.attention == reply.attention && open.text == reply.prompt
    }

    /// The cache to continue with: the last turn's if the prompt starts with its text, or that before
    /// the last answer, else a new one.
    fn opened(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
    ) -> Result<Open> {
        let mut open = match self.continued(device, model, tokenizer, reply)? {
            Some(open) => open,
            None => self.begun(device, model, tokenizer, reply)?,
        };
        open.text = reply.prompt.to_string();
        let Open { session, ids, n_fed, .. } = &mut open;
        session.draw_by(device, reply.sampling, reply.seed, &ids[..*n_fed])?;
        Ok(open)
    }

    /// A cache that holds the beginning of the prompt, with the tokens of the rest.
    fn continued(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
    ) -> Result<Option<Open>> {
        let rest = |attention: Attention, text: &str| match attention == reply.attention {
            true => reply.prompt.strip_prefix(text),
            false => None,
        };
        if let Some(open) = self.open.as_ref().filter(|open| open.is_whole)
            && let Some(rest) = rest(open.attention, &open.text)
        {
            let more = tokenizer.encode_continuation(rest)?;
            let wanted = reply.room(open.ids.len() + more.len())?;
            let Some(mut open) = self.open.take() else { return Ok(None) };
            if wanted > open.session.cache.capacity() {
                let saved = open.save(device)?;
                drop(open); // its memory goes to the larger one
                open = Open::restore(device, model, &saved, reply.capacity(wanted))?;
            }
            open.ids.extend(more);
            return Ok(Some(open));
        }
        if let Some(before) = &self.before
            && let Some(rest) = rest(before.attention, &before.text)
        {
            let more = tokenizer.encode_continuation(rest)?;
            let wanted = reply.room(before.ids.len() + more.len())?;
            self.open = None;
            let capacity = reply.capacity(wanted).max(before.snapshot.capacity);
            let Ok(mut open) = Open::restore(device, model, before, capacity) else {
                self.before = None; // it came from a file that does not fit
                return Ok(None);
            };
            open.ids.extend(more);
            return Ok(Some(open));
        }
        Ok(None)
    }

    /// An empty cache, with the tokens of the prompt.
    fn begun(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
    ) -> Result<Open> {
        let ids = match reply.add_special {
            true => tokenizer.encode_prompt(reply.prompt)?,
            false => tokenizer.encode(reply.prompt, false)?,
        };
        if ids.is_empty() {
            return Err(Error::usage("the prompt is empty"));
        }
        let capacity = reply.capacity(reply.room(ids.len())?);
        self.open = None;
        let Reply { attention, chunk, sampling, seed, .. } = *reply;
        let session = Session::new(device, model, attention, capacity, chunk, sampling, seed)?;
        Ok(Open { session, attention, text: String::new(), ids, n_fed: 0, is_whole: true })
    }
}

impl SavedConversation {
    /// Whether its cache has room for no more than `max_positions` tokens.
    pub fn fits(&self, max_positions: usize) -> bool {
        self.snapshot.capacity <= max_positions && self.snapshot.length <= max_positions
    }

    /// Fails for sizes that the model does not allow.
    fn check(&self, max_positions: usize) -> Result<()> {
        crate::ensure!(
            self.fits(max_positions),
            "it has room for {} tokens, and the model was made for {max_positions}",
            self.snapshot.capacity
        );
        crate::ensure!(self.n_fed <= self.ids.len(), "{} of {} tokens were fed", self.n_fed, self.ids.len());
        Ok(())
    }
}

impl Reply<'_> {
    /// Tokens of a prompt of `n` tokens with its answer, as far as the limit allows. Fails if it leaves
    /// no room for an answer.
    fn room(&self, n: usize) -> Result<usize> {
        if n < self.max_positions {
            return Ok(n.saturating_add(self.max_tokens).min(self.max_positions));
        }
        Err(Error::usage(format!(
            "the conversation has {n} tokens and leaves no room for an answer within the {} that the model was made for: \
             shorten the document, or begin anew",
            self.max_positions
        )))
    }

    /// Capacity of a cache for at least `wanted` tokens.
    fn capacity(&self, wanted: usize) -> usize {
        wanted.checked_next_power_of_two().unwrap_or(wanted).max(MIN_CAPACITY).min(self.max_positions)
    }
}

impl Open {
    fn save(&self, device: &mut dyn Executor) -> Result<SavedConversation> {
        Ok(SavedConversation {
            text: self.text.clone(),
            ids: self.ids.clone(),
            n_fed: self.n_fed,
            attention: self.attention,
            snapshot: Snapshot::of(&self.session, device)?,
            before: None,
        })
    }

    fn restore(
        device: &mut dyn Executor,
        model: &mut Llama,
        saved: &SavedConversation,
        capacity: usize,
    ) -> Result<Self> {
        let SavedConversation { text, ids, n_fed, attention, snapshot, .. } = saved;
        let session = snapshot.session(device, model, *attention, capacity, &ids[..*n_fed])?;
        let (text, ids) = (text.clone(), ids.clone());
        Ok(Self { session, attention: *attention, text, ids, n_fed: *n_fed, is_whole: true })
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
            let n = reply.chunk.min(total - self.n_fed);
            self.session.feed(device, model, &self.ids[self.n_fed..self.n_fed + n])?;
            self.n_fed += n;
            if watch(Progress::Fed { done: self.n_fed, total }).is_break() {
                self.is_whole = false;
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
        self.is_whole = stopped_by != StoppedBy::StopText;
        if self.is_whole {
            let rest = stream.finish()?.unwrap_or_default();
            self.text.push_str(&rest);
            said.push_str(&stops.push(&rest).text);
            said.push_str(&stops.finish());
        }
        Ok((said, self.ids.len() - before, stopped_by))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::attention::Lrsa;
    use crate::checkpoint::load::{Train, load};
    use crate::checkpoint::weights::WeightSource;
    use crate::gpu::CpuExecutor;

    #[test]
    fn a_turn_goes_on_with_what_was_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
        let mut device = CpuExecutor::<f32>::new();
        let mut model = load(&mut device, &WeightSource::open(&dir).unwrap(), None, Train::Nothing).unwrap().model;
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        let attention = Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap());
        let reply = |prompt: &str| Reply {
            prompt: Box::leak(prompt.to_string().into_boxed_str()),
            attention,
            sampling: Sampling::default(),
            max_tokens: 12,
            chunk: 16,
            add_special: true,
            stop: &[],
            stop_texts: &[],
            seed: 0,
            max_positions: 512,
        };
        let mut talk = Conversation::default();
        let mut silent = |_: Progress<'_>| ControlFlow::Continue(());
        let first = "Once upon a time there was a girl called Lily. She liked to";
        let one = talk.answer(&mut device, &mut model, &tokenizer, &reply(first), &mut silent).unwrap();
        assert_eq!((one.n_reused, one.n_said, one.stopped_by), (0, 12, StoppedBy::MaxTokens));
        let next = format!("{first}{} Then Tom came and", one.text);
        let fed = talk.open.as_ref().unwrap().n_fed;
        let two = talk.answer(&mut device, &mut model, &tokenizer, &reply(&next), &mut silent).unwrap();
        assert_eq!(two.n_reused, fed);
        assert_eq!(two.kv_entries, attention.cache_length(two.n_tokens - 1));
        // The same text, fed at once, has the same tokens and gives the same answer.
        let ids = talk.ids()[..two.n_tokens - 12].to_vec();
        assert_eq!(ids, tokenizer.encode(&next, true).unwrap());
        let mut session = Session::new(&mut device, &mut model, attention, 512, 64, Sampling::default(), 0).unwrap();
        session.feed(&mut device, &model, &ids).unwrap();
        let mut drawn = Vec::new();
        for _ in 0..12 {
            drawn.push(session.draw(&mut device).unwrap());
            session.feed(&mut device, &model, &drawn[drawn.len() - 1..]).unwrap();
        }
        assert_eq!(drawn, talk.ids()[ids.len()..]);
        // A different text, or an interrupted one, starts from an empty cache.
        let other = talk.answer(&mut device, &mut model, &tokenizer, &reply("A big dog"), &mut silent).unwrap();
        assert_eq!(other.n_reused, 0);
        let mut halt = |_: Progress<'_>| ControlFlow::Break(());
        let broken = talk.answer(&mut device, &mut model, &tokenizer, &reply(first), &mut halt).unwrap();
        assert!(broken.stopped_by == StoppedBy::Caller && broken.text.is_empty());
        let again = talk.answer(&mut device, &mut model, &tokenizer, &reply(first), &mut silent).unwrap();
        assert_eq!((again.n_reused, again.text), (0, one.text));
        let long = "word ".repeat(600);
        assert!(talk.answer(&mut device, &mut model, &tokenizer, &reply(&long), &mut silent).is_err());
    }
}
