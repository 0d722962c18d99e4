//! The models page: what is on this machine, to open, to fine-tune, and to search; and the menu of models.

use egui::{Align2, Key, ScrollArea, TextEdit, Ui};

use super::{focus, model_download, model_rows, style};
use crate::app::models::{EntryState, ModelAction};
use crate::app::state::{Action, App, Page, Pick};

/// Most models in the menu, and most adapters of each.
const MENU_MODELS: usize = 8;
const MENU_ADAPTERS: usize = 3;
const MENU_WIDTH: f32 = 380.0;

const TYPED_HINT: &str = "folder, .gguf file, or Hugging Face id: owner/name or owner/name:Q4_K_M";
const SEARCH_HINT: &str = "name, folder, family or weight type";
const MENU_SEARCH_HINT: &str = "Search models";
const MENU_TYPED_HINT: &str = "Path or Hugging Face id";

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    search_row(ui, app, actions);
    typed_row(ui, app, actions);
    ui.add_space(4.0);
    focus::scroll(ui, ScrollArea::vertical().auto_shrink([false, false]), true, |ui| {
        model_download::show(ui, app, actions);
        list(ui, app, actions);
    });
}

/// The menu of models: the search, the last models with their adapters, and the ways to others. It
/// closes when something is chosen.
pub fn menu(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.set_width(MENU_WIDTH.min(0.8 * ui.ctx().content_rect().width()));
    let before = actions.len();
    let searched = field(ui, &mut app.models.search, MENU_SEARCH_HINT);
    if style::is_new(ui, "menu of models") {
        app.models.search.clear();
        searched.request_focus();
    }
    let height = 0.45 * ui.ctx().content_rect().height();
    let area = ScrollArea::vertical().id_salt("menu of models").max_height(height);
    let first = focus::scroll(ui, area, true, |ui| menu_list(ui, app, actions)).inner;
    // The search leads to the list: down to its first model, and Enter opens that.
    // A text that finds no listed model may be a path or an id.
    let is_entered = focus::is_entered(&searched);
    let goes_down = searched.has_focus() && ui.input(|i| i.key_pressed(Key::ArrowDown));
    match first {
        Some((_, model)) if is_entered => actions.push(Action::Models(ModelAction::Open(model, None))),
        Some((id, _)) if goes_down => ui.memory_mut(|memory| memory.request_focus(id)),
        None if is_entered && !app.models.search.trim().is_empty() => {
            app.models.field = std::mem::take(&mut app.models.search);
            actions.push(Action::Models(ModelAction::OpenTyped));
        }
        _ => {}
    }
    ui.separator();
    for (pick, name) in [(Pick::ModelFile, "Open a file…"), (Pick::ModelFolder, "Open a folder…")] {
        if menu_item(ui, false, true, name.into(), String::new()).clicked() {
            actions.push(Action::Pick(pick));
        }
    }
    if typed(ui, &mut app.models.field, MENU_TYPED_HINT) {
        actions.push(Action::Models(ModelAction::OpenTyped));
    }
    if menu_item(ui, false, true, "All models".into(), String::new()).clicked() {
        actions.push(Action::Show(Page::Models));
    }
    if actions.len() > before {
        ui.close();
    }
}

/// Lists models. Returns the first one with the id of its line.
fn menu_list(ui: &mut Ui, app: &App, actions: &mut Vec<Action>) -> Option<(egui::Id, String)> {
    let shown = app.shown_models();
    let mut first = None;
    if shown.is_empty() {
        style::hint(ui, nothing(app));
    }
    for entry in shown.into_iter().take(MENU_MODELS) {
        let model = &entry.listed.model;
        let can_open = !matches!(entry.state, EntryState::Unreadable(_));
        let mut open = |ui: &mut Ui, name: String, about: String, adapter: Option<&std::path::PathBuf>| {
            let is_open = app.is_open(model, adapter.map(|path| path.as_path()));
            let line = menu_item(ui, is_open, can_open, name, about);
            if line.clicked() {
                actions.push(Action::Models(ModelAction::Open(model.clone(), adapter.cloned())));
            }
            if can_open && first.is_none() {
                first = Some((line.id, model.clone()));
            }
        };
        open(ui, entry.name(), model_rows::in_short(entry), None);
        for adapter in app.models.adapters_of(model).into_iter().filter(|a| a.problem.is_none()).take(MENU_ADAPTERS) {
            open(ui, format!("    + {}", adapter.name()), adapter.settings(), Some(&adapter.path));
        }
    }
    first
}

