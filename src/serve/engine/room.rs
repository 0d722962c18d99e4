//! What fits into the memory for caches, and what to do about a sequence that does not.

use crate::attention::{Attention, Lrsa};
use crate::error::Result;
use crate::generate::Session;
use crate::model::llama::Llama;
use crate::serve::job::Job;

/// Limits of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineLimits {
    /// Most bytes of the caches of running sequences.
    pub cache_bytes: u64,
    /// Most bytes of stored prefixes.
    pub prefix_bytes: u64,
    /// Most sequences at once.
    pub sequences: usize,
    /// Most tokens of a prompt that are read at once.
    pub step: usize,
}

/// The memory for caches, as a model uses it.
pub struct Room<'m> {
    model: &'m Llama,
    limits: EngineLimits,
}

impl<'m> Room<'m> {
    /// The memory of an engine with these limits.
    pub fn new(model: &'m Llama, limits: &EngineLimits) -> Self {
        Self { model, limits: *limits }
    }

    /// Bytes of a sequence of at most so many tokens.
    fn bytes(&self, attention: Attention, n_tokens: usize) -> Result<u64> {
        Session::n_bytes(self.model, attention, n_tokens, self.limits.step)
    }

    /// Tokens of the longest sequence that takes at most `bytes`, up to `most`.
    fn tokens_in(&self, bytes: u64, attention: Attention, most: usize) -> usize {
        let fits = |n: usize| self.bytes(attention, n).is_ok_and(|needed| needed <= bytes);
        let (mut fitting, mut beyond) = (0, most.saturating_add(1));
        while beyond - fitting > 1 {
            let middle = fitting + (beyond - fitting) / 2;
            if fits(middle) { fitting = middle } else { beyond = middle }
        }
        fitting
    }

    /// Bytes of one answer to a job. Says why the job could never run, with nothing beside it.
    pub fn answer_bytes(&self, job: &Job) -> std::result::Result<u64, String> {
        let EngineLimits { cache_bytes, sequences, .. } = self.limits;
        if job.n > sequences {
            return Err(format!(
                "`n` is {} and the server runs at most {sequences} sequences at once: ask for fewer answers, or start \
                 the server with --parallel {}",
                job.n, job.n
            ));
        }
        let answer_bytes = self.bytes(job.attention, job.capacity()).map_err(|e| e.to_string())?;
        let bytes = answer_bytes.saturating_mul(job.n as u64);
        if bytes <= cache_bytes {
            return Ok(answer_bytes);
        }
        let fitting = self.tokens_in(cache_bytes / job.n as u64, job.attention, job.capacity());
        let (enough, fewer) = match job.n {
            1 => (format!("enough for {fitting} tokens"), "tokens"),
            n => (format!("enough for {n} answers of {fitting} tokens"), "tokens or answers"),
        };
        let compress = match job.attention {
            Attention::Dense => "compress the cache (`longreach`: {\"attention\": \"lrsa\"})",
            Attention::Lrsa(_) => "compress more (a smaller `keep`)",
        };
        Err(format!(
            "a prompt of {} tokens and {} answer(s) of up to {} take {} MiB, and the server has {} MiB for caches, \
             {enough}: ask for fewer {fewer}, {compress}, or start the server with --cache-memory {}",
            job.prompt.len(),
            job.n,
            job.max_tokens,
            mib(bytes),
            cache_bytes >> 20,
            memory_flag(bytes)
        ))
    }

