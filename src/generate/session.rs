//! One sequence being generated: its KV cache, chunked prefill, and the draw of the next token.

use super::constraint::Constraint;
use super::draw::{Draw, End};
use super::lengthwise::Lengthwise;
use crate::attention::{Attention, Cache, CachePart};
use crate::autograd::Tape;
use crate::data::dataset::IGNORED;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Executor, Kind, Reading, Recording, Span, upload_words};
use crate::kernels::embedding::TokenIndex;
use crate::kernels::head::logits_into;
use crate::kernels::loss::{Need, cross_entropy};
use crate::kernels::matmul::Rows;
use crate::kernels::sample::Sampling;
use crate::model::llama::Llama;
use crate::tensor::{Format, Tensor, copy_tensor};

/// The state of one generated sequence.
pub struct Session {
    /// The KV cache.
    pub cache: Cache,
    draw: Draw,
    /// Whether [`super::NewToken::logits`] has the logits of each token.
    pub keeps_logits: bool,
    logits: Tensor,
    drawn: Span,
    /// Only for models whose RoPE frequencies depend on the length of the text.
    lengthwise: Option<Lengthwise>,
}

impl Session {
    /// An empty session for at most `capacity` tokens, prefilled in chunks of at most `chunk`.
    pub fn new(
        device: &mut dyn Executor,
        model: &mut Llama,
        attention: Attention,
        capacity: usize,
        chunk: usize,
        sampling: Sampling,
        seed: u64,
    ) -> Result<Self> {
        let draw = Draw::new(sampling, seed, model.config.vocab)?;
        let cache = model.cache(attention, capacity, chunk)?;
        cache.check(device)?;
        let lengthwise = Lengthwise::new(device, model, cache.max_chunk())?;
        if lengthwise.is_none() {
            model.reserve_positions(device, capacity)?;
        }
        let vocab = model.config.vocab;
        Ok(Self {
            cache,
            draw,
            keeps_logits: false,
            logits: Tensor::persistent("next logits", Format::F32, 1, vocab, &device.limits())?,
            drawn: Buffer::persistent("drawn id", Kind::U32, 1).span(),
            lengthwise,
        })
    }

    /// Adds numbers to the logits of tokens, in every draw.
    pub fn set_bias(&mut self, bias: &[(u32, f32)]) -> Result<()> {
        self.draw.set_bias(bias)
    }

    /// Limits the tokens that are drawn.
    pub fn set_constraint(&mut self, constraint: Box<dyn Constraint>) {
        self.draw.set_constraint(constraint);
    }

    /// Bytes of a session of this model: its cache, and rows of the vocabulary for the logits, for those of
    /// a batch, for what is added to them, and for the ids so far.
    pub fn n_bytes(model: &Llama, attention: Attention, capacity: usize, chunk: usize) -> Result<u64> {
        let row = model.config.vocab as u64 * 4;
        Ok(model.cache(attention, capacity, chunk)?.reserved_bytes() + 4 * row)
    }

    /// Copies another session of the same model, attention and capacity, so that several answers
    /// can follow one prompt. The sampler's position, biases and constraint are not copied.
    pub fn branch_from(&mut self, device: &mut dyn Executor, other: &Self) -> Result<()> {
        self.copy_from(device, other)?;
        let mut rec = Recording::new();
        copy_tensor(&mut rec, &other.logits, &self.logits);
        device.run(&rec)
    }

    /// Copies the cache of another session of the same model, attention and capacity, so that
    /// several texts can share a prefix. Feed tokens next: the other session's logits and sampler
    /// position are not copied.
    pub(crate) fn copy_from(&mut self, device: &mut dyn Executor, other: &Self) -> Result<()> {
        self.cache.copy_from(device, &other.cache)?;
        if let (Some(own), Some(others)) = (&mut self.lengthwise, &other.lengthwise) {
            own.copy_from(others);
        }
        self.draw.copy_from(device, &other.draw)
    }

