//! A conversation as a JSON file. Documents are files beside it, named by the digest of their text, so
//! that a long one is written once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::conversation::Conversation;
use crate::app::documents::Document;
use crate::app::turns::{SavedTurn, flat, unflat};
use crate::atomic_file::write_file;
use crate::checkpoint::fingerprint::hex;
use crate::checkpoint::generation_config::Wished;
use crate::error::{Context, Error, Result};

/// Version of the format. A newer one is refused, so that an older program loses nothing of it.
const VERSION: u32 = 1;

/// Folder of the documents, beside the conversations.
const DOCUMENTS: &str = "documents";

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    #[serde(default)]
    name: String,
    /// When it was changed, in seconds since 1970.
    changed: u64,
    #[serde(default)]
    model: String,
    #[serde(default)]
    adapter: Option<PathBuf>,
    sink: usize,
    lag: usize,
    factor: u32,
    #[serde(default)]
    system: String,
    #[serde(default)]
    sampling: Wished,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(default)]
    n_asked: u64,
    #[serde(default)]
    draft: String,
    #[serde(default)]
    documents: Vec<DocumentFile>,
    turns: Vec<SavedTurn>,
}

#[derive(Clone, Serialize, Deserialize)]
struct DocumentFile {
    name: String,
    /// SHA-256 of the text, which is the name of its file.
    sha256: String,
    #[serde(default)]
    note: String,
}

/// The text of a document that was written, and its digest.
pub type Known = (Weak<str>, String);

/// The path of a conversation.
pub fn path_of(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.json"))
}

/// Ids are names of files that this program made.
pub fn is_id(id: &str) -> bool {
    !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Writes a conversation. `known` tells the digest of a document that was written before.
pub fn write(folder: &Path, conversation: &Conversation, changed: u64, known: &mut Vec<Known>) -> Result<()> {
    // Texts that nobody has any more would only be in the way.
    known.retain(|(text, _)| text.strong_count() > 0);
    let mut documents = Vec::new();
    for document in &conversation.documents {
        let text = Arc::downgrade(&document.text);
        let sha256 = match known.iter().find(|(known, _)| known.ptr_eq(&text)) {
            Some((_, sha256)) => sha256.clone(),
            None => {
                let sha256 = write_document(folder, &document.text)?;
                known.push((text, sha256.clone()));
                sha256
            }
        };
        documents.push(DocumentFile { name: document.name.clone(), sha256, note: document.note.clone() });
    }
    let c = conversation;
    let file = File {
        version: VERSION,
        name: c.name.clone(),
        changed,
        model: c.model.clone(),
        adapter: c.adapter.clone(),
        sink: c.sink,
        lag: c.lag,
        factor: c.factor,
        system: c.system.clone(),
        sampling: c.sampling,
        seed: c.seed,
        n_asked: c.n_asked,
        draft: c.draft.clone(),
        documents,
        turns: flat(&c.turns),
    };
    write_file(&path_of(folder, &c.id), serde_json::to_string_pretty(&file)? + "\n")
}

/// Writes a document unless it is there, and returns the digest of its text.
fn write_document(folder: &Path, text: &str) -> Result<String> {
    let sha256 = hex(digest(&SHA256, text.as_bytes()).as_ref());
    let path = folder.join(DOCUMENTS).join(format!("{sha256}.txt"));
    let is_there = path.metadata().is_ok_and(|file| file.len() == text.len() as u64);
    if !is_there {
        write_file(&path, text)?;
    }
    Ok(sha256)
}

/// Reads a conversation with its documents, and when it was changed. A document that cannot be read
/// is left out, and the last list says why.
pub fn read(folder: &Path, id: &str) -> Result<(Conversation, u64, Vec<String>)> {
    let (file, id) = (read_file(folder, id)?, id.to_string());
    let (mut documents, mut missing) = (vec![], vec![]);
    for document in &file.documents {
        let is_digest = document.sha256.chars().all(|c| c.is_ascii_hexdigit());
        let path = folder.join(DOCUMENTS).join(format!("{}.txt", document.sha256));
        match std::fs::read_to_string(&path) {
            Ok(text) if is_digest => {
                documents.push(Document { note: document.note.clone(), ..Document::new(&*document.name, text) });
            }
            Ok(_) => missing.push(format!("{} has no file", document.name)),
            Err(e) => missing.push(format!("{} could not be read: {e}", document.name)),
        }
    }
    let conversation = Conversation {
        id,
        name: file.name,
        model: file.model,
        adapter: file.adapter,
        sink: file.sink,
        lag: file.lag,
        factor: file.factor,
        system: file.system,
        sampling: file.sampling,
        seed: file.seed,
        n_asked: file.n_asked,
        draft: file.draft,
        documents,
        turns: unflat(&file.turns),
    };
    Ok((conversation, file.changed, missing))
}

/// Reads a conversation without the texts of its documents, and when it was changed.
pub fn read_without_documents(folder: &Path, id: &str) -> Result<(Conversation, u64)> {
    let file = read_file(folder, id)?;
    let documents = file.documents.iter().map(|d| Document::new(&*d.name, "")).collect();
    let conversation = Conversation {
        id: id.to_string(),
        name: file.name,
        draft: file.draft,
        documents,
        turns: unflat(&file.turns),
        ..Conversation::default()
    };
    Ok((conversation, file.changed))
}

fn read_file(folder: &Path, id: &str) -> Result<File> {
    let path = path_of(folder, id);
    let read = || -> Result<File> {
        crate::ensure!(is_id(id), "it is no name of a conversation");
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        match value["version"].as_u64() {
            Some(version) if version <= u64::from(VERSION) => Ok(serde_json::from_value(value)?),
            Some(version) => Err(Error::usage(format!("it has format {version}, which a newer Longreach wrote"))),
            None => Err(Error::usage("it is no conversation of Longreach")),
        }
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// When the file of a conversation was changed, in seconds since 1970. `None` without a file that says so.
pub fn changed(folder: &Path, id: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Changed {
        changed: u64,
    }
    let text = std::fs::read(path_of(folder, id)).ok()?;
    serde_json::from_slice::<Changed>(&text).ok().map(|file| file.changed)
}

/// Gives a conversation another name.
pub fn rename(folder: &Path, id: &str, name: &str) -> Result<()> {
    let mut file = read_file(folder, id)?;
    file.name = name.to_string();
    write_file(&path_of(folder, id), serde_json::to_string_pretty(&file)? + "\n")
}

/// Removes the documents that no conversation of the folder names.
pub fn remove_unused_documents(folder: &Path) -> Result<()> {
    let mut used = std::collections::HashSet::new();
    for id in ids(folder)? {
        match read_file(folder, &id) {
            Ok(file) => used.extend(file.documents.into_iter().map(|d| format!("{}.txt", d.sha256))),
            Err(_) => return Ok(()), // what cannot be read may name any of them
        }
    }
    let Ok(entries) = std::fs::read_dir(folder.join(DOCUMENTS)) else { return Ok(()) };
    for entry in entries.flatten() {
        if !used.contains(&*entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The ids of the conversations in a folder. None if the folder does not exist.
pub fn ids(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(vec![]);
    }
    let show = || format!("listing {}", folder.display());
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(show)? {
        let name = entry.with_context(show)?.file_name().to_string_lossy().into_owned();
        ids.extend(name.strip_suffix(".json").filter(|id| is_id(id)).map(String::from));
    }
    Ok(ids)
}
