//! Agreement of greedy continuations with the compressed and with the dense cache.
//!
//! It measures whether the first token is the same, and for how many tokens both continuations
//! agree.

use super::answer::{Subject, Watch};
use super::policy::Policy;
use super::report::Outcome;
use crate::attention::Attention;
use crate::error::{Error, Result};

/// Settings of the measurement.
#[derive(Clone, Debug)]
pub struct AgreementRequest<'a> {
    /// The text; the prompts are windows of it.
    pub ids: &'a [u32],
    /// Tokens of a prompt.
    pub length: usize,
    /// Number of prompts, spaced evenly over the text.
    pub n_samples: usize,
    /// Tokens of a continuation.
    pub n_continued: usize,
}

/// Names of the metrics: whether the first token is the same, and the fraction of the continuation
/// before the first difference.
pub const METRICS: [&str; 2] = ["first token", "continuation"];

/// Compares every policy with dense attention on every prompt. If `watch` breaks, returns the
/// outcomes of the prompts that are done.
pub fn agreement(
    subject: &mut Subject<'_>,
    request: &AgreementRequest<'_>,
    policies: &[Policy],
    watch: &mut Watch<'_>,
) -> Result<Vec<Outcome>> {
    let AgreementRequest { ids, length, n_samples, n_continued } = *request;
    if length == 0 || n_samples == 0 || n_continued == 0 {
        return Err(Error::usage(
            "the number of prompts, their length and the length of a continuation must be at least 1",
        ));
    }
    if ids.len() < length {
        return Err(Error::usage(format!("the text has {} tokens, fewer than a prompt of {length}", ids.len())));
    }
    subject.check_length(length + n_continued)?;
    let total = n_samples * policies.len();
    let mut outcomes = Vec::with_capacity(total);
    for i in 0..n_samples {
        let start = (ids.len() - length) * i / n_samples;
        let prompt = &ids[start..start + length];
        let expected = subject.generate(prompt, Attention::Dense, n_continued, &[], None)?.ids;
        for policy in policies {
            let attention = policy.attention(length)?;
            let got = match attention {
                Attention::Dense => expected.clone(),
                _ => subject.generate(prompt, attention, n_continued, &[], None)?.ids,
            };
            let same = got.iter().zip(&expected).take_while(|(a, b)| a == b).count();
            let tokenizer = subject.files.tokenizer()?;
            outcomes.push(Outcome {
                attention: policy.name().to_string(),
                document: None,
                id: format!("agreement-{length}-{i}"),
                length,
                depth: None,
                answer: tokenizer.decode(&got, false)?,
                expected: vec![tokenizer.decode(&expected, false)?],
                scores: vec![f64::from(same > 0), same as f64 / n_continued as f64],
                prompt_tokens: length,
                kv_entries: attention.cache_length(length),
            });
            if watch(outcomes.len(), total).is_break() {
                outcomes.truncate(outcomes.len() / policies.len() * policies.len());
                return Ok(outcomes);
            }
        }
    }
    Ok(outcomes)
}
