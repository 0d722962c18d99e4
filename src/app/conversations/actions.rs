//! Updates of the app's state by what the user does with conversations, and by what the store did.

use super::conversation::{Conversation, is_same, markdown};
use super::list::Next;
use super::store::{Order, Stored};
use crate::app::message::ModelChoice;
use crate::app::state::{Action, App, Busy, Effect, Notice, Page};
use crate::app::turns::Turn;

impl App {
    /// The open conversation as it would be saved.
    pub fn conversation(&self) -> Conversation {
        let (chat, settings) = (&self.chat, &self.settings);
        let is_open = chat.model.is_some() || chat.closed.is_some();
        let choice = match &self.conversations.held_with {
            Some(held) => held.clone(),
            None if is_open => chat.choice.clone(),
            None => self.choice(),
        };
        Conversation {
            id: self.conversations.id.clone(),
            name: self.conversations.name.clone(),
            model: choice.model,
            adapter: choice.adapter,
            sink: settings.sink,
            lag: settings.lag,
            factor: settings.factor,
            system: chat.system.clone(),
            sampling: chat.sampling,
            seed: chat.seed,
            n_asked: chat.n_asked,
            draft: chat.draft.clone(),
            documents: chat.documents.clone(),
            turns: chat.turns.clone(),
        }
    }

    /// Saves the open conversation if it has changed.
    pub fn keep(&mut self) -> Vec<Effect> {
        let mut now = self.conversation();
        let is_saved = !self.conversations.is_unsaved && is_same(&now, &self.conversations.saved);
        if now.id.is_empty() && now.is_empty() || !now.id.is_empty() && is_saved {
            return vec![];
        }
        let mut effects = vec![];
        if now.id.is_empty() {
            now.id = std::mem::take(&mut self.conversations.fresh_id);
            self.conversations.id.clone_from(&now.id);
            self.settings.conversation.clone_from(&now.id);
            effects.push(Effect::SaveSettings);
        }
        (self.conversations.saved, self.conversations.is_unsaved) = (now.clone(), false);
        effects.push(Effect::Store(Order::Write(Box::new(now))));
        effects
    }

    /// Whether a question was asked or an answer has ended since the last save, which then waits for
    /// nothing.
    pub fn must_keep(&self) -> bool {
        let (now, saved) = (&self.chat.turns, &self.conversations.saved.turns);
        let answer = |turns: &[Turn]| turns.last().map_or(0, |turn| turn.answer.len());
        now.len() != saved.len() || self.busy != Some(Busy::Answering) && answer(now) != answer(saved)
    }

