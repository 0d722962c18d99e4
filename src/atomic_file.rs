//! Files and folders that appear whole or not at all: written under a temporary name on the same disk, then renamed.
//!
//! It knows no format. Whoever writes results uses this, so that a crash, a full disk or Ctrl-C never leaves half a file
//! under a name that somebody reads later.

use crate::error::{Context, Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes the file at `path` through `fill`, replacing an old one only when everything is on disk.
///
/// A symbolic link stays and the file that it leads to is replaced. Folders above the file are made; devices, folders and links to
/// nothing are refused. Where `fill` or the disk fails, the old file is untouched and the temporary one is removed.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let write = || -> Result<()> {
        let target = file_target(path)?;
        let (temporary, file) = Temporary::make(folder_of(&target), |path| File::create_new(path))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        fill(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        drop(writer); // Windows does not rename an open file
        fs::rename(&temporary.path, &target)?;
        sync_folder(folder_of(&target));
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// [`write_atomic`] for content that is there already.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_atomic(path, |file| Ok(file.write_all(content.as_ref())?))
}

/// Refuses a path that [`write_atomic`] would refuse, so that no work is done for a file that cannot be written.
pub fn check_target(path: &Path) -> Result<()> {
    file_target(path).map(|_| ()).with_context(|| format!("writing {}", path.display()))
}

/// Where a file named `path` goes: what a link leads to, else the path itself. Refuses what a rename must not replace.
fn file_target(path: &Path) -> Result<PathBuf> {
    crate::ensure!(path.file_name().is_some(), "that names no file");
    if path.symlink_metadata().is_ok() {
        let target = path.canonicalize().context("it is a link that leads nowhere")?;
        crate::ensure!(target.is_file(), "it is no regular file but a folder or a device: name a file");
        return Ok(target);
    }
    let folder = folder_of(path);
    fs::create_dir_all(folder).with_context(|| format!("creating the folder {}", folder.display()))?;
    Ok(path.to_owned())
}

/// Writes the folder at `path`: `fill` puts finished files into a temporary folder, which is then renamed. Folders above
/// it are made.
///
/// Where the folder exists already, which may be a mount point or a link to another disk, the temporary one lies inside it.
/// Each new file then replaces its namesake by a rename and all other files stay: they are not ours to delete. `fill` should
/// write each file with [`write_atomic`] and make no sub-folders.
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let write = || -> Result<()> {
        crate::ensure!(path.file_name().is_some() || path.is_dir(), "that names no folder");
        let exists = path.symlink_metadata().is_ok();
        crate::ensure!(!exists || path.is_dir(), "a file, or a link that leads nowhere, is in the way");
        let home = if exists { path } else { folder_of(path) };
        fs::create_dir_all(home).with_context(|| format!("creating the folder {}", home.display()))?;
        let (temporary, ()) = Temporary::make(home, |path| fs::create_dir(path))?;
        fill(&temporary.path)?;
        if exists {
            move_files(&temporary.path, path)?
        } else {
            fs::rename(&temporary.path, path)?
        }
        sync_folder(home);
        Ok(())
    };
    write().with_context(|| format!("writing the folder {}", path.display()))
}

fn move_files(from: &Path, to: &Path) -> Result<()> {
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
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
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
    /// Makes something in `folder` under a name that was free.
    fn make<T>(folder: &Path, make: impl Fn(&Path) -> io::Result<T>) -> Result<(Self, T)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".longreach-{}-{n}.tmp", std::process::id()));
            match make(&path) {
                Ok(made) => return Ok((Self { path }, made)),
                // A killed process with the same id, as every run in a container has, left it.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::from(e).context(format!("in the folder {}", folder.display()))),
            }
        }
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
        let path = dir.path().join("out.txt");
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
    fn an_existing_folder_is_written_from_inside_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mount");
        fs::create_dir(&path).unwrap();
        // What a killed process of the same id may have left.
        let next = |n: u64| path.join(format!(".longreach-{}-{n}.tmp", std::process::id()));
        (0..64).for_each(|n| fs::create_dir(next(n)).unwrap());
        write_folder(&path, |d| {
            assert_eq!(d.parent(), Some(path.as_path()), "a rename from elsewhere may cross to another disk");
            assert_eq!(names(dir.path()), ["mount"]);
            Ok(fs::write(d.join("a.json"), "text")?)
        })
        .unwrap();
        assert!(write_folder(&path, |_| crate::bail!("no")).is_err());
        (0..64).for_each(|n| fs::remove_dir(next(n)).unwrap());
        assert_eq!(names(&path), ["a.json"]);
    }

    #[test]
    fn what_is_no_file_to_replace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = |path: &Path| write_atomic(path, |_| panic!("written")).unwrap_err().to_string();
        assert!(refusal(Path::new("/")).contains("names no file"));
        assert!(refusal(dir.path()).contains("no regular file"));
        fs::write(dir.path().join("file"), "text").unwrap();
        assert!(refusal(&dir.path().join("file/out")).contains("file"), "a file is no folder");
        assert_eq!(names(dir.path()), ["file"]);
        #[cfg(unix)]
        assert!(refusal(Path::new("/dev/null")).contains("no regular file"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let [disk, link, to_disk, lost] = ["disk", "link", "to_disk", "lost"].map(|name| dir.path().join(name));
        fs::create_dir(&disk).unwrap();
        fs::write(disk.join("x"), "old").unwrap();
        symlink(disk.join("x"), &link).unwrap();
        write_atomic(&link, |w| Ok(w.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read(disk.join("x")).unwrap(), b"new");
        symlink(&disk, &to_disk).unwrap();
        write_folder(&to_disk, |d| Ok(fs::write(d.join("y"), "y")?)).unwrap();
        assert_eq!(names(&disk), ["x", "y"]);
        symlink(dir.path().join("absent"), &lost).unwrap();
        assert!(write_atomic(&lost, |_| Ok(())).is_err() && write_folder(&lost, |_| Ok(())).is_err());
        assert!([&link, &to_disk, &lost].iter().all(|p| p.symlink_metadata().unwrap().is_symlink()));
    }
}
