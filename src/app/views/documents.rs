//! The documents above the conversation: their sizes, and the fields that open and remove them.

use egui::{Key, RichText, TextEdit, Ui};

use super::style;
use crate::app::state::{Action, App, Pick};

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    for (i, document) in app.chat.documents.iter().enumerate() {
        ui.horizontal_wrapped(|ui| {
            ui.label(RichText::new(&document.name).strong());
            style::hint(ui, format!("{} characters", document.text.chars().count()));
            if ui.button("Remove").clicked() {
                actions.push(Action::RemoveDocument(i));
            }
        });
    }
    open(ui, app, actions);
}

/// The button and the field that open another document.
fn open(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        let (hint, name) = match app.chat.documents.len() {
            0 => ("No document. Drop a file into the window, or", "Open a document…"),
            _ => ("", "Add a document…"),
        };
        if !hint.is_empty() {
            style::hint(ui, hint);
        }
        if ui.button(name).clicked() {
            actions.push(Action::Pick(Pick::Document));
        }
        let path = TextEdit::singleline(&mut app.chat.path).hint_text("or type its path").desired_width(220.0);
        if ui.add(path).lost_focus() && ui.input(|i| i.key_pressed(Key::Enter)) {
            actions.push(Action::Read);
        }
    });
}
