//! Perplexity of a long text under each attention policy, with sliding windows.
//!
//! Every token is predicted once, with at least `length - stride` tokens of context (except in the
//! first window). If the tokenizer puts BOS in front of texts, every window begins with it, as in
//! training and as in llama.cpp: such models read a text without BOS as one that they never saw.

use std::collections::BTreeMap;

use super::answer::{Subject, Watch};
use super::policy::Policy;
use super::report::Row;
use crate::data::dataset::IGNORED;
use crate::error::{Error, Result};
use crate::generate::Session;
use crate::kernels::sample::Sampling;

/// Settings of the measurement.
#[derive(Clone, Debug)]
pub struct PerplexityRequest<'a> {
    /// The text.
    pub ids: &'a [u32],
    /// Tokens per window.
    pub length: usize,
    /// Tokens between the starts of consecutive windows.
    pub stride: usize,
    /// Maximum number of windows, from the start of the text.
    pub max_windows: usize,
}

/// One row per policy with `perplexity` and `loss`, the mean -log p of the n predicted tokens. If
/// `watch` breaks, returns the rows of the policies that have all windows.
pub fn perplexity(
    subject: &mut Subject<'_>,
    request: &PerplexityRequest<'_>,
    policies: &[Policy],
    watch: &mut Watch<'_>,
) -> Result<Vec<Row>> {
    let all = request.windows(subject.bos_of(request.ids))?;
    let (mut rows, mut done) = (Vec::new(), 0);
    for policy in policies {
        let windows = window_losses(subject, request, policy, &mut |_, total| {
            done += 1;
            watch(done, total * policies.len())
        })?;
        if windows.len() < all.len() {
            break;
        }
        let n: usize = windows.iter().map(|window| window.n).sum();
        let loss = windows.iter().map(|window| window.sum).sum::<f64>() / n as f64;
        rows.push(Row {
            attention: policy.name().to_string(),
            compression: policy.compression(),
            length: request.length,
            depth: None,
            n,
            values: BTreeMap::from([("loss".to_string(), loss), ("perplexity".to_string(), loss.exp())]),
            kv_entries: windows.iter().map(|window| window.kv_entries as f64).sum::<f64>() / all.len() as f64,
        });
    }
    Ok(rows)
}

/// Losses of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowLoss {
    /// Sum of -log p over the tokens that the window predicts.
    pub sum: f64,
    /// Number of these tokens.
    pub n: usize,
    pub tokens: usize,
    /// Entries of one head's cache at the end of the window.
    pub kv_entries: usize,
}

/// The losses of every window under one policy, or of the first ones if `watch` breaks.
pub fn window_losses(
    subject: &mut Subject<'_>,
    request: &PerplexityRequest<'_>,
    policy: &Policy,
    watch: &mut Watch<'_>,
) -> Result<Vec<WindowLoss>> {
    let windows = request.windows(subject.bos_of(request.ids))?;
    subject.check_length(request.length.min(request.ids.len()))?;
    let mut losses = Vec::with_capacity(windows.len());
    for window in &windows {
        let n_context = window.n_context();
        let window = window.tokens(request.ids);
        let attention = policy.attention(window.len())?;
        let mut labels: Vec<i32> = window[1..].iter().map(|&id| id as i32).collect();
        labels.push(IGNORED);
        labels[..n_context - 1].fill(IGNORED);
        let n = labels.iter().filter(|&&l| l != IGNORED).count();
        let Subject { device, model, chunk, .. } = subject;
        let mut session = Session::new(*device, model, attention, window.len(), *chunk, Sampling::default(), 0)?;
        let sum = session.feed_loss(*device, model, &window, &labels)?;
        losses.push(WindowLoss { sum, n, tokens: window.len(), kv_entries: attention.cache_length(window.len()) });
        if watch(losses.len(), windows.len()).is_break() {
            break;
        }
    }
    Ok(losses)
}