    /// Fills an empty session with the parts of another one's cache ([`Cache::save_part`]), whose
    /// tokens were `ids`. Feed more tokens next. Models whose RoPE frequencies depend on the length of
    /// the text need the frequencies that the parts were made with: call [`Session::expect`] first.
    pub fn load_parts(&mut self, device: &mut dyn Executor, ids: &[u32], parts: &[&CachePart]) -> Result<()> {
        self.cache.load_parts(device, parts)?;
        assert_eq!(self.cache.n_tokens(), ids.len(), "the tokens of the parts");
        if let Some(lengthwise) = &mut self.lengthwise {
            lengthwise.note(ids);
        }
        self.draw.note(device, ids)
    }

    /// Makes room for `capacity` tokens, not fewer than now. After an error it is what it was before.
    pub(super) fn grow(&mut self, device: &mut dyn Executor, model: &mut Llama, capacity: usize) -> Result<()> {
        if self.lengthwise.is_none() {
            model.reserve_positions(device, capacity)?;
        }
        self.cache.grow(device, capacity)
    }

    /// Says how long the text will be at least, before its first part is fed. Only models whose RoPE
    /// frequencies depend on the length of the text need it: [`Session::feed`] counts the text up
    /// to the last token that it is given.
    pub fn expect(&mut self, device: &mut dyn Executor, model: &Llama, length: usize) -> Result<()> {
        let Some(fed) = self.lengthwise.as_mut().and_then(|l| l.extend(length)) else { return Ok(()) };
        crate::ensure!(fed.len() == self.cache.n_tokens(), "a text whose tokens are not known cannot be fed again");
        self.cache.clear();
        let mut rest = fed.as_slice();
        while !rest.is_empty() {
            let n = self.cache.chunk(rest.len());
            let index = TokenIndex::upload(device, &rest[..n], false)?;
            self.feed_chunk(device, model, &index, false)?;
            rest = &rest[n..];
        }
        Ok(())
    }

    /// Feeds tokens in chunks; the last one's logits are then ready for [`Session::draw`].
    pub fn feed(&mut self, device: &mut dyn Executor, model: &Llama, ids: &[u32]) -> Result<()> {
        self.feed_watched(device, model, ids, &mut |_| {})
    }

    /// [`Session::feed`], which calls `on_fed` before each chunk with the tokens of the text so far.
    pub(crate) fn feed_watched(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        ids: &[u32],
        on_fed: &mut dyn FnMut(usize),
    ) -> Result<()> {
        self.note(device, model, ids)?;
        let mut rest = ids;
        while !rest.is_empty() {
            on_fed(self.cache.n_tokens());
            let n = self.cache.chunk(rest.len());
            let index = TokenIndex::upload(device, &rest[..n], false)?;
            self.feed_chunk(device, model, &index, n == rest.len())?;
            rest = &rest[n..];
        }
        Ok(())
    }

    /// Feeds tokens and returns all their logits [ids, vocabulary]. The last ones are then ready for
    /// [`Session::draw`].
    pub fn feed_all_logits(&mut self, device: &mut dyn Executor, model: &Llama, ids: &[u32]) -> Result<Vec<f32>> {
        self.note(device, model, ids)?;
        let mut all = Vec::new();
        let mut rest = ids;
        while !rest.is_empty() {
            let n = self.cache.chunk(rest.len());
            let vocab = model.config.vocab;
            let logits = Tensor::from_span(Buffer::persistent("chunk logits", Kind::Real, n * vocab).span(), n, vocab);
            let index = TokenIndex::upload(device, &rest[..n], false)?;
            let last = (n == rest.len()).then(|| self.logits.clone());
            let to_logits = |rec: &mut Recording, hidden: &Tensor| {
                logits_into(rec, hidden, model.output(), &logits);
                if let Some(last) = last {
                    logits_into(rec, Rows::new(hidden, n - 1, 1), model.output(), &last);
                }
                Ok(())
            };
            self.forward(device, model, &index, to_logits)?;
            all.extend(logits.read(device)?);
            rest = &rest[n..];
        }
        Ok(all)
    }

