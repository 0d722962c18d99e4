//! Colours and sizes of the light and the dark theme.

use egui::containers::menu::{MenuButton, MenuConfig};
use egui::{
    Align, Color32, Context, FontId, Frame, Layout, Margin, RichText, Stroke, TextStyle, Theme as Shade,
    ThemePreference, Ui,
};

use super::{focus, fonts};
use crate::app::settings::{Settings, Theme};

/// Width of the labels next to input fields.
const LABEL_WIDTH: f32 = 96.0;

/// A row narrower than this has its label above the field.
const LABEL_ABOVE: f32 = 360.0;

/// Frame of the side panels. Panels have no fill of their own, because the window is cleared with
/// the background colour. With a software renderer, each extra fill costs tens of milliseconds per
/// frame.
pub const SIDE: Frame = Frame { inner_margin: Margin::symmetric(8, 2), ..Frame::NONE };
/// Frame of the central panel.
pub const CENTRE: Frame = Frame { inner_margin: Margin::same(8), ..Frame::NONE };

/// Background colour that the window is cleared with.
pub fn ground(ctx: &Context) -> Color32 {
    ctx.global_style().visuals.panel_fill
}

/// Applies theme and zoom from the settings.
pub fn apply(ctx: &Context, settings: &Settings) {
    ctx.set_theme(match settings.theme {
        Theme::System => ThemePreference::System,
        Theme::Light => ThemePreference::Light,
        Theme::Dark => ThemePreference::Dark,
    });
    ctx.set_zoom_factor(settings.zoom);
}

/// Greys of the two themes: text, weak text, the edges of fields and buttons.
const GREYS: [(Shade, [u8; 3]); 2] = [(Shade::Dark, [215, 150, 112]), (Shade::Light, [30, 95, 140])];

/// Sets fonts, spacing and colours, once at start.
pub fn set_up(ctx: &Context) {
    ctx.set_fonts(fonts::built_in());
    ctx.options_mut(|options| options.zoom_with_keyboard = false); // the settings hold the zoom
    ctx.all_styles_mut(|style| {
        style.text_styles = [
            (TextStyle::Heading, FontId::proportional(20.0)),
            (TextStyle::Body, FontId::proportional(14.5)),
            (TextStyle::Button, FontId::proportional(14.5)),
            (TextStyle::Monospace, FontId::monospace(13.0)),
            (TextStyle::Small, FontId::proportional(12.0)),
        ]
        .into();
        style.spacing.item_spacing = egui::vec2(8.0, 7.0);
        style.spacing.button_padding = egui::vec2(10.0, 5.0);
        style.spacing.interact_size.y = 26.0;
    });
    // Body text stands out from weak text. Weak text keeps a contrast of at least 4.5:1 with its
    // background, and edges 3:1.
    for (shade, [plain, pale, edge]) in GREYS {
        ctx.style_mut_of(shade, |style| {
            let widgets = &mut style.visuals.widgets;
            widgets.noninteractive.fg_stroke.color = Color32::from_gray(plain);
            for widget in [&mut widgets.inactive, &mut widgets.open] {
                widget.bg_stroke = Stroke::new(1.0, Color32::from_gray(edge));
            }
            style.visuals.weak_text_color = Some(Color32::from_gray(pale));
        });
    }
}

/// A row with a label of fixed width on the left and buttons on the right. The field between them
/// fills the rest. Where that would leave little, the label stands above.
pub fn row(ui: &mut Ui, label: &str, buttons: impl FnOnce(&mut Ui), field: impl FnOnce(&mut Ui)) {
    let is_beside = ui.available_width() >= LABEL_ABOVE;
    if !is_beside {
        ui.label(label);
    }
    ui.horizontal(|ui| {
        if is_beside {
            let size = egui::vec2(LABEL_WIDTH, ui.spacing().interact_size.y);
            ui.allocate_ui_with_layout(size, Layout::left_to_right(Align::Center), |ui| {
                ui.set_min_width(LABEL_WIDTH);
                ui.label(label);
            });
        }
        beside(ui, ui.spacing().interact_size.y, field, buttons);
    });
}

