//! The space that a disk has left.

use std::path::Path;

/// Bytes that a user can still write to the disk of a path. The path need not exist yet. `None` where
/// the system does not tell.
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let existing = path.ancestors().find(|folder| folder.exists())?;
    free_bytes(existing)
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: the name ends with a zero, and the system fills the structure or says that it did not.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(name.as_ptr(), &mut stat) == 0).then_some(stat)
    }?;
    // The types of the fields differ between systems.
    #[allow(clippy::unnecessary_cast)]
    let (blocks, block_bytes) = (stat.f_bavail as u64, stat.f_frsize as u64);
    blocks.checked_mul(block_bytes)
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_does_not_exist_yet_has_the_space_of_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (here, below) = (free_disk_bytes(dir.path()), free_disk_bytes(&dir.path().join("a/b/c")));
        assert_eq!(here.is_some(), cfg!(unix));
        // Other programs write meanwhile.
        if let (Some(here), Some(below)) = (here, below) {
            assert!(here > 0 && here.abs_diff(below) < here / 2, "{here} and {below}");
        }
    }
}
