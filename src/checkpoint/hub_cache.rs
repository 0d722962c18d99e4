//! The download cache in huggingface_hub's layout: blobs, the snapshots that link to them, and refs.
//!
//! A model's folder `models--org--name` holds each file once under `blobs/`, one folder per commit
//! under `snapshots/` with links to the blobs, and the commit of each branch under `refs/`. Empty
//! files under `.no_exist/` say which files a commit lacks. No text of a server becomes a path:
//! [`is_commit`] and [`Blob::of_etag`] decide what may.

use super::fingerprint::hex;
use crate::atomic_file::write_file;
use crate::error::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Whether this is a valid part of a model id. Such a name cannot leave its folder when used as a
/// file name.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 200 && name.chars().all(plain) && !name.starts_with(['.', '-'])
}

/// Whether this is a relative path of plain names that cannot leave its folder.
pub(super) fn is_relative(path: &str) -> bool {
    path.split('/').all(is_name)
}

/// Whether this is a commit as git writes it: 40 or 64 hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The name under which a file's content is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    name: String,
    /// Whether the name is the SHA-256 of the content, as for all large files on the hub.
    pub is_checksum: bool,
}

impl Blob {
    /// The blob of an ETag. Git's and SHA-256's digests name it, as in huggingface_hub. Any other
    /// ETag is hashed, because it may hold anything.
    pub fn of_etag(etag: &str) -> Self {
        let text = etag.trim().trim_start_matches("W/").trim_matches('"');
        if is_commit(text) {
            return Self { name: text.to_owned(), is_checksum: text.len() == 64 };
        }
        Self { name: hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()), is_checksum: false }
    }

    /// Whether a file holds this blob's content, as far as its name tells.
    pub fn is_content_of(&self, path: &Path) -> Result<bool> {
        if !self.is_checksum {
            return Ok(true);
        }
        let mut file = File::open(path)?;
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(hex(digest.finish().as_ref()) == self.name),
                n => digest.update(&buffer[..n]),
            }
        }
    }
}

/// The cached files of one model.
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    /// The model `org/name` in a cache. Creates nothing.
    pub fn new(cache: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(&name) }
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit of a branch, tag or commit, if the cache knows it.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        let recorded = fs::read_to_string(self.folder.join("refs").join(revision));
        let commit = recorded.map_or_else(|_| revision.to_owned(), |text| text.trim().to_owned());
        (is_name(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Records the commit of a branch or tag.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        write_file(&self.folder.join("refs").join(revision), commit)
    }

    /// Whether a commit is known to lack a file.
    pub fn lacks(&self, commit: &str, file: &str) -> bool {
        self.absence(commit, file).is_file()
    }

    /// Records that a commit lacks a file. A failure costs a request later.
    pub fn set_lacking(&self, commit: &str, file: &str) {
        let path = self.absence(commit, file);
        path.parent().map(fs::create_dir_all);
        fs::write(path, "").ok();
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join(".no_exist").join(commit).join(file)
    }

    /// The path of a blob. Creates its folder.
    pub fn blob(&self, blob: &Blob) -> Result<PathBuf> {
        let folder = self.folder.join("blobs");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder.join(&blob.name))
    }

    /// The part of a blob that has been downloaded. Creates nothing.
    pub fn partial(&self, name: &str) -> PathBuf {
        self.folder.join("blobs").join(name).with_extension("incomplete")
    }

    /// Takes the lock of a blob, so that programs that share the cache do not write it at once.
    /// `wait` is called before waiting for another program. `None` where the disk has no locks.
    pub fn lock(&self, blob: &Blob, wait: impl FnOnce()) -> Option<File> {
        fs::create_dir_all(&self.locks).ok()?;
        let path = self.locks.join(format!("{}.lock", blob.name));
        let file = File::options().create(true).truncate(false).write(true).open(path).ok()?;
        if file.try_lock().is_err() {
            wait();
            file.lock().ok()?;
        }
        Some(file)
    }

    /// Puts a blob into a snapshot under the name of its file, and returns that path.
    pub fn link(&self, commit: &str, file: &str, blob: &Blob) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(file);
        let make = || -> Result<()> {
            path.parent().map(fs::create_dir_all).transpose()?;
            if path.symlink_metadata().is_ok() {
                fs::remove_file(&path)?;
            }
            let ups = "../".repeat(2 + file.matches('/').count());
            link_file(
                Path::new(&format!("{ups}blobs/{}", blob.name)),
                &self.folder.join("blobs").join(&blob.name),
                &path,
            )
        };
        make().with_context(|| format!("linking {}", path.display()))?;
        Ok(path)
    }
}

/// Makes a relative link, or, on systems that allow none, a hard link or a copy.
fn link_file(target: &Path, blob: &Path, path: &Path) -> Result<()> {
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(target, path);
    #[cfg(windows)]
    let linked = std::os::windows::fs::symlink_file(target, path);
    if linked.is_err() && fs::hard_link(blob, path).is_err() {
        fs::copy(blob, path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_etag_and_no_commit_becomes_a_path() {
        let git = "a".repeat(40);
        let sha = "0123456789abcdef".repeat(4);
        assert_eq!(Blob::of_etag(&format!("\"{git}\"")), Blob { name: git.clone(), is_checksum: false });
        assert_eq!(Blob::of_etag(&format!("W/\"{sha}\"")), Blob { name: sha.clone(), is_checksum: true });
        for etag in ["../../x", "/etc/passwd", "", ".", "5f3e-1a2b", &"a".repeat(43), &"A".repeat(40), "C:\\x"] {
            let blob = Blob::of_etag(etag);
            assert!(is_hex(&blob.name) && blob.name.len() == 64 && !blob.is_checksum, "{etag}: {blob:?}");
        }
        assert_ne!(Blob::of_etag("a-1"), Blob::of_etag("a-2"));
        assert!(is_commit(&git) && is_commit(&sha));
        for commit in ["", "main", "../../../escaped", &"a".repeat(41), &"G".repeat(40)] {
            assert!(!is_commit(commit), "{commit}");
        }
    }

    #[test]
    fn a_checksum_is_compared_with_the_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(Blob::of_etag(abc).is_content_of(file.path()).unwrap());
        assert!(!Blob::of_etag(&"0".repeat(64)).is_content_of(file.path()).unwrap());
        assert!(Blob::of_etag("weak").is_content_of(file.path()).unwrap());
    }

    #[test]
    fn files_in_folders_link_to_their_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let repo = RepoCache::new(dir.path(), "org/name");
        let (commit, blob) = ("c".repeat(40), Blob::of_etag("x"));
        fs::write(repo.blob(&blob).unwrap(), "text").unwrap();
        for file in ["config.json", "q4/deep/x.gguf", "config.json"] {
            let path = repo.link(&commit, file, &blob).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"text");
            #[cfg(unix)]
            assert!(fs::read_link(&path).unwrap().is_relative());
        }
        assert_eq!(repo.commit_of("main"), None);
        repo.set_commit("main", &commit).unwrap();
        assert_eq!((repo.commit_of("main"), repo.commit_of(&commit)), (Some(commit.clone()), Some(commit.clone())));
        repo.set_lacking(&commit, "a/b.json");
        assert!(repo.lacks(&commit, "a/b.json") && !repo.lacks(&commit, "b.json"));
    }
}
