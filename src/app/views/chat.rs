//! The chat page: model and compression at the top, the conversation in the middle, the input at
//! the bottom.

use egui::{EventFilter, Key, KeyboardShortcut, Modifiers, Panel, RichText, ScrollArea, TextEdit, Ui};

use super::{documents, kept, style};
use crate::app::chat::{Chat, FACTORS};
use crate::app::message::{Cut, Turn};
use crate::app::state::{Action, App, Busy, Pick};

/// Largest share of the window's height that the question takes.
const QUESTION_SHARE: f32 = 0.4;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    Panel::top("chat model").frame(style::SIDE).show(ui, |ui| {
        model(ui, app, actions);
        cache(ui, app, actions);
        ui.add_space(4.0);
    });
    Panel::bottom("chat input").frame(style::SIDE).show(ui, |ui| input(ui, app, actions));
    egui::CentralPanel::default().frame(style::CENTRE).show(ui, |ui| {
        if app.chat.shows_kept {
            kept::show(ui, &mut app.chat, actions);
        } else {
            documents::show(ui, app, actions);
            ui.separator();
            conversation(ui, app, actions);
        }
    });
}

fn model(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    let mut opens = false;
    let mut picked = None;
    let field = |ui: &mut Ui, text: &mut String, hint: &str| {
        let edit = ui.add(TextEdit::singleline(text).hint_text(hint).desired_width(f32::INFINITY));
        edit.lost_focus() && ui.input(|i| i.key_pressed(Key::Enter))
    };
    let (model, adapter) = (&mut app.settings.model, &mut app.settings.adapter);
    let mut entered = [false; 2];
    let hint = "folder, .gguf file or Hugging Face repo id; empty for the bundled story model";
    style::row(
        ui,
        "Model",
        |ui| {
            opens = ui.button("Open").clicked();
            for (pick, name) in [(Pick::ModelFile, "GGUF…"), (Pick::ModelFolder, "Folder…")] {
                if ui.button(name).clicked() {
                    picked = Some(pick);
                }
            }
        },
        |ui| entered[0] = field(ui, model, hint),
    );
    let mut picks_adapter = false;
    style::row(
        ui,
        "Adapter",
        |ui| picks_adapter = ui.button("Folder…").clicked(),
        |ui| entered[1] = field(ui, adapter, "folder of a LoRA adapter; empty for none"),
    );
    actions.extend(picked.or(picks_adapter.then_some(Pick::Adapter)).map(Action::Pick));
    if opens || entered.contains(&true) {
        actions.push(Action::OpenModel);
    }
}

fn cache(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        ui.label("Cache");
        for (factor, name) in FACTORS {
            let button = egui::Button::selectable(app.settings.factor == factor, name);
            if ui.add_enabled(app.busy != Some(Busy::Answering), button).clicked() {
                app.settings.factor = factor;
                app.chat.wants_focus = true;
                actions.push(Action::SettingsChanged);
            }
        }
        ui.separator();
        let mut is_set = |ui: &mut Ui, value: egui::DragValue<'_>, hint: &str| {
            let response = ui.add_enabled(app.busy.is_none(), value).on_hover_text(hint);
            if response.drag_stopped() || response.lost_focus() {
                actions.push(Action::SettingsChanged);
            }
        };
        let lag = egui::DragValue::new(&mut app.settings.lag).range(8..=4096).prefix("lag ");
        is_set(ui, lag, "Tokens per partition. The cache selects the tokens to keep in each partition.");
        let most = egui::DragValue::new(&mut app.settings.max_tokens).range(1..=8192).prefix("answer ≤ ");
        is_set(ui, most, "Maximum tokens in an answer");
        ui.separator();
        match (app.attention(), app.chat.context) {
            (Ok(attention), Some((tokens, entries, bytes))) => {
                let (_, dense) = app.chat.cache_size(crate::attention::Attention::Dense, tokens);
                let limit = app.chat.model.as_ref().map_or(0, |m| m.max_positions);
                ui.label(format!(
                    "{tokens} of {limit} tokens; {entries} entries per head, {} (dense: {})",
                    style::bytes(bytes),
                    style::bytes(dense)
                ))
                .on_hover_text(attention.to_string());
            }
            (Ok(attention), None) => style::hint(ui, attention.to_string()),
            (Err(e), _) => {
                ui.label(RichText::new(e.to_string()).color(style::bad(ui)));
            }
        }
    });
}

