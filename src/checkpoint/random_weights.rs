//! Random weights for benchmarks: a model of any size without files, with the same cost as a real
//! one.

use std::hash::{DefaultHasher, Hash, Hasher};

use half::bf16;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use crate::formats::dtype::DType;
use crate::formats::host_tensor::HostTensor;

/// Data type of random weights, the same as most published models.
pub(super) const DTYPE: DType = DType::BF16;

/// One weight: norms are 1, biases 0, and matrices uniform with a variance that keeps activations
/// in range. Within one build of the program, the same seed, name and shape give the same values.
pub(super) fn random_weight(seed: u64, name: &str, shape: &[usize]) -> HostTensor {
    let n = shape.iter().product();
    let bits: Vec<u16> = match shape {
        [_] if name.ends_with(".bias") => vec![0; n],
        [_] => vec![bf16::ONE.to_bits(); n],
        _ => {
            let mut hasher = DefaultHasher::new();
            (seed, name).hash(&mut hasher);
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(hasher.finish());
            let bound = (3.0 / shape[shape.len() - 1] as f32).sqrt();
            let unit = |word: u32| word as f32 / (1u64 << 31) as f32 - 1.0;
            (0..n).map(|_| bf16::from_f32(bound * unit(rng.next_u32())).to_bits()).collect()
        }
    };
    HostTensor { dtype: DTYPE, shape: shape.to_vec(), bytes: bytemuck::pod_collect_to_vec::<_, u8>(&bits).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_from_seed_and_name_and_have_the_spread_of_their_width() {
        let values = |seed, name: &str, shape: &[usize]| random_weight(seed, name, shape).to_f32().unwrap();
        let a = values(0, "a.weight", &[64, 300]);
        assert_eq!(a, values(0, "a.weight", &[64, 300]));
        assert_ne!(a, values(1, "a.weight", &[64, 300]));
        assert_ne!(a, values(0, "b.weight", &[64, 300]));
        let (mean, square) = (a.iter().sum::<f32>() / 19_200.0, a.iter().map(|x| x * x).sum::<f32>() / 19_200.0);
        assert!(mean.abs() < 2e-3 && (square * 300.0 - 1.0).abs() < 0.05, "{mean} {square}");
        assert_eq!(values(0, "norm.weight", &[3]), [1.0; 3]);
        assert_eq!(values(0, "q_proj.bias", &[2]), [0.0; 2]);
    }
}
