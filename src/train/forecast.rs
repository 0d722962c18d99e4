//! Forecasts the device memory of a run by purpose, and the time of its steps, before the first one.

use std::time::Instant;

use super::job_data::{lengths_of, statistics_of};
use super::planned::Forecast;
use super::trainer::Trainer;
use crate::attention::Attention;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::data::sampler::Sampler;
use crate::error::Result;
use crate::gpu::{Executor, available_host_bytes};

/// Steps of an epoch that draw from one list of r.
struct AlikeSteps {
    /// The attentions of the steps with the share of each.
    attentions: Vec<(Attention, f64)>,
    /// Tokens of all these steps.
    tokens: usize,
    /// The examples of the first one, by batch.
    first: Vec<Vec<usize>>,
}

impl Trainer {
    /// Forecasts a run on these examples. With `measures`, computes the gradients of first steps, once
    /// for each r that such steps have, and changes nothing that is trained.
    pub fn forecast(&mut self, device: &mut dyn Executor, examples: &[Example], measures: bool) -> Result<Forecast> {
        let memory = self.planned(device, examples)?;
        let held = device.memory();
        // The system counts the pages of files as free already.
        let loaded = held.persistent_bytes - held.mapped_bytes;
        let available_bytes = device.runs_references().then(available_host_bytes).flatten().map(|free| free + loaded);
        let data = statistics_of(&self.job, self.attention, examples)?;
        let sampler = self.job.sampler(lengths_of(examples))?;
        let steps = self.job.total_steps(&sampler);
        let tokens_per_step = data.tokens as f64 / data.steps as f64;
        let seconds_per_step = match measures {
            true => Some(self.seconds_per_token(device, examples, sampler)? * tokens_per_step),
            false => None,
        };
        Ok(Forecast { memory, available_bytes, chunk: self.chunk(), data, steps, tokens_per_step, seconds_per_step })
    }

    /// Mean seconds of a token of the first epoch. Measures the first step of those that draw from one
    /// list of r, for each such list ([`Draws::usual`](super::keep::Draws::usual)).
    fn seconds_per_token(
        &mut self,
        device: &mut dyn Executor,
        examples: &[Example],
        mut sampler: Sampler,
    ) -> Result<f64> {
        let mut groups: Vec<AlikeSteps> = Vec::new();
        for _ in 0..sampler.steps_of(1) {
            let first = sampler.next_step();
            let chosen = || first.iter().flatten().map(|&i| &examples[i]);
            let longest = chosen().map(Example::longest).max().unwrap_or(0);
            let tokens = chosen().map(Example::n_tokens).sum();
            let attentions = self.job.attentions(self.attention, longest)?;
            match groups.iter_mut().find(|group| group.attentions == attentions) {
                Some(group) => group.tokens += tokens,
                None => groups.push(AlikeSteps { attentions, tokens, first }),
            }
        }
        let (mut seconds, mut tokens) = (0.0, 0);
        for group in groups {
            let batch = |micro: &Vec<usize>| Batch::new(micro.iter().map(|&i| &examples[i]));
            let batches: Vec<Batch> = group.first.iter().map(batch).collect();
            let measured: usize = batches.iter().map(|b| b.ids.len()).sum();
            let of_first = self.measured_seconds(device, &batches, &group.attentions)?;
            seconds += of_first / measured as f64 * group.tokens as f64;
            tokens += group.tokens;
        }
        Ok(seconds / tokens as f64)
    }

    /// Seconds of the gradients of a step, a mean over attentions with the share of each. The second
    /// time counts where the first is short, because it compiles kernels.
    fn measured_seconds(
        &mut self,
        device: &mut dyn Executor,
        batches: &[Batch],
        attentions: &[(Attention, f64)],
    ) -> Result<f64> {
        const SHORT: f64 = 5.0;
        let mut measure = |attention| -> Result<f64> {
            let start = Instant::now();
            self.stepper.run_gradients(device, &mut self.loaded, batches, attention, None)?;
            device.wait()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let mut mean = 0.0;
        for &(attention, share) in attentions {
            let first = measure(attention)?;
            mean += share * if first < SHORT { measure(attention)? } else { first };
        }
        Ok(mean)
    }
}
