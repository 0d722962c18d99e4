//! Perplexity of a long text under each attention policy, with sliding windows.
//!
//! Every token is predicted once, with at least `length - stride` tokens of context (except in the
//! first window).

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
    let all = request.windows()?;
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
    let windows = request.windows()?;
    subject.check_length(request.length.min(request.ids.len()))?;
    let mut losses = Vec::with_capacity(windows.len());
    for &Window { start, end, first } in &windows {
        let window = &request.ids[start..end];
        let attention = policy.attention(window.len())?;
        let mut labels: Vec<i32> = window[1..].iter().map(|&id| id as i32).collect();
        labels.push(IGNORED);
        labels[..first - start - 1].fill(IGNORED);
        let n = labels.iter().filter(|&&l| l != IGNORED).count();
        let Subject { device, model, chunk, .. } = subject;
        let mut session = Session::new(*device, model, attention, window.len(), *chunk, Sampling::default(), 0)?;
        let sum = session.feed_loss(*device, model, window, &labels)?;
        losses.push(WindowLoss { sum, n, tokens: window.len(), kv_entries: attention.cache_length(window.len()) });
        if watch(losses.len(), windows.len()).is_break() {
            break;
        }
    }
    Ok(losses)
}

impl PerplexityRequest<'_> {
    /// The windows. Fails if the settings or the text allow none.
    pub(super) fn windows(&self) -> Result<Vec<Window>> {
        let Self { ids, length, stride, max_windows } = *self;
        if length < 2 || stride == 0 || stride > length || max_windows == 0 {
            return Err(Error::usage(
                "a window needs at least 2 tokens, and the stride must be between 1 and the window's length",
            ));
        }
        if ids.len() < 2 {
            return Err(Error::usage("perplexity needs a text of at least 2 tokens"));
        }
        Ok(windows(ids.len(), length, stride, max_windows))
    }
}

/// A window of a text: tokens `start..end`, of which it predicts `first..end`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub start: usize,
    pub end: usize,
    pub first: usize,
}

fn windows(n: usize, length: usize, stride: usize, most: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let (mut start, mut predicted) = (0, 1);
    while predicted < n && windows.len() < most {
        let end = (start + length).min(n);
        windows.push(Window { start, end, first: predicted });
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
            for Window { start, end, first } in windows(n, length, stride, usize::MAX) {
                assert_eq!(first, next);
                assert!(start < first && end > first && end - start <= length && end <= n);
                next = end;
            }
            assert_eq!(next, n, "{n} {length} {stride}");
        }
        assert_eq!(
            windows(100, 10, 5, 2),
            [Window { start: 0, end: 10, first: 1 }, Window { start: 5, end: 15, first: 10 }]
        );
    }
}
