//! Generates a model's answers to questions under several attention policies.

use std::ops::ControlFlow;

use super::policy::Policy;
use super::report::Outcome;
use super::sample::{Sample, Task};
use crate::attention::Attention;
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Context, Error, Result};
use crate::generate::{GenerateRequest, Generated, Queue, Session};
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
    /// Maximum number of answers to generate at once, at least 1. There are fewer where the device is
    /// known to lack the memory for so many caches.
    pub batch: usize,
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
        let is_own = self.max_positions == self.files.config().max_positions;
        Err(Error::usage(format!(
            "{n} tokens exceed the {} positions that the model allows: ask for shorter texts, or {}",
            self.max_positions,
            self.files.length_advice(n, is_own)
        )))
    }

    /// The token that every window of a text begins with: BOS, if the tokenizer puts it in front of
    /// texts and this one begins with it.
    pub(super) fn bos_of(&self, ids: &[u32]) -> Option<u32> {
        let bos = self.files.tokenizer().ok()?.added_bos();
        bos.filter(|bos| ids.first() == Some(bos))
    }

    /// A request for the greedy continuation of a prompt.
    pub(super) fn request<'r>(
        &self,
        prompt_ids: &'r [u32],
        attention: Attention,
        max_tokens: usize,
        stop: &'r [u32],
    ) -> GenerateRequest<'r> {
        GenerateRequest { attention, chunk: self.chunk, stop, ..GenerateRequest::greedy(prompt_ids, max_tokens) }
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

    /// The prefix that a policy reads once for all samples. `None` if they share none, or if the
    /// attention depends on the prompt's length, as for window controls.
    fn prefix(&self, attentions: &[Attention]) -> Option<Prefix> {
        if self.n_shared == 0 || attentions.iter().any(|a| *a != attentions[0]) {
            return None;
        }
        let room = self.ids.iter().zip(self.samples).map(|(ids, sample)| ids.len() + sample.max_tokens).max();
        Some(Prefix { n: self.n_shared, capacity: room.unwrap_or(0) })
    }
}

/// A prefix of prompts that is read once.
#[derive(Clone, Copy)]
struct Prefix {
    /// Its tokens.
    n: usize,
    /// Tokens of the longest prompt with its answer.
    capacity: usize,
}

/// A sample to answer under one policy.
struct Item {
    /// Index of the sample and of the policy.
    sample: usize,
    policy: usize,
    attention: Attention,
    /// The prefix, and a number that its readers share.
    prefix: Option<(usize, Prefix)>,
}

/// Every sample under every policy, in the order in which they are answered: groups, policies,
/// samples.
fn items(samples: &[Sample], ids: &[Vec<u32>], policies: &[Policy]) -> Result<Vec<Item>> {
    let mut items = Vec::with_capacity(samples.len() * policies.len());
    let mut first = 0;
    while first < samples.len() {
        let group = Group::first(&samples[first..], &ids[first..]);
        for (policy, of) in policies.iter().enumerate() {
            let attentions = group.ids.iter().map(|ids| of.attention(ids.len())).collect::<Result<Vec<_>>>()?;
            let prefix = group.prefix(&attentions).map(|prefix| (items.len(), prefix));
            let item = |(i, attention)| Item { sample: first + i, policy, attention, prefix };
            items.extend(attentions.into_iter().enumerate().map(item));
        }
        first += group.samples.len();
    }
    Ok(items)
}

/// Opens the sessions of items, and keeps the prefix that the last one shares with others.
struct Reader<'a> {
    items: &'a [Item],
    requests: &'a [GenerateRequest<'a>],
    /// The number of a prefix, and the session that has read it.
    read: Option<(usize, Session)>,
}

impl Reader<'_> {
    fn open(&mut self, device: &mut dyn Executor, model: &mut Llama, i: usize) -> Result<Session> {
        let (item, request) = (&self.items[i], &self.requests[i]);
        let Some((number, prefix)) = item.prefix else {
            self.read = None;
            return request.session(device, model);
        };
        let new = |device: &mut dyn Executor, model: &mut Llama| {
            let (attention, capacity, chunk) = (item.attention, prefix.capacity, request.chunk);
            Session::new(device, model, attention, capacity, chunk, Sampling::default(), 0)
        };
        let read = match &mut self.read {
            Some((of, read)) if *of == number => read,
            other => {
                *other = None; // its memory is free for the next one
                let mut read = new(device, model)?;
                read.feed(device, model, &request.prompt_ids[..prefix.n])?;
                &mut other.insert((number, read)).1
            }
        };
        let mut session = new(device, model)?;
        session.copy_from(device, read)?;
        Ok(session)
    }
}

/// Greedy answers to every sample under every policy, [`Subject::batch`] at once. Reads a shared
/// prefix of consecutive prompts once per policy. If `watch` breaks, returns the answers to the
/// samples that every policy has answered by then.
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
    let items = items(samples, &ids, policies)?;
    let stop = subject.files.stop.ids();
    let request =
        |item: &Item| subject.request(&ids[item.sample], item.attention, samples[item.sample].max_tokens, stop);
    let requests: Vec<_> = items.iter().map(request).collect();
    let name = |i: usize| format!("{}, {}", samples[items[i].sample].id, policies[items[i].policy].name());
    // By sample and policy.
    let mut found: Vec<Option<Outcome>> = vec![None; items.len()];
    let mut done = 0;
    let mut on_done = |i: usize, got: Generated| {
        let Item { sample, policy, attention, .. } = items[i];
        let outcome = outcome(task, &samples[sample], &policies[policy], (ids[sample].len(), attention), &got);
        found[sample * policies.len() + policy] = Some(outcome);
        done += 1;
        watch(done, items.len())
    };
    let mut reader = Reader { items: &items, requests: &requests, read: None };
    let queue =
        Queue { tokenizer: Some(subject.files.tokenizer()?), requests: &requests, name: &name, most: subject.batch };
    queue.run(subject.device, subject.model, &mut |device, model, i| reader.open(device, model, i), &mut on_done)?;
    let whole = found.chunks(policies.len().max(1)).filter(|answers| answers.iter().all(Option::is_some));
    Ok(whole.flatten().flatten().cloned().collect())
}

/// The outcome of an answer.
fn outcome(
    task: Task,
    sample: &Sample,
    policy: &Policy,
    (prompt_tokens, attention): (usize, Attention),
    got: &Generated,
) -> Outcome {
    let answer = got.text.trim().to_string();
    Outcome {
        attention: policy.name().to_string(),
        id: sample.id.clone(),
        document: sample.document.clone(),
        length: sample.length,
        depth: sample.depth,
        scores: task.score(&answer, &sample.answers).to_vec(),
        answer,
        expected: sample.answers.clone(),
        prompt_tokens,
        kv_entries: attention.cache_length(prompt_tokens),
    }
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
