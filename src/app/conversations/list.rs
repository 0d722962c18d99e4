//! The list of conversations and the open one.

use super::conversation::{Conversation, Entry};
use crate::app::message::ModelChoice;

/// A conversation to turn to.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    New,
    Saved(String),
}

/// The list of conversations and the open one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversations {
    /// All conversations, the last changed first. `None` until they are read.
    pub list: Option<Vec<Entry>>,
    /// The id of the open one; empty until it is first saved.
    pub id: String,
    /// The name that the user gave the open one.
    pub name: String,
    pub search: String,
    /// The one whose name the user edits, with the text so far.
    pub renaming: Option<(String, String)>,
    /// The one that the user may want to delete.
    pub deleting: Option<String>,
    /// What to turn to when the worker has stopped.
    pub next: Option<Next>,
    /// An id that no conversation has, for a new one.
    pub fresh_id: String,
    /// Whether the model that opens leaves the settings alone, which belong to the conversation.
    pub keeps_settings: bool,
    /// The model of the open one, until it answers in it: what is saved names no other before.
    pub(super) held_with: Option<ModelChoice>,
    /// The model of the open one, which waits for the end of a job that has closed all models.
    pub waits_for: Option<ModelChoice>,
    /// Counts the conversations that were turned to.
    pub serial: u64,
    /// The open one as it was last saved.
    pub(super) saved: Conversation,
    /// Whether that save failed.
    pub(super) is_unsaved: bool,
}

impl Conversations {
    /// The open model answers in the open conversation, which is with that one from now on.
    pub fn bind(&mut self) {
        (self.held_with, self.waits_for) = (None, None);
    }

    /// The conversations that a search finds.
    pub fn found(&self) -> impl Iterator<Item = &Entry> {
        let wanted = self.search.trim().to_lowercase();
        self.list.iter().flatten().filter(move |entry| entry.words.contains(&wanted))
    }

    /// Puts a conversation that was written into the list, in place of its older state.
    pub(super) fn note(&mut self, entry: Entry) {
        let list = self.list.get_or_insert_default();
        list.retain(|other| other.id != entry.id);
        let at = list.iter().position(|other| other.changed <= entry.changed).unwrap_or(list.len());
        list.insert(at, entry);
    }
}
