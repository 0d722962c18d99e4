//! Notices in a corner above the page. They push nothing aside. News leaves by itself, errors stay.

use std::collections::HashMap;

use egui::{Align2, Area, Frame, Id, Label, Order, RichText, Ui};

use super::style;
use crate::app::state::{Action, App};

/// Seconds that news stays.
const STAYS: f64 = 8.0;

/// The most notices at once.
const MOST: usize = 3;

/// Widest notice in points.
const WIDTH: f32 = 420.0;

pub fn show(ui: &Ui, app: &App, actions: &mut Vec<Action>) {
    let id = Id::unique("toasts");
    let now = ui.input(|i| i.time);
    let ctx = ui.ctx();
    // When each text was first shown.
    let mut since: HashMap<String, f64> = ctx.data(|data| data.get_temp(id)).unwrap_or_default();
    since.retain(|text, _| app.notices.iter().any(|notice| notice.text == *text));
    if !app.notices.is_empty() {
        let width = WIDTH.min(ui.max_rect().width() - 32.0);
        let area = Area::new(id).order(Order::Foreground).anchor(Align2::RIGHT_TOP, [-12.0, 48.0]);
        area.show(ctx, |ui| {
            let hidden = app.notices.len().saturating_sub(MOST);
            for (i, notice) in app.notices.iter().enumerate().skip(hidden) {
                Frame::popup(ui.style()).show(ui, |ui| {
                    ui.set_width(width);
                    ui.horizontal_top(|ui| {
                        if ui.button("Dismiss").clicked() {
                            actions.push(Action::Dismiss(i));
                        }
                        let text = RichText::new(if notice.is_error {
                            format!("Error: {}", notice.text)
                        } else {
                            notice.text.clone()
                        });
                        let text = if notice.is_error { text.color(style::bad(ui)) } else { text };
                        ui.add(Label::new(text).wrap().selectable(true));
                    });
                });
                let first = *since.entry(notice.text.clone()).or_insert(now);
                let left = first + STAYS - now;
                if !notice.is_error && left <= 0.0 && !ui.ui_contains_pointer() {
                    actions.push(Action::Dismiss(i));
                } else if !notice.is_error {
                    ctx.request_repaint_after_secs(left.max(0.5) as f32);
                }
            }
            if hidden > 0 {
                style::hint(ui, format!("and {hidden} earlier"));
            }
        });
    }
    ctx.data_mut(|data| data.insert_temp(id, since));
}