/// A line of the menu as wide as the menu, with weak text at its right.
fn menu_item(ui: &mut Ui, is_chosen: bool, is_enabled: bool, name: String, about: String) -> egui::Response {
    let size = egui::vec2(ui.available_width(), ui.spacing().interact_size.y);
    let mut button = egui::Button::selectable(is_chosen, name).min_size(size).truncate();
    if !about.is_empty() {
        // Weak text would be hard to read on the colour of the selection.
        let about = egui::RichText::new(about);
        let chosen = ui.visuals().selection.stroke.color;
        button = button.shortcut_text(if is_chosen { about.color(chosen) } else { about });
    }
    ui.add_enabled(is_enabled, button)
}

fn search_row(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let mut picked = None;
    style::row(
        ui,
        "Search",
        |ui| {
            for (pick, name) in [(Pick::ModelFile, "Open a file…"), (Pick::ModelFolder, "Open a folder…")] {
                if ui.button(name).clicked() {
                    picked = Some(pick);
                }
            }
        },
        |ui| search(ui, app, SEARCH_HINT),
    );
    actions.extend(picked.map(Action::Pick));
}

fn search(ui: &mut Ui, app: &mut App, hint: &str) {
    field(ui, &mut app.models.search, hint);
}

fn typed_row(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let (mut opens, mut is_entered) = (false, false);
    let text = &mut app.models.field;
    style::row(
        ui,
        "Path or id",
        |ui| opens = ui.button("Open").clicked(),
        |ui| is_entered = typed(ui, text, TYPED_HINT),
    );
    if opens || is_entered {
        actions.push(Action::Models(ModelAction::OpenTyped));
    }
}

/// The field for a path or hub id. Returns whether Enter was pressed.
fn typed(ui: &mut Ui, text: &mut String, hint: &str) -> bool {
    let edit = field(ui, text, hint);
    let is_entered = focus::is_entered(&edit);
    if is_entered {
        edit.request_focus(); // the text may need a correction
    }
    is_entered
}

/// A text field as wide as there is room.
fn field(ui: &mut Ui, text: &mut String, hint: &str) -> egui::Response {
    let edit = TextEdit::singleline(text).hint_text(hint).align(Align2::LEFT_CENTER);
    style::edged(ui, |ui| ui.add(edit.desired_width(ui.available_width())))
}

fn list(ui: &mut Ui, app: &App, actions: &mut Vec<Action>) {
    let shown = app.shown_models();
    if shown.is_empty() {
        ui.add_space(16.0);
        style::hint(ui, nothing(app));
    }
    for entry in shown {
        model_rows::model(ui, app, entry, actions);
    }
    let lone = app.models.lone_adapters();
    if !lone.is_empty() && app.models.search.trim().is_empty() {
        style::section(ui, "Adapters of other models");
        for adapter in lone {
            model_rows::adapter(ui, app, adapter.base.as_deref(), adapter, actions);
        }
    }
    if app.models.is_scanning && !app.models.entries.is_empty() {
        ui.horizontal(|ui| {
            ui.add(egui::Spinner::new().size(14.0));
            style::hint(ui, "Reading the files of the models…");
        });
    }
}

/// What to say in place of an empty list.
fn nothing(app: &App) -> &'static str {
    match (app.models.is_scanning, app.models.search.trim()) {
        (true, _) if app.models.entries.is_empty() => "Looking for models…",
        (_, "") => "The list is empty. Open a file or folder, or type the id of a model.",
        _ => "No model has these words in its name, folder, family or weight type.",
    }
}
