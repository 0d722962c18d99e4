//! The list of shader rules.

/// A shader rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A barrier or subgroup operation that only some invocations of a workgroup may reach: the
    /// standard forbids it, naga accepts it, and devices hang or compute garbage.
    Uniformity,
    /// An exponential whose argument has no visible bound below its overflow limit. Inf is
    /// undefined under Metal's fast math, and tanh of large values overflows there.
    RawExponential,
    /// Use of Inf or NaN: with fast math a compiler assumes that neither occurs. Mask with a large
    /// finite value instead.
    NotFinite,
    /// An atomic float: DX12 has none, and sums in arrival order differ between runs.
    FloatAtomic,
    /// A file in `shaders/` that no kernel links, so nothing tests it.
    UnusedFile,
    /// A kernel that no quick case dispatches, so that no device is compared with its reference; or
    /// a kernel that cases dispatch but no family lists. (A kernel without a reference does not
    /// compile.)
    NoCase,
    /// A storage binding without its shape, in WGSL (`// [rows, cols]` on its line) or in Rust.
    /// Readers of a kernel need the shapes first.
    NoShape,
    /// More than WebGPU's default limits allow: the kernel would not run on every device.
    Limit,
    /// A shader that does not parse or validate.
    Broken,
    /// An exception that is no longer needed.
    StaleException,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 10] = [
        Rule::Uniformity,
        Rule::RawExponential,
        Rule::NotFinite,
        Rule::FloatAtomic,
        Rule::UnusedFile,
        Rule::NoCase,
        Rule::NoShape,
        Rule::Limit,
        Rule::Broken,
        Rule::StaleException,
    ];

    /// A short name of the rule.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Uniformity => "uniform control flow",
            Rule::RawExponential => "bounded exponentials",
            Rule::NotFinite => "no Inf or NaN",
            Rule::FloatAtomic => "no atomic floats",
            Rule::UnusedFile => "no unused file",
            Rule::NoCase => "a case for every kernel",
            Rule::NoShape => "a shape for every binding",
            Rule::Limit => "WebGPU's default limits",
            Rule::Broken => "valid WGSL",
            Rule::StaleException => "no stale exception",
        }
    }
}
