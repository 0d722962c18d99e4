//! Several texts generated at once: each step feeds a token of every text in one pass.
//!
//! A token of one text reads all weights for a single row of activations. A step over several texts
//! reads them once for all rows, so that it takes little longer than a step of one. Only attention
//! and the update of the caches go text by text.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Instant;

use super::completion::Completion;
use super::draw::End;
use super::pass::{Drawn, advance};
use super::request::{GenerateRequest, Generated, NewToken, StoppedBy};
use super::session::Session;
use crate::error::Result;
use crate::gpu::Executor;
use crate::kernels::few_rows::MOST_ROWS;
use crate::model::llama::Llama;
use crate::text::tokenizer::Tokenizer;

/// Sequences of one model that are generated together.
///
/// Sequences join and leave between steps (continuous batching). Each has its own prompt,
/// attention, cache, sampling, seed and stop rules, and its text does not depend on its company: on
/// the CPU executor the logits are those of a sequence alone; on a GPU they may differ by rounding,
/// because a product of one row and a product of several may sum in different orders.
///
/// Models whose RoPE frequencies depend on the length of the text (LongRoPE and dynamic RoPE) feed
/// one sequence after another: the results are correct, but there is no speedup.
///
/// ```
/// use longreach::checkpoint::load::{Train, load};
/// use longreach::checkpoint::model_files::ModelFiles;
/// use longreach::generate::{Batch, GenerateRequest};
/// use longreach::gpu::open_device;
/// use std::ops::ControlFlow;
///
/// let mut device = open_device("cpu")?;
/// let files = ModelFiles::bundled(None)?;
/// let mut loaded = load(device.as_mut(), &files.source, None, Train::Nothing)?;
/// let mut batch = Batch::new(files.tokenizer().ok());
/// for prompt in ["Once upon a time", "The dog"] {
///     let ids = files.prompt_ids(prompt, false)?;
///     batch.join(device.as_mut(), &mut loaded.model, &GenerateRequest::greedy(&ids, 20))?;
/// }
/// let mut texts = Vec::new();
/// while !batch.is_empty() {
///     let mut show = |_, _: longreach::generate::NewToken<'_>| ControlFlow::Continue(());
///     texts.extend(batch.step(device.as_mut(), &loaded.model, &mut show)?);
/// }
/// assert_eq!(texts.len(), 2);
/// assert!(texts[0].1.text.starts_with(", there was a little girl"));
/// # Ok::<(), longreach::Error>(())
/// ```
pub struct Batch<'t> {
    tokenizer: Option<&'t Tokenizer>,
    /// Those that have no token yet, then those whose last token is the oldest, and so on.
    sequences: VecDeque<Sequence<'t>>,
    /// Number of sequences that have joined so far.
    n_joined: u64,
}

struct Sequence<'t> {
    number: u64,
    session: Session,
    completion: Completion<'t>,
    /// The token that was drawn last and is not fed yet; `None` right after prefill.
    last: Option<u32>,
    prefill_seconds: f64,
    /// When prefill was done.
    start: Instant,
}