fn conversation(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ScrollArea::vertical().auto_shrink([false, false]).stick_to_bottom(true).show(ui, |ui| {
        if app.chat.turns.is_empty() {
            empty(ui, app);
        }
        let last = app.chat.turns.len().saturating_sub(1);
        for (i, turn) in app.chat.turns.iter().enumerate() {
            ui.label(RichText::new("You").strong());
            ui.add(egui::Label::new(&turn.question).wrap().selectable(true));
            ui.add_space(4.0);
            ui.label(RichText::new("Model").strong());
            let is_current = i == last && app.busy == Some(Busy::Answering);
            if !turn.answer.is_empty() {
                ui.add(egui::Label::new(&turn.answer).wrap().selectable(true));
            }
            match app.chat.fed.filter(|_| is_current) {
                Some((done, total)) => {
                    let share = done as f32 / total.max(1) as f32;
                    let text = format!("reading the prompt: {done} of {total} tokens");
                    ui.add(egui::ProgressBar::new(share).desired_width(300.0).text(text));
                }
                None if is_current => {}
                None => end_of(ui, turn, i == last, &app.chat),
            }
            if i == last && !is_current {
                ui.horizontal_wrapped(|ui| answer_buttons(ui, &turn.answer, app, actions));
            }
            ui.add_space(12.0);
        }
        for (i, question) in app.chat.queued.iter().enumerate() {
            ui.horizontal(|ui| {
                if ui.small_button("Remove").on_hover_text("Does not ask this question").clicked() {
                    actions.push(Action::Unqueue(i));
                }
                ui.add(egui::Label::new(RichText::new(format!("Next: {question}")).weak()).truncate());
            });
        }
    });
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

fn answer_buttons(ui: &mut Ui, answer: &str, app: &App, actions: &mut Vec<Action>) {
    let is_free = app.busy.is_none();
    if app.chat.can_continue() && ui.add_enabled(is_free, egui::Button::new("Continue")).clicked() {
        actions.push(Action::Continue);
    }
    if ui.button("Copy").clicked() {
        actions.push(Action::Copy(answer.to_string()));
    }
    if ui.add_enabled(is_free, egui::Button::new("Regenerate")).clicked() {
        actions.push(Action::Regenerate);
    }
    if ui.add_enabled(is_free, egui::Button::new("Kept tokens")).clicked() {
        actions.push(Action::ShowKept(true));
    }
    if ui.button("Save…").on_hover_text("Saves conversation.txt to the working folder").clicked() {
        actions.push(Action::SaveConversation("conversation.txt".into()));
    }
    if ui.add_enabled(is_free, egui::Button::new("New conversation")).clicked() {
        actions.push(Action::Restart);
    }
}

fn empty(ui: &mut Ui, app: &App) {
    ui.add_space(24.0);
    let has_template = app.chat.model.as_ref().is_none_or(|m| m.has_chat_template);
    let text = match (&app.chat.model, app.chat.documents.len()) {
        (None, _) if app.busy == Some(Busy::Opening) => "Opening the model…",
        (None, _) if app.chat.closed.is_some() => {
            "The model is closed because a training run needs its memory. It opens again after the run."
        }
        (None, _) => "No model is open. Name one above and press Open.",
        (Some(_), 0) if has_template => "Ask something, or drop a long document into the window first.",
        (Some(_), 0) => "This model has no chat template. Type the beginning of a text, and it continues it.",
        (Some(_), 1) => "Ask something about the document.",
        (Some(_), _) => "Ask something about the documents.",
    };
    style::hint(ui, text);
}

fn input(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(6.0);
    ui.horizontal_top(|ui| {
        let is_asked = question(ui, &mut app.chat);
        let can_ask = matches!(app.busy, None | Some(Busy::Answering)) && app.chat.model.is_some();
        let ask = egui::Button::new("Ask").min_size(egui::vec2(80.0, 40.0));
        if ui.add_enabled(can_ask, ask).clicked() || is_asked && can_ask {
            actions.push(Action::Ask);
        }
    });
    ui.add_space(6.0);
}

/// The field of the question, which scrolls where it would take too much of the window. Returns
/// whether Enter was pressed.
fn question(ui: &mut Ui, chat: &mut Chat) -> bool {
    let width = ui.available_width() - 100.0;
    let height = QUESTION_SHARE * ui.ctx().content_rect().height();
    // The field keeps the focus where Escape stops an answer, and Enter is no line break.
    let keys = EventFilter { tab: false, horizontal_arrows: true, vertical_arrows: true, escape: true };
    let line_break = KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter);
    let field = TextEdit::multiline(&mut chat.draft)
        .hint_text("Type a question. Enter sends it, Shift+Enter starts a new line.")
        .desired_rows(2)
        .desired_width(width)
        .event_filter(keys)
        .return_key(line_break);
    let area = ScrollArea::vertical().id_salt("question").max_width(width).max_height(height);
    let field = area.min_scrolled_height(height).animated(false).show(ui, |ui| ui.add(field)).inner;
    // It takes the focus from no other field in which the user may be typing.
    if std::mem::take(&mut chat.wants_focus) && !ui.ctx().text_edit_focused() {
        field.request_focus();
    }
    field.has_focus() && ui.input(|i| i.key_pressed(Key::Enter) && !i.modifiers.shift)
}
