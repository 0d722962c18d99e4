//! The keyboard's focus, as people know it from browsers: a ring around the focused control once Tab
//! was used, a control that scrolls into sight when it gets the focus, Page Up and Page Down, and Tab
//! from where the focus was last.

use egui::scroll_area::ScrollAreaOutput;
use egui::{
    Align, Context, FocusDirection, Id, Key, LayerId, Modifiers, Rect, Response, ScrollArea, Stroke, StrokeKind, Ui,
    WidgetRect,
};

/// Points between a control and its ring.
const GAP: f32 = 2.0;
/// Part of the visible height by which a page key scrolls.
const PAGE: f32 = 0.85;

/// State that lasts from frame to frame.
#[derive(Clone, Copy, Debug, Default)]
struct Focus {
    /// Whether the user moved the focus by keys since the last click.
    by_keys: bool,
    /// The control that has the focus, or had it last, and where it was.
    last: Option<(Id, LayerId, Rect)>,
    /// Frames since it got the focus.
    frames: u32,
}

fn remembered(ctx: &Context) -> Focus {
    ctx.data(|data| data.get_temp(Id::unique("focus"))).unwrap_or_default()
}

fn remember(ctx: &Context, focus: Focus) {
    ctx.data_mut(|data| data.insert_temp(Id::unique("focus"), focus));
}

/// The control with the focus. One that has just gone is still that of the last frame.
fn focused(ctx: &Context) -> Option<Response> {
    ctx.memory(|memory| memory.focused()).and_then(|id| ctx.read_response(id))
}

/// Whether a text field of this frame has the focus.
pub fn is_typing(ui: &Ui) -> bool {
    let ctx = ui.ctx();
    let is_drawn = |id| ctx.viewport(|viewport| viewport.this_pass.widgets.contains(id));
    ctx.text_edit_focused() && ctx.memory(|memory| memory.focused()).is_some_and(is_drawn)
}

/// Whether Enter ended the input into a field of one line.
pub fn is_entered(field: &Response) -> bool {
    field.lost_focus() && field.ctx.input(|input| input.key_pressed(Key::Enter))
}

/// Whether Enter sends the text of a field of several lines, where Shift+Enter breaks a line.
pub fn is_sent(field: &Response) -> bool {
    field.has_focus() && field.ctx.input(|input| input.key_pressed(Key::Enter) && !input.modifiers.shift)
}

/// Called before the controls are drawn.
pub fn begin(ctx: &Context) {
    let mut focus = remembered(ctx);
    let (tabs, moves, clicks) = ctx.input(|input| {
        let tabs = input.key_pressed(Key::Tab);
        let arrows = [Key::ArrowUp, Key::ArrowDown, Key::ArrowLeft, Key::ArrowRight];
        (tabs, tabs || arrows.iter().any(|key| input.key_pressed(*key)), input.pointer.any_pressed())
    });
    focus.by_keys = (focus.by_keys || moves) && !clicks;
    remember(ctx, focus);
    if tabs
        && ctx.memory(|memory| memory.focused().is_none())
        && let Some((id, layer, rect)) = focus.last
    {
        go_on_from(ctx, id, layer, rect);
    }
}

/// Lets Tab go on from a control that lost the focus. If it is gone, the first one in its place gets
/// the focus, or else the nearest one.
fn go_on_from(ctx: &Context, id: Id, layer: LayerId, rect: Rect) {
    let nearest = ctx.viewport(|viewport| {
        let widgets = &viewport.prev_pass.widgets;
        if widgets.contains(id) {
            return None;
        }
        let can_focus = || widgets.get_layer(layer).filter(|w| w.enabled && w.sense.is_focusable());
        let distance = |w: &WidgetRect| w.rect.distance_sq_to_pos(rect.center());
        let within = can_focus().find(|w| rect.contains(w.rect.center()));
        let near = within.or_else(|| can_focus().min_by(|a, b| distance(a).total_cmp(&distance(b))));
        Some(near.map(|w| w.id))
    });
    ctx.memory_mut(|memory| match nearest {
        None => memory.request_focus(id),
        Some(Some(near)) => {
            memory.request_focus(near);
            memory.move_focus(FocusDirection::None);
        }
        Some(None) => {}
    });
}

