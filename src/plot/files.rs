//! Saves a picture as an SVG and a PNG file.

use std::path::{Path, PathBuf};

use crate::atomic_file::write_file;
use crate::error::Result;

/// Writes a picture to a folder as `STEM.svg` and `STEM.png`. Returns the paths.
pub fn save(dir: &Path, stem: &str, svg: String, png: Vec<u8>) -> Result<[PathBuf; 2]> {
    let paths = ["svg", "png"].map(|ending| dir.join(format!("{stem}.{ending}")));
    write_file(&paths[0], svg)?;
    write_file(&paths[1], png)?;
    Ok(paths)
}
