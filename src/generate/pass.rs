//! One pass of the model over the next tokens of several sessions.

use super::session::Session;
use crate::attention::CacheStep;
use crate::autograd::Tape;
use crate::error::Result;
use crate::gpu::{Buffer, ELEMENT_ALIGNMENT, Executor, Kind, upload_words};
use crate::kernels::embedding::TokenIndex;
use crate::kernels::head::logits;
use crate::model::llama::Llama;
use crate::tensor::Tensor;

/// A session, and the token to feed to it; `None` if its last logits are still to be drawn from.
pub(super) type Next<'a> = (&'a mut Session, Option<u32>);

/// Feeds each session its token, all in one pass, and draws the next token of every session.
///
/// Sessions whose RoPE frequencies depend on the length of the text are fed one by one.
pub(super) fn advance(device: &mut dyn Executor, model: &Llama, sessions: &mut [Next<'_>]) -> Result<Vec<u32>> {
    for (session, id) in sessions.iter_mut().filter(|(session, _)| session.is_lengthwise()) {
        if let Some(id) = id.take() {
            session.feed(device, model, &[id])?;
        }
    }
    let mut tape = Tape::inference();
    let (steps, logits) = match record(device, model, &mut tape, sessions)? {
        Some((steps, logits)) => (steps, Some(logits)),
        None => (Vec::new(), None),
    };
    let drawn = Buffer::persistent("drawn ids", Kind::U32, sessions.len() * ELEMENT_ALIGNMENT);
    let mut rows = 0..steps.len();
    for (i, (session, id)) in sessions.iter_mut().enumerate() {
        let row = id.and_then(|_| Some((logits.as_ref()?, rows.next()?)));
        session.record_draw(&mut tape.rec, row, &drawn.slice(i * ELEMENT_ALIGNMENT, 1));
    }
    device.run(&tape.rec)?;
    commit(sessions, &steps);
    Ok(device.read_words(&drawn.span())?.into_iter().step_by(ELEMENT_ALIGNMENT).collect())
}

/// Appends the pass over the tokens; returns the steps of the caches and the logits [tokens,
/// vocabulary] of the sessions that have a token, in their order. `None` if none has one.
fn record(
    device: &mut dyn Executor,
    model: &Llama,
    tape: &mut Tape,
    sessions: &mut [Next<'_>],
) -> Result<Option<(Vec<CacheStep>, Tensor)>> {
    let (mut ids, mut steps) = (Vec::new(), Vec::new());
    for (session, id) in sessions.iter_mut() {
        let Some(id) = *id else { continue };
        session.note(device, model, &[id])?;
        ids.push(id);
        steps.push(session.cache.begin(device, 1)?);
    }
    if ids.is_empty() {
        return Ok(None);
    }
    let positions: Vec<u32> = steps.iter().map(|step| step.position as u32).collect();
    let positions = upload_words(device, "positions of the sequences", &positions)?;
    let index = TokenIndex::upload(device, &ids, false)?;
    let fed = sessions.iter().filter(|(_, id)| id.is_some());
    let sequences: Vec<_> = fed.map(|(session, _)| &session.cache).zip(&steps).collect();
    let hidden = model.forward_sequences(tape, &index, &sequences, &positions)?;
    let logits = logits(&mut tape.rec, &hidden.tensor, model.output());
    Ok(Some((steps, logits)))
}

/// Advances the caches, after the recording has run.
fn commit(sessions: &mut [Next<'_>], steps: &[CacheStep]) {
    let fed = sessions.iter_mut().filter(|(_, id)| id.is_some());
    fed.zip(steps).for_each(|((session, _), step)| session.cache.commit(step));
}
