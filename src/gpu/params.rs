//! Parameter blocks and table rows: plain structs of four-byte scalars that Rust and WGSL declare
//! alike.

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

/// Name and type of one member of a parameter block. Members are four bytes each, in order.
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

/// Declares a parameter block: a `#[repr(C)]` struct of `u32`, `i32` and `f32` members with its
/// [`Params`] description.
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

/// Declares an element of a table: a `#[repr(C)]` struct of `u32` and `i32` members with its
/// [`TableRow`] description. A binding names it with `Binding::of_rows`, and reflection compares
/// it with the WGSL struct.
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
