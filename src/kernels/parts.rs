//! WGSL parts that several families link and that have another variant on some devices. Parts with one variant are named where they
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
/// `weight(i)` of Q8_0 weights.
pub const WEIGHT_Q8_0: Source = wgsl!("common/weight_q8_0");
/// `weight(i)` of Q4_0 weights.
pub const WEIGHT_Q4_0: Source = wgsl!("common/weight_q4_0");
/// `weight(i)` of Q4_1 weights.
pub const WEIGHT_Q4_1: Source = wgsl!("common/weight_q4_1");
/// `weight(i)` of Q4K weights.
pub const WEIGHT_Q4K: Source = wgsl!("common/weight_q4k");
/// `weight(i)` of Q6K weights.
pub const WEIGHT_Q6K: Source = wgsl!("common/weight_q6k");
