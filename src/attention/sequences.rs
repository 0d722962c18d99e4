//! Attention of several cached sequences whose rows go through a layer together.

use super::cache::attend_tokens;
use super::{Cache, CacheStep};
use crate::error::Result;
use crate::gpu::Recording;
use crate::kernels::columns::{concat, split};
use crate::tensor::Tensor;

/// Appends the attention of one layer for the chunks of several sequences: each attends within its
/// own cache and updates it ([`Cache::attend`]).
///
/// q [n, H·d] and kv [n, 2·Hk·d], both rotated, hold the rows of all chunks in the order of
/// `sequences` → [n, H·d]. `scale` multiplies the scores.
pub fn attend_sequences(
    rec: &mut Recording,
    layer: usize,
    sequences: &[(&Cache, &CacheStep)],
    q: &Tensor,
    kv: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    if let [(cache, step)] = sequences {
        return Ok(cache.attend(rec, layer, step, q, kv, scale));
    }
    let counts: Vec<usize> = sequences.iter().map(|(_, step)| step.n_tokens).collect();
    let out = Tensor::transient(rec, "attention", q.rows, q.cols);
    let in_place = out.split_rows(&counts);
    let outs = match &in_place {
        Some(outs) => outs.clone(),
        None => counts.iter().map(|&n| Tensor::transient(rec, "attention", n, q.cols)).collect(),
    };
    let (qs, kvs) = (parts(rec, q, &counts)?, parts(rec, kv, &counts)?);
    let rows: Vec<[&Tensor; 3]> = (0..counts.len()).map(|i| [&qs[i], &kvs[i], &outs[i]]).collect();
    if !attend_tokens(rec, layer, sequences, &rows, scale) {
        for ((cache, step), rows) in sequences.iter().zip(rows) {
            cache.attend_into(rec, layer, step, rows, scale);
        }
    }
    match in_place {
        Some(_) => Ok(out),
        None => joined(rec, &outs),
    }
}

/// The rows of each chunk; copies of them if a span cannot begin where a chunk does.
fn parts(rec: &mut Recording, x: &Tensor, counts: &[usize]) -> Result<Vec<Tensor>> {
    if let Some(parts) = x.split_rows(counts) {
        return Ok(parts);
    }
    let widths: Vec<usize> = counts.iter().map(|n| n * x.cols).collect();
    let (parts, _) = split(rec, &x.reshaped(1, x.len()), &widths)?;
    Ok(parts.iter().zip(counts).map(|(part, &n)| part.reshaped(n, x.cols)).collect())
}

/// The rows of all chunks in one tensor.
fn joined(rec: &mut Recording, outs: &[Tensor]) -> Result<Tensor> {
    let flat: Vec<Tensor> = outs.iter().map(|out| out.reshaped(1, out.len())).collect();
    let (joined, _) = concat(rec, &flat)?;
    let cols = outs[0].cols;
    Ok(joined[0].reshaped(joined[0].len() / cols, cols))
}
