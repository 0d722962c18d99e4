//! What a dispatch has to do at least: floating-point operations, and bytes that must come from memory and go there.
//!
//! A product and a sum are one operation each, and so are a division, a root and an exponential; integers count nothing. Bytes are
//! those of the bound spans, each once for every way it is used, except where a kernel touches only a part of what it binds.
//! So both are the least that the kernel's formula needs, not what a shader happens to do.

use crate::error::Result;
use crate::gpu::{Access, Dispatch, Executor, Scalar, Span};

/// Least work of one dispatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

/// A dispatch with its parameters and buffers by name.
struct Named<'a>(&'a Dispatch);

impl Named<'_> {
    /// The bits of a parameter, as a count.
    fn param(&self, name: &str) -> u64 {
        let at = self.0.kernel.params.iter().position(|f| f.name == name);
        let at = at.unwrap_or_else(|| panic!("{} has no parameter {name}", self.0.kernel.name()));
        let word = u32::from_le_bytes(self.0.params[4 * at..][..4].try_into().expect("four bytes a parameter"));
        match self.0.kernel.params[at].scalar {
            Scalar::F32 => u64::from(f32::from_bits(word) != 0.0),
            _ => u64::from(word),
        }
    }

    fn span(&self, name: &str) -> &Span {
        let at = self.0.kernel.bindings.iter().position(|b| b.name == name);
        &self.0.spans[at.unwrap_or_else(|| panic!("{} has no binding {name}", self.0.kernel.name()))]
    }

    fn constant(&self, name: &str) -> u64 {
        let at = self.0.kernel.constants.iter().position(|&c| c == name);
        u64::from(self.0.constants[at.unwrap_or_else(|| panic!("{} has no constant {name}", self.0.kernel.name()))])
    }

    fn len(&self, name: &str) -> u64 {
        self.span(name).len as u64
    }

    /// All bound spans; those that are read and written twice.
    fn all_bytes(&self) -> u64 {
        let times = |access| if access == Access::ReadWrite { 2 } else { 1 };
        let used = self.0.spans.iter().zip(self.0.kernel.bindings);
        used.map(|(span, binding)| 4 * span.len as u64 * times(binding.access)).sum()
    }
}

/// The work of a dispatch, none where its kernel is not known here. Tables on the device say how much attention sees.
pub fn work(device: &mut dyn Executor, d: &Dispatch) -> Result<Option<Work>> {
    let d = Named(d);
    let flops = match d.0.kernel.label {
        "attend/forward" | "attend/decode" => 4 * 4 * d.constant("D4") * d.param("n_heads") * query_pairs(device, &d)?,
        "attend/backward_query" => 6 * 4 * d.constant("D4") * d.param("n_heads") * query_pairs(device, &d)?,
        "attend/backward_key" => 8 * 4 * d.constant("D4") * d.param("n_heads") * key_pairs(device, &d)?,
        _ => match flops(&d) {
            Some(flops) => flops,
            None => return Ok(None),
        },
    };
    Ok(Some(Work { flops, bytes: bytes(&d) }))
}

/// (query, key) pairs of query tiles, for one head.
fn query_pairs(device: &mut dyn Executor, d: &Named<'_>) -> Result<u64> {
    let tiles = device.read_words(d.span("tiles"))?;
    let pairs = |tile: &[u32]| {
        let [n, sink, packed, window] = [1, 3, 5, 7].map(|i| u64::from(tile[i]));
        n * (sink + packed + window) + n * n.saturating_sub(1) / 2
    };
    Ok(tiles.chunks_exact(8).map(pairs).sum())
}

/// (query, key) pairs of key tiles, for one head.
fn key_pairs(device: &mut dyn Executor, d: &Named<'_>) -> Result<u64> {
    let tiles = device.read_words(d.span("tiles"))?;
    let pairs = |tile: &[u32]| {
        let [n, first, end, run, step] = [1, 2, 3, 4, 5].map(|i| u64::from(tile[i]));
        (0..n).map(|key| (end - first).saturating_sub(key / run * step)).sum::<u64>()
    };
    Ok(tiles.chunks_exact(6).map(pairs).sum())
}

