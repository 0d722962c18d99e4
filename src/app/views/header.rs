//! The row above the conversation: the model, the compression, and the size of the cache.

use egui::{RichText, Ui};

use super::{models, style};
use crate::app::chat::FACTORS;
use crate::app::state::{Action, App, Busy, Pick};
use crate::attention::Attention;
use crate::grouped::grouped;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    ui.horizontal_wrapped(|ui| {
        let name = model_name(app);
        let menu = style::menu(ui, &name, 420.0, |ui| {
            models::menu(ui, app, actions);
            if ui.button("Open an adapter…").on_hover_text("The folder of a LoRA adapter of this model").clicked() {
                actions.push(Action::Pick(Pick::Adapter));
                ui.close();
            }
        });
        menu.on_hover_text("The model. Opens another one.");
        ui.separator();
        ui.label("Cache").on_hover_text("How much of the text before the last tokens the model keeps");
        for (factor, name) in FACTORS {
            let button = egui::Button::selectable(app.settings.factor == factor, name);
            if ui.add_enabled(!matches!(app.busy, Some(Busy::Answering | Busy::Keeping)), button).clicked() {
                app.settings.factor = factor;
                app.chat.wants_focus = true;
                actions.push(Action::SettingsChanged);
                if app.chat.shows_kept {
                    actions.push(Action::ShowKept(true));
                }
            }
        }
        ui.separator();
        if ui.selectable_label(app.chat.shows_settings, "Chat settings").clicked() {
            app.chat.shows_settings = !app.chat.shows_settings;
        }
        size(ui, app);
    });
    ui.add_space(2.0);
}

fn model_name(app: &App) -> String {
    match &app.chat.model {
        Some(model) => {
            let adapter = model.adapter.as_ref().map(|name| format!(" + {name}")).unwrap_or_default();
            format!("{}{adapter}", model.name)
        }
        None if app.busy == Some(Busy::Opening) => "Opening…".into(),
        None => "No model".into(),
    }
}

/// Tokens of the conversation and the size of its cache.
fn size(ui: &mut Ui, app: &App) {
    match (app.attention(), app.chat.context) {
        (Ok(attention), Some((tokens, entries, bytes))) => {
            let (_, dense) = app.chat.cache_size(Attention::Dense, tokens);
            let limit = app.chat.model.as_ref().map_or(0, |m| m.max_positions);
            let smaller = match dense as f64 / bytes.max(1) as f64 {
                ratio if ratio > 1.05 => format!(", {ratio:.1}x smaller"),
                _ => String::new(),
            };
            let speed = app.chat.speed.map(|rate| format!(" · {rate:.1} tokens/s")).unwrap_or_default();
            let text =
                format!("{} of {} tokens · {}{smaller}{speed}", grouped(tokens), grouped(limit), style::bytes(bytes));
            let more = format!("{attention}. {entries} entries per head; dense: {}", style::bytes(dense));
            ui.label(RichText::new(text).weak()).on_hover_text(more);
        }
        (Ok(_), None) => {}
        (Err(e), _) => {
            ui.label(RichText::new(e.to_string()).color(style::bad(ui)));
        }
    }
}
