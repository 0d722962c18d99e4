//! Sampling of the next token on the device: `choose.rs` has the kernels and the op.
//!
//! `cases.rs` holds its cases.

mod cases;
mod choose;

pub use cases::cases;
pub use choose::{Changes, EXCLUDED, Sampling, kernels, sample};
