//! The view of kept tokens: the conversation, each token shaded by how many heads kept it.

use egui::text::{LayoutJob, TextFormat};
use egui::{FontId, ScrollArea, Stroke, Ui};

use super::style;
use crate::app::chat::Chat;
use crate::app::state::Action;
use crate::eval::KeptMap;

pub fn show(ui: &mut Ui, chat: &mut Chat, actions: &mut Vec<Action>) {
    let Chat { kept: Some(map), layer, head, text_size, .. } = chat else {
        actions.push(Action::ShowKept(false));
        return;
    };
    ui.horizontal_wrapped(|ui| {
        if ui.button("Back to the conversation").clicked() {
            actions.push(Action::ShowKept(false));
        }
        picker(ui, "Layer", layer, map.compressed_layers());
        picker(ui, "Head", head, 0..map.n_heads());
    });
    ui.add(egui::Slider::new(text_size, 7.0..=28.0).text("text size").show_value(false));
    legend(ui);
    ui.separator();
    match map.shares(*layer, *head) {
        Ok(shares) => {
            let job = layout(ui, map, &shares, *text_size);
            ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
                ui.add(egui::Label::new(job).wrap().selectable(true));
            });
        }
        Err(_) => (*layer, *head) = (None, None),
    }
}

fn picker(ui: &mut Ui, name: &str, picked: &mut Option<usize>, choices: impl Iterator<Item = usize>) {
    let text = |value: Option<usize>| value.map_or_else(|| "all".to_string(), |i| i.to_string());
    egui::ComboBox::from_label(name).selected_text(text(*picked)).show_ui(ui, |ui| {
        for value in std::iter::once(None).chain(choices.map(Some)) {
            ui.selectable_value(picked, value, text(value));
        }
    });
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

/// Marks tokens by background and also by underline and strikethrough, so that colour is not the
/// only cue.
fn layout(ui: &Ui, map: &KeptMap, shares: &[f64], size: f32) -> LayoutJob {
    let mut job = LayoutJob::default();
    let (ink, weak) = (ui.visuals().text_color(), ui.visuals().weak_text_color());
    for (i, (token, &share)) in map.tokens.iter().zip(shares).enumerate() {
        let mut format = TextFormat { font_id: FontId::proportional(size), color: ink, ..TextFormat::default() };
        if i < map.sink || i >= map.recent_start {
            format.background = style::whole(ui);
            format.underline = Stroke::new(1.0, weak);
        } else if share == 0.0 {
            format.color = weak;
            format.strikethrough = Stroke::new(1.0, weak);
        } else {
            format.background = style::kept(ui, share as f32);
        }
        job.append(token, 0.0, format);
    }
    job
}
