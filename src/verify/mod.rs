//! Floor 9: comparisons with the references: one dispatch, a whole recording, a gradient.
//!
//! Tests, `check` and the mutation tests share them.

pub mod dispatch_check;
pub mod gradient_check;
pub mod mismatch;
pub mod strict;
pub mod walk;
pub mod wgsl_code;

pub use mismatch::{Fault, Mismatch};
pub use strict::strict;
