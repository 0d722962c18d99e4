//! The frame around the pages: the sidebar, the page, the status bar, notices.
//!
//! The parts are drawn in the order of sight, so that Tab follows it.

use egui::{CentralPanel, Context, Frame, Key, Panel, RichText, Ui, UiBuilder};

use super::pages::PAGES;
use super::{chat, devices, focus, header, model_download, models, sidebar, style, toasts, tune};
use crate::app::state::{Action, App, Busy, Page};
use crate::grouped::grouped;

/// Keys that change the size of everything, with the change in tenths.
const ZOOM_KEYS: [(Key, i32); 4] = [(Key::Plus, 1), (Key::Equals, 1), (Key::Minus, -1), (Key::Num0, 0)];

/// A window narrower than this many points has a bar at the top instead of the sidebar.
const NARROW: f32 = 700.0;

/// Width that the status bar of the chat has for the device beside the size of the conversation.
const DEVICE_AND_SIZE: f32 = 640.0;

/// Height of the status bar in points.
const STATUS: f32 = 32.0;

/// Draws the app and returns the user's actions.
pub fn show(ui: &mut Ui, app: &mut App) -> Vec<Action> {
    focus::begin(ui.ctx());
    let mut actions = keys(ui.ctx(), app);
    if ui.available_width() < NARROW {
        Panel::top("bar").frame(style::SIDE).show(ui, |ui| sidebar::bar(ui, app, &mut actions));
    } else {
        let width = (0.2 * ui.available_width()).clamp(170.0, 250.0);
        Panel::left("pages")
            .frame(style::SIDE)
            .exact_size(width)
            .resizable(false)
            .show(ui, |ui| sidebar::show(ui, app, &mut actions));
    }
    CentralPanel::default().frame(Frame::NONE).show(ui, |ui| {
        let (page, foot) = ui.max_rect().split_top_bottom_at_y(ui.max_rect().bottom() - STATUS);
        focus::page(ui, app.page as usize, page);
        ui.scope_builder(UiBuilder::new().max_rect(page), |ui| match app.page {
            Page::Chat => chat::show(ui, app, &mut actions),
            Page::Models => page_of(ui, |ui| models::show(ui, app, &mut actions)),
            Page::Tune => page_of(ui, |ui| tune::show(ui, app, &mut actions)),
            Page::Devices => page_of(ui, |ui| devices::show(ui, app, &mut actions)),
        });
        let foot = foot.shrink2(egui::vec2(8.0, 2.0));
        ui.scope_builder(UiBuilder::new().max_rect(foot), |ui| status(ui, app, &mut actions));
    });
    toasts::show(ui, app, &mut actions);
    focus::end(ui);
    actions
}

fn page_of(ui: &mut Ui, show: impl FnOnce(&mut Ui)) {
    CentralPanel::default().frame(style::CENTRE).show(ui, show);
}

/// Handles the shortcut keys that work on every page.
fn keys(ctx: &Context, app: &mut App) -> Vec<Action> {
    let mut actions = Vec::new();
    let has_menu = egui::Popup::is_any_open(ctx);
    ctx.input_mut(|input| {
        for (page, _, key) in PAGES {
            if input.consume_key(egui::Modifiers::COMMAND, key) {
                actions.push(Action::Show(page));
            }
        }
        for (key, tenths) in ZOOM_KEYS {
            if input.consume_key(egui::Modifiers::COMMAND, key) {
                app.settings.zoom_by(tenths);
                actions.push(Action::SettingsChanged);
            }
        }
        if input.consume_key(egui::Modifiers::COMMAND, Key::N) {
            actions.push(Action::NewChat);
        }
        let escapes = !has_menu && app.chat.editing.is_none() && app.conversations.renaming.is_none();
        if escapes && input.consume_key(egui::Modifiers::NONE, Key::Escape) {
            escape(app, &mut actions);
        }
    });
    actions
}

/// Ends what is topmost. Escape does not stop training: an accidental key press could end hours of
/// work.
fn escape(app: &mut App, actions: &mut Vec<Action>) {
    let is_chat = app.page == Page::Chat;
    if app.conversations.deleting.take().is_some() {
        return;
    }
    if app.busy.is_some_and(stops_at_escape) {
        actions.push(Action::Stop);
    } else if is_chat && app.chat.shows_kept {
        actions.push(Action::ShowKept(false));
    } else if is_chat && app.chat.shows_settings {
        app.chat.shows_settings = false;
    } else if !app.notices.is_empty() {
        actions.push(Action::Dismiss(app.notices.len() - 1));
    }
    app.chat.wants_focus |= is_chat;
}

/// Jobs that cost little if they are stopped by accident.
fn stops_at_escape(busy: Busy) -> bool {
    matches!(busy, Busy::Answering | Busy::Checking | Busy::Forecasting | Busy::Keeping | Busy::Opening)
}

fn status(ui: &mut Ui, app: &App, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        match app.busy {
            None => style::hint(ui, "Ready"),
            Some(busy) => {
                match app.tune.waits().filter(|_| busy == Busy::Training) {
                    None => {
                        ui.add(egui::Spinner::new().size(14.0));
                        ui.label(match app.chat.kept_so_far {
                            Some((done, total)) => {
                                format!("{}: {} of {} tokens", busy.text(), grouped(done), grouped(total))
                            }
                            None if busy == Busy::Answering && app.chat.fed.is_some() => "Reading".into(),
                            None => busy.text().to_string(),
                        });
                    }
                    Some(text) => {
                        ui.skip_ahead_auto_ids(1); // the spinner's
                        ui.label(text);
                    }
                }
                let stop = match busy {
                    Busy::Training if app.tune.save_failed.is_some() => {
                        Some(("Save failed…", "Opens the page that asks what to do"))
                    }
                    Busy::Answering if chat::has_stop(app) => None,
                    busy if stops_at_escape(busy) => Some(("Stop", "Esc")),
                    Busy::Exporting => Some(("Stop", "Ends the export; nothing is written")),
                    Busy::Training if !app.tune.stops => Some(("Stop and save", tune::KEEPS)),
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
            if app.page != Page::Chat || ui.available_width() > DEVICE_AND_SIZE {
                ui.add(egui::Label::new(RichText::new(format!("on {}", model.device)).weak()).truncate());
            }
            if app.page == Page::Chat {
                ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| header::size(ui, app));
            }
        });
    });
}
