//! Updates of the app's state by actions on documents, and by counts of their tokens.

use std::sync::Arc;

use super::document::Document;
use crate::app::message::TokenCount;
use crate::app::state::{About, Action, App, Effect, Notice, Page};
use crate::error::Error;

impl App {
    /// Updates the state for an action on the documents. The conversation stays: the next question is
    /// asked with the documents as they are then.
    pub(in crate::app) fn act_on_documents(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::Document(document) => {
                self.page = Page::Chat;
                return self.add_document(document);
            }
            Action::RemoveDocument(i) if i < self.chat.documents.len() => {
                self.chat.documents.remove(i);
            }
            _ => {}
        }
        vec![]
    }

    /// Says why a document could not be read. Its path may need a correction.
    pub(in crate::app) fn not_read(&mut self, why: &Error) {
        self.chat.wants_path = !self.chat.path.is_empty();
        self.notify(Notice { about: About::Reading, ..Notice::error(why.to_string()) });
    }

    fn add_document(&mut self, document: Document) -> Vec<Effect> {
        if self.chat.documents.iter().any(|d| d.is_same(&document)) {
            return vec![];
        }
        self.chat.documents.push(document);
        self.chat.path.clear();
        self.forget(About::Reading);
        match (&self.chat.model, self.chat.documents.last_mut()) {
            (Some(_), Some(document)) => vec![Effect::Count(document.begin_count(self.chat.n_opened))],
            _ => vec![],
        }
    }

    /// Counts the tokens of all documents anew, by the tokenizer of the model that has just opened.
    pub(in crate::app) fn count_documents(&mut self) -> Vec<Effect> {
        self.chat.n_opened += 1;
        let n_opened = self.chat.n_opened;
        self.chat.documents.iter_mut().map(|document| Effect::Count(document.begin_count(n_opened))).collect()
    }

    /// Takes a count, unless another model has opened since.
    pub(in crate::app) fn counted(&mut self, count: &TokenCount) {
        let is_current = count.serial == self.chat.n_opened;
        for document in self.chat.documents.iter_mut().filter(|d| is_current && Arc::ptr_eq(&d.text, &count.text)) {
            (document.n_tokens, document.is_counting) = (count.n_tokens, false);
        }
    }
}
