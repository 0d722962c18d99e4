//! The rotation (RoPE) of a model from the metadata and tensors of a GGUF file.
//!
//! Where file and llama.cpp agree with transformers' configuration, so does the result: YaRN's
//! factor of cosines and sines, which llama.cpp spreads over three places, is that of transformers,
//! and LongRoPE takes the long factors by the length of the text, not by the size of a cache.
//! Everything else follows llama.cpp's loader: a factor without a type is linear, and divides also
//! the frequencies of `rope_freqs.weight`; `rope.scaling.attn_factor` multiplies every table.

use super::families::{Family, WindowRope};
use super::gguf_keys::Keys;
use crate::error::{Context, Result};
use crate::formats::gguf::Gguf;
use crate::model::rope_config::{QueryScale, RopeConfig, RopeScaling};

/// The tensors that hold divisors of frequencies.
pub(super) const TENSORS: [&str; 3] = ["rope_freqs.weight", SHORT, LONG];
const SHORT: &str = "rope_factors_short.weight";
const LONG: &str = "rope_factors_long.weight";

/// An original length that no text exceeds, for one list of divisors at every length.
const EVERY_LENGTH: usize = 1 << 30;

/// The rotation of full layers.
pub(super) fn full_layers(
    gguf: &Gguf,
    keys: &Keys,
    family: &Family,
    head_dim: usize,
    max_positions: usize,
) -> Result<RopeConfig> {
    let rotary_dim = rotary_dim(keys, family, head_dim)?;
    let original = match keys.size_or("rope.scaling.original_context_length", 0)? {
        0 => max_positions,
        length => length,
    };
    let beta = if family.query_scale { keys.nonzero("attention.temperature_scale")? } else { None };
    Ok(RopeConfig {
        theta: first_of(keys, &["rope.freq_base", "rope.global.freq_base"])?.unwrap_or(1e4),
        scaling: scaling(gguf, keys, rotary_dim, original)?,
        rotary_dim,
        query_scale: beta.map(|beta| QueryScale { beta, original_max_positions: original }),
    })
}

/// The rotation of layers with a window, in a model whose other layers rotate as `full`.
pub(super) fn window_layers(keys: &Keys, family: &Family, full: &RopeConfig) -> Result<RopeConfig> {
    let default = if let WindowRope::OwnTheta(_, theta) = family.window_rope { theta } else { full.theta };
    let theta = first_of(keys, &["rope.freq_base_swa", "rope.local.freq_base"])?.unwrap_or(default);
    let scaling = if family.window_rope == WindowRope::Same { full.scaling.clone() } else { RopeScaling::None };
    Ok(RopeConfig { theta, scaling, ..full.clone() })
}

/// The number under the first of these keys that exists.
fn first_of(keys: &Keys, names: &[&str]) -> Result<Option<f64>> {
    names.iter().find(|name| keys.has(name)).map(|name| keys.number(name)).transpose()
}

/// The channels of a head that rotate.
fn rotary_dim(keys: &Keys, family: &Family, head_dim: usize) -> Result<usize> {
    let rotary_dim = keys.size_or("rope.dimension_count", head_dim)?;
    crate::ensure!(
        rotary_dim == head_dim || family.partial_rotary,
        "{}: a rotation of {rotary_dim} channels is not supported for {}; expected {head_dim}, the size of a head",
        keys.full("rope.dimension_count"),
        family.architecture.model_type()
    );
    let of_windows = keys.size_or("rope.dimension_count_swa", rotary_dim)?;
    crate::ensure!(
        of_windows == rotary_dim,
        "{}: a rotation of {of_windows} channels in layers with a window is not supported; expected {rotary_dim}",
        keys.full("rope.dimension_count_swa")
    );
    Ok(rotary_dim)
}

