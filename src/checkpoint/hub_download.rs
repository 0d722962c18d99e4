//! Downloads one file of a model into the cache: resumed after a break, with size and checksum compared.

use super::hub_cache::{Blob, RepoCache, is_commit};
use super::hub_client::{Answer, Client, Failure, Fetch, Step, refused, unreachable};
use crate::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ureq::Body;

/// A try that brings as many bytes is not counted among those that fail in a row.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A file in the cache, and the commit whose snapshot holds it.
pub(super) struct Fetched {
    pub path: PathBuf,
    pub commit: String,
}

/// The download of files of one model.
pub(super) struct Download<'a> {
    pub client: &'a Client<'a>,
    pub repo: &'a RepoCache,
    /// `org/name`.
    pub id: &'a str,
}

impl Download<'_> {
    /// Fetches a file of a branch, tag or commit. `None` if the model does not have it.
    ///
    /// A part of the file from an earlier download is continued. The file appears under its name
    /// when it is complete: its size is the announced one, and so is the SHA-256 if the hub names
    /// it.
    pub fn fetch(&self, revision: &str, file: &str) -> Fetch<Option<Fetched>> {
        let path = format!("{}/resolve/{}/{file}", self.id, revision.replace('/', "%2F"));
        self.client.bar.set_message(file.to_owned());
        let answer = self.client.get(&path, 0)?;
        if !check_status(&answer, revision, file)? {
            return Ok(None);
        }
        let whose = |what: &str| {
            refused(format!(
                "the answer for {file} {what}, so it is not a model hub's: check HF_ENDPOINT, and whether a proxy or a \
                login page answers in the hub's place"
            ))
        };
        if answer.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html")) {
            return Err(whose("is a web page"));
        }
        let Some(commit) = answer.meta.commit.clone().filter(|commit| is_commit(commit)) else {
            return Err(whose("names no commit (X-Repo-Commit of 40 hexadecimal digits)"));
        };
        let Some(etag) = answer.meta.etag.clone() else { return Err(whose("has no ETag")) };
        let blob = Blob::of_etag(&etag);
        let size = answer.meta.size.or(announced_size(&answer));
        self.store(&path, file, &blob, size, answer)?;
        let path = self.repo.link(&commit, file, &blob).map_err(Failure::Refused)?;
        Ok(Some(Fetched { path, commit }))
    }

    /// Makes the blob of a file, unless it is there.
    fn store(&self, path: &str, file: &str, blob: &Blob, size: Option<u64>, first: Answer) -> Fetch<()> {
        let disk = |e: Error| Failure::Refused(e.context(format!("writing {file} to the model cache")));
        let to = self.repo.blob(blob).map_err(disk)?;
        let bar = &self.client.bar;
        let _lock = self.repo.lock(blob, || bar.set_message(format!("{file}: another program is downloading it")));
        if let Some(meta) = fs::metadata(&to).ok().filter(|meta| size.is_none_or(|size| size == meta.len())) {
            return self.client.tell(Step::File { name: file, have: meta.len(), size: Some(meta.len()) });
        }
        let partial = to.with_extension("incomplete");
        let mut part = Part::open(&partial, size).map_err(|e| disk(e.into()))?;
        bar.reset();
        bar.set_message(file.to_owned());
        bar.set_length(size.unwrap_or(0));
        bar.set_position(part.have);
        self.client.tell(Step::File { name: file, have: part.have, size })?;
        self.transfer(path, file, &mut part, first, &disk)?;
        part.file.sync_all().map_err(|e| disk(e.into()))?;
        drop(part);
        bar.set_message(format!("{file}: comparing the checksum"));
        if blob.is_checksum {
            self.client.tell(Step::Checking)?;
        }
        if !blob.is_content_of(&partial).map_err(disk)? {
            fs::remove_file(&partial).ok();
            return Err(refused(format!("{file} arrived with another SHA-256 than the hub announced; try again")));
        }
        fs::rename(&partial, &to).map_err(|e| disk(e.into()))?;
        self.client.tell(Step::Whole { is_checked: blob.is_checksum })
    }

    /// Downloads the rest of a file, in as many tries as make progress.
    fn transfer(
        &self,
        path: &str,
        file: &str,
        part: &mut Part,
        first: Answer,
        disk: &dyn Fn(Error) -> Failure,
    ) -> Fetch<()> {
        let limits = self.client.limits;
        // The first answer begins at the first byte. If some bytes are there, it is not read.
        let mut answer = (part.have == 0).then_some(first);
        let mut failures = 0;
        while !part.is_complete() {
            let current = match answer.take() {
                Some(answer) => answer,
                None => self.client.get(path, part.have)?,
            };
            let before = part.have;
            if !part.place(&current).map_err(|e| disk(e.into()))? {
                failures += 1;
                if failures >= limits.tries {
                    return Err(unreachable(format!("HTTP status {} for a part of {file}", current.status)));
                }
                continue;
            }
            let end = match self.copy(current.body, part) {
                Ok(()) if part.is_all_there() => return Ok(()),
                Ok(()) => End::Broken("the transfer ended early".into()),
                Err(end) => end,
            };
            let brought = part.have.saturating_sub(before);
            failures = if brought >= PROGRESS_BYTES { 0 } else { failures + 1 };
            let why = match end {
                End::Disk(e) => return Err(disk(e.into())),
                End::Told(failure) => return Err(failure),
                End::Stalled(why) if failures > 0 => {
                    return Err(unreachable(format!(
                        "{file}: {why} after {} bytes; the next run continues there",
                        part.have
                    )));
                }
                End::Stalled(why) | End::Broken(why) => why,
            };
            if failures >= limits.tries {
                return Err(unreachable(format!(
                    "{file}: {why} after {} bytes, {failures} times in a row; the next run continues there",
                    part.have
                )));
            }
            self.client.pause(limits.pause, &format!("{file}: {why}"))?;
        }
        Ok(())
    }

    /// Appends a body to a part, as long as bytes keep coming.
    fn copy(&self, body: Body, part: &mut Part) -> Result<(), End> {
        let limits = self.client.limits;
        let mut reader = body.into_reader();
        let mut buffer = vec![0; 1 << 16];
        let (mut since, mut recent) = (Instant::now(), 0u64);
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(End::of(ureq::Error::from(e), limits.silence)),
            };
            part.append(&buffer[..n])?;
            self.client.bar.set_position(part.have);
            self.client.tell(Step::Bytes(part.have)).map_err(End::Told)?;
            recent += n as u64;
            let time = since.elapsed();
            if time >= limits.silence {
                let least = limits.slowest as f64 * time.as_secs_f64();
                if (recent as f64) < least {
                    let why = format!("only {recent} bytes came in {} s", time.as_secs());
                    return Err(End::Stalled(why));
                }
                (since, recent) = (Instant::now(), 0);
            }
        }
    }
}

