//! Shader rules that no compiler checks.
//!
//! `rule.rs` lists the rules, and `check.rs` applies them to every shader and kernel.
//! `uniformity.rs` analyses control flow, `floats.rs` arithmetic with the help of `bounds.rs`, and
//! `ir.rs` reads naga's expressions for both.

mod bounds;
mod check;
mod floats;
mod ir;
mod rule;
#[cfg(test)]
mod tests;
mod uniformity;

pub use check::{Finding, lints, of_shader, unused_files};
pub use rule::Rule;
