//! Floor 6: layers made of ops and parameters, which `model/` combines.

mod joint;
mod linear;
mod stacked;

pub use joint::{Fused, Joint};
pub use linear::{Adapters, Dora, Dropout, Linear, Lora};
pub use stacked::Stacked;

use crate::autograd::{Param, Tape, Var};
use crate::error::Result;
use crate::kernels::norm::rms_norm;

/// y = w · x / √(mean x² + eps) over the last `w.cols` channels; x [rows, cols] → [rows, cols].
pub fn norm(tape: &mut Tape, x: &Var, weight: &Param, eps: f32) -> Result<Var> {
    let w = tape.param(weight);
    tape.apply1(&[x, &w], |rec, t| rms_norm(rec, &t[0], &t[1], eps))
}
