//! A model of the models page with its facts, its fit and its adapters.

use egui::{Frame, Margin, RichText, Ui};
use egui_plot::{Line, Plot, PlotPoints};

use super::style;
use crate::app::models::{AdapterEntry, Entry, EntryState, Fit, Known, ModelAction, Origin};
use crate::app::state::{Action, App};

/// Size of the picture of a loss curve.
const CURVE: egui::Vec2 = egui::vec2(110.0, 34.0);
/// Height of a row with small buttons.
const SMALL_ROW: f32 = 20.0;

/// Draws a model and what can be done with it.
pub fn model(ui: &mut Ui, app: &App, entry: &Entry, actions: &mut Vec<Action>) {
    let stroke = ui.visuals().widgets.noninteractive.bg_stroke;
    let frame = Frame::NONE.stroke(stroke).corner_radius(6).inner_margin(Margin::symmetric(10, 8));
    frame.outer_margin(Margin { bottom: 2, ..Margin::ZERO }).show(ui, |ui| {
        ui.set_width(ui.available_width());
        title(ui, app, entry, actions);
        match &entry.state {
            EntryState::Reading => style::hint(ui, "Reading its files…"),
            EntryState::Known(known) => facts(ui, app, known),
            EntryState::Unreadable(why) => {
                ui.label(RichText::new(format!("It cannot be opened: {why}")).color(style::bad(ui)));
            }
            EntryState::Absent { is_partial: true } => {
                style::hint(ui, "Its download was broken off. Opening it continues the download.");
            }
            EntryState::Absent { is_partial: false } => style::hint(ui, "It is to be downloaded again."),
        }
        place(ui, entry, actions);
        for adapter in app.models.adapters_of(&entry.listed.model) {
            self::adapter(ui, app, Some(&entry.listed.model), adapter, actions);
        }
    });
}

fn title(ui: &mut Ui, app: &App, entry: &Entry, actions: &mut Vec<Action>) {
    let model = &entry.listed.model;
    style::beside(
        ui,
        ui.spacing().interact_size.y,
        |ui| {
            ui.add(egui::Label::new(RichText::new(entry.name()).strong()).truncate());
        },
        |ui| {
            if app.is_open(model, None) {
                ui.label(RichText::new("open").color(style::good(ui)));
            } else if !matches!(entry.state, EntryState::Unreadable(_)) {
                let button = egui::Button::new("Open");
                if ui.add_enabled(app.busy.is_none(), button).clicked() {
                    actions.push(Action::Models(ModelAction::Open(model.clone(), None)));
                }
            }
        },
    );
}

fn facts(ui: &mut Ui, app: &App, known: &Known) {
    let facts = &known.facts;
    let mut parts = vec![
        facts.family().to_string(),
        format!("{} parameters", count(facts.n_parameters)),
        facts.type_names(),
        format!("{} tokens", thousands(facts.config.max_positions as u64)),
        match (facts.has_tokenizer, facts.has_chat_template) {
            (true, true) => "chat template",
            (true, false) => "no chat template",
            (false, _) => "no tokenizer",
        }
        .to_string(),
    ];
    if known.disk_bytes > 0 {
        parts.insert(3, format!("{} on disk", style::bytes(known.disk_bytes)));
    }
    ui.add(egui::Label::new(parts.join(" · ")).wrap());
    let fit = app.fit(facts);
    let text = RichText::new(fit_text(&fit, app.settings.factor));
    let text = match fit.fits() {
        Some(true) => text.color(style::good(ui)),
        Some(false) => text.color(style::bad(ui)),
        None => text.weak(),
    };
    ui.add(egui::Label::new(text).wrap());
}

/// What a model needs, and whether the device has it.
fn fit_text(fit: &Fit, factor: u32) -> String {
    let cache = if factor > 1 { format!("{factor}x compression") } else { "a dense cache".into() };
    let needs = format!(
        "{} of weights and {} for {} tokens with {cache}",
        style::bytes(fit.weight_bytes),
        style::bytes(fit.cache_bytes),
        thousands(fit.n_tokens as u64)
    );
    match (fit.fits(), fit.device_bytes) {
        (Some(true), Some(have)) => format!("Fits {}: {needs}, of {}", fit.device, style::bytes(have)),
        (Some(false), Some(have)) => {
            format!("Does not fit {}: {needs}, and the device has {}", fit.device, style::bytes(have))
        }
        _ => format!("Needs {needs}"),
    }
}

fn place(ui: &mut Ui, entry: &Entry, actions: &mut Vec<Action>) {
    let model = &entry.listed.model;
    style::beside(
        ui,
        SMALL_ROW,
        |ui| {
            let text = RichText::new(entry.place()).weak().small();
            ui.add(egui::Label::new(text).truncate());
        },
        |ui| {
            if entry.can_train() && ui.small_button("Use for fine-tuning").clicked() {
                actions.push(Action::Models(ModelAction::Train(model.clone())));
            }
            if entry.listed.origin != Origin::Bundled && ui.small_button("Remove from the list").clicked() {
                actions.push(Action::Models(ModelAction::Forget(model.clone())));
            }
        },
    );
}

