//! A model answers questions under several attentions.

use std::ops::ControlFlow;

use super::policy::Policy;
use super::report::Outcome;
use super::sample::{Sample, Task};
use crate::attention::Attention;
use crate::data::model_files::ModelFiles;
use crate::error::{Context, Error, Result};
use crate::generate::{GenerateRequest, Generated, NewToken, generate};
use crate::gpu::Executor;
use crate::kernels::sample::Sampling;
use crate::model::llama::Llama;

/// Who is asked.
pub struct Subject<'a> {
    pub device: &'a mut dyn Executor,
    pub model: &'a mut Llama,
    pub files: &'a ModelFiles,
    /// Prompt tokens fed at once.
    pub chunk: usize,
    /// Ask as a user in the model's chat template, where it has one.
    pub chat: bool,
    /// Longest sequence that is allowed.
    pub max_positions: usize,
}

/// What is told after each sample: how many are done, of how many. Breaking ends the evaluation.
pub type Watch<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Tells a watcher, and fails where it ends an evaluation that is not done.
pub(super) fn tell(watch: &mut Watch<'_>, done: usize, total: usize) -> Result<()> {
    if watch(done, total).is_break() && done < total {
        return Err(Error::new("the evaluation was stopped"));
    }
    Ok(())
}

impl Subject<'_> {
    /// Refuses a sequence that the model was not made for.
    pub(super) fn check_length(&self, n: usize) -> Result<()> {
        if n <= self.max_positions {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{n} tokens exceed the {} positions that the model allows: ask for shorter texts, or lift the limit with \
             --max-positions {n} (RoPE stays unchanged)",
            self.max_positions
        )))
    }

    /// The likeliest tokens after a prompt, with their text.
    pub(super) fn generate(
        &mut self,
        prompt_ids: &[u32],
        attention: Attention,
        max_tokens: usize,
        stop: &[u32],
    ) -> Result<Generated> {
        let (sampling, chunk) = (Sampling::default(), self.chunk);
        let request = GenerateRequest { prompt_ids, max_tokens, sampling, attention, chunk, stop, seed: 0 };
        let tokenizer = self.files.tokenizer()?;
        let mut silent = |_: NewToken<'_>| ControlFlow::Continue(());
        generate(self.device, self.model, Some(tokenizer), &request, &mut silent)
    }
}

/// The greedy answer to every sample under every policy.
pub fn answer_all(
    subject: &mut Subject<'_>,
    task: Task,
    samples: &[Sample],
    policies: &[Policy],
    watch: &mut Watch<'_>,
) -> Result<Vec<Outcome>> {
    let total = samples.len() * policies.len();
    let mut outcomes = Vec::with_capacity(total);
    for sample in samples {
        let ids = subject.files.prompt_ids(&sample.prompt, subject.chat)?;
        for policy in policies {
            let outcome = answer(subject, task, sample, &ids, policy);
            outcomes.push(outcome.with_context(|| format!("{}, {}", sample.id, policy.name()))?);
            tell(watch, outcomes.len(), total)?;
        }
    }
    Ok(outcomes)
}

fn answer(subject: &mut Subject<'_>, task: Task, sample: &Sample, ids: &[u32], policy: &Policy) -> Result<Outcome> {
    subject.check_length(ids.len() + sample.max_tokens)?;
    let attention = policy.attention(ids.len())?;
    let got = subject.generate(ids, attention, sample.max_tokens, subject.files.stop.ids())?;
    let answer = got.text.trim().to_string();
    Ok(Outcome {
        attention: policy.name().to_string(),
        id: sample.id.clone(),
        length: sample.length,
        depth: sample.depth,
        scores: task.score(&answer, &sample.answers).to_vec(),
        answer,
        expected: sample.answers.clone(),
        prompt_tokens: ids.len(),
        kv_entries: attention.cache_length(ids.len()),
    })
}
