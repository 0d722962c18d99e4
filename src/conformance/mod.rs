//! Floor 9: what can be proved about the kernels on any machine and, later, on a device: a conformance report.
//!
//! Nothing here is needed to train or generate. Read `shaders.rs` for what is judged, then `lints.rs` for the rules.

mod bounds;
mod float_lints;
mod ir;
pub mod lints;
#[cfg(test)]
mod lints_tests;
pub mod shaders;
mod uniformity;
mod validator;
