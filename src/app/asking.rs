//! Updates of the app's state that ask the model about the conversation.

use super::chat::Chat;
use super::message::{Command, Question};
use super::state::{About, App, Busy, Effect, Notice};
use crate::attention::Attention;

impl App {
    pub(super) fn ask(&mut self) -> Vec<Effect> {
        self.ask_with(|chat, attention, max| chat.ask(attention, max))
    }

    /// Asks the next question of the queue. The text in the field stays there.
    pub(super) fn ask_queued(&mut self) -> Vec<Effect> {
        if self.chat.queued.is_empty() {
            return vec![];
        }
        let question = self.chat.queued.remove(0);
        let typed = std::mem::replace(&mut self.chat.draft, question);
        let effects = self.ask();
        if effects.is_empty() {
            let question = std::mem::replace(&mut self.chat.draft, typed);
            self.chat.put_back(&question);
        } else {
            self.chat.draft = typed;
        }
        effects
    }

    pub(super) fn ask_with(
        &mut self,
        question: impl FnOnce(&mut Chat, Attention, usize) -> Option<Question>,
    ) -> Vec<Effect> {
        self.start_with(Busy::Answering, Command::Ask, question)
    }

    /// Sends a command about the conversation, if a model is open and nothing else is going on.
    fn start_with(
        &mut self,
        busy: Busy,
        command: fn(Question) -> Command,
        question: impl FnOnce(&mut Chat, Attention, usize) -> Option<Question>,
    ) -> Vec<Effect> {
        if self.chat.model.is_none() {
            self.say(About::Opening, "No model is open. Open one first.");
            return vec![];
        }
        if !self.is_free() {
            return vec![];
        }
        match self.attention() {
            Err(e) => {
                self.notify(Notice::error(e.to_string()));
                vec![]
            }
            Ok(attention) => match question(&mut self.chat, attention, self.settings.max_tokens) {
                Some(question) => {
                    let effects = self.start(busy, command(question));
                    if busy == Busy::Answering && !effects.is_empty() {
                        self.conversations.bind();
                    }
                    effects
                }
                None => vec![],
            },
        }
    }

    pub(super) fn show_kept(&mut self, shown: bool) -> Vec<Effect> {
        let is_there = match (&self.chat.kept, self.attention()) {
            (Some(map), Ok(Attention::Lrsa(lrsa))) => {
                (map.sink, map.lag, map.keep) == (lrsa.sink(), lrsa.lag(), lrsa.keep())
            }
            _ => false,
        };
        if !shown || is_there {
            self.chat.shows_kept = shown;
            return vec![];
        }
        self.start_with(Busy::Keeping, Command::Kept, |chat, attention, max| {
            (chat.kept, chat.shows_kept) = (None, false);
            Some(chat.as_question(attention, max))
        })
    }
}