    /// Updates the state for an action on the conversations.
    pub(in crate::app) fn act_on_conversations(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::NewChat => self.turn_to(Next::New),
            Action::OpenChat(id) if id == self.conversations.id => self.on_action(Action::Show(Page::Chat)),
            Action::OpenChat(id) => self.turn_to(Next::Saved(id)),
            Action::RenameChat(id, name) => {
                self.conversations.renaming = None;
                let name = name.trim().to_string();
                if id != self.conversations.id {
                    return vec![Effect::Store(Order::Rename(id, name))];
                }
                self.conversations.name = name;
                vec![]
            }
            Action::DeleteChat(id) => {
                self.conversations.deleting = None;
                if id != self.conversations.id {
                    return vec![Effect::Store(Order::Delete(id))];
                }
                if matches!(self.busy, Some(Busy::Answering | Busy::Keeping)) {
                    self.notify(Notice::info(
                        "The model is still at work for this chat. Stop it before you delete it.",
                    ));
                    return vec![];
                }
                self.clear();
                vec![Effect::Store(Order::Delete(id)), Effect::SaveSettings]
            }
            Action::ExportChat(id, path) if id == self.conversations.id => {
                vec![Effect::Save(path, markdown(&self.conversation()))]
            }
            Action::ExportChat(id, path) => vec![Effect::Store(Order::Export(id, path))],
            _ => vec![],
        }
    }

    /// Turns to another conversation, or does so when the worker has stopped. What was generated so far
    /// stays in the conversation that asked for it.
    fn turn_to(&mut self, next: Next) -> Vec<Effect> {
        self.page = Page::Chat;
        match self.busy {
            Some(Busy::Answering | Busy::Keeping) => {
                if self.busy == Some(Busy::Answering) {
                    self.notify(Notice::info(
                        "The answer in the other chat was stopped. Open that chat to continue it.",
                    ));
                }
                self.conversations.next = Some(next);
                self.chat.unqueue_all();
                vec![Effect::Stop]
            }
            _ => self.turn_now(next),
        }
    }

    fn turn_now(&mut self, next: Next) -> Vec<Effect> {
        let kept = self.keep();
        let turned = match next {
            Next::New if self.conversations.id.is_empty() => {
                self.chat.wants_focus = true;
                vec![]
            }
            Next::New => {
                self.clear();
                vec![Effect::SaveSettings]
            }
            Next::Saved(id) => vec![Effect::Store(Order::Load(id))],
        };
        [kept, turned].concat()
    }

    /// Turns to the conversation that waited for the end of the worker's job.
    pub(in crate::app) fn turn_to_next(&mut self) -> Option<Vec<Effect>> {
        self.conversations.next.take().map(|next| self.turn_now(next))
    }

    /// Begins a new conversation. Instructions and sampling values stay.
    fn clear(&mut self) {
        self.chat.restart();
        self.chat.documents.clear();
        self.chat.draft.clear();
        self.chat.path.clear();
        self.chat.queued.clear();
        (self.chat.n_asked, self.chat.editing, self.chat.wants_focus) = (0, None, true);
        let c = &mut self.conversations;
        (c.id, c.name, c.saved, c.is_unsaved) = (String::new(), String::new(), Conversation::default(), false);
        (c.held_with, c.waits_for, c.serial) = (None, None, c.serial + 1);
        self.settings.conversation.clear();
    }

    /// Updates the state for what the store did.
    pub fn on_stored(&mut self, stored: Stored) -> Vec<Effect> {
        match stored {
            Stored::Listed(mut entries) => {
                entries.sort_by_key(|entry| std::cmp::Reverse(entry.changed));
                self.conversations.list = Some(entries);
            }
            Stored::Written(entry) => self.conversations.note(entry),
            Stored::Deleted(id) => self.conversations.list.iter_mut().for_each(|list| list.retain(|e| e.id != id)),
            Stored::Exported(path) => self.notify(Notice::info(format!("Saved {}", path.display()))),
            Stored::Forked(from, to) if from == self.conversations.id => {
                self.conversations.id.clone_from(&to);
                self.conversations.saved.id.clone_from(&to);
                self.settings.conversation = to;
                self.notify(Notice::info(
                    "Another window has changed this chat. It goes on here as a chat of its own.",
                ));
                return vec![Effect::SaveSettings];
            }
            Stored::Forked(..) => {}
            Stored::NotWritten(id, why) => {
                self.conversations.is_unsaved |= id == self.conversations.id;
                self.notify(Notice::error(why));
            }
            Stored::Failed(why) => self.notify(Notice::error(why)),
            Stored::Loaded(conversation) => return self.loaded(*conversation),
        }
        vec![]
    }

    /// Shows a saved conversation, and opens the model that it was with.
    fn loaded(&mut self, conversation: Conversation) -> Vec<Effect> {
        if matches!(self.busy, Some(Busy::Answering | Busy::Keeping)) {
            return vec![]; // a question was asked meanwhile
        }
        let choice = ModelChoice {
            model: conversation.model.clone(),
            adapter: conversation.adapter.clone(),
            device: self.settings.device.clone(),
        };
        self.clear();
        let c = conversation.clone();
        (self.conversations.id, self.conversations.name) = (c.id.clone(), c.name);
        self.settings.conversation = c.id;
        (self.settings.sink, self.settings.lag, self.settings.factor) = (c.sink, c.lag, c.factor);
        let chat = &mut self.chat;
        (chat.system, chat.sampling, chat.seed, chat.n_asked) = (c.system, c.sampling, c.seed, c.n_asked);
        (chat.draft, chat.documents, chat.turns) = (c.draft, c.documents, c.turns);
        self.conversations.saved = conversation;
        let is_open = self.chat.model.is_some() && self.chat.choice == choice;
        let is_opening = self.chat.opening.as_ref() == Some(&choice);
        self.conversations.keeps_settings = is_opening;
        self.conversations.held_with = Some(choice.clone());
        if is_open || is_opening || self.busy.is_some() {
            if !is_open && !is_opening && self.chat.model.is_none() {
                self.conversations.waits_for = Some(choice);
            }
            // While the worker has another job, a model that is open answers the next question.
            let counts = if self.chat.model.is_some() { self.count_documents() } else { vec![] };
            return [counts, vec![Effect::SaveSettings]].concat();
        }
        self.settings.name(&choice.model, choice.adapter.as_deref(), &choice.device);
        let effects = self.open(choice);
        self.conversations.keeps_settings = true;
        [effects, vec![Effect::SaveSettings]].concat()
    }
}
