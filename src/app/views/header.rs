//! The row above the conversation: the model, the compression, and the size of the cache.

use egui::{RichText, Ui};

use super::{focus, models, style};
use crate::app::chat::FACTORS;
use crate::app::state::{Action, App, Busy, Pick};
use crate::attention::Attention;
use crate::grouped::grouped;

/// A row narrower than this many points has a menu of the compression factors.
const NARROW: f32 = 480.0;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    let is_narrow = ui.available_width() < NARROW;
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
        if is_narrow {
            let name = FACTORS.iter().find(|(factor, _)| *factor == app.settings.factor).map_or("", |(_, name)| name);
            style::menu(ui, &format!("Cache {name}"), 90.0, |ui| {
                if cache(ui, app, actions) {
                    ui.close();
                }
            });
        } else {
            ui.separator();
            ui.label("Cache").on_hover_text("How much of the text before the last tokens the model keeps");
            cache(ui, app, actions);
            ui.separator();
        }
        let settings = if is_narrow { "Settings" } else { "Chat settings" };
        if ui.selectable_label(app.chat.shows_settings, settings).clicked() {
            app.chat.shows_settings = !app.chat.shows_settings;
        }
    });
    ui.add_space(2.0);
}

/// What to know about compression with a model that was trained without it.
pub const UNTRAINED: &str = "This model was not trained with compression, so it may miss parts of a long text.";

/// The compression factors. Returns whether one was chosen.
fn cache(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) -> bool {
    let mut is_chosen = false;
    for (factor, name) in FACTORS {
        let button = egui::Button::selectable(app.settings.factor == factor, name);
        let mut button = ui.add_enabled(!matches!(app.busy, Some(Busy::Answering | Busy::Keeping)), button);
        if factor > 1 && app.chat.is_untrained() {
            button = button.on_hover_text(UNTRAINED);
        }
        if button.clicked() {
            (app.settings.factor, is_chosen) = (factor, true);
            app.chat.wants_focus |= !focus::by_keys(ui); // one may compare several
            actions.push(Action::SettingsChanged);
            if app.chat.shows_kept {
                actions.push(Action::ShowKept(true));
            }
        }
    }
    is_chosen
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
pub fn size(ui: &mut Ui, app: &App) {
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
            ui.add(egui::Label::new(RichText::new(text).weak()).truncate()).on_hover_text(more);
        }
        (Ok(_), None) => {}
        (Err(e), _) => {
            ui.label(RichText::new(e.to_string()).color(style::bad(ui)));
        }
    }
}
