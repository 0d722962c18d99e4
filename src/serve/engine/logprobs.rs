//! Probabilities of tokens from a row of logits.

use crate::serve::job::TokenLogprob;

/// The log-probability of a token, and those of the `n_top` most likely ones; of equals the lowest id
/// comes first.
pub fn token_logprob(logits: &[f32], id: u32, n_top: usize) -> TokenLogprob {
    let peak = logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - peak).exp()).sum();
    let log_sum = f64::from(peak) + sum.ln();
    let logprob = |id: u32| (f64::from(logits[id as usize]) - log_sum) as f32;
    let n_top = n_top.min(logits.len());
    let mut top: Vec<u32> = (0..logits.len() as u32).collect();
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if n_top > 0 && n_top < top.len() {
        top.select_nth_unstable_by(n_top - 1, order);
    }
    top.truncate(n_top);
    top.sort_unstable_by(order);
    TokenLogprob { id, logprob: logprob(id), top: top.into_iter().map(|id| (id, logprob(id))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_a_softmax() {
        let logits = [1.0, 3.0, -2.0, 3.0, 0.5];
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let expected = |i: usize| (f64::from(logits[i]) - sum.ln()) as f32;
        let got = token_logprob(&logits, 4, 3);
        assert_eq!((got.id, got.logprob), (4, expected(4)));
        assert_eq!(got.top, [(1, expected(1)), (3, expected(3)), (0, expected(0))]);
        assert!(token_logprob(&logits, 0, 0).top.is_empty());
        assert_eq!(token_logprob(&logits, 0, 9).top.len(), 5);
    }
}