/// Operations of kernels that need no look at the device.
fn flops(d: &Named<'_>) -> Option<u64> {
    let len = |name| d.len(name);
    Some(match d.0.kernel.label {
        "matmul/tile" => 2 * d.param("m") * d.param("n") * d.param("k"),
        "bench/chains" => 128 * d.param("n") * d.param("turns"),
        "attend/delta" => 2 * len("out"),
        "attend/combine" => 2 * len("mixed") + 3 * len("stats") / 2 + len("out"),
        "activation/swiglu" => 5 * d.param("n"),
        "activation/swiglu_backward" => 11 * d.param("n"),
        "adamw/update" => 14 * d.param("n"),
        "adamw/square_sum" => 2 * d.param("n"),
        "adamw/clip_factor" | "bias/add_bias" | "dropout/dropout" => d.param("n"),
        "elementwise/add" | "elementwise/add_into" | "elementwise/scale_by" => d.param("n"),
        "loss/scale_by" | "loss/sum" | "sample/scale" => d.param("n"),
        "loss/softmax_rows" => 6 * d.param("rows") * d.param("cols"),
        "matmul/normed_row" => (2 * d.param("n") + 4) * d.param("k"),
        "norm/rms_norm" => 4 * len("x"),
        "norm/rms_norm_backward" => 7 * len("x"),
        "norm/rms_norm_backward_dw" => 3 * len("x"),
        "reduce/column_sum" => len("x"),
        "rope/rope" | "rope/rope_kv" | "rope/rope_kv_backward" => {
            6 * d.param("tokens") * d.param("heads") * d.param("half")
        }
        "softmax/softmax" => 4 * len("x"),
        "softmax/softmax_backward" => 4 * len("y"),
        "embedding/embedding_backward" => len("dy"),
        "lrsa/lag_std" => 7 * d.param("n_pairs") * d.param("kv_cols") * d.param("lag"),
        "lrsa/lag_score" => 4 * len("spread"),
        "lrsa/scatter_kept" => d.param("n"),
        "sample/penalise" => 2 * d.param("n_previous"),
        "sample/draw" => 2 * len("adjusted"),
        // Values are compared or moved.
        "bench/copy" | "embedding/embedding" | "gather/gather_rows" | "gather/gather_rows_backward" => 0,
        "lrsa/gather_kept" | "lrsa/keep_mark" | "lrsa/keep_pack" | "lrsa/lag_bounds" | "lrsa/store_rows" => 0,
        "sample/argmax" => 0,
        _ => return None,
    })
}

fn bytes(d: &Named<'_>) -> u64 {
    match d.0.kernel.label {
        "matmul/tile" => {
            let [m, n, k] = ["m", "n", "k"].map(|name| d.param(name));
            // A weight of fewer bits is bound in fewer words.
            4 * (m * k + (n * k).min(d.len("w")) + m * n * (1 + d.param("beta")))
        }
        "matmul/normed_row" => {
            let [n, k] = ["n", "k"].map(|name| d.param(name));
            4 * (2 * k + (n * k).min(d.len("w")) + n)
        }
        "embedding/embedding" => 4 * d.param("tokens") * (1 + d.param("cols") + d.len("w") / d.param("rows")),
        "embedding/embedding_backward" => {
            4 * (d.len("dy") + 2 * d.len("offsets") + d.len("occurrences") + d.param("n_unique") * d.param("cols"))
        }
        "gather/gather_rows" => 4 * d.param("n_rows") * (1 + 2 * d.param("cols")),
        "lrsa/gather_kept" => 4 * (2 * d.param("n") + d.len("rows")),
        "lrsa/scatter_kept" => 4 * (3 * d.param("n") + d.len("rows")),
        "lrsa/store_rows" => 8 * d.param("n"),
        "lrsa/lag_bounds" | "lrsa/lag_std" => {
            let read = d.param("n_pairs") * d.param("kv_cols") * d.param("lag");
            4 * (read + d.0.spans[1..].iter().map(|s| s.len as u64).sum::<u64>())
        }
        "rope/rope" | "rope/rope_kv" | "rope/rope_kv_backward" => {
            let tables = d.len("cos_table") + d.len("sin_table");
            d.all_bytes() - 4 * tables + 8 * d.param("tokens") * d.param("half")
        }
        "sample/scale" => 8 * d.param("n"),
        "sample/penalise" => 12 * d.param("n_previous"),
        "loss/softmax_rows" => 4 * d.param("rows") * (2 + d.param("cols") * (1 + d.param("gradient"))),
        _ => d.all_bytes(),
    }
}
