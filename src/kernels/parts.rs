//! WGSL parts that several families link and that have another form on some devices. Parts with one form are named where they
//! are linked.

use crate::gpu::Source;
use crate::wgsl;

/// Sums and maxima over segments of a workgroup's lanes.
pub const REDUCE: Source = wgsl!("common/reduce", Subgroups => "common/reduce_subgroups");
/// Sums and maxima over a workgroup of 256.
pub const TREE: Source = wgsl!("common/tree", Subgroups => "common/tree_subgroups");
/// `weight(i)` of f32 weights.
pub const WEIGHT_F32: Source = wgsl!("common/weight_f32");
/// `weight(i)` of bf16 weights.
pub const WEIGHT_BF16: Source = wgsl!("common/weight_bf16");
/// `weight(i)` of f16 weights.
pub const WEIGHT_F16: Source = wgsl!("common/weight_f16", F16 => "common/weight_f16_native");
