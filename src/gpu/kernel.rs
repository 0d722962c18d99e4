//! What a kernel is: WGSL sources, bindings, parameters and a Rust reference, as one static.
//!
//! The kernel families fill statics of [`KernelDef`] and a dispatch holds a reference to one. Tests compare each against its
//! WGSL by reflection (`shader/link.rs`) and against its reference by running it.

use super::kernel_args::KernelArgs;
use super::work::WorkFn;
use super::{Dispatch, Feature, Features, Kind};

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Written whole (within the span bound), never read.
    Write,
    /// Read and written, or written in part.
    ReadWrite,
}

/// One storage binding. Binding 0 is the uniform `Params`; these follow from 1 in order.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Name of the WGSL variable.
    pub name: &'static str,
    /// How it is used.
    pub access: Access,
    /// Element kind.
    pub kind: Kind,
    /// Shape for the reader, for example `[tokens, channels]`.
    pub shape: &'static str,
    /// Whether the shader reads a texture into which the executor copies the span, four elements a texel (of `Packed` spans, two words):
    /// see [`super::texels`]. Only of alternatives.
    pub texels: bool,
    /// The struct that an element of a table is; `None` where elements are scalars or vectors.
    pub row: Option<StructDef>,
}

impl Binding {
    /// A binding that is only read.
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

    /// A binding that is written whole.
    pub const fn write(name: &'static str, kind: Kind, shape: &'static str) -> Self {
        Self { name, access: Access::Write, kind, shape, texels: false, row: None }
    }

    /// A binding that is read and written.
    pub const fn read_write(name: &'static str, kind: Kind, shape: &'static str) -> Self {
        Self { name, access: Access::ReadWrite, kind, shape, texels: false, row: None }
    }
}

/// A WGSL file of the crate, with the variant that takes its place on devices with an optional feature, where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Path below `shaders/` without the ending, for example `norm/rms_norm`.
    pub path: &'static str,
    /// Its text, without `enable` lines: the linker writes them.
    pub text: &'static str,
    /// Another variant of this part.
    pub variant: Option<PartVariant>,
    /// What the device must have for a kernel with this part.
    pub needs: Option<Feature>,
}

/// Another variant of a part: the same declarations for the other parts and the same bindings, for devices with a feature.
#[derive(Clone, Copy, Debug)]
pub struct PartVariant {
    /// What the device must have.
    pub needs: Feature,
    /// Path below `shaders/` without the ending.
    pub path: &'static str,
    /// Its text, without `enable` lines.
    pub text: &'static str,
}

impl Source {
    /// A part that has one variant.
    pub const fn new(path: &'static str, text: &'static str) -> Self {
        Self { path, text, variant: None, needs: None }
    }

    /// This part, with another variant for devices that have `needs`.
    pub const fn or(self, needs: Feature, other: Source) -> Self {
        Self { variant: Some(PartVariant { needs, path: other.path, text: other.text }), ..self }
    }

    /// This part, which only devices with `feature` can run.
    pub const fn needing(self, feature: Feature) -> Self {
        Self { needs: Some(feature), ..self }
    }
}

/// The WGSL file `shaders/<path>.wgsl` as a [`Source`], with `Feature => "path"` behind it where there is an alternative:
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

/// Scalar type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `u32` in Rust and WGSL.
    U32,
    /// `i32` in Rust and WGSL.
    I32,
    /// `f32` in Rust and WGSL.
    F32,
}

/// Name and type of one member of a parameter block; members are four bytes each, in order.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Member name, the same in Rust and WGSL.
    pub name: &'static str,
    /// Scalar type.
    pub scalar: Scalar,
}

/// A plain block of four-byte scalars that matches the WGSL struct `Params`.
pub trait Params: bytemuck::Pod {
    /// Its members in order.
    const FIELDS: &'static [Field];
}

/// Declares a parameter block: a `#[repr(C)]` struct of `u32`, `i32` and `f32` members with its [`Params`] description.
#[macro_export]
macro_rules! params {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ident),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
        impl $crate::gpu::Params for $name {
            const FIELDS: &'static [$crate::gpu::Field] =
                &[$($crate::gpu::Field { name: stringify!($field), scalar: $crate::params!(@scalar $ty) }),*];
        }
    };
    (@scalar u32) => { $crate::gpu::Scalar::U32 };
    (@scalar i32) => { $crate::gpu::Scalar::I32 };
    (@scalar f32) => { $crate::gpu::Scalar::F32 };
}