/// Draws an adapter of the model `base`, with the loss curve of its run.
pub fn adapter(ui: &mut Ui, app: &App, base: Option<&str>, adapter: &AdapterEntry, actions: &mut Vec<Action>) {
    let has_curve = adapter.losses.len() > 1;
    style::beside(
        ui,
        if has_curve { CURVE.y } else { ui.spacing().interact_size.y },
        |ui| {
            ui.add_space(14.0);
            let (text, is_bad) = match &adapter.problem {
                Some(why) => (format!("{} cannot be opened: {why}", adapter.name()), true),
                None => (adapter_text(adapter, base), false),
            };
            let text = RichText::new(text);
            let text = if is_bad { text.color(style::bad(ui)) } else { text };
            ui.add(egui::Label::new(text).truncate()).on_hover_text(adapter.path.display().to_string());
        },
        |ui| {
            if has_curve {
                curve(ui, adapter);
            }
            if let Some(base) = base.filter(|_| adapter.problem.is_none()) {
                if app.is_open(base, Some(&adapter.path)) {
                    ui.label(RichText::new("open").color(style::good(ui)));
                } else if ui.add_enabled(app.busy.is_none(), egui::Button::new("Chat")).clicked() {
                    actions.push(Action::Models(ModelAction::Open(base.to_string(), Some(adapter.path.clone()))));
                }
            }
        },
    );
}

fn adapter_text(adapter: &AdapterEntry, base: Option<&str>) -> String {
    let of = adapter.base.as_deref().filter(|_| adapter.models.is_empty());
    let of = match (of, base) {
        (Some(of), _) => Some(format!("adapter of {of}")),
        (None, None) => Some("its files name no base model".to_string()),
        (None, Some(_)) => None,
    };
    let loss = adapter.losses.last().map(|[_, loss]| format!("loss {loss:.3}"));
    let settings = Some(adapter.settings()).filter(|text| !text.is_empty());
    let parts = [Some(format!("+ {}", adapter.name())), of, settings, loss];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// The loss curve of a run in small, without axes.
fn curve(ui: &mut Ui, adapter: &AdapterEntry) {
    let plot = Plot::new(("loss of", &adapter.path)).width(CURVE.x).height(CURVE.y);
    plot.show_axes(false)
        .show_grid(false)
        .show_x(false)
        .show_y(false)
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .allow_boxed_zoom(false)
        .sense(egui::Sense::hover())
        .show(ui, |plot| plot.line(Line::new("loss", PlotPoints::from(adapter.losses.clone())).width(1.5)));
}

/// Parameters and types of a model, for the menu.
pub fn in_short(entry: &Entry) -> String {
    match &entry.state {
        EntryState::Known(known) => format!("{}, {}", count(known.facts.n_parameters), known.facts.type_names()),
        EntryState::Reading => String::new(),
        EntryState::Unreadable(_) => "cannot be opened".into(),
        EntryState::Absent { .. } => "to be downloaded".into(),
    }
}

/// A number of parameters with three or four digits: `260.0 K`, `134.5 M`, `1.54 B`.
fn count(n: u64) -> String {
    match n as f64 {
        n if n < 1e3 => format!("{n}"),
        n if n < 1e6 => format!("{:.1} K", n / 1e3),
        n if n < 1e9 => format!("{:.1} M", n / 1e6),
        n => format!("{:.2} B", n / 1e9),
    }
}

/// A number with commas between thousands.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let first = (digits.len() - 1) % 3 + 1;
    let mut out = digits[..first].to_string();
    for i in (first..digits.len()).step_by(3) {
        out += ",";
        out += &digits[i..i + 3];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(
            [7, 999, 1000, 8192, 131_072, 1_048_576].map(thousands).join(" "),
            "7 999 1,000 8,192 131,072 1,048,576"
        );
        assert_eq!([260_032, 134_515_008, 1_543_714_304].map(count), ["260.0 K", "134.5 M", "1.54 B"]);
    }

    #[test]
    fn the_fit_is_said_with_what_it_is_made_of() {
        let fit = |device_bytes| Fit {
            weight_bytes: 144 << 20,
            cache_bytes: 90 << 20,
            n_tokens: 8192,
            device: "the CPU".into(),
            device_bytes,
        };
        let needs = "144.0 MiB of weights and 90.0 MiB for 8,192 tokens with";
        assert_eq!(fit_text(&fit(Some(1 << 30)), 4), format!("Fits the CPU: {needs} 4x compression, of 1.00 GiB"));
        assert_eq!(
            fit_text(&fit(Some(128 << 20)), 1),
            format!("Does not fit the CPU: {needs} a dense cache, and the device has 128.0 MiB")
        );
        assert_eq!(fit_text(&fit(None), 4), format!("Needs {needs} 4x compression"));
    }
}
