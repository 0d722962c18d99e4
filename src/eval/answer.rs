//! Generates a model's answers to questions under several attention policies.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::policy::Policy;
use super::report::Outcome;
use super::sample::{Sample, Task};
use crate::attention::Attention;
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Context, Error, Result};
use crate::generate::{GenerateRequest, Generated, NewToken, Session, generate, generate_from};
use crate::gpu::Executor;
use crate::kernels::sample::Sampling;
use crate::model::llama::Llama;

/// The model under evaluation.
pub struct Subject<'a> {
    pub device: &'a mut dyn Executor,
    pub model: &'a mut Llama,
    pub files: &'a ModelFiles,
    /// Prompt tokens per prefill chunk.
    pub chunk: usize,
    /// Format prompts as user messages if the model has a chat template.
    pub chat: bool,
    /// Longest allowed sequence.
    pub max_positions: usize,
}

/// Progress callback after each sample: samples done and in total. Breaking ends the evaluation, which
/// then returns what it has for every policy alike.
pub type Watch<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

impl Subject<'_> {
    /// Fails for a sequence longer than the model supports.
    pub(super) fn check_length(&self, n: usize) -> Result<()> {
        if n <= self.max_positions {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{n} tokens exceed the {} positions that the model allows: ask for shorter texts, or lift the limit with \
             `max_positions` {n} (RoPE stays unchanged)",
            self.max_positions
        )))
    }

    /// Greedy continuation of a prompt, with its text. If given, `session` already contains the
    /// start of the prompt.
    pub(super) fn generate(
        &mut self,
        prompt_ids: &[u32],
        attention: Attention,
        max_tokens: usize,
        stop: &[u32],
        session: Option<&mut Session>,
    ) -> Result<Generated> {
        let (sampling, chunk) = (Sampling::default(), self.chunk);
        let request =
            GenerateRequest { prompt_ids, max_tokens, sampling, attention, chunk, stop, stop_texts: &[], seed: 0 };
        let tokenizer = Some(self.files.tokenizer()?);
        let mut silent = |_: NewToken<'_>| ControlFlow::Continue(());
        match session {
            Some(session) => {
                generate_from(self.device, self.model, tokenizer, &request, session, &mut |_| {}, &mut silent)
            }
            None => generate(self.device, self.model, tokenizer, &request, &mut silent),
        }
    }
}

/// Consecutive samples whose prompts share a prefix, such as questions about one document.
struct Group<'a> {
    samples: &'a [Sample],
    /// Token ids of their prompts.
    ids: &'a [Vec<u32>],
    /// Length of the shared prefix in tokens; 0 for a single sample.
    n_shared: usize,
}

impl<'a> Group<'a> {
    /// The group of the first sample.
    fn first(samples: &'a [Sample], ids: &'a [Vec<u32>]) -> Self {
        let mut n_shared = ids[0].len();
        let mut n = 1;
        for next in &ids[1..] {
            let common = ids[0].iter().zip(next).take_while(|(a, b)| a == b).count();
            // Exclude the last token of each prompt: it is fed when the answer starts.
            let common = common.min(n_shared).min(ids[0].len().min(next.len()).saturating_sub(1));
            if 2 * common < next.len().max(ids[0].len()) {
                break;
            }
            n_shared = common;
            n += 1;
        }
        Self { samples: &samples[..n], ids: &ids[..n], n_shared: if n == 1 { 0 } else { n_shared } }
    }

    /// A session that has read the shared prefix, and a second session for the answers. `None` if
    /// there is no shared prefix, or if the attention depends on the prompt's length, as for window
    /// controls.
    fn read(&self, subject: &mut Subject<'_>, attentions: &[Attention]) -> Result<Option<(Session, Session)>> {
        if self.n_shared == 0 || attentions.iter().any(|a| *a != attentions[0]) {
            return Ok(None);
        }
        let room = self.ids.iter().zip(self.samples).map(|(ids, sample)| ids.len() + sample.max_tokens).max();
        let (room, chunk) = (room.unwrap_or(0), subject.chunk);
        let Subject { device, model, .. } = subject;
        let mut new = || Session::new(*device, model, attentions[0], room, chunk, Sampling::default(), 0);
        let (mut read, answering) = (new()?, new()?);
        read.feed(*device, model, &self.ids[0][..self.n_shared])?;
        Ok(Some((read, answering)))
    }
}