    /// Feeds tokens and returns Σ -log p over the labels. `labels[t]` is the token that follows
    /// `ids[t]`, or [`IGNORED`].
    pub fn feed_loss(&mut self, device: &mut dyn Executor, model: &Llama, ids: &[u32], labels: &[i32]) -> Result<f64> {
        assert_eq!(ids.len(), labels.len(), "a label for each token");
        self.note(device, model, ids)?;
        let max_elements = device.limits().max_elements();
        let loss = Tensor::persistent("chunk loss", Format::F32, 1, 1, &device.limits())?;
        let (mut sum, mut done) = (0.0, 0);
        while done < ids.len() {
            let n = self.cache.chunk(ids.len() - done);
            let index = TokenIndex::upload(device, &ids[done..done + n], false)?;
            let chunk = &labels[done..done + n];
            done += n;
            if chunk.iter().all(|&l| l == IGNORED) {
                self.forward(device, model, &index, |_, _| Ok(()))?;
                continue;
            }
            let words: Vec<u32> = chunk.iter().map(|&l| l as u32).collect(); // a negative label becomes an id beyond any vocabulary
            let words = upload_words(device, "chunk labels", &words)?;
            self.forward(device, model, &index, |rec, hidden| {
                let need = Need { hidden: false, head: false };
                let (out, _) = cross_entropy(rec, hidden, model.output(), &words, 1.0, need, max_elements)?;
                copy_tensor(rec, &out[0], &loss);
                Ok(())
            })?;
            sum += device.read_f64(loss.span())?[0];
        }
        Ok(sum)
    }

    /// Draws the next token from the last logits.
    pub fn draw(&mut self, device: &mut dyn Executor) -> Result<u32> {
        let id = self.start_draw(device)?.wait()?[0];
        self.take(id)?;
        Ok(id)
    }

    /// [`Session::draw`] in two steps: the token can be fed before its id is read back. Give the id to
    /// [`Session::take`] before the next draw.
    pub fn start_draw(&mut self, device: &mut dyn Executor) -> Result<Reading<u32>> {
        self.prepare_draw(device)?;
        let mut rec = Recording::new();
        let drawn = self.drawn.clone();
        self.record_draw(&mut rec, None, &drawn);
        device.run(&rec)?;
        device.start_read_words(&self.drawn)
    }

    /// Notes the token that was drawn. Fails if the session's constraint ends the text before it.
    pub fn take(&mut self, id: u32) -> Result<()> {
        match self.note_drawn(id) {
            None => Ok(()),
            Some(End::Complete) => Err(Error::new("the text is complete in the form of its constraint")),
            Some(End::Failed(why)) => Err(Error::new(why)),
        }
    }

    /// Notes the token that was drawn, or says how the constraint ended the text before it.
    pub(super) fn note_drawn(&mut self, id: u32) -> Option<End> {
        self.draw.take(id)
    }

    /// Uploads what the next draw needs.
    pub(super) fn prepare_draw(&mut self, device: &mut dyn Executor) -> Result<()> {
        self.draw.prepare(device)
    }

    /// The logits that the next token is drawn from, if they are not a row of those of a batch
    /// [vocabulary].
    pub(super) fn read_logits(&self, device: &mut dyn Executor) -> Result<Vec<f32>> {
        self.logits.read(device)
    }

    /// Appends the draw of the next token to `drawn`: from the session's last logits, or from `row`
    /// of other logits. [`Session::prepare_draw`] comes first.
    pub(super) fn record_draw(&mut self, rec: &mut Recording, row: Option<(&Tensor, usize)>, drawn: &Span) {
        self.draw.record(rec, row.unwrap_or((&self.logits, 0)), drawn);
    }

