//! The turns of the conversation: questions that can be edited, answers in Markdown.
//!
//! Only the turns in sight are laid out. The height of the others is known from when they were.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use egui::{Button, Id, Key, KeyboardShortcut, Label, Modifiers, RichText, ScrollArea, TextEdit, Ui};
use egui_commonmark::{CommonMarkCache, CommonMarkViewer};

use super::run_texts::duration;
use super::{documents, focus, style};
use crate::app::chat::Chat;
use crate::app::state::{Action, App, Busy, Pick};
use crate::app::turns::{Cut, Turn};
use crate::grouped::grouped;

/// Points beyond the visible part that are laid out.
const MARGIN: f32 = 200.0;

/// What a turn looked like when it was last laid out, and its height.
type Heights = HashMap<usize, (u64, f32)>;

/// Shows the conversation, and the documents above it if they scroll with it.
pub fn show(ui: &mut Ui, app: &mut App, has_documents: bool, actions: &mut Vec<Action>) {
    // A new chat begins at its top.
    let sticks = !app.chat.turns.is_empty();
    let area = ScrollArea::vertical().id_salt("conversation").auto_shrink([false, false]).stick_to_bottom(sticks);
    focus::scroll(ui, area, true, |ui| {
        style::column(ui, |ui| {
            if has_documents {
                documents::show(ui, app, actions);
                ui.separator();
            }
            if app.chat.turns.is_empty() {
                empty(ui, app, actions);
            }
            turns(ui, app, actions);
            queued(ui, &app.chat, actions);
            if has_grown(ui, app) {
                ui.scroll_to_cursor(Some(egui::Align::BOTTOM)); // also where the user had scrolled up
            }
        });
    });
}

/// Whether a question was added to the conversation since the last frame.
fn has_grown(ui: &Ui, app: &App) -> bool {
    let id = Id::unique("number of turns");
    let now = (app.conversations.id.clone(), app.chat.turns.len());
    let before: Option<(String, usize)> = ui.data(|data| data.get_temp(id));
    ui.data_mut(|data| data.insert_temp(id, now.clone()));
    // A new chat gets its id with its first question.
    before.is_some_and(|(chat, n)| now.1 > n && (chat == now.0 || chat.is_empty()))
}

fn turns(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let id = Id::unique("heights of the turns");
    let mut heights: Heights = ui.data_mut(|data| data.remove_temp(id)).unwrap_or_default();
    let visible = ui.clip_rect().expand(MARGIN);
    let last = app.chat.turns.len().saturating_sub(1);
    for i in 0..app.chat.turns.len() {
        let looks = looks(ui, app, i);
        let known = heights.get(&i).filter(|(other, _)| *other == looks).map(|&(_, height)| height);
        let top = ui.cursor().top();
        match known {
            Some(height) if i != last && (top > visible.bottom() || top + height < visible.top()) => {
                ui.allocate_space(egui::vec2(ui.available_width(), height));
                ui.skip_ahead_auto_ids(1); // the others keep their ids, and so the focus
            }
            _ => {
                let shown = ui.push_id(("turn", i), |ui| turn(ui, app, i, actions));
                heights.insert(i, (looks, shown.response.rect.height()));
            }
        }
    }
    ui.data_mut(|data| data.insert_temp(id, heights));
}

/// A number that changes when the looks of a turn do.
fn looks(ui: &Ui, app: &App, i: usize) -> u64 {
    let turn = &app.chat.turns[i];
    let mut hasher = DefaultHasher::new();
    let is_edited = app.chat.editing.as_ref().is_some_and(|(at, _)| *at == i);
    (turn.question.len(), turn.answer.len(), turn.at, turn.n_versions(), is_edited).hash(&mut hasher);
    (ui.available_width().round() as u32, ui.pixels_per_point().to_bits(), app.conversations.id.as_str())
        .hash(&mut hasher);
    hasher.finish()
}