/// Greedy answers to every sample under every policy. Reads a shared prefix of consecutive prompts
/// once per policy. If `watch` breaks, returns the answers to the samples that every policy has
/// answered by then.
pub fn answer_all(
    subject: &mut Subject<'_>,
    task: Task,
    samples: &[Sample],
    policies: &[Policy],
    watch: &mut Watch<'_>,
) -> Result<Vec<Outcome>> {
    let mut ids = Vec::with_capacity(samples.len());
    for sample in samples {
        ids.push(subject.files.prompt_ids(&sample.prompt, subject.chat)?);
        subject.check_length(ids[ids.len() - 1].len() + sample.max_tokens).with_context(|| sample.id.clone())?;
    }
    let total = samples.len() * policies.len();
    let mut done = 0;
    let is_stopped = Cell::new(false);
    let mut count = || {
        done += 1;
        let flow = watch(done, total);
        is_stopped.set(flow.is_break());
        flow
    };
    let mut outcomes = Vec::with_capacity(total);
    let mut first = 0;
    while first < samples.len() && !is_stopped.get() {
        let group = Group::first(&samples[first..], &ids[first..]);
        let mut by_policy = Vec::with_capacity(policies.len());
        let mut n_whole = group.samples.len();
        for policy in policies {
            let answers = match is_stopped.get() {
                true => Vec::new(),
                false => answers(subject, task, &group, policy, &mut count)?,
            };
            n_whole = n_whole.min(answers.len());
            by_policy.push(answers.into_iter());
        }
        // In order of the samples, as if each had been answered alone.
        for _ in 0..n_whole {
            outcomes.extend(by_policy.iter_mut().filter_map(Iterator::next));
        }
        first += group.samples.len();
    }
    Ok(outcomes)
}

/// Answers to a group's samples under one policy. Ends early if `count` breaks.
fn answers(
    subject: &mut Subject<'_>,
    task: Task,
    group: &Group<'_>,
    policy: &Policy,
    count: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Vec<Outcome>> {
    let attentions = group.ids.iter().map(|ids| policy.attention(ids.len())).collect::<Result<Vec<_>>>()?;
    let mut sessions = group.read(subject, &attentions).with_context(|| group.samples[0].id.clone())?;
    let mut outcomes = Vec::with_capacity(group.samples.len());
    for ((sample, ids), &attention) in group.samples.iter().zip(group.ids).zip(&attentions) {
        let named = || format!("{}, {}", sample.id, policy.name());
        let mut session = None;
        if let Some((read, answering)) = &mut sessions {
            answering.copy_from(subject.device, read).with_context(named)?;
            session = Some(answering);
        }
        let stop = subject.files.stop.ids();
        let got = subject.generate(ids, attention, sample.max_tokens, stop, session).with_context(named)?;
        let answer = got.text.trim().to_string();
        outcomes.push(Outcome {
            attention: policy.name().to_string(),
            id: sample.id.clone(),
            document: sample.document.clone(),
            length: sample.length,
            depth: sample.depth,
            scores: task.score(&answer, &sample.answers).to_vec(),
            answer,
            expected: sample.answers.clone(),
            prompt_tokens: ids.len(),
            kv_entries: attention.cache_length(ids.len()),
        });
        if count().is_break() {
            break;
        }
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_half_of_their_prompts_in_common_are_a_group() {
        let sample = |i: usize| Sample {
            id: i.to_string(),
            document: None,
            prompt: String::new(),
            answers: vec![],
            length: 0,
            depth: None,
            max_tokens: 1,
        };
        let samples: Vec<Sample> = (0..5).map(sample).collect();
        let ids = [vec![1, 2, 3, 4], vec![1, 2, 3, 4, 5], vec![1, 2, 3, 9], vec![1, 7, 8, 9], vec![1, 7, 8, 9]];
        let first = Group::first(&samples, &ids);
        // The first prompt is a prefix of the second, but its last token is not shared.
        assert_eq!((first.samples.len(), first.n_shared), (3, 3));
        let second = Group::first(&samples[3..], &ids[3..]);
        assert_eq!((second.samples.len(), second.n_shared), (2, 3));
        let alone = Group::first(&samples[4..], &ids[4..]);
        assert_eq!((alone.samples.len(), alone.n_shared), (1, 0));
    }
}
