//! One pass of the model over the next tokens of several sessions.

use super::draw::End;
use super::session::Session;
use crate::attention::CacheStep;
use crate::autograd::Tape;
use crate::error::Result;
use crate::gpu::{Buffer, ELEMENT_ALIGNMENT, Executor, Kind, upload_words};
use crate::kernels::embedding::TokenIndex;
use crate::kernels::head::logits_into;
use crate::model::llama::Llama;
use crate::tensor::{Format, Tensor};

/// A session, and the token to feed to it; `None` if its last logits are still to be drawn from.
pub(super) type Next<'a> = (&'a mut Session, Option<u32>);

/// A token that was drawn.
pub(super) struct Drawn {
    pub(super) id: u32,
    /// The logits that it was drawn from [vocabulary], if the session keeps them.
    pub(super) logits: Option<Vec<f32>>,
    /// How the constraint ended the text before this token.
    pub(super) end: Option<End>,
}

/// Feeds each session its token, all in one pass, and draws the next token of every session.
///
/// Sessions whose RoPE frequencies depend on the length of the text are fed one by one.
pub(super) fn advance(device: &mut dyn Executor, model: &Llama, sessions: &mut [Next<'_>]) -> Result<Vec<Drawn>> {
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
    let mut row_of = Vec::with_capacity(sessions.len());
    for (i, (session, id)) in sessions.iter_mut().enumerate() {
        let row = id.and_then(|_| Some((logits.as_ref()?, rows.next()?)));
        session.prepare_draw(device)?;
        session.record_draw(&mut tape.rec, row, &drawn.slice(i * ELEMENT_ALIGNMENT, 1));
        row_of.push(row.map(|(_, row)| row));
    }
    device.run(&tape.rec)?;
    commit(sessions, &steps);
    let ids = device.read_words(&drawn.span())?.into_iter().step_by(ELEMENT_ALIGNMENT);
    let keeps_logits = sessions.iter().zip(&row_of).any(|((session, _), row)| session.keeps_logits && row.is_some());
    let all = logits.filter(|_| keeps_logits).map(|logits| logits.read(device)).transpose()?.unwrap_or_default();
    let vocab = model.config.vocab;
    let mut taken = Vec::with_capacity(sessions.len());
    for (((session, _), id), row) in sessions.iter_mut().zip(ids).zip(row_of) {
        let end = session.note_drawn(id);
        let logits = session.keeps_logits.then(|| match row {
            Some(row) => Ok(all[row * vocab..][..vocab].to_vec()),
            None => session.read_logits(device),
        });
        taken.push(Drawn { id, logits: logits.transpose()?, end });
    }
    Ok(taken)
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
    let (n, vocab) = (steps.len(), model.config.vocab);
    // Whoever reads them afterwards needs memory that outlives the recording.
    let logits = match sessions.iter().any(|(session, _)| session.keeps_logits) {
        true => Tensor::persistent("next logits", Format::F32, n, vocab, &device.limits())?,
        false => Tensor::transient(&tape.rec, "next logits", n, vocab),
    };
    logits_into(&mut tape.rec, &hidden.tensor, model.output(), &logits);
    Ok(Some((steps, logits)))
}

/// Advances the caches, after the recording has run.
fn commit(sessions: &mut [Next<'_>], steps: &[CacheStep]) {
    let fed = sessions.iter_mut().filter(|(_, id)| id.is_some());
    fed.zip(steps).for_each(|((session, _), step)| session.cache.commit(step));
}
