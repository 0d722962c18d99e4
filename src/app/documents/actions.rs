//! Updates of the app's state by actions on documents.

use super::document::Document;
use crate::app::state::{Action, App, Effect, Page};

impl App {
    /// Updates the state for an action on the documents. The conversation stays: the next question is
    /// asked with the documents as they are then.
    pub(in crate::app) fn act_on_documents(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::Document(document) => {
                self.page = Page::Chat;
                self.add_document(document);
            }
            Action::RemoveDocument(i) if i < self.chat.documents.len() => {
                self.chat.documents.remove(i);
            }
            _ => {}
        }
        vec![]
    }

    fn add_document(&mut self, document: Document) {
        let is_new = !self.chat.documents.iter().any(|d| d.is_same(&document));
        self.chat.documents.extend(Some(document).filter(|_| is_new));
    }
}
