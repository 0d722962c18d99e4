//! The chat page: model and compression at the top, the conversation in the middle, the question at
//! the bottom.

use egui::{EventFilter, Id, Key, KeyboardShortcut, Modifiers, Panel, ScrollArea, TextEdit, Ui, UiBuilder};

use super::{chat_settings, conversation, documents, focus, header, kept, style};
use crate::app::chat::Chat;
use crate::app::state::{Action, App, Busy, Page};

/// Largest share of the window's height that the question takes.
const QUESTION_SHARE: f32 = 0.4;

/// Height in points below which a conversation needs the room of the documents above it.
const LOW: f32 = 300.0;

/// Width of the panel with the settings of the chat, in points.
const SETTINGS: f32 = 280.0;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    Panel::top("chat header").frame(style::SIDE).show(ui, |ui| header::show(ui, app, actions));
    if app.chat.shows_settings && ui.available_width() > 2.0 * SETTINGS {
        Panel::right("chat settings").frame(style::SIDE).exact_size(SETTINGS).resizable(false).show(ui, |ui| {
            chat_settings::show(ui, app, actions);
        });
    } else if app.chat.shows_settings {
        egui::CentralPanel::default().frame(style::CENTRE).show(ui, |ui| chat_settings::show(ui, app, actions));
        return;
    }
    egui::CentralPanel::default().frame(style::SIDE).show(ui, |ui| {
        // The question comes after the conversation, as one sees it. Its height is that of the last
        // frame.
        let id = Id::unique("height of the question");
        let height = ui.data(|data| data.get_temp(id)).unwrap_or(76.0_f32);
        let rect = ui.max_rect();
        let (above, below) = rect.split_top_bottom_at_y((rect.bottom() - height).max(rect.top()));
        ui.scope_builder(UiBuilder::new().max_rect(above), |ui| {
            ui.set_min_size(above.size());
            if app.chat.shows_kept {
                kept::show(ui, &mut app.chat, actions);
            } else {
                // A new chat has its own place to open documents.
                let is_new = app.chat.turns.is_empty() && app.chat.documents.is_empty();
                // In a low window the documents scroll with the conversation.
                let is_low = ui.available_height() < LOW;
                if !is_new && !is_low {
                    style::column(ui, |ui| documents::show(ui, app, actions));
                    ui.separator();
                }
                conversation::show(ui, app, !is_new && is_low, actions);
            }
        });
        let asked = ui.scope_builder(UiBuilder::new().max_rect(below), |ui| {
            style::column(ui, |ui| input(ui, app, actions));
        });
        let now = asked.response.rect.height();
        if (now - height).abs() > 0.5 {
            ui.data_mut(|data| data.insert_temp(id, now));
            ui.ctx().request_repaint();
        }
    });
}

/// Whether the button beside the question stops the answer. With a typed text it sends that.
pub fn has_stop(app: &App) -> bool {
    app.busy == Some(Busy::Answering) && app.page == Page::Chat && app.chat.draft.trim().is_empty()
}

fn input(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    if app.chat.model.is_none() && app.busy == Some(Busy::Training) {
        style::hint(ui, "Chat is paused during training.");
    }
    ui.horizontal_top(|ui| {
        let is_asked = question(ui, &mut app.chat);
        let can_ask = matches!(app.busy, None | Some(Busy::Answering)) && app.chat.model.is_some();
        let stops = has_stop(app);
        let (name, key) = if stops { ("Stop", "Esc") } else { ("Send", "Enter") };
        let button = style::primary(ui, name);
        let button = ui.add_enabled_ui(can_ask, |ui| ui.add_sized([80.0, 40.0], button)).inner;
        let is_pressed = button.on_hover_text(key).clicked();
        if is_pressed && stops {
            actions.push(Action::Stop);
        } else if is_pressed || is_asked && can_ask {
            actions.push(Action::Ask);
        }
    });
    ui.add_space(2.0);
}

/// The field of the question, which scrolls where it would take too much of the window. Returns
/// whether Enter was pressed.
fn question(ui: &mut Ui, chat: &mut Chat) -> bool {
    let width = ui.available_width() - 92.0;
    let height = QUESTION_SHARE * ui.ctx().content_rect().height();
    // The field keeps the focus where Escape stops an answer, and Enter is no line break.
    let keys = EventFilter { tab: false, horizontal_arrows: true, vertical_arrows: true, escape: true };
    let line_break = KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter);
    let field = TextEdit::multiline(&mut chat.draft)
        .id_salt("the question")
        .hint_text("Type a question. Enter sends it, Shift+Enter starts a new line.")
        .desired_rows(2)
        .desired_width(width)
        .event_filter(keys)
        .return_key(line_break);
    let area = ScrollArea::vertical().id_salt("question").max_width(width).max_height(height);
    let field = area.min_scrolled_height(height).animated(false).show(ui, |ui| ui.add(field)).inner;
    let wants_focus = ui.input_mut(|i| i.consume_key(Modifiers::COMMAND, Key::L));
    // It takes the focus from no other field in which the user may be typing.
    if wants_focus || std::mem::take(&mut chat.wants_focus) && !focus::is_typing(ui) {
        field.request_focus();
    }
    focus::is_sent(&field)
}
