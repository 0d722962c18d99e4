//! `KernelDef`, one kernel as one static (WGSL, bindings, parameters, Rust reference), and
//! `Dispatch`, one run of it.
//!
//! The kernel families define [`KernelDef`] statics; a dispatch refers to one. Tests compare each
//! static with its WGSL by reflection (`shader/link.rs`) and run its WGSL against its reference.

use super::kernel_args::KernelArgs;
use super::params::{Field, Params, Scalar, StructDef, TableRow};
use super::work::{BoundSpan, DispatchView, ReadWords, Work, WorkFn};
use super::{Feature, Features, Kind, Span};
use crate::error::Result;

/// How a kernel accesses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Written, never read. A dispatch that does only a part of the work leaves the other elements of
    /// the span as they are.
    Write,
    /// Read and written, or partly written.
    ReadWrite,
}

/// One storage binding. Binding 0 is the uniform `Params`; storage bindings follow in order from 1.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Name of the WGSL variable.
    pub name: &'static str,
    /// How it is used.
    pub access: Access,
    /// Element kind.
    pub kind: Kind,
    /// Shape for documentation, for example `[tokens, channels]`.
    pub shape: &'static str,
    /// Whether the shader reads a texture. The executor copies the span into it, four elements per
    /// texel (two words for `Packed` spans): see [`super::texels`]. Only alternatives use this.
    pub texels: bool,
    /// The struct that an element of a table is; `None` where elements are scalars or vectors.
    pub row: Option<StructDef>,
}

impl Binding {
    /// A read-only binding.
    pub const fn read(name: &'static str, kind: Kind, shape: &'static str) -> Self {
        Self { name, access: Access::Read, kind, shape, texels: false, row: None }
    }

    /// This binding, a table whose elements are structs.
    pub const fn of_rows<R: TableRow>(self) -> Self {
        Self { row: Some(R::DEF), ..self }
    }

    /// This binding, read as a texture.
    pub const fn as_texels(self) -> Self {
        Self { texels: true, ..self }
    }

    /// A binding that is written and never read.
    pub const fn write(name: &'static str, kind: Kind, shape: &'static str) -> Self {
        Self { name, access: Access::Write, kind, shape, texels: false, row: None }
    }

    /// A binding that is read and written.
    pub const fn read_write(name: &'static str, kind: Kind, shape: &'static str) -> Self {
        Self { name, access: Access::ReadWrite, kind, shape, texels: false, row: None }
    }
}

/// A WGSL file of the crate, with an optional variant for devices that have a feature.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Path below `shaders/` without the extension, for example `norm/rms_norm`.
    pub path: &'static str,
    /// Its text, without `enable` lines: the linker adds them.
    pub text: &'static str,
    /// A variant of this part, if there is one.
    pub variant: Option<PartVariant>,
    /// A feature that every kernel with this part needs.
    pub needs: Option<Feature>,
}

/// A variant of a part for devices with a feature. It has the same declarations and bindings.
#[derive(Clone, Copy, Debug)]
pub struct PartVariant {
    /// The feature it needs.
    pub needs: Feature,
    /// Path below `shaders/` without the extension.
    pub path: &'static str,
    /// Its text, without `enable` lines.
    pub text: &'static str,
}

impl Source {
    /// A part without variants.
    pub const fn new(path: &'static str, text: &'static str) -> Self {
        Self { path, text, variant: None, needs: None }
    }

    /// This part, with `other` as its variant for devices that have `needs`.
    pub const fn or(self, needs: Feature, other: Source) -> Self {
        Self { variant: Some(PartVariant { needs, path: other.path, text: other.text }), ..self }
    }

    /// This part, restricted to devices with `feature`.
    pub const fn needing(self, feature: Feature) -> Self {
        Self { needs: Some(feature), ..self }
    }
}

/// The WGSL file `shaders/<path>.wgsl` as a [`Source`]. `Feature => "path"` adds a variant:
/// `wgsl!("common/reduce", Subgroups => "common/reduce_subgroups")`.
#[macro_export]
macro_rules! wgsl {
    ($path:literal) => {
        $crate::gpu::Source::new($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path, ".wgsl")))
    };
    ($path:literal, $needs:ident => $other:literal) => {
        $crate::wgsl!($path).or($crate::gpu::Feature::$needs, $crate::wgsl!($other))
    };
}

/// Values of the constants of an alternative, and its workgroups per axis.
pub type Shape = (Vec<u32>, [u32; 3]);

/// Another kernel for the same dispatch: same bindings, parameters and result, but other code and
/// another grid.
#[derive(Clone, Copy, Debug)]
pub struct Alternative {
    /// The kernel. Its references are those of the kernel it replaces.
    pub kernel: &'static KernelDef,
    /// The devices on which it is expected to be faster: the first candidate, and the choice when
    /// nothing has been measured.
    pub expected: Expected,
    /// Its constant values and workgroups per axis for a dispatch, or `None` if it does not suit
    /// the dispatch.
    pub shape: fn(&Dispatch) -> Option<Shape>,
}

/// The devices on which an alternative is expected to be faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Every device that can run it.
    Everywhere,
    /// Software adapters: a workgroup runs on one core, so barriers and workgroup memory are
    /// expensive.
    OnSoftware,
    /// GPUs: workgroup memory is faster than device memory.
    OnHardware,
}

