//! What a shader must not do, or must have.

/// What a shader must not do, or must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A barrier or subgroup operation that some invocations of a workgroup may reach and others
    /// not: the standard forbids it, naga accepts it, and devices hang or compute nonsense.
    Uniformity,
    /// An exponential of an argument that is not visibly bounded where it overflows: Inf is
    /// undefined under the fast arithmetic of Metal, and tanh of large values overflows there.
    RawExponential,
    /// Dependence on Inf or NaN: with fast arithmetic a compiler assumes that there are none. Mask
    /// with a large finite value.
    NotFinite,
    /// An atomic float: DX12 has none, and sums in the order of arrival differ from run to run.
    FloatAtomic,
    /// A file below `shaders/` that no kernel links: nothing tests it.
    UnusedFile,
    /// A kernel that no quick case dispatches, so no device is compared with its reference; or one
    /// that cases dispatch and no family lists. (A kernel without a reference does not compile.)
    NoCase,
    /// A storage binding without its shape, in WGSL (`// [rows, cols]` on its line) or in Rust:
    /// shapes are what a reader of a kernel needs first.
    NoShape,
    /// More than WebGPU's default limits grant: the kernel would not run on every device.
    Limit,
    /// A shader that does not parse or validate.
    Broken,
    /// An exception that nothing needs any more.
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

    /// The rule in a few words.
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
