//! Floor 5: the tape that turns a forward recording into a training step, with optional block-wise
//! recomputation.

mod tape;

pub use tape::{Param, Saved, Tape, Var};