/// A field that fills a row up to the buttons after it. They are drawn after it, so that Tab goes from
/// left to right; their width is that of the last frame.
pub fn beside(ui: &mut Ui, height: f32, field: impl FnOnce(&mut Ui), buttons: impl FnOnce(&mut Ui)) {
    let id = ui.next_auto_id().with("buttons");
    let known: Option<f32> = ui.data(|data| data.get_temp(id));
    let (width, row) = (ui.available_width(), Layout::left_to_right(Align::Center));
    ui.allocate_ui_with_layout(egui::vec2(width, height), row, |ui| {
        let left = (width - known.unwrap_or(0.0) - ui.spacing().item_spacing.x).max(0.0);
        ui.allocate_ui_with_layout(egui::vec2(left, height), row, |ui| {
            ui.set_width(left);
            field(ui);
        });
        let now = ui.scope(buttons).response.rect.width();
        if known.is_none_or(|known| (known - now).abs() > 0.5) {
            ui.data_mut(|data| data.insert_temp(id, now));
            match known {
                None => ui.ctx().request_discard("the width of buttons"),
                Some(_) => ui.ctx().request_repaint(), // a discarded frame would have the old zoom
            }
        }
    });
}

/// Widest column of text in points: longer lines are tiring to read.
pub const COLUMN: f32 = 720.0;

/// A column of readable width in the middle.
pub fn column<R>(ui: &mut Ui, show: impl FnOnce(&mut Ui) -> R) -> R {
    let mut rect = ui.available_rect_before_wrap();
    let margin = ((rect.width() - COLUMN) / 2.0).max(0.0).round();
    (rect.min.x, rect.max.x) = (rect.min.x + margin, rect.max.x - margin);
    ui.scope_builder(egui::UiBuilder::new().max_rect(rect), show).inner
}

/// The one button of a page that stands out.
pub fn primary<'a>(ui: &Ui, text: &'a str) -> egui::Button<'a> {
    let fill = if ui.visuals().dark_mode { Color32::from_rgb(42, 98, 170) } else { Color32::from_rgb(28, 92, 168) };
    egui::Button::new(RichText::new(text).color(Color32::WHITE)).fill(fill)
}

/// A button that opens a menu, which stays open while the user types into its fields. Returns the
/// button.
pub fn menu(ui: &mut Ui, name: &str, width: f32, show: impl FnOnce(&mut Ui)) -> egui::Response {
    let config = MenuConfig::new().close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside);
    let text = if name == "…" { name.to_string() } else { format!("{name} ⏷") };
    let (button, opened) = MenuButton::new(text).config(config).ui(ui, |ui| {
        ui.set_width(width.min(ui.ctx().content_rect().width() - 40.0));
        show(ui);
    });
    focus::return_to(&button, opened.is_some());
    button
}

/// A progress bar with an edge, so that its length is seen.
pub fn progress(ui: &mut Ui, bar: egui::ProgressBar) {
    let rect = ui.add(bar).rect;
    let edge = ui.visuals().widgets.inactive.bg_stroke;
    ui.painter().rect_stroke(rect, rect.height() / 2.0, edge, egui::StrokeKind::Inside);
}

/// Whether something is drawn that was not drawn in the last frames.
pub fn is_new(ui: &Ui, name: &str) -> bool {
    let (id, now) = (egui::Id::unique(name).with("drawn"), ui.ctx().cumulative_pass_nr());
    let last: Option<u64> = ui.data(|data| data.get_temp(id));
    ui.data_mut(|data| data.insert_temp(id, now));
    last.is_none_or(|last| last + 2 < now)
}

/// Shows a field with its edge, which the style of menus takes away.
pub fn edged<R>(ui: &mut Ui, show: impl FnOnce(&mut Ui) -> R) -> R {
    ui.scope(|ui| {
        ui.visuals_mut().widgets = ui.ctx().global_style().visuals.widgets.clone();
        show(ui)
    })
    .inner
}