/// One kernel. A kernel with several storage formats has one definition per format.
pub struct KernelDef {
    /// `family/entry_point`: the path of its WGSL file; the entry point is the last part.
    pub label: &'static str,
    /// Distinguishes statics that share a label, for example `bf16`; empty if the label is unique.
    pub suffix: &'static str,
    /// WGSL parts, concatenated in any order. The linker picks the variant of a part for the
    /// device.
    pub parts: &'static [Source],
    /// Storage bindings in order, from binding 1.
    pub bindings: &'static [Binding],
    /// Members of the uniform `Params` at binding 0.
    pub params: &'static [Field],
    /// Names of the `const NAME: u32` declarations whose values a dispatch supplies.
    pub constants: &'static [&'static str],
    /// Other kernels with the same result that are faster on some devices and sizes. The device
    /// chooses.
    pub alternatives: &'static [Alternative],
    /// The least that a dispatch has to do. Alternatives do the work of the kernel that they stand
    /// in for.
    pub work: WorkFn,
    /// Reference in f32, the CPU product.
    pub reference_f32: fn(KernelArgs<'_, f32>),
    /// Reference in f64, the oracle.
    pub reference_f64: fn(KernelArgs<'_, f64>),
}

impl KernelDef {
    /// The WGSL entry point.
    pub fn entry_point(&self) -> &'static str {
        self.label.rsplit('/').next().expect("rsplit yields at least one part")
    }

    /// Whether a one-axis grid may be folded over two axes: the shader unfolds it by
    /// `num_workgroups`.
    pub fn is_foldable(&self) -> bool {
        self.parts.iter().any(|p| p.text.contains("num_workgroups"))
    }

    /// Path and text of every part, with every variant.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let other = |part: &Source| part.variant.map(|other| (other.path, other.text));
        self.parts.iter().flat_map(move |part| std::iter::once((part.path, part.text)).chain(other(part)))
    }

    /// This kernel and its alternatives.
    pub fn with_alternatives(&'static self) -> Vec<&'static KernelDef> {
        std::iter::once(self).chain(self.alternatives.iter().map(|alternative| alternative.kernel)).collect()
    }

    /// The features that any variant of this kernel uses.
    pub fn features(&self) -> Features {
        let variants = self.parts.iter().flat_map(|p| p.variant).map(|other| other.needs);
        variants.fold(self.required(), Features::with)
    }

    /// The features that every variant of this kernel needs.
    pub fn required(&self) -> Features {
        self.parts.iter().flat_map(|p| p.needs).fold(Features::NONE, Features::with)
    }

    /// Whether a device with `features` can run any variant of it.
    pub fn runs_with(&self, features: Features) -> bool {
        self.required().and(features) == self.required()
    }

    /// The feature sets that select distinct variants, from the smallest to the largest.
    pub fn variants(&self) -> Vec<Features> {
        self.features().subsets().into_iter().filter(|f| self.runs_with(*f)).collect()
    }

    /// `label` or `label (suffix)`.
    pub fn name(&self) -> String {
        if self.suffix.is_empty() { self.label.to_string() } else { format!("{} ({})", self.label, self.suffix) }
    }
}

impl std::fmt::Debug for KernelDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

/// WebGPU's guaranteed maximum of workgroups per axis.
pub(super) const MAX_GROUPS: u32 = 65_535;

/// One run of a kernel: the kernel, its constants and parameters, its buffers and its grid.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Which kernel.
    pub kernel: &'static KernelDef,
    /// Values of its generated constants.
    pub constants: Vec<u32>,
    /// Bytes of its parameter block.
    pub params: Vec<u8>,
    /// Its buffers in binding order.
    pub spans: Vec<Span>,
    /// Workgroups per axis.
    pub groups: [u32; 3],
}

impl Dispatch {
    /// Its parameter block.
    pub fn params_as<P: Params>(&self) -> P {
        bytemuck::pod_read_unaligned(&self.params)
    }

    /// The least that this dispatch has to do. `read_words` reads a bound span of words from the
    /// device: tables of tiles say how much attention sees.
    pub fn work(&self, read_words: &mut ReadWords<'_>) -> Result<Work> {
        let kernel = self.kernel;
        let param = |(i, field): (usize, &Field)| {
            let word = u32::from_le_bytes(self.params[4 * i..][..4].try_into().expect("four bytes a parameter"));
            let count = match field.scalar {
                Scalar::F32 => u64::from(f32::from_bits(word) != 0.0),
                Scalar::U32 | Scalar::I32 => u64::from(word),
            };
            (field.name, count)
        };
        let bound = |(binding, span): (&Binding, _)| {
            let passes = if binding.access == Access::ReadWrite { 2 } else { 1 };
            (binding.name, BoundSpan { span, passes })
        };
        let constants = kernel.constants.iter().zip(&self.constants);
        (kernel.work)(&mut DispatchView {
            label: kernel.label,
            params: kernel.params.iter().enumerate().map(param).collect(),
            constants: constants.map(|(name, value)| (*name, u64::from(*value))).collect(),
            spans: kernel.bindings.iter().zip(&self.spans).map(bound).collect(),
            read_words,
        })
    }

    /// This dispatch with each alternative of its kernel that suits it and that a device with
    /// `features` can run, and where that is expected to win.
    pub fn alternatives(&self, features: Features) -> Vec<(Dispatch, Expected)> {
        let suited = |alternative: &Alternative| {
            let (constants, groups) = (alternative.shape)(self).filter(|_| alternative.kernel.runs_with(features))?;
            if groups.iter().any(|&g| g > MAX_GROUPS) {
                return None;
            }
            Some((Dispatch { kernel: alternative.kernel, constants, groups, ..self.clone() }, alternative.expected))
        };
        self.kernel.alternatives.iter().filter_map(suited).collect()
    }
}
