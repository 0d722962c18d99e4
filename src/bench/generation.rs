//! Benchmarks of prefill and decode at one length, with a real or a filled cache.

use std::ops::ControlFlow;
use std::time::Instant;

use super::measure::time_runs;
use super::report::{Activity, ModelRow};
use super::subject::Subject;
use crate::attention::Attention;
use crate::checkpoint::load::{Train, load};
use crate::error::{Context, Result};
use crate::generate::{Batch, DEFAULT_CHUNK, GenerateRequest, Session};
use crate::gpu::{Device, Executor};
use crate::kernels::sample::Sampling;

/// Maximum number of tokens drawn.
const MOST_DRAWN: usize = 64;
/// Sequences of [`Activity::DecodeTogether`].
const TOGETHER: usize = 8;

/// Times prefill of `length` tokens and decode after them, for about `budget` seconds each after
/// the first run. `device` must be newly opened: nothing compiled, no memory in use.
pub fn generation_rows(
    mut device: Device,
    subject: &Subject,
    attention: Attention,
    length: usize,
    budget: f64,
) -> Result<[ModelRow; 2]> {
    let device = device.as_mut();
    let mut loaded = load(device, &subject.source, None, Train::Nothing)?;
    let ids = subject.ids(length);
    let capacity = length + MOST_DRAWN;
    device.wait()?;
    let mut fed = None;
    let prefill = time_runs(budget, || {
        fed = None; // frees its cache for the next run
        let mut session =
            Session::new(device, &mut loaded.model, attention, capacity, DEFAULT_CHUNK, Sampling::default(), 0)?;
        let start = Instant::now();
        session.feed(device, &loaded.model, &ids)?;
        device.wait()?;
        fed = Some(session);
        Ok(start.elapsed().as_secs_f64())
    });
    let prefill = prefill.context("prefill")?;
    let mut session = fed.expect("a measurement runs at least once");
    let mut first = ModelRow::new(Activity::Prefill, attention, length, length, Some(&prefill));
    (first.peak_bytes, first.kv_bytes) = (peak(device), session.cache.n_bytes());
    device.reset_peak();
    let decode = time_runs(budget, || {
        let start = Instant::now();
        let id = session.draw(device)?;
        session.feed(device, &loaded.model, &[id])?;
        device.wait()?;
        Ok(start.elapsed().as_secs_f64())
    });
    let mut second = ModelRow::new(Activity::Decode, attention, length, 1, Some(&decode.context("decoding")?));
    (second.peak_bytes, second.kv_bytes) = (peak(device), session.cache.n_bytes());
    Ok([first, second])
}

/// Times decode after `n_tokens` tokens whose keys and values are made up instead of computed, for
/// about `budget` seconds after the first run. `device` must be newly opened.
pub fn filled_decode_row(
    mut device: Device,
    subject: &Subject,
    attention: Attention,
    n_tokens: usize,
    budget: f64,
) -> Result<ModelRow> {
    let device = device.as_mut();
    let mut loaded = load(device, &subject.source, None, Train::Nothing)?;
    let capacity = n_tokens + MOST_DRAWN;
    let mut session = Session::new(device, &mut loaded.model, attention, capacity, 1, Sampling::default(), 0)?;
    session.cache.fill_random(device, n_tokens, 0)?;
    let mut id = 0;
    let decode = time_runs(budget, || {
        let start = Instant::now();
        session.feed(device, &loaded.model, &[id])?;
        id = session.draw(device)?;
        device.wait()?;
        Ok(start.elapsed().as_secs_f64())
    });
    let decode = decode.context("decoding with a filled cache")?;
    let mut row = ModelRow::new(Activity::DecodeFilled, attention, n_tokens, 1, Some(&decode));
    (row.peak_bytes, row.kv_bytes) = (peak(device), session.cache.n_bytes());
    Ok(row)
}

/// Times a step of eight sequences at once, each after `n_tokens` tokens whose keys and values are
/// made up instead of computed, for about `budget` seconds after the first run. The speed is that of
/// all sequences together. `device` must be newly opened.
pub fn decode_together_row(
    mut device: Device,
    subject: &Subject,
    attention: Attention,
    n_tokens: usize,
    budget: f64,
) -> Result<ModelRow> {
    let device = device.as_mut();
    let mut loaded = load(device, &subject.source, None, Train::Nothing)?;
    let prompt_ids = subject.ids(n_tokens + 1);
    // One more than the steps below draw, so that none of the texts ends.
    let request = GenerateRequest { attention, ..GenerateRequest::greedy(&prompt_ids, MOST_DRAWN + 2) };
    let mut batch = Batch::new(None);
    for seed in 0..TOGETHER as u64 {
        let mut session = request.session(device, &mut loaded.model)?;
        session.cache.fill_random(device, n_tokens, seed)?;
        batch.join_with(device, &loaded.model, &request, session)?;
    }
    let mut step = |device: &mut dyn Executor| {
        let start = Instant::now();
        batch.step(device, &loaded.model, &mut |_, _| ControlFlow::Continue(()))?;
        device.wait()?;
        Ok(start.elapsed().as_secs_f64())
    };
    step(device)?; // draws the first tokens, and feeds none
    device.reset_peak();
    let steps = time_runs(budget, || step(device)).context("decoding several sequences")?;
    let mut row = ModelRow::new(Activity::DecodeTogether, attention, n_tokens, TOGETHER, Some(&steps));
    (row.peak_bytes, row.kv_bytes) = (peak(device), batch.kv_bytes());
    Ok(row)
}

fn peak(device: &dyn Executor) -> u64 {
    device.memory().peak_bytes()
}
