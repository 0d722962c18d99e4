//! The random number generator behind reproducible results.
//!
//! It uses a fixed algorithm, so that the same seed gives the same numbers with every version of
//! the rand crate.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// A generator from a seed and a stream number, such as an epoch, a step or a sample.
pub fn seeded(seed: u64, stream: u64) -> Xoshiro256PlusPlus {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&stream.to_le_bytes());
    // The generator cannot leave the all-zero state.
    bytes[16..24].copy_from_slice(&0x9E37_79B9_7F4A_7C15_u64.to_le_bytes());
    let mut rng = Xoshiro256PlusPlus::from_seed(bytes);
    // Neighbouring seeds differ in few bits, so discard the first numbers to spread the difference.
    for _ in 0..16 {
        rng.next_u64();
    }
    rng
}
