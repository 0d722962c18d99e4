//! The frame around the pages: page buttons on the left, notices at the top, the status bar at the
//! bottom.

use egui::{CentralPanel, Context, Key, Panel, RichText, Ui};

use super::{chat, devices, model_download, models, style, tune};
use crate::app::settings::Theme;
use crate::app::state::{Action, App, Busy, Page};

/// Pages with their names and shortcut keys.
const PAGES: [(Page, &str, Key); 4] = [
    (Page::Chat, "Chat", Key::Num1),
    (Page::Models, "Models", Key::Num2),
    (Page::Tune, "Fine-tune", Key::Num3),
    (Page::Devices, "Devices", Key::Num4),
];

/// Draws the app and returns the user's actions.
pub fn show(ui: &mut Ui, app: &mut App) -> Vec<Action> {
    let mut actions = keys(ui.ctx(), app);
    Panel::left("pages")
        .frame(style::SIDE)
        .exact_size(150.0)
        .resizable(false)
        .show(ui, |ui| pages(ui, app, &mut actions));
    Panel::bottom("status").frame(style::SIDE).show(ui, |ui| status(ui, app, &mut actions));
    if !app.notices.is_empty() {
        Panel::top("notices").frame(style::SIDE).show(ui, |ui| notices(ui, app, &mut actions));
    } else {
        ui.skip_ahead_auto_ids(1); // the fields of the page keep their ids, and so the focus
    }
    CentralPanel::default().frame(style::CENTRE).show(ui, |ui| match app.page {
        Page::Chat => chat::show(ui, app, &mut actions),
        Page::Models => models::show(ui, app, &mut actions),
        Page::Tune => tune::show(ui, app, &mut actions),
        Page::Devices => devices::show(ui, app, &mut actions),
    });
    actions
}

/// Handles the shortcut keys that work on every page.
fn keys(ctx: &Context, app: &App) -> Vec<Action> {
    let mut actions = Vec::new();
    ctx.input_mut(|input| {
        for (page, _, key) in PAGES {
            if input.consume_key(egui::Modifiers::COMMAND, key) {
                actions.push(Action::Show(page));
            }
        }
        // Escape does not stop training: an accidental key press could end hours of work.
        let can_stop = matches!(app.busy, Some(Busy::Answering | Busy::Checking));
        if can_stop && input.consume_key(egui::Modifiers::NONE, Key::Escape) {
            actions.push(Action::Stop);
        }
    });
    actions
}

fn pages(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(10.0);
    ui.label(RichText::new("Longreach").heading().strong());
    ui.add_space(10.0);
    for (page, name, key) in PAGES {
        let is_shown = app.page == page;
        let size = egui::vec2(ui.available_width(), 32.0);
        let button = egui::Button::selectable(is_shown, name).min_size(size);
        let hint = format!("{}+{}", if cfg!(target_os = "macos") { "Cmd" } else { "Ctrl" }, key.name());
        if ui.add(button).on_hover_text(hint).clicked() {
            actions.push(Action::Show(page));
        }
    }
    ui.with_layout(egui::Layout::bottom_up(egui::Align::LEFT), |ui| {
        ui.add_space(8.0);
        ui.horizontal(|ui| {
            for (sign, step) in [("A-", -0.1), ("A+", 0.1)] {
                if ui.button(sign).on_hover_text("Text and button size").clicked() {
                    app.settings.zoom = (app.settings.zoom + step).clamp(0.5, 3.0);
                    actions.push(Action::SettingsChanged);
                }
            }
        });
        let name = match app.settings.theme {
            Theme::System => "Theme: system",
            Theme::Light => "Theme: light",
            Theme::Dark => "Theme: dark",
        };
        if ui.button(name).clicked() {
            app.next_theme();
            actions.push(Action::SettingsChanged);
        }
    });
}

fn notices(ui: &mut Ui, app: &App, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    let hidden = app.notices.len().saturating_sub(3);
    for (i, notice) in app.notices.iter().enumerate().skip(hidden) {
        ui.horizontal_top(|ui| {
            if ui.button("Dismiss").clicked() {
                actions.push(Action::Dismiss(i));
            }
            let text =
                RichText::new(if notice.is_error { format!("Error: {}", notice.text) } else { notice.text.clone() });
            let text = if notice.is_error { text.color(style::bad(ui)) } else { text };
            ui.add(egui::Label::new(text).wrap().selectable(true));
        });
    }
    if hidden > 0 {
        style::hint(ui, format!("and {hidden} earlier"));
    }
    ui.add_space(4.0);
}

fn status(ui: &mut Ui, app: &App, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        match app.busy {
            None => style::hint(ui, "Ready"),
            Some(busy) => {
                ui.add(egui::Spinner::new().size(14.0));
                ui.label(busy.text());
                let stop = match busy {
                    Busy::Training if app.tune.save_failed.is_some() => {
                        Some(("Save failed…", "Opens the page that asks what to do"))
                    }
                    Busy::Answering | Busy::Checking => Some(("Stop", "Esc")),
                    Busy::Training => Some(("Stop and save", tune::KEEPS)),
                    _ => None,
                };
                if let Some((name, hint)) = stop
                    && ui.button(name).on_hover_text(hint).clicked()
                {
                    actions.push(Action::Stop);
                }
            }
        }
        if let Some(text) = model_download::in_short(app) {
            style::hint(ui, text);
        }
        let Some(model) = &app.chat.model else { return };
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let adapter = model.adapter.as_ref().map(|a| format!(" + {a}")).unwrap_or_default();
            let text = format!("{}{adapter} on {}", model.name, model.device);
            ui.add(egui::Label::new(RichText::new(text).weak()).truncate());
        });
    });
}
