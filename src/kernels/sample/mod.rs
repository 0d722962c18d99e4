//! The next token, chosen on the device: `choose.rs` has the kernels and the op, `cases.rs` its
//! cases.

mod cases;
mod choose;

pub use cases::cases;
pub use choose::{Sampling, kernels, sample};