/// Name and members of a struct that Rust and WGSL declare alike.
#[derive(Clone, Copy, Debug)]
pub struct StructDef {
    /// Its name in both.
    pub name: &'static str,
    /// Its members in order, four bytes each.
    pub fields: &'static [Field],
}

/// One element of a table of words: a plain struct that WGSL declares under the same name.
pub trait TableRow: bytemuck::Pod {
    /// Its description.
    const DEF: StructDef;
}

/// Declares an element of a table: a `#[repr(C)]` struct of `u32` and `i32` members with its [`TableRow`] description.
/// A binding names it with [`Binding::of_rows`], and reflection compares it with the WGSL struct.
#[macro_export]
macro_rules! table_row {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ident),* $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
        impl $crate::gpu::TableRow for $name {
            const DEF: $crate::gpu::StructDef = $crate::gpu::StructDef {
                name: stringify!($name),
                fields: &[$($crate::gpu::Field { name: stringify!($field), scalar: $crate::params!(@scalar $ty) }),*],
            };
        }
    };
}

/// Values of the constants of an alternative, and its workgroups per axis.
pub type Shape = (Vec<u32>, [u32; 3]);

/// Another kernel for the same dispatch: the same bindings, parameters and result, other code and another grid.
#[derive(Clone, Copy, Debug)]
pub struct Alternative {
    /// The kernel; its references are those of the kernel that it stands in for.
    pub kernel: &'static KernelDef,
    /// Where it is expected to be the faster one: what is tried first, and taken where nothing was measured.
    pub expected: Expected,
    /// Values of its constants and workgroups per axis for a dispatch, or none where it does not suit.
    pub shape: fn(&Dispatch) -> Option<Shape>,
}

/// Devices on which an alternative is expected to win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// All that can run it.
    Everywhere,
    /// Software adapters: a workgroup runs on one core, and barriers and workgroup memory cost most.
    OnSoftware,
    /// GPUs: workgroup memory is quicker than memory.
    OnHardware,
}

/// One kernel, for one storage format where there are several.
pub struct KernelDef {
    /// `family/entry_point`: the path of its WGSL file; the entry point is the last part.
    pub label: &'static str,
    /// Distinguishes statics that share a label, for example `bf16`; empty where there is one.
    pub suffix: &'static str,
    /// WGSL parts, concatenated in any order. Those with an alternative are picked for the device.
    pub parts: &'static [Source],
    /// Storage bindings in order, from binding 1.
    pub bindings: &'static [Binding],
    /// Members of the uniform `Params` at binding 0.
    pub params: &'static [Field],
    /// Names of the `const NAME: u32` declarations that a dispatch supplies.
    pub constants: &'static [&'static str],
    /// Other kernels that compute the same, for some devices and sizes faster. The device chooses.
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

    /// Whether a grid of one axis may be folded over two: the shader unfolds it by `num_workgroups`.
    pub fn is_foldable(&self) -> bool {
        self.parts.iter().any(|p| p.text.contains("num_workgroups"))
    }

    /// Path and text of every part in every variant.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let other = |part: &Source| part.variant.map(|other| (other.path, other.text));
        self.parts.iter().flat_map(move |part| std::iter::once((part.path, part.text)).chain(other(part)))
    }

    /// This kernel and its alternatives.
    pub fn with_alternatives(&'static self) -> Vec<&'static KernelDef> {
        std::iter::once(self).chain(self.alternatives.iter().map(|alternative| alternative.kernel)).collect()
    }

    /// The features that some variant of this kernel uses.
    pub fn features(&self) -> Features {
        let variants = self.parts.iter().flat_map(|p| p.variant).map(|other| other.needs);
        variants.fold(self.required(), Features::with)
    }

    /// The features that every variant of this kernel uses: it does not run without them.
    pub fn required(&self) -> Features {
        self.parts.iter().flat_map(|p| p.needs).fold(Features::NONE, Features::with)
    }

    /// Whether a device with `features` can run it in some variant.
    pub fn runs_with(&self, features: Features) -> bool {
        self.required().and(features) == self.required()
    }

    /// The sets of features that pick a variant each, from the fewest to all.
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
