//! Files and folders that appear whole or not at all: written under a temporary name beside the target, then renamed.
//!
//! It knows no format. Whoever writes results uses this, so that a crash, a full disk or Ctrl-C never leaves half a file
//! under a name that somebody reads later.

use crate::error::{Context, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes the file at `path` through `fill`, replacing an old one only when everything is on disk.
///
/// Where `fill` or the disk fails, the old file is untouched and the temporary one is removed.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let temporary = Temporary::beside(path)?;
    let write = || -> Result<()> {
        let mut writer = BufWriter::with_capacity(1 << 20, File::create_new(&temporary.path)?);
        fill(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        drop(writer); // Windows does not rename an open file
        fs::rename(&temporary.path, path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))?;
    sync_folder_of(path);
    Ok(())
}

/// Writes the folder at `path`: `fill` puts finished files into a temporary folder, which is then renamed.
///
/// Where a folder of that name exists already, each new file replaces its namesake by a rename and all other files stay:
/// they are not ours to delete. `fill` should write each file with [`write_atomic`] and make no sub-folders.
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = Temporary::beside(path)?;
    let write = || -> Result<()> {
        fs::create_dir(&temporary.path)?;
        fill(&temporary.path)?;
        if path.exists() { move_files(&temporary.path, path) } else { Ok(fs::rename(&temporary.path, path)?) }
    };
    write().with_context(|| format!("writing the folder {}", path.display()))?;
    sync_folder_of(path);
    Ok(())
}

fn move_files(from: &Path, to: &Path) -> Result<()> {
    crate::ensure!(to.is_dir(), "a file of that name is in the way");
    let mut names = Vec::new();
    for entry in fs::read_dir(from)? {
        names.push(entry?.file_name());
    }
    // Small description files last: a reader that meets the new description finds the new weights.
    names.sort_by_key(|name| (Path::new(name).extension().is_some_and(|e| e == "json"), name.clone()));
    for name in names {
        fs::rename(from.join(&name), to.join(&name)).with_context(|| name.display().to_string())?;
    }
    Ok(())
}

/// Makes the rename itself durable where the system lets one open a folder; a failure costs durability only.
fn sync_folder_of(path: &Path) {
    if let Ok(folder) = File::open(folder_of(path)) {
        folder.sync_all().ok();
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name that nothing has yet; whatever is there at the end is removed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn beside(path: &Path) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let Some(name) = path.file_name() else { crate::bail!("{} names no file to write", path.display()) };
        let folder = folder_of(path);
        fs::create_dir_all(folder).with_context(|| format!("creating the folder {}", folder.display()))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        Ok(Self { path: folder.join(hidden) })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.path.is_dir() {
            fs::remove_dir_all(&self.path).ok();
        } else {
            fs::remove_file(&self.path).ok(); // absent after the rename, which is well
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failing_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/out.txt");
        write_atomic(&path, |w| Ok(w.write_all(b"old")?)).unwrap();
        let e = write_atomic(&path, |w| {
            w.write_all(b"half")?;
            crate::bail!("disk full")
        });
        assert!(e.unwrap_err().to_string().contains("out.txt: disk full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(path.parent().unwrap()), ["out.txt"]);
        write_atomic(&path, |w| Ok(w.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_folder_appears_whole_and_keeps_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        let fill = |text: &'static str| {
            move |d: &Path| {
                fs::write(d.join("a.json"), text)?;
                Ok(fs::write(d.join("b.bin"), text)?)
            }
        };
        assert!(
            write_folder(&path, |d| {
                fs::write(d.join("a.json"), "half")?;
                crate::bail!("no")
            })
            .is_err()
        );
        assert!(names(dir.path()).is_empty());
        write_folder(&path, fill("one")).unwrap();
        fs::write(path.join("mine.txt"), "keep").unwrap();
        write_folder(&path, fill("two")).unwrap();
        assert_eq!(names(&path), ["a.json", "b.bin", "mine.txt"]);
        assert_eq!(fs::read_to_string(path.join("a.json")).unwrap(), "two");
        assert_eq!(names(dir.path()), ["adapter"]);
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        assert!(write_atomic(Path::new("/"), |_| Ok(())).is_err());
    }
}