impl<'t> Batch<'t> {
    /// An empty batch. Texts need a tokenizer; without one there are only ids.
    pub fn new(tokenizer: Option<&'t Tokenizer>) -> Self {
        Self { tokenizer, sequences: VecDeque::new(), n_joined: 0 }
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Bytes of the entries of all caches.
    pub fn kv_bytes(&self) -> u64 {
        self.sequences.iter().map(|sequence| sequence.session.cache.n_bytes()).sum()
    }

    /// Feeds the prompt of another sequence, which takes part in the following steps. Returns its
    /// number: 0 for the first that joins, then 1, …
    ///
    /// Errors: those of [`super::generate`]. The other sequences can go on after an error, such as
    /// missing memory for the cache.
    pub fn join(&mut self, device: &mut dyn Executor, model: &mut Llama, request: &GenerateRequest<'_>) -> Result<u64> {
        request.check(self.tokenizer)?;
        let session = request.session(device, model)?;
        self.join_with(device, model, request, session)
    }

    /// [`Batch::join`] of a request that has been checked, with a session that may have been fed the
    /// first tokens of the prompt and has capacity for the rest and the answer. The session must have
    /// the request's sampling, attention, chunk and seed. The prefill time covers the rest of the
    /// prompt.
    pub(crate) fn join_with(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        request: &GenerateRequest<'_>,
        mut session: Session,
    ) -> Result<u64> {
        let n_fed = session.cache.n_tokens();
        assert!(n_fed < request.prompt_ids.len(), "the prompt's last token is still to be fed");
        let start = Instant::now();
        session.feed(device, model, &request.prompt_ids[n_fed..])?;
        device.wait()?;
        Ok(self.join_fed(request, session, start.elapsed().as_secs_f64()))
    }

    /// [`Batch::join`] of a checked request with a session that has been fed the whole prompt, which
    /// took so many seconds.
    pub(crate) fn join_fed(&mut self, request: &GenerateRequest<'_>, session: Session, prefill_seconds: f64) -> u64 {
        let completion = Completion::new(request, self.tokenizer);
        let number = self.n_joined;
        self.n_joined += 1;
        let start = Instant::now();
        let at = self.sequences.iter().take_while(|sequence| sequence.last.is_none()).count();
        let sequence = Sequence { number, session, completion, last: None, prefill_seconds, start };
        self.sequences.insert(at, sequence);
        number
    }

    /// Generates a token of every sequence and passes it to `on_token` with the sequence's number.
    /// `ControlFlow::Break` ends that sequence. Returns the sequences that have ended, which are no
    /// longer part of the batch. Does nothing if the batch is empty.
    ///
    /// Errors: those of the device. The batch is empty after an error.
    pub fn step(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        on_token: &mut dyn FnMut(u64, NewToken<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<(u64, Generated)>> {
        self.step_some(device, model, self.len(), on_token)
    }

    /// [`Batch::step`] of at most `most` sequences: those that have no token yet, and then those that
    /// have waited longest for their next one.
    ///
    /// Errors: those of the device. The sequences of the step are not in the batch after an error.
    pub(crate) fn step_some(
        &mut self,
        device: &mut dyn Executor,
        model: &Llama,
        most: usize,
        on_token: &mut dyn FnMut(u64, NewToken<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<(u64, Generated)>> {
        let mut sequences: Vec<_> = self.sequences.drain(..most.min(self.len())).collect();
        let mut ended = Vec::new();
        let mut next: Vec<_> = sequences.iter_mut().map(|s| (&mut s.session, s.last)).collect();
        let mut drawn = Vec::with_capacity(next.len());
        for some in next.chunks_mut(MOST_ROWS) {
            drawn.extend(advance(device, model, some)?);
        }
        for (mut sequence, Drawn { id, logits, end }) in sequences.into_iter().zip(drawn) {
            let number = sequence.number;
            if let Some(end) = end {
                let constraint_failure = match end {
                    End::Complete => {
                        sequence.completion.close(&mut |token| on_token(number, token))?;
                        None
                    }
                    End::Failed(why) => Some(why),
                };
                ended.push((number, Generated { constraint_failure, ..sequence.finish(StoppedBy::Constraint) }));
                continue;
            }
            match sequence.completion.take(id, logits.as_deref(), &mut |token| on_token(number, token))? {
                Some(stopped_by) => ended.push((number, sequence.finish(stopped_by))),
                None => self.sequences.push_back(Sequence { last: Some(id), ..sequence }),
            }
        }
        Ok(ended)
    }

    /// Takes a sequence out and returns what it has generated; `None` if the batch does not hold it.
    pub fn leave(&mut self, number: u64) -> Option<Generated> {
        let at = self.sequences.iter().position(|sequence| sequence.number == number)?;
        Some(self.sequences.remove(at)?.finish(StoppedBy::Caller))
    }
}

impl Sequence<'_> {
    fn finish(self, stopped_by: StoppedBy) -> Generated {
        let seconds = [self.prefill_seconds, self.start.elapsed().as_secs_f64()];
        self.completion.finish(&self.session.cache, stopped_by, seconds)
    }
}