impl PerplexityRequest<'_> {
    /// The windows, of which those after the first begin with `bos`, if there is one. Fails if the
    /// settings or the text allow none.
    pub(super) fn windows(&self, bos: Option<u32>) -> Result<Vec<Window>> {
        let Self { ids, length, stride, max_windows } = *self;
        if length < 2 || stride == 0 || stride > length || max_windows == 0 {
            return Err(Error::usage(
                "a window needs at least 2 tokens, and the stride must be between 1 and the window's length",
            ));
        }
        if ids.len() < 2 {
            return Err(Error::usage("perplexity needs a text of at least 2 tokens"));
        }
        Ok(windows(ids.len(), length, stride, max_windows, bos))
    }
}

/// A window of a text: tokens `start..end`, of which it predicts `first..end`, and perhaps BOS in
/// front of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub bos: Option<u32>,
    pub start: usize,
    pub end: usize,
    pub first: usize,
}

impl Window {
    /// Its tokens.
    pub fn tokens(&self, ids: &[u32]) -> Vec<u32> {
        self.bos.into_iter().chain(ids[self.start..self.end].iter().copied()).collect()
    }

    /// The number of its tokens.
    pub fn n_tokens(&self) -> usize {
        usize::from(self.bos.is_some()) + self.end - self.start
    }

    /// Tokens in front of the first one that it predicts, at least one.
    pub fn n_context(&self) -> usize {
        usize::from(self.bos.is_some()) + self.first - self.start
    }
}

fn windows(n: usize, length: usize, stride: usize, most: usize, bos: Option<u32>) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    let (mut start, mut predicted) = (0, 1);
    while predicted < n && windows.len() < most {
        let bos = bos.filter(|_| !windows.is_empty());
        // BOS replaces the first token that the window repeats, or stands in front of the only one,
        // which stays unless nothing else would fit.
        let keeps_only = bos.is_some() && start + 1 == predicted && length > 2;
        let end = (start + length - usize::from(keeps_only)).min(n);
        let from = if bos.is_some() && !keeps_only { start + 1 } else { start };
        windows.push(Window { bos, start: from, end, first: predicted });
        // The first predicted token needs at least one token before it.
        (start, predicted) = ((start + stride).min(end - 1), end);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_is_predicted_once() {
        for (n, length, stride) in [(2, 2, 1), (100, 10, 10), (100, 10, 3), (101, 64, 32), (5, 64, 64)] {
            let mut next = 1;
            for Window { start, end, first, .. } in windows(n, length, stride, usize::MAX, None) {
                assert_eq!(first, next);
                assert!(start < first && end > first && end - start <= length && end <= n);
                next = end;
            }
            assert_eq!(next, n, "{n} {length} {stride}");
        }
        let window = |start, end, first| Window { bos: None, start, end, first };
        assert_eq!(windows(100, 10, 5, 2, None), [window(0, 10, 1), window(5, 15, 10)]);
    }

    #[test]
    fn windows_after_the_first_begin_with_bos() {
        let ids: Vec<u32> = (0..100).collect();
        for (n, length, stride) in [(2, 2, 1), (9, 2, 2), (100, 10, 10), (100, 10, 9), (100, 10, 3), (101, 3, 3)] {
            let ids: Vec<u32> = (0..n as u32).collect();
            let mut next = 1;
            for (i, window) in windows(n, length, stride, usize::MAX, Some(777)).iter().enumerate() {
                let tokens = window.tokens(&ids);
                assert_eq!((window.first, tokens[0]), (next, if i == 0 { 0 } else { 777 }));
                assert!(tokens.len() == window.n_tokens() && tokens.len() <= length && window.n_context() > 0);
                assert_eq!(tokens[window.n_context()..], ids[next..window.end], "BOS is no token to predict");
                next = window.end;
            }
            assert_eq!(next, n, "{n} {length} {stride}");
        }
        let tokens = |stride| windows(100, 10, stride, 2, Some(777))[1].tokens(&ids);
        assert_eq!(tokens(5), [777, 6, 7, 8, 9, 10, 11, 12, 13, 14], "in place of 5");
        assert_eq!(tokens(10), [777, 9, 10, 11, 12, 13, 14, 15, 16, 17], "in front of 9, which precedes 10");
    }
}