    /// Whether the RoPE frequencies depend on the length of the text.
    pub(super) fn is_lengthwise(&self) -> bool {
        self.lengthwise.is_some()
    }

    /// Whether [`Session::feed_drawn`] can be called: penalties, constraints, and a text that may be
    /// fed again, need every id on the host.
    pub fn can_feed_drawn(&self) -> bool {
        let may_switch = self.lengthwise.as_ref().is_some_and(|l| l.may_switch(self.cache.capacity()));
        !self.draw.needs_ids() && !may_switch
    }

    /// Feeds the last drawn token, whose id may not have been read back yet.
    pub fn feed_drawn(&mut self, device: &mut dyn Executor, model: &Llama) -> Result<()> {
        assert!(self.can_feed_drawn(), "the id has to be known");
        self.expect(device, model, self.cache.n_tokens() + 1)?;
        self.feed_chunk(device, model, &TokenIndex::on_device(self.drawn.clone()), true)
    }

    /// Sets how the next tokens are drawn. `ids` are the tokens fed so far.
    pub(super) fn draw_by(
        &mut self,
        device: &mut dyn Executor,
        sampling: Sampling,
        seed: u64,
        ids: &[u32],
    ) -> Result<()> {
        self.draw = Draw::new(sampling, seed, self.logits.cols)?;
        self.draw.note(device, ids)
    }

    /// Length of the text that RoPE reckons with; the tokens fed if that does not matter.
    pub(super) fn length(&self) -> usize {
        self.lengthwise.as_ref().map_or(self.cache.n_tokens(), Lengthwise::length)
    }

    /// Whether texts of these lengths have the RoPE frequencies with which this one was fed.
    pub(super) fn is_alike(&self, lengths: [usize; 2]) -> bool {
        self.lengthwise.as_ref().is_none_or(|lengthwise| lengthwise.is_alike(lengths))
    }

    /// Continues after these tokens, whose keys and values are in the cache, and which were fed when
    /// the text was known to have `length`.
    pub(super) fn resume_at(&mut self, ids: &[u32], length: usize) {
        if let Some(lengthwise) = &mut self.lengthwise {
            lengthwise.restore(length, ids);
        }
    }

    /// The logits that the next token is drawn from, after a feed.
    pub(super) fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// Checks ids that follow the text, and notes them where they are needed again.
    pub(super) fn note(&mut self, device: &mut dyn Executor, model: &Llama, ids: &[u32]) -> Result<()> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= model.config.vocab) {
            return Err(Error::new(format!("token {id} is outside the model's vocabulary of {}", model.config.vocab)));
        }
        self.expect(device, model, self.cache.n_tokens() + ids.len())?;
        if let Some(lengthwise) = &mut self.lengthwise {
            lengthwise.note(ids);
        }
        self.draw.note(device, ids)
    }

    fn feed_chunk(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        index: &TokenIndex,
        is_last: bool,
    ) -> Result<()> {
        let logits = self.logits.clone();
        self.forward(device, model, index, |rec, hidden| {
            if is_last {
                logits_into(rec, Rows::new(hidden, hidden.rows - 1, 1), model.output(), &logits);
            }
            Ok(())
        })
    }

    fn forward(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        index: &TokenIndex,
        finish: impl FnOnce(&mut Recording, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut tape = Tape::inference();
        let step = self.cache.begin(device, index.n_tokens())?;
        let hidden = match &self.lengthwise {
            None => model.forward_cached(&mut tape, index, &self.cache, &step)?,
            Some(lengthwise) => {
                let positions = step.position..step.position + step.n_tokens;
                let (rotations, rows) = lengthwise.chunk(device, model, positions)?;
                model.forward_rotated(&mut tape, index, &[(&self.cache, &step)], (rotations, &rows))?
            }
        };
        finish(&mut tape.rec, &hidden.tensor)?;
        device.run(&tape.rec)?;
        self.cache.commit(&step);
        Ok(())
    }
}
