//! The view of kept tokens: the conversation, each token shaded by how many heads kept it, and the
//! search in it.

use egui::{Id, Key, Modifiers, Stroke, TextEdit, Ui};

use super::kept_text::{self, Look};
use super::{focus, style};
use crate::app::chat::Chat;
use crate::app::kept::KeptPage;
use crate::app::state::Action;

/// Lower than this many points, the text has the room of the text size and the legend.
const LOW: f32 = 300.0;

pub fn show(ui: &mut Ui, chat: &mut Chat, actions: &mut Vec<Action>) {
    let Chat { kept: Some(map), kept_page: page, layer, head, text_size, .. } = chat else {
        actions.push(Action::ShowKept(false));
        return;
    };
    let is_low = ui.available_height() < LOW;
    style::column(ui, |ui| {
        ui.horizontal_wrapped(|ui| {
            if ui.button("Back to the conversation").clicked() {
                actions.push(Action::ShowKept(false));
            }
            picker(ui, "Layer", layer, map.compressed_layers());
            picker(ui, "Head", head, 0..map.n_heads());
        });
        if !is_low {
            // A slider does not wrap, so it has a row of its own.
            ui.horizontal(|ui| {
                let label = ui.label("Text size").id;
                ui.add(egui::Slider::new(text_size, 7.0..=28.0).show_value(false)).labelled_by(label);
            });
        }
        search(ui, page, actions);
        if !is_low {
            legend(ui);
        }
    });
    ui.separator();
    let look = Look { layer: *layer, head: *head, size: *text_size };
    if kept_text::show(ui, map, page, &look).is_err() {
        (*layer, *head) = (None, None);
    }
}

/// The search field with its buttons. Ctrl+F focuses it; Enter visits the next place, Shift+Enter the
/// previous one.
fn search(ui: &mut Ui, page: &mut KeptPage, actions: &mut Vec<Action>) {
    let id = Id::unique("search kept tokens");
    let mut steps = Vec::new();
    if ui.input_mut(|input| input.consume_key(Modifiers::COMMAND, Key::F)) {
        ui.memory_mut(|memory| memory.request_focus(id));
    } else if ui.memory(|memory| memory.has_focus(id)) {
        for (modifiers, is_next) in [(Modifiers::SHIFT, false), (Modifiers::NONE, true)] {
            if ui.input_mut(|input| input.consume_key(modifiers, Key::Enter)) {
                steps.push(is_next);
            }
        }
    }
    ui.horizontal_wrapped(|ui| {
        let hint = if cfg!(target_os = "macos") { "Find (Cmd+F)" } else { "Find (Ctrl+F)" };
        let field = TextEdit::singleline(&mut page.query).id(id).hint_text(hint).desired_width(180.0);
        if ui.add(field).changed() {
            page.search();
        }
        let has_places = !page.places.is_empty();
        for (name, is_next) in [("Previous", false), ("Next", true)] {
            if ui.add_enabled(has_places, egui::Button::new(name)).clicked() {
                steps.push(is_next);
            }
        }
        let hint = "Visits the places of the documents that share the longest phrases with the last answer";
        if ui.button("Jump to the evidence").on_hover_text(hint).clicked() {
            actions.push(Action::Evidence);
        }
        style::hint(ui, page.summary());
    });
    steps.into_iter().for_each(|is_next| page.step(is_next));
}

fn picker(ui: &mut Ui, name: &str, picked: &mut Option<usize>, choices: impl Iterator<Item = usize>) {
    let text = |value: Option<usize>| value.map_or_else(|| "all".to_string(), |i| i.to_string());
    let label = ui.label(name).id;
    let list = egui::ComboBox::from_id_salt(name).selected_text(text(*picked)).show_ui(ui, |ui| {
        for value in std::iter::once(None).chain(choices.map(Some)) {
            if ui.selectable_value(picked, value, text(value)).clicked() {
                ui.close();
            }
        }
    });
    focus::return_to(&list.response, list.inner.is_some());
    list.response.labelled_by(label);
}

fn legend(ui: &mut Ui) {
    ui.horizontal_wrapped(|ui| {
        for (share, text) in [(0.25, "kept by some heads"), (0.6, "by most heads"), (1.0, "by all heads")] {
            swatch(ui, style::kept(ui, share), text);
        }
        swatch(ui, style::whole(ui), "sink and recent tokens, always kept (underlined)");
        style::hint(ui, "struck through: kept by no head");
    });
}

fn swatch(ui: &mut Ui, colour: egui::Color32, text: &str) {
    let (rect, _) = ui.allocate_exact_size(egui::vec2(14.0, 14.0), egui::Sense::hover());
    let edge = Stroke::new(1.0, ui.visuals().weak_text_color());
    ui.painter().rect(rect, 2.0, colour, edge, egui::StrokeKind::Inside);
    ui.label(text);
}
