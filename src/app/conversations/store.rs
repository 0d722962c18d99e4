//! The thread that reads and writes the files of conversations, one order after the other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use super::conversation::{Conversation, Entry, markdown};
use super::file::{self, Known};
use crate::app::free_name::save;
use crate::app::settings::platform_folder;
use crate::error::{Context, Error, Result};

/// An order to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// List all conversations.
    List,
    Load(String),
    Write(Box<Conversation>),
    Rename(String, String),
    Delete(String),
    /// Write a conversation as Markdown.
    Export(String, PathBuf),
}

/// What the store did.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    Listed(Vec<Entry>),
    /// A conversation was written or renamed.
    Written(Entry),
    Loaded(Box<Conversation>),
    Deleted(String),
    Exported(PathBuf),
    /// Another window has changed the conversation with the first id, so that what this one has of it is
    /// written under the second.
    Forked(String, String),
    /// The conversation with this id could not be written, and why.
    NotWritten(String, String),
    /// Something could not be read or written. The files stay as they were.
    Failed(String),
}

/// The handle to the thread.
pub struct Store {
    orders: Option<Sender<Order>>,
    /// Ends with the reason why the last conversation could not be written, if so.
    thread: Option<JoinHandle<Result<()>>>,
}

impl Store {
    /// Starts the thread for a folder.
    pub fn start(folder: PathBuf, tell: Arc<dyn Fn(Stored) + Send + Sync>) -> Self {
        let (orders, receiver) = channel();
        let thread =
            std::thread::Builder::new().name("conversations".into()).spawn(move || work(&folder, &receiver, &*tell));
        Self { orders: Some(orders), thread: thread.ok() }
    }

    /// Sends an order.
    pub fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order); // fails only after the thread has ended
        }
    }

    /// Waits until all orders are carried out. Fails if the last conversation could not be written.
    pub fn finish(mut self) -> Result<()> {
        drop(self.orders.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => done,
            Some(Err(_)) => Err(Error::new("the thread that saves conversations failed")),
            None => Ok(()),
        }
    }
}

/// The folder of the conversations: beside the settings file that the user named, otherwise in the
/// platform's folder for data.
pub fn folder(settings: Option<&Path>) -> Option<PathBuf> {
    if let Some(settings) = settings {
        return Some(std::path::absolute(settings).ok()?.parent()?.join("conversations"));
    }
    platform_folder("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("conversations"))
}

fn work(folder: &Path, orders: &Receiver<Order>, tell: &dyn Fn(Stored)) -> Result<()> {
    let (mut files, mut written) = (Files::default(), Ok(()));
    while let Ok(order) = orders.recv() {
        let writes = matches!(order, Order::Write(_));
        match carry_out(folder, order, &mut files, tell) {
            done if writes => written = done,
            Err(e) => tell(Stored::Failed(e.to_string())),
            Ok(()) => {}
        }
    }
    written
}

/// The thread's record of the files.
#[derive(Default)]
struct Files {
    documents: Vec<Known>,
    /// When a conversation was changed, as this window has read or written it.
    seen: HashMap<String, u64>,
    /// The id under which a conversation is written, if another window has changed it.
    forks: HashMap<String, String>,
}

impl Files {
    /// The id under which to write a conversation. It is another one if another window has written it
    /// since this one read or wrote it.
    fn id_for(&mut self, folder: &Path, id: &str) -> String {
        let id = self.forks.get(id).map_or(id, String::as_str).to_string();
        let there = file::changed(folder, &id);
        if there.is_none() || there == self.seen.get(&id).copied() {
            return id;
        }
        let others = (2u32..).map(|n| format!("{id}-{n}"));
        let free = others.into_iter().find(|id| !file::path_of(folder, id).exists()).expect("some name is free");
        self.forks.insert(id, free.clone());
        free
    }
}

fn carry_out(folder: &Path, order: Order, files: &mut Files, tell: &dyn Fn(Stored)) -> Result<()> {
    match order {
        Order::List => {
            let mut entries = Vec::new();
            for id in file::ids(folder)? {
                match file::read_without_documents(folder, &id) {
                    Ok((conversation, changed)) => entries.push(entry(&conversation, changed)),
                    Err(e) => tell(Stored::Failed(format!("a conversation is not listed: {e}"))),
                }
            }
            tell(Stored::Listed(entries));
        }
        Order::Load(id) => {
            let (conversation, changed, missing) = file::read(folder, &id)?;
            files.forks.remove(&id);
            files.seen.insert(id, changed);
            for why in missing {
                tell(Stored::Failed(format!("a document of the conversation is missing: {why}")));
            }
            tell(Stored::Loaded(Box::new(conversation)));
        }
        Order::Write(mut conversation) => {
            let changed = now();
            let id = files.id_for(folder, &conversation.id);
            if id != conversation.id {
                tell(Stored::Forked(std::mem::replace(&mut conversation.id, id), conversation.id.clone()));
            }
            match file::write(folder, &conversation, changed, &mut files.documents).context("saving the conversation") {
                Ok(()) => {
                    files.seen.insert(conversation.id.clone(), changed);
                    tell(Stored::Written(entry(&conversation, changed)));
                }
                Err(e) => {
                    tell(Stored::NotWritten(conversation.id, e.to_string()));
                    return Err(e);
                }
            }
        }
        Order::Rename(id, name) => {
            file::rename(folder, &id, &name)?;
            let (conversation, changed) = file::read_without_documents(folder, &id)?;
            tell(Stored::Written(entry(&conversation, changed)));
        }
        Order::Delete(id) => {
            crate::ensure!(file::is_id(&id), "{id} is no name of a conversation");
            let path = file::path_of(folder, &id);
            std::fs::remove_file(&path).with_context(|| format!("deleting {}", path.display()))?;
            tell(Stored::Deleted(id));
            files.documents.clear();
            file::remove_unused_documents(folder)?;
        }
        Order::Export(id, path) => {
            let (conversation, ..) = file::read(folder, &id)?;
            tell(Stored::Exported(save(&path, &markdown(&conversation))?));
        }
    }
    Ok(())
}

fn entry(conversation: &Conversation, changed: u64) -> Entry {
    Entry { id: conversation.id.clone(), title: conversation.title(), words: conversation.words(), changed }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