fn scaling(gguf: &Gguf, keys: &Keys, rotary_dim: usize, original: usize) -> Result<RopeScaling> {
    let key = keys.full("rope.scaling.type");
    let kind = if keys.metadata.contains(&key) { keys.metadata.str(&key)? } else { "linear" };
    crate::ensure!(
        matches!(kind, "none" | "linear" | "yarn" | "longrope"),
        "{key}: RoPE scaling '{kind}' is not supported; expected none, linear, yarn or longrope"
    );
    let name = if keys.has("rope.scaling.factor") { "rope.scaling.factor" } else { "rope.scale_linear" };
    let factor = keys.nonzero(name)?.filter(|_| kind != "none").unwrap_or(1.0);
    let of_tables = keys.number_or("rope.scaling.attn_factor", 1.0)?;
    let divisors = divisors(gguf, factor)?;
    match (kind, divisors) {
        ("yarn", Some(_)) => {
            crate::bail!("{key}: YaRN together with divisors of frequencies (rope_freqs.weight) is not supported")
        }
        ("yarn", None) => yarn(keys, factor, original, of_tables),
        ("longrope", None) => crate::bail!("{key} is longrope: expected the tensors {SHORT} and {LONG}, found neither"),
        (_, None) if of_tables == 1.0 && factor == 1.0 => Ok(RopeScaling::None),
        (_, None) if of_tables == 1.0 => Ok(RopeScaling::Linear { factor }),
        (_, None) => {
            let all = vec![factor as f32; rotary_dim / 2];
            Ok(long_rope(Divisors { short: all.clone(), long: all }, EVERY_LENGTH, of_tables))
        }
        (_, Some(Divisors { short, long })) if short == long && of_tables == 1.0 => Ok(RopeScaling::Factors(short)),
        (_, Some(divisors)) => {
            let original = if divisors.short == divisors.long { EVERY_LENGTH } else { original };
            Ok(long_rope(divisors, original, of_tables))
        }
    }
}

/// Divisors of the frequencies for texts up to the original length, and for longer ones.
struct Divisors {
    short: Vec<f32>,
    long: Vec<f32>,
}

fn long_rope(Divisors { short, long }: Divisors, original_max_positions: usize, attention_factor: f64) -> RopeScaling {
    RopeScaling::LongRope { short, long, original_max_positions, attention_factor }
}

/// The divisors in the file's tensors, times `factor`, if there are any.
fn divisors(gguf: &Gguf, factor: f64) -> Result<Option<Divisors>> {
    let read = |name: &'static str| -> Result<Option<Vec<f32>>> {
        if gguf.info(name).is_none() {
            return Ok(None);
        }
        let values = gguf.read(name)?.to_f32().context(name)?;
        Ok(Some(values.into_iter().map(|v| (f64::from(v) * factor) as f32).collect()))
    };
    let [always, short, long] = TENSORS.map(read);
    match (always?, short?, long?) {
        (None, None, None) => Ok(None),
        (Some(always), None, None) => Ok(Some(Divisors { short: always.clone(), long: always })),
        (None, Some(short), Some(long)) => Ok(Some(Divisors { short, long })),
        _ => crate::bail!("divisors of frequencies: expected {}, or both {SHORT} and {LONG}", TENSORS[0]),
    }
}

/// YaRN with the attention factor of transformers: that of the file (`yarn_attn_factor`, where
/// llama.cpp's converter writes `attention_factor`), else g(1), or g(1) / g(m) for a
/// `yarn_log_multiplier` of m, transformers' `mscale_all_dim`; g(m) = 0.1 m ln(factor) + 1.
fn yarn(keys: &Keys, factor: f64, original_max_positions: usize, of_tables: f64) -> Result<RopeScaling> {
    let g = |m: f64| if factor > 1.0 { 0.1 * m * factor.ln() + 1.0 } else { 1.0 };
    let usual = g(1.0) / keys.nonzero("rope.scaling.yarn_log_multiplier")?.map_or(1.0, g);
    let attention_factor = keys.number_or("rope.scaling.yarn_attn_factor", usual)? * of_tables;
    if factor == 1.0 && attention_factor == 1.0 {
        return Ok(RopeScaling::None);
    }
    Ok(RopeScaling::Yarn {
        factor,
        original_max_positions,
        beta_fast: keys.number_or("rope.scaling.yarn_beta_fast", 32.0)?,
        beta_slow: keys.number_or("rope.scaling.yarn_beta_slow", 1.0)?,
        truncate: true,
        attention_factor,
    })
}
