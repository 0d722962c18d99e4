//! A conversation that reuses its KV cache across turns, so that a long document is fed only once.
//!
//! A compressed cache cannot be rewound. If the next prompt does not start with the text so far
//! (another document, a removed answer, different attention), a new cache is filled from the start.

use std::ops::ControlFlow;

use super::Session;
use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::gpu::Executor;
use crate::kernels::sample::Sampling;
use crate::model::llama::Llama;
use crate::text::tokenizer::Tokenizer;

/// Minimum capacity of a new cache in tokens, if the model allows as many.
const MIN_CAPACITY: usize = 1024;

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
    pub seed: u64,
    /// Maximum length of the sequence.
    pub max_positions: usize,
}

/// Progress passed to the callback.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// `done` of the prompt's `total` tokens are fed.
    Fed { done: usize, total: usize },
    /// New text of the answer; the conversation now has `n_tokens` tokens.
    Said { text: &'a str, n_tokens: usize },
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    /// Tokens of the conversation, including the answer.
    pub n_tokens: usize,
    /// Tokens reused from the cache of earlier turns.
    pub n_reused: usize,
    /// Entries of one head's cache in a layer with full attention, and bytes in all layers.
    pub kv_entries: usize,
    pub kv_bytes: u64,
    /// Whether the callback ended it.
    pub is_stopped: bool,
}

/// A KV cache and the text it was filled with.
#[derive(Default)]
pub struct Conversation {
    open: Option<Open>,
}

struct Open {
    session: Session,
    attention: Attention,
    /// The text so far, and its tokens.
    text: String,
    ids: Vec<u32>,
    /// Number of ids fed to the cache; the last drawn one is not.
    n_fed: usize,
}

impl Conversation {
    /// Tokens of the conversation so far.
    pub fn ids(&self) -> &[u32] {
        self.open.as_ref().map_or(&[], |o| &o.ids)
    }

    /// The attention used for the last answer.
    pub fn attention(&self) -> Option<Attention> {
        self.open.as_ref().map(|o| o.attention)
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
        let mut open = self.opened(device, model, tokenizer, reply)?;
        let n_reused = open.n_fed;
        let told = open.talk(device, model, tokenizer, reply, watch);
        // After an error the state of the cache is unknown.
        let (text, is_stopped) = told?;
        let n_tokens = open.ids.len();
        let (kv_entries, kv_bytes) = (open.session.cache.n_entries(), open.session.cache.n_bytes());
        self.open = Some(open);
        Ok(Answer { text, n_tokens, n_reused, kv_entries, kv_bytes, is_stopped })
    }

    /// The cache to continue with: the last turn's if the prompt starts with its text, else a new
    /// one.
    fn opened(
        &mut self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
    ) -> Result<Open> {
        // Tokens of the conversation with the answer, as long as the limit allows.
        let fits = |n: usize| {
            if n < reply.max_positions {
                return Ok(n.saturating_add(reply.max_tokens).min(reply.max_positions));
            }
            Err(Error::usage(format!(
                "the conversation has {n} tokens and leaves no room for an answer within the {} that the model was made for: \
                 shorten the document, or begin anew",
                reply.max_positions
            )))
        };
        if let Some(mut open) = self.open.take().filter(|o| o.attention == reply.attention)
            && let Some(rest) = reply.prompt.strip_prefix(open.text.as_str())
        {
            let more = tokenizer.encode_continuation(rest)?;
            if !(open.ids.len() == open.n_fed && more.is_empty()) {
                let wanted = fits(open.ids.len() + more.len())?;
                if wanted <= open.session.cache.capacity() {
                    open.ids.extend(more);
                    open.text = reply.prompt.to_string();
                    return Ok(open);
                }
            }
        }
        let ids = match reply.add_special {
            true => tokenizer.encode_prompt(reply.prompt)?,
            false => tokenizer.encode(reply.prompt, false)?,
        };
        if ids.is_empty() {
            return Err(Error::usage("the prompt is empty"));
        }
        // Capacity for a few more turns.
        let capacity = (2 * fits(ids.len())?).next_power_of_two().max(MIN_CAPACITY).min(reply.max_positions);
        let Reply { attention, chunk, sampling, seed, .. } = *reply;
        let session = Session::new(device, model, attention, capacity, chunk, sampling, seed)?;
        Ok(Open { session, attention, text: reply.prompt.to_string(), ids, n_fed: 0 })
    }
}

impl Open {
    /// Feeds the rest of the prompt and answers. Returns the text, and whether the callback ended
    /// it.
    fn talk(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        tokenizer: &Tokenizer,
        reply: &Reply<'_>,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(String, bool)> {
        let mut said = String::new();
        let total = self.ids.len();
        self.session.expect(device, model, total)?;
        while self.n_fed < total {
            let n = reply.chunk.min(total - self.n_fed);
            self.session.feed(device, model, &self.ids[self.n_fed..self.n_fed + n])?;
            self.n_fed += n;
            if watch(Progress::Fed { done: self.n_fed, total }).is_break() {
                // A partly fed prompt matches no later prompt, so the next turn starts from an
                // empty cache.
                self.text.push('\0');
                return Ok((said, true));
            }
        }
        let mut stream = tokenizer.stream_after(&self.ids);
        let mut is_stopped = false;
        let max_tokens = reply.max_tokens.min(reply.max_positions - total);
        for n in 1..=max_tokens {
            let id = self.session.draw(device)?;
            if reply.stop.contains(&id) {
                break;
            }
            self.ids.push(id);
            let piece = stream.push(id)?.unwrap_or_default();
            said.push_str(&piece);
            self.text.push_str(&piece);
            is_stopped = watch(Progress::Said { text: &piece, n_tokens: self.ids.len() }).is_break();
            if is_stopped || n == max_tokens {
                break;
            }
            self.session.feed(device, model, &[id])?;
            self.n_fed += 1;
        }
        let rest = stream.finish()?.unwrap_or_default();
        said.push_str(&rest);
        self.text.push_str(&rest);
        Ok((said, is_stopped))
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
            seed: 0,
            max_positions: 512,
        };
        let mut talk = Conversation::default();
        let mut silent = |_: Progress<'_>| ControlFlow::Continue(());
        let first = "Once upon a time there was a girl called Lily. She liked to";
        let one = talk.answer(&mut device, &mut model, &tokenizer, &reply(first), &mut silent).unwrap();
        assert_eq!((one.n_reused, one.is_stopped), (0, false));
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
        assert!(broken.is_stopped && broken.text.is_empty());
        let again = talk.answer(&mut device, &mut model, &tokenizer, &reply(first), &mut silent).unwrap();
        assert_eq!((again.n_reused, again.text), (0, one.text));
        let long = "word ".repeat(600);
        assert!(talk.answer(&mut device, &mut model, &tokenizer, &reply(&long), &mut silent).is_err());
    }
}