/// Colour of the curves of a run among others; all of them stand out on both themes.
pub fn series(i: usize) -> Color32 {
    const COLOURS: [(u8, u8, u8); 6] =
        [(60, 130, 220), (220, 120, 30), (50, 160, 80), (190, 80, 190), (200, 60, 60), (120, 130, 40)];
    let (r, g, b) = COLOURS[i % COLOURS.len()];
    Color32::from_rgb(r, g, b)
}

/// Rows that come and go. What follows them keeps its ids, and so the focus.
pub fn rows_if(ui: &mut Ui, are_shown: bool, name: &str, add: impl FnOnce(&mut Ui)) {
    if are_shown {
        ui.push_id(name, add);
    } else {
        ui.skip_ahead_auto_ids(1); // that of the scope
    }
}

/// Text colour for errors.
pub fn bad(ui: &Ui) -> Color32 {
    if ui.visuals().dark_mode { Color32::from_rgb(255, 140, 120) } else { Color32::from_rgb(170, 30, 20) }
}

/// Text colour for success.
pub fn good(ui: &Ui) -> Color32 {
    if ui.visuals().dark_mode { Color32::from_rgb(120, 210, 140) } else { Color32::from_rgb(20, 110, 50) }
}

/// Background of a token that this share of the heads kept.
pub fn kept(ui: &Ui, share: f32) -> Color32 {
    let (from, to) = if ui.visuals().dark_mode {
        ([27.0, 27.0, 27.0], [30.0, 90.0, 170.0])
    } else {
        ([248.0, 248.0, 248.0], [120.0, 180.0, 235.0])
    };
    let mix = |i: usize| (from[i] + (to[i] - from[i]) * share).round() as u8;
    Color32::from_rgb(mix(0), mix(1), mix(2))
}

/// Background of a token of the sink or the recent part, which every head keeps.
pub fn whole(ui: &Ui) -> Color32 {
    if ui.visuals().dark_mode { Color32::from_rgb(74, 64, 24) } else { Color32::from_rgb(255, 244, 205) }
}

/// Colour over a place that is found in a text, which shows through.
pub fn marked(ui: &Ui) -> Color32 {
    if ui.visuals().dark_mode {
        Color32::from_rgba_unmultiplied(255, 190, 60, 90)
    } else {
        Color32::from_rgba_unmultiplied(255, 150, 0, 90)
    }
}

/// A heading of a section.
pub fn section(ui: &mut Ui, text: &str) {
    ui.add_space(6.0);
    ui.label(RichText::new(text).strong().size(15.5));
}

/// Weak text for hints.
pub fn hint(ui: &mut Ui, text: impl Into<String>) {
    ui.label(RichText::new(text.into()).weak());
}

/// Formats bytes with binary units.
pub fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n < 1024.0 => format!("{n} B"),
        n if n < 1024.0 * 1024.0 => format!("{:.1} KiB", n / 1024.0),
        n if n < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", n / (1024.0 * 1024.0)),
        n => format!("{:.2} GiB", n / (1024.0 * 1024.0 * 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrast of two colours by the formula of WCAG 2.
    fn contrast(a: Color32, b: Color32) -> f32 {
        let luminance = |c: Color32| {
            let [r, g, b, _] = egui::Rgba::from(c).to_array();
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_edges_stand_out_from_what_is_behind_them() {
        let ctx = Context::default();
        set_up(&ctx);
        for theme in [Shade::Light, Shade::Dark] {
            let visuals = ctx.style_of(theme).visuals.clone();
            let weak = visuals.weak_text_color.expect("a colour");
            for ground in [visuals.panel_fill, visuals.extreme_bg_color] {
                assert!(contrast(visuals.widgets.noninteractive.fg_stroke.color, ground) >= 7.0, "{theme:?}");
                assert!(contrast(weak, ground) >= 4.5, "{theme:?}: weak text {}", contrast(weak, ground));
                for state in [visuals.widgets.inactive, visuals.widgets.hovered, visuals.widgets.active] {
                    let edge = contrast(state.bg_stroke.color, ground);
                    assert!(edge >= 3.0, "{theme:?}: an edge of {edge}:1");
                }
            }
        }
    }
}
