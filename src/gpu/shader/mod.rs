//! Shaders as text: linking, what a linked kernel asks of a device, and its translations.

pub mod footprint;
mod link;
pub mod translate;

pub use link::{Linked, check, link, parse, standard_wgsl};
