//! Products of packed weights with activations that are rounded to 8 bits (`--activations q8`).

mod chunk;
mod product;
mod rows;
mod tiles;

pub use product::times_rounded;
