//! Shaders as text: linking, resource needs of a linked kernel, and translation for drivers.

pub mod footprint;
mod link;
pub mod translate;

pub use link::{Linked, check, link, parse, standard_wgsl};
