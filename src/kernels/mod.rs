//! Floor 3: the kernels. One file a family: WGSL binding, CPU twin, op (forward and backward) and cases.
//!
//! Read `op.rs` for what an op is and `case.rs` for what follows from a case, then `matmul.rs` as the pattern.

pub mod adamw;
pub mod case;
pub mod elementwise;
pub mod gradient;
pub mod loss;
pub mod matmul;
pub mod op;
pub mod sample;

use case::Case;

/// The cases of every family.
pub fn cases() -> Vec<Case> {
    [elementwise::cases(), matmul::cases(), loss::cases(), adamw::cases(), sample::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Every kernel of every family with one set of values for its constants.
pub fn all() -> Vec<(&'static crate::gpu::KernelDef, Vec<u32>)> {
    [elementwise::kernels(), matmul::kernels(), loss::kernels(), adamw::kernels(), sample::kernels()]
        .into_iter()
        .flatten()
        .collect()
}
