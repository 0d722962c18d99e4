//! How products take activations.

use clap::ValueEnum;

/// How products with quantised weights take their activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Activations {
    /// As they are
    #[default]
    F32,
    /// Rounded to 8 bits in blocks of 32, multiplied in integers: faster, less exact; CPU only
    Q8,
}
