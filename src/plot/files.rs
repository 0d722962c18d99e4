//! A picture as files.

use std::path::{Path, PathBuf};

use crate::atomic_file::write_file;
use crate::error::Result;

/// Writes a picture to a folder as `STEM.svg` and `STEM.png`; their paths.
pub fn save(dir: &Path, stem: &str, svg: String, png: Vec<u8>) -> Result<[PathBuf; 2]> {
    let paths = ["svg", "png"].map(|ending| dir.join(format!("{stem}.{ending}")));
    write_file(&paths[0], svg)?;
    write_file(&paths[1], png)?;
    Ok(paths)
}
