//! Floor 3: the kernels. One file a family: WGSL binding, CPU twin, op (forward and backward) and cases.
//!
//! Read `op.rs` for what an op is and `case.rs` for what follows from a case, then `matmul.rs` as the pattern.

pub mod activation;
pub mod bias;
pub mod case;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod gather;
pub mod gradient;
pub mod matmul;
pub mod norm;
pub mod op;
pub mod reduce;
pub mod rope;
pub mod rows;
pub mod softmax;

use case::Case;

/// The cases of every family.
pub fn cases() -> Vec<Case> {
    let families = [
        activation::cases,
        bias::cases,
        dropout::cases,
        elementwise::cases,
        embedding::cases,
        gather::cases,
        matmul::cases,
        norm::cases,
        reduce::cases,
        rope::cases,
        softmax::cases,
    ];
    families.into_iter().flat_map(|family| family()).collect()
}

/// Every kernel of every family with a set of values for its constants; one entry for each set that is used.
pub fn all() -> Vec<(&'static crate::gpu::KernelDef, Vec<u32>)> {
    let families = [
        activation::kernels,
        bias::kernels,
        dropout::kernels,
        elementwise::kernels,
        embedding::kernels,
        gather::kernels,
        matmul::kernels,
        norm::kernels,
        reduce::kernels,
        rope::kernels,
        softmax::kernels,
    ];
    families.into_iter().flat_map(|family| family()).collect()
}
