//! Files saved to the working folder, under a name that no file has.

use std::path::{Path, PathBuf};

use crate::atomic_file::write_file;
use crate::error::Result;

/// Writes a file to the working folder and returns its path. If the name is taken, appends a number
/// to the stem.
pub(super) fn save(path: &Path, text: &str) -> Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    let (stem, ending) = (
        path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned()),
        path.extension().map_or_else(String::new, |e| format!(".{}", e.to_string_lossy())),
    );
    let mut n = 2;
    while path.exists() {
        path.set_file_name(format!("{stem}-{n}{ending}"));
        n += 1;
    }
    write_file(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("chat.md");
        let paths: Vec<PathBuf> = ["a", "b", "c"].iter().map(|text| save(&wanted, text).unwrap()).collect();
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["chat.md", "chat-2.md", "chat-3.md"]);
        assert_eq!(std::fs::read_to_string(wanted).unwrap(), "a");
    }
}
