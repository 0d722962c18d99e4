//! WGSL parts that several families link: parts with device variants, and weight readers.
//!
//! There is one weight reader per format. Other parts are named where they are linked.

use crate::formats::weight_formats::quantised_formats;
use crate::gpu::Source;
use crate::tensor::Format;
use crate::wgsl;

/// Sums and maxima over segments of a workgroup's lanes.
pub const REDUCE: Source = wgsl!("common/reduce", Subgroups => "common/reduce_subgroups");
/// Sums and maxima over a workgroup of 256 invocations.
pub const TREE: Source = wgsl!("common/tree", Subgroups => "common/tree_subgroups");

/// The number of an IEEE half float. Every kernel that reads a weight links it, for the formats with
/// half floats.
pub const HALF: Source = wgsl!("common/half");

/// Declares [`weight_part`] with a file `weight_<name>.wgsl` for each row of the table.
macro_rules! weight_parts {
    (() $($dtype:ident $format:ident $name:ident { $($layout:tt)* })*) => {
        /// The part that reads weights of a storage format: `weight(i)` and the binding `w`.
        pub const fn weight_part(format: Format) -> Source {
            match format {
                Format::F32 => wgsl!("common/weight_f32"),
                Format::Bf16 => wgsl!("common/weight_bf16"),
                Format::F16 => wgsl!("common/weight_f16", F16 => "common/weight_f16_native"),
                $(Format::$format => Source::new(
                    concat!("common/weight_", stringify!($name)),
                    include_str!(concat!(
                        env!("CARGO_MANIFEST_DIR"), "/shaders/common/weight_", stringify!($name), ".wgsl"
                    )),
                ),)*
            }
        }
    };
}

quantised_formats!(weight_parts!());

/// A `match` over the storage formats of a weight, with the arm `$kernel!(variant of Format, name)`
/// for each; `name` is the format's name in kernels and shaders. Each arm has its own statics.
macro_rules! for_format {
    ((@ $format:expr, $kernel:ident) $($dtype:ident $stored:ident $name:ident { $($layout:tt)* })*) => {
        match $format {
            Format::F32 => $kernel!(F32, f32),
            Format::Bf16 => $kernel!(Bf16, bf16),
            Format::F16 => $kernel!(F16, f16),
            $(Format::$stored => $kernel!($stored, $name),)*
        }
    };
    ($format:expr, $kernel:ident) => {
        $crate::formats::weight_formats::quantised_formats!(for_format!(@ $format, $kernel))
    };
}
pub(crate) use for_format;
