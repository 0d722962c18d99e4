//! The batches that may take the most memory of a run.

use super::job::TrainJob;
use super::keep::LONGEST_DENSE;
use crate::attention::Attention;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::data::sampler::BatchLimit;
use crate::error::Result;

/// A batch with attentions of steps on it.
pub(super) struct LargestBatch {
    pub(super) batch: Batch,
    pub(super) attentions: Vec<Attention>,
}

impl TrainJob {
    /// The batches of which one takes the most memory of a run on these examples, each truncated to
    /// `max_length` tokens, under the attentions of its steps; `attention` is the job's own. The first
    /// one is the largest of all. Steps without its long examples may attend in other ways
    /// ([`Draws::usual`](super::keep::Draws::usual)): the second one is the largest of these, with the
    /// attentions that the first one does not have. Empty without examples.
    pub(super) fn largest_batches<'e>(
        &self,
        attention: Attention,
        examples: impl IntoIterator<Item = &'e Example>,
        limit: BatchLimit,
        max_length: usize,
    ) -> Result<Vec<LargestBatch>> {
        let mut examples: Vec<&Example> = examples.into_iter().collect();
        let length = |e: &&Example| e.longest().min(max_length);
        let mut all: Vec<LargestBatch> = Vec::new();
        for bound in [usize::MAX, LONGEST_DENSE] {
            examples.retain(|e| length(e) <= bound);
            let Some(longest) = examples.iter().map(length).max() else { break };
            let mut attentions: Vec<Attention> =
                self.attentions(attention, longest)?.into_iter().map(|(attention, _)| attention).collect();
            attentions.retain(|attention| all.iter().all(|larger| !larger.attentions.contains(attention)));
            if !attentions.is_empty() {
                let batch = Batch::largest(examples.iter().copied(), limit, max_length);
                all.push(LargestBatch { batch, attentions });
            }
        }
        Ok(all)
    }
}
