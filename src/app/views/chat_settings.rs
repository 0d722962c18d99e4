//! The settings of a chat: instructions, sampling values, and the partitions of the cache.

use std::ops::RangeInclusive;

use egui::{DragValue, ScrollArea, TextEdit, Ui};

use super::{focus, style};
use crate::app::state::{Action, App};
use crate::checkpoint::generation_config::Wished;
use crate::kernels::sample::Sampling;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    ui.horizontal(|ui| {
        ui.strong("Chat settings");
        if ui.button("Close").clicked() {
            app.chat.shows_settings = false;
        }
    });
    let area = ScrollArea::vertical().id_salt("chat settings").auto_shrink([false, false]);
    focus::scroll(ui, area, false, |ui| {
        style::section(ui, "Instructions");
        let system = TextEdit::multiline(&mut app.chat.system).id_salt("instructions");
        let hint = "What the model reads before the conversation, for example: Answer in one sentence.";
        ui.add(system.hint_text(hint).desired_rows(4).desired_width(f32::INFINITY));
        style::section(ui, "Sampling");
        let recommended = app.chat.model.as_ref().and_then(|model| model.recommended);
        style::hint(ui, format!("What is not ticked is as the model recommends{}.", values(recommended)));
        sampling(ui, &mut app.chat.sampling, &mut app.chat.seed);
        style::section(ui, "Length and cache");
        let is_free = app.busy.is_none();
        let mut number = |ui: &mut Ui, name: &str, value: &mut usize, range: RangeInclusive<usize>, what: &str| {
            ui.horizontal(|ui| {
                let drag = ui.add_enabled(is_free, DragValue::new(value).range(range));
                let label = ui.label(name).on_hover_text(what);
                let drag = drag.labelled_by(label.id);
                if drag.drag_stopped() || drag.lost_focus() {
                    actions.push(Action::SettingsChanged);
                }
            });
        };
        let s = &mut app.settings;
        number(
            ui,
            "longest answer, in tokens",
            &mut s.max_tokens,
            1..=8192,
            "An answer is cut there; you can continue it.",
        );
        number(
            ui,
            "lag",
            &mut s.lag,
            8..=4096,
            "Tokens per partition. The cache selects the tokens to keep in each one.",
        );
        number(ui, "sink", &mut s.sink, 0..=4096, "First tokens of the conversation, which are always kept.");
    });
}

/// The values that change something: ": temperature 0.8, top-p 0.95".
fn values(sampling: Option<Sampling>) -> String {
    let Some(s) = sampling else { return String::new() };
    let mut parts = vec![format!("temperature {}", s.temperature)];
    parts.extend((s.top_p < 1.0).then(|| format!("top-p {}", s.top_p)));
    parts.extend((s.top_k > 0).then(|| format!("top-k {}", s.top_k)));
    parts.extend((s.min_p > 0.0).then(|| format!("min-p {}", s.min_p)));
    let penalties = [
        ("repetition", s.repetition_penalty, 1.0),
        ("frequency", s.frequency_penalty, 0.0),
        ("presence", s.presence_penalty, 0.0),
    ];
    for (name, value, off) in penalties {
        parts.extend((value != off).then(|| format!("{name} penalty {value}")));
    }
    format!(": {}", parts.join(", "))
}

fn sampling(ui: &mut Ui, wished: &mut Wished, seed: &mut Option<u64>) {
    let decimal =
        |ui: &mut Ui, name: &str, value: &mut Option<f32>, first: f32, range: RangeInclusive<f32>, what: &str| {
            choice(ui, name, value, first, what, |ui, value| ui.add(DragValue::new(value).speed(0.01).range(range)));
        };
    decimal(
        ui,
        "temperature",
        &mut wished.temperature,
        0.8,
        0.0..=4.0,
        "0 always takes the most likely token. Higher is more varied.",
    );
    decimal(
        ui,
        "top-p",
        &mut wished.top_p,
        0.95,
        0.0..=1.0,
        "Draws among the likeliest tokens that have this probability together.",
    );
    decimal(
        ui,
        "min-p",
        &mut wished.min_p,
        0.05,
        0.0..=1.0,
        "Leaves out tokens below this share of the likeliest one's probability.",
    );
    let what = "Makes tokens that have occurred less likely. 1 is off.";
    decimal(ui, "repetition penalty", &mut wished.repetition_penalty, 1.1, 0.1..=2.0, what);
    let what = "Lowers the probability of a token each time that the answer has it. 0 is off.";
    decimal(ui, "frequency penalty", &mut wished.frequency_penalty, 0.5, -2.0..=2.0, what);
    let what = "Lowers the probability of tokens that the answer has already, however often. 0 is off.";
    decimal(ui, "presence penalty", &mut wished.presence_penalty, 0.5, -2.0..=2.0, what);
    choice(ui, "top-k", &mut wished.top_k, 40, "Draws among so many of the likeliest tokens.", |ui, value| {
        ui.add(DragValue::new(value).range(1..=1000))
    });
    choice(ui, "seed", seed, 1, "The same seed draws the same answer.", |ui, value| ui.add(DragValue::new(value)));
    if ui.button("Use the recommended values").clicked() {
        (*wished, *seed) = (Wished::default(), None);
    }
}

/// A value that the user may set: a tick, and then a field.
fn choice<T: Copy>(
    ui: &mut Ui,
    name: &str,
    value: &mut Option<T>,
    first: T,
    what: &str,
    field: impl FnOnce(&mut Ui, &mut T) -> egui::Response,
) {
    ui.horizontal(|ui| {
        let mut is_set = value.is_some();
        let tick = ui.checkbox(&mut is_set, name).on_hover_text(what);
        if tick.changed() {
            *value = is_set.then_some(first);
        }
        if let Some(value) = value {
            field(ui, value).labelled_by(tick.id);
        }
    });
}
