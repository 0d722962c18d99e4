//! Finds the nearest settings that fit where a job does not, for the message that refuses it.

use std::fmt::Write;

use super::chunk_length::ChunkLength;
use super::trainer::Trainer;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::weight_names::weights;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::error::{Error, ErrorKind};
use crate::formats::dtype::DType;
use crate::gpu::{Executor, available_host_bytes};

/// Shorter examples than this are not proposed.
const SHORTEST: usize = 64;

/// Settings to try in place of the job's.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Settings {
    recompute: bool,
    chunk: Option<usize>,
    batch_size: usize,
    max_length: Option<usize>,
}

impl Trainer {
    /// The settings nearest to the job's with which the largest batch of these examples fits, in
    /// words; `None` if none of them does. Tries, in this order, recomputation, shorter chunks, smaller
    /// batches with all of these, and last shorter examples. Plans each and computes nothing.
    pub(super) fn nearest_that_fits(&mut self, device: &mut dyn Executor, examples: &[Example]) -> Option<String> {
        let longest = examples.iter().map(|e| e.ids.len()).max()?;
        let (recompute, chunk) = (self.job.recompute, self.stepper.chunk());
        let found = self.candidates_of_all(examples, longest).into_iter().find(|s| self.fits(device, examples, s));
        self.stepper.set_recompute(recompute);
        self.stepper.set_chunk(chunk);
        Some(self.in_words(&found?)).filter(|said| !said.is_empty())
    }

    fn candidates_of_all(&self, examples: &[Example], longest: usize) -> Vec<Settings> {
        let sizes = std::iter::successors(Some(self.job.batch_size.min(examples.len())), |n| Some(n / 2));
        let mut all = Vec::new();
        for batch_size in sizes.take_while(|&n| n > 0) {
            let chunks = self.shorter_chunks(longest * batch_size);
            for recompute in [self.job.recompute, true] {
                all.extend(chunks.iter().map(|&chunk| Settings { recompute, chunk, batch_size, max_length: None }));
            }
        }
        let shortest = self.shorter_chunks(longest).last().copied().flatten();
        let lengths = (1..).map(|eighths| longest * (8 - eighths) / 8).take(7).chain([longest / 16, longest / 32]);
        let of_length = |n: usize| Settings { recompute: true, chunk: shortest, batch_size: 1, max_length: Some(n) };
        all.extend(lengths.filter(|&n| n >= SHORTEST).map(of_length));
        all
    }

    /// The job's own way to cut a batch of this many tokens, and shorter chunks.
    fn shorter_chunks(&self, n_tokens: usize) -> Vec<Option<usize>> {
        let own = self.job.chunk.given();
        let shorter = |c: &Option<usize>| own.is_none_or(|own| c.is_some_and(|c| c < own));
        let auto = self.chunks_of(ChunkLength::Auto, n_tokens).into_iter().filter(shorter);
        let mut all: Vec<Option<usize>> = std::iter::once(own).chain(auto).collect();
        all.dedup();
        all
    }

    fn fits(&mut self, device: &mut dyn Executor, examples: &[Example], settings: &Settings) -> bool {
        self.stepper.set_recompute(settings.recompute);
        self.stepper.set_chunk(settings.chunk);
        let most = settings.max_length.unwrap_or(usize::MAX);
        let cut = |e: &Example| Example {
            ids: e.ids[..e.ids.len().min(most)].to_vec(),
            labels: e.labels[..e.labels.len().min(most)].to_vec(),
        };
        let mut longest: Vec<&Example> = examples.iter().collect();
        longest.sort_by_key(|e| std::cmp::Reverse(e.ids.len()));
        let batch = Batch::new(&longest.into_iter().take(settings.batch_size).map(cut).collect::<Vec<_>>());
        if batch.n_targets == 0 && settings.max_length.is_some() {
            return false; // what is left has nothing to learn
        }
        let Ok(extremes) = self.job.extremes(self.attention) else { return false };
        extremes.iter().all(|&attention| self.stepper.check(device, &mut self.loaded, &batch, attention).is_ok())
    }

    fn in_words(&self, settings: &Settings) -> String {
        let mut said = Vec::new();
        if settings.recompute && !self.job.recompute {
            said.push("`recompute`".to_string());
        }
        if let (Some(chunk), true) = (settings.chunk, self.job.chunk != ChunkLength::Auto)
            && settings.chunk != self.job.chunk.given()
        {
            said.push(format!("`chunk` {chunk}"));
        }
        if settings.batch_size < self.job.batch_size {
            let accumulate = self.job.accumulate * self.job.batch_size.div_ceil(settings.batch_size);
            said.push(format!("`batch_size` {} with `accumulate` {accumulate}", settings.batch_size));
        }
        if let Some(n) = settings.max_length {
            said.push(format!("`max_length` {n}"));
        }
        said.join(", ")
    }
}

/// Adds to the error of a model that does not fit what its weights take, and what they would take
/// quantised.
pub(super) fn with_weights(e: Error, files: &ModelFiles, device: &dyn Executor) -> Error {
    if e.kind() != ErrorKind::OutOfMemory {
        return e;
    }
    let config = files.config();
    let elements = |n: usize| {
        weights(config).iter().filter(|w| w.shape.len() == n).map(|w| w.shape.iter().product::<usize>()).sum::<usize>()
    };
    let (matrices, vectors) = (elements(2), elements(1));
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let of = |dtype: DType| mib(matrices / dtype.block_len() * dtype.block_bytes() + 4 * vectors);
    let available = device.runs_references().then(available_host_bytes).flatten();
    let mut said = format!(
        "the weights do not fit; quantised they would take about {:.0} MiB as q8_0 and {:.0} MiB as q4_k_m",
        of(DType::Q8_0),
        of(DType::Q5_0)
    );
    if let Some(bytes) = available {
        _ = write!(said, ", and {:.0} MiB are free", mib(bytes as usize));
    }
    e.context(said + ": train an adapter on a GGUF file of the model")
}
