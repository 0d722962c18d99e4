//! Agreement of greedy continuations with the compressed and with the dense cache.
//!
//! It measures whether the first token is the same, and for how many tokens both continuations
//! agree.

use std::ops::ControlFlow;

use super::answer::{Subject, Watch};
use super::policy::Policy;
use super::report::Outcome;
use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::generate::{Generated, Queue};
use crate::gpu::Executor;
use crate::model::llama::Llama;

/// Settings of the measurement.
#[derive(Clone, Debug)]
pub struct AgreementRequest<'a> {
    /// The text; the prompts are windows of it. If the tokenizer puts BOS in front of texts, it takes
    /// the place of the first token of a prompt within the text.
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

/// Compares every policy with dense attention on every prompt, [`Subject::batch`] continuations at
/// once. If `watch` breaks, returns the outcomes of the prompts that are done.
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
    let prompts = prompts(request, subject.bos_of(ids));
    let attentions = policies.iter().map(|policy| policy.attention(length)).collect::<Result<Vec<_>>>()?;
    // The dense continuation of each prompt, then those of the other attentions.
    let others: Vec<usize> = (0..policies.len()).filter(|&p| attentions[p] != Attention::Dense).collect();
    let of_prompt = || std::iter::once(None).chain(others.iter().map(|&p| Some(p)));
    let items: Vec<(usize, Option<usize>)> = (0..n_samples).flat_map(|i| of_prompt().map(move |p| (i, p))).collect();
    let request = |&(i, policy): &(usize, Option<usize>)| {
        let attention = policy.map_or(Attention::Dense, |p| attentions[p]);
        subject.request(&prompts[i], attention, n_continued, &[])
    };
    let requests: Vec<_> = items.iter().map(request).collect();
    let name = |i: usize| {
        let (prompt, policy) = items[i];
        format!("{}, {}", id(length, prompt), policy.map_or("dense", |p| policies[p].name()))
    };
    let mut continued = vec![Continued { dense: None, others: vec![None; policies.len()] }; n_samples];
    let mut done = 0;
    let mut on_done = |i: usize, got: Generated| {
        let (prompt, policy) = items[i];
        let of = &mut continued[prompt];
        let before = of.n_compared(&attentions);
        *policy.map_or(&mut of.dense, |p| &mut of.others[p]) = Some(got.ids);
        let new = of.n_compared(&attentions) - before;
        done += new;
        if new == 0 { ControlFlow::Continue(()) } else { watch(done, n_samples * policies.len()) }
    };
    let queue = Queue { tokenizer: None, requests: &requests, name: &name, most: subject.batch };
    let mut open = |device: &mut dyn Executor, model: &mut Llama, i: usize| requests[i].session(device, model);
    queue.run(subject.device, subject.model, &mut open, &mut on_done)?;
    let tokenizer = subject.files.tokenizer()?;
    let mut outcomes = Vec::with_capacity(done);
    for (i, of) in continued.iter().enumerate().filter(|(_, of)| of.n_compared(&attentions) == policies.len()) {
        let expected = of.dense.as_deref().unwrap_or_default();
        for ((policy, attention), got) in policies.iter().zip(&attentions).zip(&of.others) {
            let got = got.as_deref().unwrap_or(expected);
            let same = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
            outcomes.push(Outcome {
                attention: policy.name().to_string(),
                document: None,
                id: id(length, i),
                length,
                depth: None,
                answer: tokenizer.decode(got, false)?,
                expected: vec![tokenizer.decode(expected, false)?],
                scores: vec![f64::from(same > 0), same as f64 / n_continued as f64],
                prompt_tokens: length,
                kv_entries: attention.cache_length(length),
            });
        }
    }
    Ok(outcomes)
}

/// The prompts, of which those within the text begin with `bos`, if there is one.
fn prompts(request: &AgreementRequest<'_>, bos: Option<u32>) -> Vec<Vec<u32>> {
    let AgreementRequest { ids, length, n_samples, .. } = *request;
    let prompt = |i: usize| {
        let start = (ids.len() - length) * i / n_samples;
        let mut prompt = ids[start..][..length].to_vec();
        if let Some(bos) = bos {
            prompt[0] = bos;
        }
        prompt
    };
    (0..n_samples).map(prompt).collect()
}

/// Name of a prompt.
fn id(length: usize, prompt: usize) -> String {
    format!("agreement-{length}-{prompt}")
}

/// The continuations of one prompt so far.
#[derive(Clone)]
struct Continued {
    dense: Option<Vec<u32>>,
    /// By policy; `None` for dense policies.
    others: Vec<Option<Vec<u32>>>,
}

impl Continued {
    /// The number of policies whose continuation can be compared with the dense one.
    fn n_compared(&self, attentions: &[Attention]) -> usize {
        let is_there =
            |(attention, got): &(&Attention, &Option<Vec<u32>>)| **attention == Attention::Dense || got.is_some();
        if self.dense.is_none() { 0 } else { attentions.iter().zip(&self.others).filter(is_there).count() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_within_a_text_begin_with_its_bos() {
        let ids = [1, 12, 13, 14, 15, 16, 17, 18, 19];
        let request = AgreementRequest { ids: &ids, length: 3, n_samples: 3, n_continued: 1 };
        assert_eq!(prompts(&request, None), [[1, 12, 13], [13, 14, 15], [15, 16, 17]]);
        assert_eq!(prompts(&request, Some(1)), [[1, 12, 13], [1, 14, 15], [1, 16, 17]]);
    }
}