    /// What to know if the memory does not hold one sequence of `n_tokens`, all that a model takes.
    pub fn note(&self, attention: Attention, n_tokens: usize) -> Option<String> {
        let limit = self.limits.cache_bytes;
        let whole = self.bytes(attention, n_tokens).ok();
        if whole.is_some_and(|bytes| bytes <= limit) {
            return None;
        }
        let mut ways: Vec<String> =
            whole.iter().map(|&bytes| format!("--cache-memory {}", memory_flag(bytes))).collect();
        if attention == Attention::Dense
            && let Ok(bytes) = self.bytes(Attention::Lrsa(Lrsa::default()), n_tokens)
        {
            let more = if bytes <= limit { String::new() } else { format!(" --cache-memory {}", memory_flag(bytes)) };
            ways.push(format!("--attention 4x{more}"));
        }
        let fitting = self.tokens_in(limit, attention, n_tokens);
        let ways = if ways.is_empty() { String::new() } else { format!("; for all give {}", ways.join(", or ")) };
        Some(format!(
            "--cache-memory {} holds {fitting} of its {n_tokens} tokens in one sequence{ways}",
            memory_flag(limit)
        ))
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// A value of `--cache-memory` for at least so many bytes.
fn memory_flag(bytes: u64) -> String {
    let mib = mib(bytes);
    match mib >= 10 * 1024 || (mib > 0 && mib.is_multiple_of(1024)) {
        true => format!("{}GiB", mib.div_ceil(1024)),
        false => format!("{mib}MiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::bundled;
    use crate::checkpoint::load::{Train, load};
    use crate::gpu::CpuExecutor;
    use crate::serve::job::testing::job;

    /// The bundled model, which has 5 layers with 4 key heads of 8 channels: 1,280 bytes of cache for
    /// a token.
    fn model() -> Llama {
        load(&mut CpuExecutor::<f32>::new(), &bundled::stories().unwrap(), None, Train::Nothing).unwrap().model
    }

    fn limits(cache_bytes: u64) -> EngineLimits {
        EngineLimits { cache_bytes, prefix_bytes: 0, sequences: 4, step: 16 }
    }

    #[test]
    fn the_start_says_how_much_the_memory_holds_and_what_holds_all() {
        let model = model();
        let bytes = |n, attention| Session::n_bytes(&model, attention, n, 16).unwrap();
        let (dense, lrsa) = (Attention::Dense, Attention::Lrsa(Lrsa::default()));
        assert_eq!(bytes(101, dense) - bytes(100, dense), 1280);
        let note = |cache_bytes, attention| Room::new(&model, &limits(cache_bytes)).note(attention, 100_000);
        assert_eq!(note(bytes(100_000, dense), dense), None);
        let said = note(bytes(9_362, dense), dense).unwrap();
        // 122 MiB of pairs, and a quarter of them, each with some bytes of logits.
        assert_eq!(
            said,
            "--cache-memory 12MiB holds 9362 of its 100000 tokens in one sequence; for all give --cache-memory 123MiB, \
             or --attention 4x --cache-memory 31MiB"
        );
        let said = note(bytes(100_000, lrsa), dense).unwrap();
        assert!(said.ends_with("for all give --cache-memory 123MiB, or --attention 4x"), "{said}");
        let said = note(1 << 20, lrsa).unwrap();
        assert!(said.ends_with("for all give --cache-memory 31MiB"), "{said}");
        assert!(note(0, dense).unwrap().starts_with("--cache-memory 0MiB holds 0 of"));
    }

    #[test]
    fn a_sequence_that_never_fits_names_what_would_hold_it() {
        let model = model();
        let bytes = |n| Session::n_bytes(&model, Attention::Dense, n, 16).unwrap();
        let room = Room::new(&model, &limits(bytes(5000)));
        let dense = |n_prompt, max_tokens, n| {
            room.answer_bytes(&Job { n, ..job(vec![1; n_prompt], max_tokens, Attention::Dense) })
        };
        assert_eq!(dense(4000, 1000, 1), Ok(bytes(5000)));
        let why = dense(4000, 1001, 1).unwrap_err();
        assert!(why.starts_with("a prompt of 4000 tokens and 1 answer(s) of up to 1001 take 7 MiB"), "{why}");
        assert!(why.contains("has 6 MiB for caches, enough for 5000 tokens: ask for fewer tokens, compress"), "{why}");
        assert!(why.ends_with("or start the server with --cache-memory 7MiB"), "{why}");
        let why = dense(2000, 1000, 2).unwrap_err();
        assert!(why.contains("enough for 2 answers of 24") && why.contains("fewer tokens or answers"), "{why}");
        let why = dense(10, 10, 5).unwrap_err();
        assert!(why.contains("`n` is 5") && why.ends_with("--parallel 5"), "{why}");
    }

    #[test]
    fn a_flag_is_never_too_small() {
        for (bytes, flag) in [
            (0, "0MiB"),
            (1, "1MiB"),
            (5 << 20, "5MiB"),
            ((5 << 20) + 1, "6MiB"),
            (2 << 30, "2GiB"),
            ((2 << 30) + 1, "2049MiB"),
            ((20 << 30) + 1, "21GiB"),
        ] {
            assert_eq!(memory_flag(bytes), flag);
        }
    }
}