/// Called after the controls are drawn: draws the ring.
pub fn end(ui: &Ui) {
    let ctx = ui.ctx();
    let mut focus = remembered(ctx);
    if let Some(now) = &focused(ctx) {
        let is_same = focus.last.is_some_and(|(id, ..)| id == now.id);
        focus.frames = if is_same { focus.frames.saturating_add(1) } else { 0 };
        focus.last = Some((now.id, now.layer_id, now.rect));
        if focus.by_keys {
            ring(ctx, now);
        }
        if focus.by_keys && focus.frames < 2 {
            ctx.request_repaint();
        }
    }
    remember(ctx, focus);
}

/// Lets Tab begin with the first control of a page that has just been opened.
pub fn page(ui: &Ui, page: usize, rect: Rect) {
    let id = Id::unique("page with the focus");
    let before: Option<usize> = ui.data(|data| data.get_temp(id));
    ui.data_mut(|data| data.insert_temp(id, page));
    if before.is_some_and(|before| before != page) {
        let mut focus = remembered(ui.ctx());
        focus.last = Some((id, ui.layer_id(), rect));
        remember(ui.ctx(), focus);
        ui.memory_mut(|memory| memory.stop_text_input());
    }
}

/// Whether the user moves about by keys.
pub fn by_keys(ui: &Ui) -> bool {
    remembered(ui.ctx()).by_keys
}

fn ring(ctx: &Context, control: &Response) {
    let stroke = Stroke::new(2.0, ctx.global_style().visuals.selection.stroke.color);
    let painter = ctx.layer_painter(control.layer_id).with_clip_rect(control.interact_rect.expand(2.0 * GAP));
    painter.rect_stroke(control.rect.expand(GAP), 6.0, stroke, StrokeKind::Middle);
}

/// Gives the focus back to the button of a menu or list that was closed by a key.
pub fn return_to(button: &Response, is_open: bool) {
    let ctx = &button.ctx;
    let id = button.id.with("was open");
    let was_open = ctx.data(|data| data.get_temp(id)).unwrap_or(false);
    // The chosen line may still seem to have the focus.
    let is_elsewhere = focused(ctx).is_some_and(|control| control.layer_id == button.layer_id);
    if was_open && !is_open && remembered(ctx).by_keys && !is_elsewhere {
        button.request_focus();
    }
    ctx.data_mut(|data| data.insert_temp(id, is_open));
}

/// Shows a scroll area whose controls scroll into sight when they get the focus. Page Up and Page Down
/// scroll the area that has the focus, or else the page's main area.
pub fn scroll<R>(ui: &mut Ui, area: ScrollArea, is_main: bool, show: impl FnOnce(&mut Ui) -> R) -> ScrollAreaOutput<R> {
    area.show(ui, |ui| {
        let shown = show(ui);
        follow(ui, is_main);
        shown
    })
}

/// Called at the end of what a scroll area shows.
pub fn follow(ui: &Ui, is_main: bool) {
    let focus = remembered(ui.ctx());
    let inside = focused(ui.ctx()).filter(|control| is_inside(ui, control));
    let is_new = |control: &Response| focus.last.is_none_or(|(id, ..)| id != control.id) || focus.frames < 2;
    if let Some(control) = inside.as_ref().filter(|control| focus.by_keys && is_new(control))
        && !ui.clip_rect().contains_rect(control.rect)
    {
        ui.scroll_to_rect(control.rect.expand(8.0), None);
    }
    if !is_main && inside.is_none() {
        return;
    }
    let by = PAGE * ui.clip_rect().height();
    for (key, distance) in [(Key::PageUp, by), (Key::PageDown, -by)] {
        if ui.input_mut(|input| input.consume_key(Modifiers::NONE, key)) {
            ui.scroll_with_delta(egui::vec2(0.0, distance));
        }
    }
    let all = ui.min_rect();
    for (key, at, align) in [(Key::Home, all.top(), Align::TOP), (Key::End, all.bottom(), Align::BOTTOM)] {
        if ui.input_mut(|input| input.consume_key(Modifiers::COMMAND, key)) {
            ui.scroll_to_rect(Rect::from_x_y_ranges(all.x_range(), at..=at), Some(align));
        }
    }
}

/// Whether a control belongs to a scroll area: it is in the same columns, and what is visible of it is
/// within the area.
fn is_inside(ui: &Ui, control: &Response) -> bool {
    let clip = ui.clip_rect().expand(1.0);
    let is_hidden = !control.interact_rect.is_positive();
    control.layer_id == ui.layer_id()
        && clip.x_range().contains(control.rect.center().x)
        && (is_hidden || clip.contains_rect(control.interact_rect))
}
