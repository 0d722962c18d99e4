//! Generates from any number of requests, several at once: a waiting one takes the place of one
//! that has ended.

use std::ops::ControlFlow;

use super::batch::Batch;
use super::request::{GenerateRequest, Generated};
use super::session::Session;
use crate::error::{Context, ErrorKind, Result};
use crate::gpu::Executor;
use crate::model::llama::Llama;
use crate::text::tokenizer::Tokenizer;

/// Default number of sequences to generate at once.
pub const DEFAULT_BATCH: usize = 8;

/// Generates from every request, at most `most` at once (at least one), and fewer where the device
/// is known to lack the memory for so many caches. Calls `on_done` with the index of a request and
/// its text when the text ends; texts may end in another order than that of the requests.
/// `ControlFlow::Break` ends everything.
///
/// See [`Batch`] for what does and does not depend on the company, and [`super::generate`] for the
/// errors.
pub fn generate_all(
    device: &mut dyn Executor,
    model: &mut Llama,
    tokenizer: Option<&Tokenizer>,
    requests: &[GenerateRequest<'_>],
    most: usize,
    on_done: &mut dyn FnMut(usize, Generated) -> ControlFlow<()>,
) -> Result<()> {
    let name = |i| format!("request {i}");
    let mut open = |device: &mut dyn Executor, model: &mut Llama, i: usize| -> Result<Session> {
        requests[i].session(device, model)
    };
    Queue { tokenizer, requests, name: &name, most }.run(device, model, &mut open, on_done)
}

/// Opens the session of a request, which may have been fed the first tokens of its prompt.
pub(crate) type OpenSession<'a> = dyn FnMut(&mut dyn Executor, &mut Llama, usize) -> Result<Session> + 'a;

/// Requests that wait for their turn.
pub(crate) struct Queue<'a> {
    pub(crate) tokenizer: Option<&'a Tokenizer>,
    /// In the order in which they start.
    pub(crate) requests: &'a [GenerateRequest<'a>],
    /// The name of a request in messages.
    pub(crate) name: &'a dyn Fn(usize) -> String,
    /// Maximum number of sequences at once.
    pub(crate) most: usize,
}

impl Queue<'_> {
    /// [`generate_all`] with sessions that `open` makes.
    pub(crate) fn run(
        &self,
        device: &mut dyn Executor,
        model: &mut Llama,
        open: &mut OpenSession<'_>,
        on_done: &mut dyn FnMut(usize, Generated) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut batch = Batch::new(self.tokenizer);
        let (mut started, mut most) = (0, self.most.max(1));
        loop {
            while batch.len() < most && started < self.requests.len() {
                let request = &self.requests[started];
                let session = request.check(self.tokenizer).and_then(|()| open(device, model, started));
                match session.and_then(|session| batch.join_with(device, model, request, session)) {
                    Ok(_) => started += 1,
                    // It gets the memory of one that ends.
                    Err(e) if e.kind() == ErrorKind::OutOfMemory && !batch.is_empty() => {
                        most = batch.len();
                        break;
                    }
                    Err(e) => return Err(e).with_context(|| (self.name)(started)),
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            for (number, generated) in batch.step(device, model, &mut |_, _| ControlFlow::Continue(()))? {
                // Requests join in their order, so that the numbers of the sequences are theirs.
                if on_done(number as usize, generated).is_break() {
                    return Ok(());
                }
            }
        }
    }
}
