//! The sidebar: the pages, the saved conversations, theme and size. A narrow window has a bar at the
//! top instead.

use egui::text::{CCursor, CCursorRange};
use egui::{Button, Key, RichText, ScrollArea, TextEdit, Ui};

use super::pages::{COMMAND, PAGES};
use super::{focus, style};
use crate::app::conversations::export_path;
use crate::app::settings::Theme;
use crate::app::state::{Action, App, Page};

/// A bar narrower than this many points has a menu of the pages.
const VERY_NARROW: f32 = 520.0;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(8.0);
    ui.label(RichText::new("Longreach").heading().strong());
    ui.add_space(4.0);
    for (page, name, key) in PAGES {
        let button = Button::selectable(app.page == page, name).min_size(egui::vec2(ui.available_width(), 30.0));
        if ui.add(button).on_hover_text(format!("{COMMAND}+{}", key.name())).clicked() {
            actions.push(Action::Show(page));
        }
    }
    ui.separator();
    new_chat(ui, actions);
    let foot = 2.0 * ui.spacing().interact_size.y + 20.0;
    let height = (ui.available_height() - foot).max(60.0);
    ui.allocate_ui(egui::vec2(ui.available_width(), height), |ui| {
        ui.set_min_height(height);
        chats(ui, app, actions);
    });
    look(ui, app, actions);
}

/// The bar of a narrow window.
pub fn bar(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let is_very_narrow = ui.available_width() < VERY_NARROW;
    ui.horizontal_wrapped(|ui| {
        let mut pages = |ui: &mut Ui| {
            for (page, name, _) in PAGES {
                if ui.add(Button::selectable(app.page == page, name)).clicked() {
                    actions.push(Action::Show(page));
                    ui.close();
                }
            }
        };
        if is_very_narrow {
            let name = PAGES.iter().find(|(page, ..)| *page == app.page).map_or("", |(_, name, _)| name);
            style::menu(ui, name, 120.0, pages);
        } else {
            pages(ui);
        }
        style::menu(ui, "Chats", 240.0, |ui| {
            new_chat(ui, actions);
            chats(ui, app, actions);
        });
        style::menu(ui, "View", 200.0, |ui| look(ui, app, actions));
    });
}

fn new_chat(ui: &mut Ui, actions: &mut Vec<Action>) {
    let button = Button::new("New chat").min_size(egui::vec2(ui.available_width(), 30.0));
    if ui.add(button).on_hover_text(format!("{COMMAND}+N")).clicked() {
        actions.push(Action::NewChat);
    }
}

/// The saved conversations, and the field that searches them.
fn chats(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let Some(list) = &app.conversations.list else {
        style::hint(ui, "Reading the saved chats…");
        return;
    };
    if list.is_empty() {
        style::hint(ui, "Chats are saved by themselves and listed here.");
        return;
    }
    let search = TextEdit::singleline(&mut app.conversations.search).hint_text("Search chats");
    let searched = style::edged(ui, |ui| ui.add(search.desired_width(f32::INFINITY)));
    if focus::is_entered(&searched) {
        actions.extend(app.conversations.found().next().map(|entry| Action::OpenChat(entry.id.clone())));
    }
    let n_found = app.conversations.found().count();
    if n_found == 0 {
        style::hint(ui, "No chat has these words.");
    }
    ScrollArea::vertical().auto_shrink([false, true]).show_rows(
        ui,
        ui.spacing().interact_size.y,
        n_found,
        |ui, range| {
            // Only the rows in sight are copied: an entry has the texts of its chat.
            let found = app.conversations.found().skip(range.start).take(range.len());
            let rows: Vec<(String, String)> = found.map(|entry| (entry.id.clone(), entry.title.clone())).collect();
            for (id, title) in &rows {
                ui.push_id(id, |ui| row(ui, app, (id, title), actions));
            }
        },
    );
}

fn row(ui: &mut Ui, app: &mut App, (id, title): (&str, &str), actions: &mut Vec<Action>) {
    let conversations = &mut app.conversations;
    if let Some((_, text)) = conversations.renaming.as_mut().filter(|(renamed, _)| renamed == id) {
        let mut edit = TextEdit::singleline(text).desired_width(f32::INFINITY).show(ui);
        let field = edit.response.response.clone();
        let (enters, escapes) = ui.input(|i| (i.key_pressed(Key::Enter), i.key_pressed(Key::Escape)));
        if escapes {
            conversations.renaming = None;
        } else if field.lost_focus() && enters {
            actions.push(Action::RenameChat(id.to_string(), text.clone()));
        } else if field.lost_focus() {
            conversations.renaming = None;
        } else if !field.has_focus() {
            field.request_focus();
            let all = CCursorRange::two(CCursor::default(), CCursor::new(text.chars().count()));
            edit.state.cursor.set_char_range(Some(all));
            edit.state.store(ui.ctx(), field.id);
        }
        return;
    }
    if conversations.deleting.as_deref() == Some(id) {
        ui.horizontal(|ui| {
            if ui.button(RichText::new("Delete").color(style::bad(ui))).clicked() {
                actions.push(Action::DeleteChat(id.to_string()));
            }
            let keep = ui.button("Keep");
            if keep.clicked() {
                conversations.deleting = None;
            } else if ui.memory(|memory| memory.focused().is_none()) {
                keep.request_focus();
            }
            ui.add(egui::Label::new(title).truncate());
        });
        return;
    }
    let is_open = conversations.id == id;
    ui.horizontal(|ui| {
        let room = if is_open { 46.0 } else { 0.0 };
        let size = egui::vec2(ui.available_width() - room, ui.spacing().interact_size.y);
        let button = Button::selectable(is_open && app.page == Page::Chat, title).truncate().min_size(size);
        let left = egui::Layout::top_down(egui::Align::LEFT);
        let button = ui.allocate_ui_with_layout(size, left, |ui| ui.add(button)).inner.on_hover_text(title);
        if button.clicked() {
            actions.push(Action::OpenChat(id.to_string()));
        }
        button.context_menu(|ui| menu(ui, app, (id, title), actions));
        if is_open {
            let more = style::menu(ui, "…", 160.0, |ui| menu(ui, app, (id, title), actions));
            let name = format!("More for {}", title);
            more.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, &name));
        }
    });
}

fn menu(ui: &mut Ui, app: &mut App, (id, title): (&str, &str), actions: &mut Vec<Action>) {
    if ui.button("Rename").clicked() {
        app.conversations.renaming = Some((id.to_string(), title.to_string()));
        ui.close();
    }
    if ui.button("Export as Markdown").on_hover_text("Saves a file to the working folder").clicked() {
        actions.push(Action::ExportChat(id.to_string(), export_path(title)));
        ui.close();
    }
    if ui.button("Delete…").clicked() {
        app.conversations.deleting = Some(id.to_string());
        ui.close();
    }
}

/// Size and theme.
fn look(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        let size = format!("{:.0} %", 100.0 * app.settings.zoom);
        for (sign, tenths, what) in [("−", -1, "Smaller"), (&*size, 0, "Size of the screen"), ("+", 1, "Larger")] {
            let key = if tenths == 0 { "0" } else { sign };
            if ui.button(sign).on_hover_text(format!("{what} ({COMMAND}+{key})")).clicked() {
                app.settings.zoom_by(tenths);
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
}