fn turn(ui: &mut Ui, app: &mut App, i: usize, actions: &mut Vec<Action>) {
    let is_last = i + 1 == app.chat.turns.len();
    let is_current = is_last && app.busy == Some(Busy::Answering);
    question(ui, app, i, actions);
    let turn = &app.chat.turns[i];
    ui.add_space(4.0);
    ui.horizontal(|ui| {
        ui.label(RichText::new("Model").strong());
        if !turn.answer.is_empty() && ui.add(quiet("Copy")).clicked() {
            actions.push(Action::Copy(turn.answer.clone()));
        }
    });
    if !turn.answer.is_empty() {
        answer(ui, &app.chat, turn, i);
    }
    match app.chat.fed.filter(|_| is_current) {
        Some((done, total)) => reading(ui, done, total),
        None if is_current => {}
        None => end_of(ui, turn, is_last, &app.chat),
    }
    if is_last && !is_current {
        ui.horizontal_wrapped(|ui| answer_buttons(ui, app, actions));
    }
    ui.add_space(12.0);
}

/// A small button without an edge, which every turn has.
fn quiet(name: &str) -> Button<'_> {
    Button::new(name).small().frame_when_inactive(false)
}

/// The question with its versions, or the field that edits it.
fn question(ui: &mut Ui, app: &mut App, i: usize, actions: &mut Vec<Action>) {
    let is_free = app.busy.is_none();
    let chat = &mut app.chat;
    let turn = &chat.turns[i];
    let (at, n) = (turn.at, turn.n_versions());
    if let Some((_, text)) = chat.editing.as_mut().filter(|(edited, _)| *edited == i) {
        ui.label(RichText::new("You").strong());
        let field = ui.add(
            TextEdit::multiline(text)
                .id_salt("edited")
                .hint_text("The new question")
                .desired_width(f32::INFINITY)
                .desired_rows(2)
                .return_key(KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter)),
        );
        let sends = focus::is_sent(&field);
        let cancels = ui.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Escape));
        ui.horizontal(|ui| {
            let button = ui.add_enabled(is_free, Button::new("Send again")).on_hover_text("Enter");
            if button.clicked() || sends && is_free {
                actions.push(Action::Resend);
            }
            if ui.button("Cancel").clicked() || cancels {
                (chat.editing, chat.wants_focus) = (None, true);
            } else if ui.ctx().memory(|memory| memory.focused().is_none()) {
                field.request_focus();
            }
            style::hint(ui, "The old question and its answers stay as another version.");
        });
        return;
    }
    ui.horizontal(|ui| {
        ui.label(RichText::new("You").strong());
        if ui.add_enabled(is_free, quiet("Edit")).clicked() {
            chat.editing = Some((i, turn.question.clone()));
        }
        if n > 1 {
            let mut step = |ui: &mut Ui, sign: &str, name: &str, to: Option<usize>| {
                let button = ui.add_enabled(is_free && to.is_some(), quiet(sign)).on_hover_text(name);
                button.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, is_free, name));
                if button.clicked() {
                    actions.extend(to.map(|to| Action::ShowVersion(i, to)));
                }
            };
            step(ui, "‹", "Previous version", at.checked_sub(1));
            ui.label(format!("{} of {n}", at + 1));
            step(ui, "›", "Next version", Some(at + 1).filter(|&to| to < n));
        }
    });
    ui.add(Label::new(&turn.question).wrap().selectable(true));
}

/// The answer: Markdown, or plain text of a model that was not trained for conversations.
fn answer(ui: &mut Ui, chat: &Chat, turn: &Turn, i: usize) {
    if chat.model.as_ref().is_some_and(|model| !model.has_chat_template) {
        ui.add(Label::new(&turn.answer).wrap().selectable(true));
        return;
    }
    let cache =
        ui.data_mut(|data| data.get_temp_mut_or_default::<Arc<Mutex<CommonMarkCache>>>(Id::unique("Markdown")).clone());
    let mut cache = cache.lock().unwrap_or_else(|e| e.into_inner());
    let width = ui.available_width() as usize;
    let id = ui.scope_id().with(("answer", i));
    CommonMarkViewer::new().default_width(Some(width)).show_with_id(id, ui, &mut cache, &turn.answer);
}

