//! The bundled model and text, so that `demo` needs no network.
//!
//! The model is stories260K (Andrej Karpathy's tinyllamas, MIT). The text is the first chapters of
//! Moby Dick (public domain). Their licence notes are in `assets/`. Both are read from the
//! program's memory: no file is written.

use super::weights::WeightSource;
use crate::error::Result;
use std::path::Path;

/// The name of the model wherever a model is named, unless a file or folder has that name.
pub const NAME: &str = "stories260k";

/// Chapters 1 to 41 of Moby Dick, one paragraph per line.
pub const MOBY_DICK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/moby-dick.txt"));

/// The `config.json` of stories260K.
pub const CONFIG: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260k/config.json"));
/// Its `tokenizer.json`.
pub const TOKENIZER: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260k/tokenizer.json"));
const WEIGHTS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260k/model.safetensors"));

/// Whether a name is that of the bundled model.
pub fn is_named(model: &str) -> bool {
    model.eq_ignore_ascii_case(NAME) && !Path::new(model).exists()
}

/// Configuration and weights of stories260K.
pub fn stories() -> Result<WeightSource> {
    WeightSource::of_static("stories260K", CONFIG, WEIGHTS)
}
