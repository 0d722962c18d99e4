//! Types of exported weights, and which tensors of a model get which.

use clap::ValueEnum;

use crate::checkpoint::weight_names::Weight;
use crate::formats::dtype::DType;
use crate::model::config::ModelConfig;

/// The type of the weights of an export, under llama.cpp's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum WeightType {
    /// 32 bits
    F32,
    /// 16 bits with a range up to 65504
    F16,
    /// 16 bits with the range of f32
    Bf16,
    /// 8.5 bits
    #[value(name = "q8_0")]
    Q8_0,
    /// 6.6 bits
    #[value(name = "q6_k")]
    Q6K,
    /// 5 to 6 bits: more for the value and down projections and the head
    #[value(name = "q5_k_m")]
    Q5KM,
    /// 4 to 6 bits: more for the value and down projections and the head
    #[value(name = "q4_k_m")]
    Q4KM,
}

impl WeightType {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
            Self::Q5KM => "q5_k_m",
            Self::Q4KM => "q4_k_m",
        }
    }

    /// The element type, if all weights have this one.
    pub fn plain(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
            _ => None,
        }
    }

    /// `general.file_type` of GGUF files.
    pub(super) fn file_type(self) -> u64 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }

    /// The largest mean divergence from the model in memory, in nats a token, that an export may have.
    /// Above it something other than rounding is wrong: these are a few times what a model of 270
    /// million weights shows after a training that overfits it, which amplifies rounding.
    pub fn largest_divergence(self) -> f64 {
        match self {
            Self::F32 => 1e-6,
            Self::F16 => 1e-4,
            Self::Bf16 => 1e-2,
            Self::Q8_0 => 3e-2,
            Self::Q6K => 0.1,
            Self::Q5KM => 0.5,
            Self::Q4KM => 2.0,
        }
    }

    /// The element type of a weight in a GGUF file. Vectors are f32. The mixtures follow llama.cpp:
    /// the value and down projections of the first and the last eighth of the layers and of every
    /// third in between have 6 bits, and so has the head. Rows that are no whole number of blocks get
    /// a type with smaller blocks.
    pub(super) fn of_weight(self, weight: &Weight, config: &ModelConfig) -> DType {
        let [_, n_in] = weight.shape[..] else { return DType::F32 };
        let (usual, larger) = match self {
            Self::Q8_0 => (DType::Q8_0, DType::Q8_0),
            Self::Q6K => (DType::Q6_K, DType::Q6_K),
            Self::Q5KM => (DType::Q5_K, DType::Q6_K),
            Self::Q4KM => (DType::Q4_K, DType::Q6_K),
            Self::F32 | Self::F16 | Self::Bf16 => return self.plain().unwrap_or(DType::F32),
        };
        let has = |part: &str| weight.gguf.contains(part);
        let is_head = weight.gguf == "output.weight" || (config.tied && weight.gguf == "token_embd.weight");
        let wanted = if is_head || (has("attn_v.") || has("ffn_down.")) && has_more_bits(weight, config.n_layers()) {
            larger
        } else if has("attn_qkv.") && self == Self::Q4KM {
            DType::Q5_K
        } else if has("attn_qkv.") {
            larger
        } else {
            usual
        };
        let fits = |dtype: &DType| n_in.is_multiple_of(dtype.block_len());
        let small = if matches!(wanted, DType::Q4_K | DType::Q5_K) { DType::Q5_0 } else { DType::Q8_0 };
        [wanted, small].into_iter().find(fits).unwrap_or(DType::F16)
    }
}

/// Whether the layer of a weight is among those that get more bits.
fn has_more_bits(weight: &Weight, n_layers: usize) -> bool {
    let layer = weight.gguf.split('.').nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    let eighth = n_layers / 8;
    layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(gguf: &str, n_in: usize) -> Weight {
        Weight { name: String::new(), shape: vec![4, n_in], gguf: gguf.into(), permuted_heads: None, offset: 0.0 }
    }

    #[test]
    fn mixtures_give_more_bits_where_llama_cpp_does() {
        let mut config = crate::model::config::testing::small();
        config.layers = vec![config.layers[0].clone(); 16];
        config.tied = true;
        let of = |kind: WeightType, name: &str, n_in| kind.of_weight(&weight(name, n_in), &config);
        let down: Vec<usize> = (0..16)
            .filter(|layer| of(WeightType::Q4KM, &format!("blk.{layer}.ffn_down.weight"), 512) == DType::Q6_K)
            .collect();
        assert_eq!(down, [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!(of(WeightType::Q4KM, "blk.3.attn_q.weight", 512), DType::Q4_K);
        assert_eq!(of(WeightType::Q4KM, "token_embd.weight", 512), DType::Q6_K);
        assert_eq!(of(WeightType::Q4KM, "blk.3.attn_qkv.weight", 512), DType::Q5_K);
        assert_eq!(of(WeightType::Q4KM, "blk.3.attn_q.weight", 576), DType::Q5_0);
        assert_eq!(of(WeightType::Q4KM, "token_embd.weight", 576), DType::Q8_0);
        assert_eq!(of(WeightType::Q8_0, "blk.3.attn_q.weight", 30), DType::F16);
        let norm = Weight { shape: vec![512], ..weight("output_norm.weight", 0) };
        assert_eq!(WeightType::Q8_0.of_weight(&norm, &config), DType::F32);
    }
}
