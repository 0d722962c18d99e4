//! What rounded activations cost: perplexity beside that of f32 activations, and how far the
//! predictions differ.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::answer::{Subject, Watch};
use super::perplexity::{PerplexityRequest, Window};
use super::policy::Policy;
use super::report::Row;
use crate::attention::Attention;
use crate::error::Result;
use crate::generate::Session;
use crate::gpu::Activations;
use crate::kernels::sample::Sampling;

/// Names of the metrics: perplexity and mean -log p with the device's activations, perplexity with
/// f32 activations, the mean divergence KL(f32 || rounded) of the predictions in nats, and how often
/// both find the same token most likely.
pub const METRICS: [&str; 5] = ["perplexity", "loss", "f32 perplexity", "KL", "same token"];

/// Most tokens that are fed at once, because all their logits are on the host.
const TOKENS: usize = 64;

/// One row per policy. Every token that [`perplexity`](super::perplexity) predicts is predicted
/// twice. If `watch` breaks, returns the rows of the policies that have all windows.
pub fn rounding_cost(
    subject: &mut Subject<'_>,
    request: &PerplexityRequest<'_>,
    policies: &[Policy],
    watch: &mut Watch<'_>,
) -> Result<Vec<Row>> {
    let windows = request.windows(subject.bos_of(request.ids))?;
    subject.check_length(request.length.min(request.ids.len()))?;
    let rounded = subject.device.activations();
    let (mut rows, mut done) = (Vec::new(), 0);
    for policy in policies {
        let (mut sums, mut entries, mut fed) = (Sums::default(), 0, 0);
        for window in &windows {
            let n_tokens = window.n_tokens();
            let attention = policy.attention(n_tokens)?;
            let measured = of_window(subject, request.ids, window, attention);
            subject.device.set_activations(rounded)?;
            sums = sums.plus(measured?);
            entries += attention.cache_length(n_tokens);
            (fed, done) = (fed + 1, done + 1);
            if watch(done, windows.len() * policies.len()).is_break() {
                break;
            }
        }
        if fed < windows.len() {
            break;
        }
        rows.push(Row {
            attention: policy.name().to_string(),
            compression: policy.compression(),
            length: request.length,
            depth: None,
            n: sums.n,
            values: sums.values(),
            kv_entries: entries as f64 / windows.len() as f64,
        });
    }
    Ok(rows)
}

/// Sums over predicted tokens.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: usize,
    loss: f64,
    exact_loss: f64,
    divergence: f64,
    same: usize,
}

impl Sums {
    fn plus(self, other: Self) -> Self {
        Self {
            n: self.n + other.n,
            loss: self.loss + other.loss,
            exact_loss: self.exact_loss + other.exact_loss,
            divergence: self.divergence + other.divergence,
            same: self.same + other.same,
        }
    }

    fn values(self) -> BTreeMap<String, f64> {
        let mean = |sum: f64| sum / self.n as f64;
        let loss = mean(self.loss);
        let values = [loss.exp(), loss, mean(self.exact_loss).exp(), mean(self.divergence), mean(self.same as f64)];
        METRICS.map(str::to_string).into_iter().zip(values).collect()
    }

    /// The sums of one token, from the logits with rounded and with f32 activations.
    fn of_token(token: u32, rounded: &[f32], exact: &[f32]) -> Self {
        let (log_z, exact_log_z) = (log_sum_exp(rounded), log_sum_exp(exact));
        let divergence = rounded.iter().zip(exact).map(|(&q, &p)| {
            let (q, p) = (f64::from(q) - log_z, f64::from(p) - exact_log_z);
            if p.exp() == 0.0 { 0.0 } else { p.exp() * (p - q) }
        });
        let loss = |logits: &[f32], log_z: f64| log_z - f64::from(logits[token as usize]);
        Self {
            n: 1,
            loss: loss(rounded, log_z),
            exact_loss: loss(exact, exact_log_z),
            divergence: divergence.sum::<f64>().max(0.0),
            same: usize::from(most_likely(exact).is_some_and(|token| most_likely(rounded) == Some(token))),
        }
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    most + logits.iter().map(|&x| (f64::from(x) - most).exp()).sum::<f64>().ln()
}

/// The first of the tokens with the highest logit.
fn most_likely(logits: &[f32]) -> Option<usize> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&x| x == most)
}

/// Feeds a window twice, in turns, with a cache for each.
fn of_window(subject: &mut Subject<'_>, ids: &[u32], window: &Window, attention: Attention) -> Result<Sums> {
    let text = window.tokens(ids);
    let Subject { device, model, chunk, .. } = subject;
    let chunk = TOKENS.min(*chunk);
    let mut session = || Session::new(*device, model, attention, text.len(), chunk, Sampling::default(), 0);
    let (mut rounded, mut exact) = (session()?, session()?);
    let (vocab, mode) = (model.config.vocab, device.activations());
    // The tokens before the one that predicts the first need no logits.
    let (lead, rest) = text.split_at(window.n_context() - 1);
    for (session, activations) in [(&mut rounded, mode), (&mut exact, Activations::F32)] {
        device.set_activations(activations)?;
        session.feed(*device, model, lead)?;
    }
    let mut sums = Sums::default();
    for (i, part) in rest.chunks(TOKENS).enumerate() {
        let mut logits = |session: &mut Session, activations: Activations| -> Result<Vec<f32>> {
            device.set_activations(activations)?;
            session.feed_all_logits(*device, model, part)
        };
        let (q, p) = (logits(&mut rounded, mode)?, logits(&mut exact, Activations::F32)?);
        let next = |t: usize| window.first + i * TOKENS + t;
        let predicted = (0..part.len()).into_par_iter().filter(|&t| next(t) < window.end).map(|t| {
            let row = t * vocab..(t + 1) * vocab;
            Sums::of_token(ids[next(t)], &q[row.clone()], &p[row])
        });
        sums = predicted.collect::<Vec<_>>().into_iter().fold(sums, Sums::plus);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_a_token_are_those_of_the_definitions() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4), and logits that are shifted
        let exact = [4.0f32.ln() + 3.0, 2.0f32.ln() + 3.0, 2.0f32.ln() + 3.0];
        let rounded = [1.0f32.ln(), 2.0f32.ln(), 1.0f32.ln()];
        let sums = Sums::of_token(1, &rounded, &exact);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        near(sums.loss, 2f64.ln());
        near(sums.exact_loss, 4f64.ln());
        near(sums.divergence, 0.25 * 2f64.ln());
        assert_eq!((sums.n, sums.same), (1, 0));
        let same = Sums::of_token(2, &exact, &exact);
        near(same.divergence, 0.0);
        assert_eq!(same.same, 1);
    }
}
