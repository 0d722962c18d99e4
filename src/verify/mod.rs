//! Floor 9: comparisons that tests, `check` and the lab share: one dispatch, a whole recording, a gradient.

pub mod dispatch_check;
pub mod gradient_check;
pub mod mismatch;
pub mod strict;
pub mod walk;
pub mod wgsl_code;

pub use mismatch::{Fault, Mismatch};
pub use strict::strict;
