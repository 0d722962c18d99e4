//! Floor 3: the kernels.
//!
//! One file per family holds the WGSL bindings, the CPU reference, the op (forward and backward)
//! and the cases. Read `op.rs` for the interface of an op and `case.rs` for how checks follow from
//! a case; `matmul.rs` is the model for a family.

mod adafactor_kernels;
mod arena_update;
pub mod case;
pub mod few_rows;
mod hash;
mod matmul_kernels;
mod matmul_params;
mod matmul_reference;
pub mod op;
pub mod parts;
mod preference_kernels;
pub mod product;
mod rounded;
mod row_tasks;
pub mod rows;
mod weights;

/// Declares the families and gathers their kernels and cases.
macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(pub mod $family;)*

        /// The cases of every family.
        pub fn cases() -> Vec<case::Case> {
            [$($family::cases()),*].into_iter().flatten().collect()
        }

        /// Every kernel of every family with one set of values for its constants.
        pub fn all() -> Vec<(&'static crate::gpu::KernelDef, Vec<u32>)> {
            [$($family::kernels()),*].into_iter().flatten().collect()
        }
    };
}

families!(
    activation,
    adafactor,
    adamw,
    adamw8bit,
    bench,
    bias,
    clip_grad,
    columns,
    distill,
    dora,
    dropout,
    elementwise,
    embedding,
    gather,
    head,
    lion,
    loss,
    matmul,
    neftune,
    norm,
    normed,
    preference,
    reduce,
    rope,
    sample,
    sgd,
    softmax
);