/// Whether the model has the file. Fails for an answer that says neither.
pub(super) fn check_status(answer: &Answer, revision: &str, file: &str) -> Fetch<bool> {
    let code = answer.header("x-error-code").unwrap_or_default();
    match (answer.status, code.as_str()) {
        (200..=299, _) => Ok(true),
        (404 | 410, "RevisionNotFound") => Err(refused(format!("the model has no branch, tag or commit '{revision}'"))),
        (404 | 410, "RepoNotFound") => Err(refused("there is no such model (did you mean a local path?)")),
        (404 | 410, _) => Ok(false),
        (status @ (401 | 403), _) => Err(refused(format!(
            "access denied (HTTP status {status} for {file}): the model does not exist, is private, or you must \
            accept its licence on its page; set HF_TOKEN to a token with read access"
        ))),
        (status, _) => Err(refused(format!("HTTP status {status} for {file}"))),
    }
}

/// The size of the whole file, as the answer for the whole or a part says it.
fn announced_size(answer: &Answer) -> Option<u64> {
    let text = match answer.status {
        206 => answer.header("content-range")?.rsplit('/').next()?.to_owned(),
        _ => answer.header("content-length")?,
    };
    text.parse().ok()
}

/// Why a body ended before its end.
enum End {
    /// Another request may bring more.
    Broken(String),
    /// Nothing or almost nothing came.
    Stalled(String),
    /// The file cannot be written.
    Disk(io::Error),
    /// Who watches ended the download.
    Told(Failure),
}

impl End {
    fn of(e: ureq::Error, silence: Duration) -> Self {
        match e {
            ureq::Error::Timeout(_) => Self::Stalled(format!("nothing came for {} s", silence.as_secs())),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<io::Error> for End {
    fn from(e: io::Error) -> Self {
        Self::Disk(e)
    }
}

/// The file that a download fills.
struct Part {
    file: File,
    /// Bytes so far.
    have: u64,
    /// Bytes of the whole file, if the hub named them.
    size: Option<u64>,
}

impl Part {
    /// Opens what an earlier download left, or an empty file.
    fn open(path: &Path, size: Option<u64>) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let mut part = Self { have: file.metadata()?.len(), file, size };
        if size.is_none_or(|size| part.have > size) {
            part.restart()?;
        }
        part.file.seek(SeekFrom::Start(part.have))?;
        Ok(part)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.have = 0;
        Ok(())
    }

    /// Prepares for the body of an answer: at the end of what is there if the answer continues it,
    /// else at the start. `false` if the answer has no part of the file.
    fn place(&mut self, answer: &Answer) -> io::Result<bool> {
        match answer.status {
            206 if answer.header("content-range").is_some_and(|range| self.is_continued_by(&range)) => Ok(true),
            200 => self.restart().map(|()| true),
            _ => self.restart().map(|()| false),
        }
    }

    /// Whether a `Content-Range` such as `bytes 5-9/10` begins where this part ends.
    fn is_continued_by(&self, range: &str) -> bool {
        let (span, total) = range.trim_start_matches("bytes ").split_once('/').unwrap_or((range, "*"));
        let start = span.split_once('-').and_then(|(start, _)| start.trim().parse().ok());
        let is_same_size = self.size.is_none_or(|size| total == "*" || total.parse() == Ok(size));
        start == Some(self.have) && is_same_size
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), End> {
        if self.size.is_some_and(|size| self.have + bytes.len() as u64 > size) {
            self.restart()?;
            return Err(End::Broken("more bytes came than were announced".into()));
        }
        self.file.write_all(bytes)?;
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// Whether the announced size is reached.
    fn is_complete(&self) -> bool {
        self.size == Some(self.have)
    }

    /// Whether a body that ended was the whole file.
    fn is_all_there(&self) -> bool {
        self.size.is_none_or(|size| size == self.have)
    }
}
