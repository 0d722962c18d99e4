//! A conversation that reuses its KV cache across turns, so that a long document is fed only once.
//!
//! The cache goes back in place: to where the last prompt ended, for another answer, or to where its
//! question began, for another question (`mark.rs`). If the next prompt has nothing in common with
//! the text up to a mark (another document, different attention), a new cache is filled from the
//! start. A cache that becomes too small moves to a larger one.

use std::ops::ControlFlow;

use super::open_text::{OpenText, SavedConversation};
use super::reply::{Answer, Progress, Reply};
use super::session::Session;
use crate::attention::{Attention, Cache};
use crate::error::{Error, Result};
use crate::gpu::Executor;
use crate::model::llama::Llama;
use crate::text::tokenizer::Tokenizer;

/// A KV cache and the text it was filled with.
#[derive(Default)]
pub struct Conversation {
    open: Option<OpenText>,
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

    /// The cache, if anything was read. A last token that nothing followed is not in it, nor is what
    /// a stopped reading has left.
    pub fn cache(&self) -> Option<&Cache> {
        self.open.as_ref().map(|open| &open.session.cache)
    }

    /// The attention used for the last answer.
    pub fn attention(&self) -> Option<Attention> {
        self.open.as_ref().map(|o| o.attention)
    }

    /// The conversation on the host; `None` if nothing was read.
    pub fn save(&self, device: &mut dyn Executor) -> Result<Option<SavedConversation>> {
        self.open.as_ref().filter(|open| open.n_fed > 0).map(|open| open.save(device)).transpose()
    }

    /// Continues a saved conversation. Fails if it does not fit the model, and is then empty. A mark
    /// that does not fit is left out.
    pub fn restore(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        saved: SavedConversation,
        max_positions: usize,
    ) -> Result<()> {
        self.open = None;
        saved.check(max_positions)?;
        self.open = Some(OpenText::restore(device, model, saved)?);
        Ok(())
    }

    /// Answers. If the callback breaks, prefill or answer stops. The next turn continues after an
    /// interrupted answer, and where an interrupted reading stopped. After an error the conversation
    /// is at its last mark, or empty without one; if the prompt does not fit, it is as before.
    pub fn answer(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Answer> {
        reply.sampling.validate()?;
        let mut open = self.opened(device, model, tokenizer, reply)?;
        let n_reused = open.n_fed;
        let answered = open
            .session
            .draw_by(device, reply.sampling, reply.seed, &open.ids[..n_reused])
            .and_then(|()| open.answer(device, model, tokenizer, reply, watch));
        let (text, n_said, stopped_by) = match answered {
            Ok(answered) => answered,
            Err(e) => {
                self.open = open.recovered(device, &e);
                return Err(e);
            }
        };
        let cache = &open.session.cache;
        let (kv_entries, kv_bytes) = (cache.n_entries(), cache.n_bytes());
        let n_tokens = open.ids.len();
        self.open = Some(open);
        Ok(Answer { text, n_tokens, n_said, n_reused, kv_entries, kv_bytes, stopped_by })
    }

    /// The text to continue with: this one, as far as the prompt has the same tokens up to a place
    /// where it can go on, else a new one.
    fn opened(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
    ) -> Result<OpenText> {
        let way = self.open.as_ref().map(|open| open.way(tokenizer, reply)).transpose()?.flatten();
        let Some(way) = way else { return self.begun(device, model, tokenizer, reply) };
        let wanted = reply.room(way.ids.len())?;
        if let Some(open) = self.open.as_mut().filter(|open| wanted > open.session.cache.capacity()) {
            reply.make_room(wanted, |capacity| open.session.grow(device, model, capacity))?;
        }
        let Some(mut open) = self.open.take() else { return self.begun(device, model, tokenizer, reply) };
        if let Err(e) = open.follow(device, tokenizer, reply, way) {
            self.open = open.recovered(device, &e);
            return Err(e);
        }
        Ok(open)
    }

    /// An empty cache, with the tokens of the prompt. If there is no room for it, the text stays.
    fn begun(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
    ) -> Result<OpenText> {
        let ids = reply.encode(tokenizer, 0, reply.prompt.len())?;
        if ids.is_empty() {
            return Err(Error::usage("the prompt is empty"));
        }
        let wanted = reply.room(ids.len())?;
        let Reply { attention, chunk, sampling, seed, .. } = *reply;
        let freed = self.open.as_ref().map_or(0, |open| open.session.cache.reserved_bytes());
        let capacity = reply.make_room(wanted, |capacity| {
            model.cache(attention, capacity, chunk)?.check_after_freeing(device, freed)?;
            Ok(capacity)
        })?;
        self.open = None; // its memory goes to the new one
        let session = Session::new(device, model, attention, capacity, chunk, sampling, seed)?;
        OpenText::new(session, tokenizer, reply, ids)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::request::StoppedBy;
    use super::*;
    use crate::attention::Lrsa;
    use crate::checkpoint::load::{Train, load};
    use crate::checkpoint::weights::WeightSource;
    use crate::gpu::CpuExecutor;
    use crate::kernels::sample::Sampling;

    #[test]
    fn a_turn_goes_on_with_what_was_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
        let mut device = CpuExecutor::<f32>::new();
        let mut model = load(&mut device, &WeightSource::open(&dir).unwrap(), None, Train::Nothing).unwrap().model;
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        let attention = Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap());
        let reply = |prompt: &str| Reply {
            prompt: Box::leak(prompt.to_string().into_boxed_str()),
            question_start: None,
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
        // A different text starts from an empty cache, and an interrupted one goes on where it stopped.
        let other = talk.answer(&mut device, &mut model, &tokenizer, &reply("A big dog"), &mut silent).unwrap();
        assert_eq!(other.n_reused, 0);
        let mut halt = |_: Progress<'_>| ControlFlow::Break(());
        let broken = talk.answer(&mut device, &mut model, &tokenizer, &reply(first), &mut halt).unwrap();
        assert!(broken.stopped_by == StoppedBy::Caller && broken.text.is_empty());
        assert_eq!((broken.n_tokens, talk.open.as_ref().unwrap().n_fed), (one.n_tokens - 12, 16));
        let again = talk.answer(&mut device, &mut model, &tokenizer, &reply(first), &mut silent).unwrap();
        assert_eq!((again.n_reused, again.text), (16, one.text));
        let long = "word ".repeat(600);
        assert!(talk.answer(&mut device, &mut model, &tokenizer, &reply(&long), &mut silent).is_err());
    }
}