/// How much of the prompt is read, and how long the rest takes.
fn reading(ui: &mut Ui, done: usize, total: usize) {
    let id = Id::unique("reading");
    let now = ui.input(|i| i.time);
    let (of, from, since) = ui.data(|data| data.get_temp(id)).unwrap_or((0, 0, 0.0));
    let (from, since) = if of == total && from <= done { (from, since) } else { (done, now) };
    ui.data_mut(|data| data.insert_temp(id, (total, from, since)));
    let left = match (done - from, total.saturating_sub(done)) {
        (0, _) | (_, 0) => String::new(),
        (read, rest) => format!(", {} left", duration((now - since) * rest as f64 / read as f64)),
    };
    let share = done as f32 / total.max(1) as f32;
    let text = format!("reading {} of {} tokens{left}", grouped(done), grouped(total));
    style::progress(ui, egui::ProgressBar::new(share).desired_width(340.0).text(text));
}

/// Says what cut an answer.
fn end_of(ui: &mut Ui, turn: &Turn, is_last: bool, chat: &Chat) {
    match turn.cut {
        Some(Cut::Stopped(_)) => style::hint(ui, "stopped"),
        Some(Cut::Limit(n)) if is_last && !chat.has_room() => {
            style::hint(ui, format!("Cut at {n} tokens: the conversation is as long as the model allows"));
        }
        Some(Cut::Limit(n)) => style::hint(ui, format!("Cut at {n} tokens")),
        None => {}
    }
}

fn answer_buttons(ui: &mut Ui, app: &App, actions: &mut Vec<Action>) {
    let is_free = app.busy.is_none();
    if app.chat.can_continue() && ui.add_enabled(is_free, Button::new("Continue")).clicked() {
        actions.push(Action::Continue);
    }
    if ui.add_enabled(is_free, Button::new("Regenerate")).clicked() {
        actions.push(Action::Regenerate);
    }
    let is_dense = app.settings.factor <= 1;
    let kept = ui.add_enabled(is_free && !is_dense, Button::new("Show kept tokens"));
    let kept = if is_dense { kept.on_disabled_hover_text("The dense cache keeps every token") } else { kept };
    if kept.clicked() {
        actions.push(Action::ShowKept(true));
    }
}

fn queued(ui: &mut Ui, chat: &Chat, actions: &mut Vec<Action>) {
    for (i, question) in chat.queued.iter().enumerate() {
        ui.horizontal(|ui| {
            if ui.small_button("Remove").on_hover_text("Does not ask this question").clicked() {
                actions.push(Action::Unqueue(i));
            }
            ui.add(Label::new(RichText::new(format!("Next: {question}")).weak()).truncate());
        });
    }
}

/// What a conversation without a question says.
fn empty(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(24.0);
    let has_template = app.chat.model.as_ref().is_none_or(|m| m.has_chat_template);
    let text = match &app.chat.model {
        None if app.busy == Some(Busy::Opening) => "Opening the model…",
        None if app.chat.closed.is_some() => {
            "The model is closed because a training run needs its memory. It opens again after the run."
        }
        None => "No model is open. Choose one above.",
        Some(_) if !app.chat.documents.is_empty() => "Ask something about the document.",
        Some(_) if has_template => "Ask something, or open a long document first.",
        Some(_) => "This model has no chat template. Type the beginning of a text, and it continues it.",
    };
    style::hint(ui, text);
    if app.chat.documents.is_empty() && app.chat.model.is_some() {
        ui.add_space(12.0);
        if ui.add_sized([220.0, 48.0], Button::new("Open a document…")).clicked() {
            actions.push(Action::Pick(Pick::Document));
        }
        documents::path(ui, app, actions);
        style::hint(
            ui,
            match app.can_drop {
                true => "Text, Markdown, PDF or DOCX. You can also drop files into this window.",
                false => "This desktop (Wayland) does not pass dropped files to the window yet: use the button.",
            },
        );
    }
}
