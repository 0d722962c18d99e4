//! Atomic writes of files and folders: written under a temporary name on the same disk, then
//! renamed.
//!
//! All results are written this way, so that a crash, a full disk or Ctrl-C never leaves a partial
//! file under the final name.

use crate::error::{Context, Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes the file at `path` with `fill`. Replaces an old file only when everything is on disk.
///
/// Replaces a symbolic link and leaves its target as it is: in a folder that others can write to,
/// a link could lead anywhere. Creates missing parent folders. Fails for devices and folders, and
/// for links to them. If `fill` or the disk fails, the old file stays unchanged and the temporary
/// file is removed.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let write = || -> Result<()> {
        make_replaceable(path)?;
        let (temporary, file) = Temporary::make(folder_of(path), |path| File::create_new(path))?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        fill(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        drop(writer); // Windows cannot rename an open file
        fs::rename(&temporary.path, path)?;
        sync_folder(folder_of(path));
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// [`write_atomic`] for content in memory.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_atomic(path, |file| Ok(file.write_all(content.as_ref())?))
}

/// [`write_file`] in the folder `scratch` on the same disk, then renamed to `path`: what a killed
/// program leaves is in `scratch`.
pub fn write_through(scratch: &Path, path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let unfinished = scratch.join(path.file_name().unwrap_or_default());
    write_file(&unfinished, content)?;
    fs::rename(&unfinished, path).with_context(|| format!("writing {}", path.display()))
}

/// Appends all of the bytes to an open file, or none: a partial line or record would corrupt the next one too.
pub fn append_whole(file: &mut File, bytes: &[u8]) -> Result<()> {
    let before = file.stream_position()?;
    let written = file.write_all(bytes);
    if written.is_err() {
        file.set_len(before)?;
        file.seek(SeekFrom::Start(before))?;
    }
    Ok(written?)
}

/// Fails for a path that [`write_atomic`] would reject, so that a program can check before it
/// starts the work.
pub fn check_target(path: &Path) -> Result<()> {
    make_replaceable(path).with_context(|| format!("writing {}", path.display()))
}

/// Creates the folder of a file. Fails if the path is anything that a rename must not replace.
fn make_replaceable(path: &Path) -> Result<()> {
    crate::ensure!(path.file_name().is_some(), "the path names no file");
    // The target of a link: `/dev/stdout` must not become a file.
    if let Ok(target) = path.metadata() {
        crate::ensure!(target.is_file(), "it is no regular file but a folder or a device: give the path of a file");
    }
    let folder = folder_of(path);
    fs::create_dir_all(folder).with_context(|| format!("creating the folder {}", folder.display()))
}

/// Writes the folder at `path`: `fill` writes its files to a temporary folder, which is then
/// renamed. Creates missing parent folders.
///
/// If the folder exists, it may be a mount point or a link to another disk, so the temporary folder
/// is created inside it. A rename then moves each new file over the old file of the same name. All
/// other files stay. `fill` should write each file with [`write_atomic`].
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let write = || -> Result<()> {
        crate::ensure!(path.file_name().is_some() || path.is_dir(), "the path names no folder");
        let exists = path.symlink_metadata().is_ok();
        crate::ensure!(!exists || path.is_dir(), "a file or a dangling link with this name exists");
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
    for name in files_within(from)? {
        let target = to.join(&name);
        let rename = || {
            fs::create_dir_all(folder_of(&target))?;
            fs::rename(from.join(&name), &target)
        };
        rename().with_context(|| name.display().to_string())?;
    }
    Ok(())
}

/// The files in a folder and in the folders in it, as paths from the folder. JSON files are last: if
/// files are placed in this order, a reader who sees the new configuration finds the new weights.
pub fn files_within(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let into = if entry.file_type()?.is_dir() { &mut folders } else { &mut files };
            into.push(below.join(entry.file_name()));
        }
    }
    files.sort_by_key(|path: &PathBuf| (path.extension().is_some_and(|e| e == "json"), path.clone()));
    Ok(files)
}

/// Makes the rename durable on systems that can open a folder. A failure costs only durability.
pub fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().ok();
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A temporary file or folder, removed when dropped.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Creates a file or folder in `folder` with `make`, under an unused name.
    fn make<T>(folder: &Path, make: impl Fn(&Path) -> io::Result<T>) -> Result<(Self, T)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".longreach-{}-{n}.tmp", std::process::id()));
            match make(&path) {
                Ok(made) => return Ok((Self { path }, made)),
                // Left by a killed process with the same id; in a container, every run has the same
                // id.
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
            fs::remove_file(&self.path).ok(); // absent after the rename
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
    fn folders_within_a_folder_are_written_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        for text in ["one", "two"] {
            write_folder(&path, |d| {
                fs::create_dir(d.join("more"))?;
                fs::write(d.join("a.json"), text)?;
                Ok(fs::write(d.join("more/b.txt"), text)?)
            })
            .unwrap();
            assert_eq!(files_within(&path).unwrap(), [Path::new("more/b.txt"), Path::new("a.json")]);
            assert_eq!(fs::read_to_string(path.join("more/b.txt")).unwrap(), text);
        }
        assert_eq!(names(&path), ["a.json", "more"], "nothing temporary is left");
    }

    #[test]
    fn an_existing_folder_is_written_from_inside_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mount");
        fs::create_dir(&path).unwrap();
        // Leftovers of a killed process with the same id.
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
    fn links_are_replaced_and_their_targets_stay() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let [disk, link, to_disk, lost] = ["disk", "link", "to_disk", "lost"].map(|name| dir.path().join(name));
        fs::create_dir(&disk).unwrap();
        let precious = disk.join("x");
        fs::write(&precious, "precious").unwrap();
        let is_file = |path: &Path| path.symlink_metadata().unwrap().is_file();
        for target in [&precious, &dir.path().join("absent")] {
            symlink(target, &link).unwrap();
            write_atomic(&link, |w| Ok(w.write_all(b"new")?)).unwrap();
            assert!(is_file(&link) && fs::read(&link).unwrap() == b"new");
            fs::remove_file(&link).unwrap();
        }
        assert!(!dir.path().join("absent").exists());
        // A folder may be a link; the files in it are replaced, not followed.
        symlink(&disk, &to_disk).unwrap();
        symlink(&precious, disk.join("y")).unwrap();
        write_folder(&to_disk, |d| Ok(fs::write(d.join("y"), "y")?)).unwrap();
        assert!(names(&disk) == ["x", "y"] && is_file(&disk.join("y")));
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        symlink(dir.path().join("absent"), &lost).unwrap();
        assert!(write_folder(&lost, |_| Ok(())).is_err());
        symlink("/dev/null", &link).unwrap();
        for path in [&link, &to_disk] {
            assert!(write_atomic(path, |_| Ok(())).unwrap_err().to_string().contains("no regular file"));
            assert!(path.symlink_metadata().unwrap().is_symlink());
        }
    }
}
