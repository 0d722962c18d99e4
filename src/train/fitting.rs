//! Finds the nearest settings that fit where a job does not, for the message that refuses it.

use std::fmt::Write;

use super::chunk_length::ChunkLength;
use super::job_data::{lengths_of, longest_of};
use super::trainer::Trainer;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::weight_names::weights;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::data::long::Long;
use crate::data::sampler::BatchLimit;
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
    batch: Limited,
    max_length: Option<usize>,
}

/// A limit of a batch, and batches per step with which a step has as much as before.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limited {
    limit: BatchLimit,
    accumulate: usize,
}

impl Trainer {
    /// The settings nearest to the job's with which the largest batch of these examples fits, in
    /// words; `None` if none of them does. Tries, in this order, recomputation, shorter chunks, smaller
    /// batches with all of these, and last shorter examples. Plans each and computes nothing.
    pub(super) fn nearest_that_fits(&mut self, device: &mut dyn Executor, examples: &[Example]) -> Option<String> {
        let (recompute, chunk) = (self.job.recompute, self.stepper.chunk());
        let lengths = lengths_of(examples);
        let found = self.candidates_of_all(examples, &lengths).into_iter().find(|s| self.fits(device, examples, s));
        self.stepper.set_recompute(recompute);
        self.stepper.set_chunk(chunk);
        Some(self.in_words(&found?, self.job.batch_limit(&lengths))).filter(|said| !said.is_empty())
    }

    fn candidates_of_all(&self, examples: &[Example], lengths: &[usize]) -> Vec<Settings> {
        let batches = self.smaller_batches(lengths);
        let mut all = Vec::new();
        for &batch in &batches {
            let chunks = self.shorter_chunks(Batch::largest(examples, batch.limit, usize::MAX).ids.len());
            let own = (!self.job.recompute).then_some(false);
            for recompute in own.into_iter().chain([true]) {
                all.extend(chunks.iter().map(|&chunk| Settings { recompute, chunk, batch, max_length: None }));
            }
        }
        let longest = longest_of(examples);
        let chunk = self.shorter_chunks(longest).last().copied().flatten();
        let lengths = (1..).map(|eighths| longest * (8 - eighths) / 8).take(7).chain([longest / 16, longest / 32]);
        let overlap = self.job.overlap.unwrap_or(0);
        all.extend(lengths.filter(|&n| n >= SHORTEST && n >= 2 * overlap).map(|n| {
            let mut batch = batches[batches.len() - 1];
            if let BatchLimit::Tokens(most) = &mut batch.limit {
                *most = examples.iter().map(|e| e.tokens_within(n)).fold(0, usize::max).min(*most);
            }
            Settings { recompute: true, chunk, batch, max_length: Some(n) }
        }));
        all
    }

    /// The job's own limit of a batch, and halves of it, down to the longest example alone.
    fn smaller_batches(&self, lengths: &[usize]) -> Vec<Limited> {
        let own = self.job.batch_limit(lengths);
        let (all, least) = match own {
            BatchLimit::Examples(n) => (n.min(lengths.len()), 1),
            BatchLimit::Tokens(n) => (n.min(lengths.iter().sum()), lengths.iter().copied().fold(1, usize::max)),
        };
        let smaller = |n: usize| Limited {
            limit: match own {
                BatchLimit::Examples(_) => BatchLimit::Examples(n),
                BatchLimit::Tokens(_) => BatchLimit::Tokens(n),
            },
            accumulate: self.job.accumulate.saturating_mul(all.div_ceil(n)),
        };
        let halves = std::iter::successors(Some(all / 2), |n| Some(n / 2)).take_while(|&n| n > least);
        let halves = halves.chain((least < all).then_some(least)).map(smaller);
        std::iter::once(Limited { limit: own, accumulate: self.job.accumulate }).chain(halves).collect()
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
        // A run leaves out what has nothing to learn once it is cut.
        let kept = examples.iter().filter(|e| settings.max_length.is_none() || e.trains_within(most));
        let largest = self.job.largest_batches(self.attention, kept, settings.batch.limit, most);
        let Ok(largest) = largest else { return false };
        !largest.is_empty() && largest.iter().all(|largest| self.check(device, largest).is_ok())
    }

    /// What differs from the job, whose batches have the limit `own`.
    fn in_words(&self, settings: &Settings, own: BatchLimit) -> String {
        let mut said = Vec::new();
        if settings.recompute && !self.job.recompute {
            said.push("`recompute`".to_string());
        }
        if let (Some(chunk), true) = (settings.chunk, self.job.chunk != ChunkLength::Auto)
            && settings.chunk != self.job.chunk.given()
        {
            said.push(format!("`chunk` {chunk}"));
        }
        let Limited { limit, accumulate } = settings.batch;
        match limit {
            _ if limit == own => {}
            BatchLimit::Examples(n) => said.push(format!("`batch_size` {n} with `accumulate` {accumulate}")),
            BatchLimit::Tokens(n) => said.push(format!("`batch_tokens` {n} with `accumulate` {accumulate}")),
        }
        match (settings.max_length, self.job.long) {
            (None, _) => {}
            (Some(n), Long::Whole) => said.push(format!("`max_length` {n} with `long` cut")),
            (Some(n), _) => said.push(format!("`max_length` {n}")),
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
    if files.source.dtype("model.embed_tokens.weight").is_some_and(DType::is_quantised) {
        return e.context("the weights do not fit, and they are quantised: use a smaller model");
    }
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
