//! Forecasts the device memory of a run by purpose, and the time of its steps, before the first one.

use std::time::Instant;

use super::job_data::{lengths_of, longest_of, statistics_of};
use super::planned::Forecast;
use super::trainer::Trainer;
use crate::attention::Attention;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::error::Result;
use crate::gpu::{Executor, available_host_bytes};

impl Trainer {
    /// Forecasts a run on these examples. With `measures`, computes the gradients of the first step, once
    /// for each r that steps have, and changes nothing that is trained.
    pub fn forecast(&mut self, device: &mut dyn Executor, examples: &[Example], measures: bool) -> Result<Forecast> {
        let memory = self.planned(device, examples)?;
        let held = device.memory();
        // The system counts the pages of files as free already.
        let loaded = held.persistent_bytes - held.mapped_bytes;
        let available_bytes = device.runs_references().then(available_host_bytes).flatten().map(|free| free + loaded);
        let data = statistics_of(&self.job, self.attention, examples)?;
        let mut sampler = self.job.sampler(lengths_of(examples))?;
        let steps = self.job.total_steps(&sampler);
        let tokens_per_step = data.tokens as f64 / data.steps as f64;
        let seconds_per_step = if measures {
            let chosen = sampler.next_step();
            let batches: Vec<Batch> =
                chosen.iter().map(|micro| Batch::new(micro.iter().map(|&i| &examples[i]))).collect();
            let measured: usize = batches.iter().map(|b| b.ids.len()).sum();
            let attentions = self.job.attentions(self.attention, longest_of(examples))?;
            Some(self.measured_seconds(device, &batches, &attentions)? * tokens_per_step / measured as f64)
        } else {
            None
        };
        Ok(Forecast { memory, available_bytes, chunk: self.chunk(), data, steps, tokens_per_step, seconds_per_step })
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
