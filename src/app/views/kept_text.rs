//! The text of the view of kept tokens. It lays out only the blocks of the text that are visible.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use egui::text::{CCursor, LayoutJob, TextFormat};
use egui::{Color32, FontId, Galley, Id, Pos2, Rect, ScrollArea, Stroke, Ui, UiBuilder, Vec2, pos2, vec2};

use super::{focus, style};
use crate::app::kept::KeptPage;
use crate::error::Result;
use crate::eval::KeptMap;
use crate::grouped::grouped;

/// A block ends at the first line break after so many tokens.
const LEAST_TOKENS: usize = 64;
/// Most tokens of a block without a line break.
const MOST_TOKENS: usize = 512;

/// What the text looks like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    pub layer: Option<usize>,
    pub head: Option<usize>,
    /// Font size.
    pub size: f32,
}

/// A part of the text that is laid out at once.
#[derive(Clone, Debug)]
struct Block {
    tokens: Range<usize>,
    /// Height on the screen: an estimate until the block is laid out.
    height: f32,
    is_laid_out: bool,
}

/// What the view keeps from frame to frame.
#[derive(Debug, Default)]
pub struct Laid {
    serial: Option<u64>,
    look: Look,
    width: f32,
    /// For each token the share of heads that keep it.
    shares: Vec<f64>,
    /// The number of those heads.
    n_heads: usize,
    blocks: Vec<Block>,
    /// Where the text scrolls to in the next frame.
    next_offset: Option<f32>,
    /// Blocks that were laid out in the last frame.
    pub n_laid_out: usize,
}

/// What the view has kept, for tests of its cost.
pub fn laid(ctx: &egui::Context) -> Arc<Mutex<Laid>> {
    ctx.data_mut(|data| data.get_temp_mut_or_default::<Arc<Mutex<Laid>>>(Id::unique("kept text")).clone())
}

/// Shows the text with its marked places, and scrolls to the visited one if the page says so.
pub fn show(ui: &mut Ui, map: &KeptMap, page: &mut KeptPage, look: &Look) -> Result<()> {
    if page.starts.len() != map.tokens.len() + 1 {
        page.renew(map);
    }
    let laid = laid(ui.ctx());
    let mut laid = laid.lock().unwrap_or_else(PoisonError::into_inner);
    let width = (ui.available_width() - ui.spacing().scroll.allocated_width()).min(style::COLUMN);
    laid.prepare(map, page, look, width)?;
    laid.n_laid_out = 0;
    let height = ui.available_height();
    let mut area = ScrollArea::vertical().id_salt(("kept text", page.serial)).auto_shrink([false, false]);
    if std::mem::take(&mut page.scrolls)
        && let Some(place) = page.places.get(page.current)
    {
        let top = laid.top_of(ui, map, page, place.start, height);
        laid.next_offset = Some((top - height / 3.0).max(0.0));
    }
    if let Some(offset) = laid.next_offset.take() {
        area = area.vertical_scroll_offset(offset);
    }
    let output = area.show_viewport(ui, |ui, viewport| laid.paint(ui, map, page, viewport));
    if output.inner != 0.0 {
        laid.next_offset = Some(output.state.unclamped_offset().y + output.inner);
        ui.ctx().request_repaint();
    }
    Ok(())
}

impl Laid {
    /// Divides a new text into blocks, and estimates their heights if the look has changed.
    fn prepare(&mut self, map: &KeptMap, page: &KeptPage, look: &Look, width: f32) -> Result<()> {
        let is_new = self.serial != Some(page.serial) || self.shares.len() != map.tokens.len();
        if is_new || (self.look.layer, self.look.head) != (look.layer, look.head) {
            self.shares = map.shares(look.layer, look.head)?;
            let layers = map.kept.iter().enumerate().filter(|(i, _)| look.layer.is_none_or(|layer| layer == *i));
            let of_layer = |heads: &Vec<Vec<usize>>| if look.head.is_some() { heads.len().min(1) } else { heads.len() };
            self.n_heads = layers.map(|(_, heads)| of_layer(heads)).sum();
        }
        if is_new {
            self.blocks = blocks(&map.tokens);
        }
        if is_new || (self.look.size, self.width) != (look.size, width) {
            let columns = (width / (0.5 * look.size)).max(1.0);
            for block in &mut self.blocks {
                let tokens = &map.tokens[block.tokens.clone()];
                let n_bytes: usize = tokens.iter().map(String::len).sum();
                let n_breaks = tokens.iter().filter(|token| token.contains('\n')).count();
                let rows = (n_bytes as f32 / columns).ceil().max(1.0) + n_breaks.saturating_sub(1) as f32;
                (block.height, block.is_laid_out) = (1.25 * look.size * rows, false);
            }
        }
        (self.serial, self.look, self.width) = (Some(page.serial), look.clone(), width);
        Ok(())
    }

    /// Lays out a block and takes its height. egui keeps what it laid out in the frame before.
    fn lay_out(&mut self, ui: &Ui, map: &KeptMap, i: usize) -> Arc<Galley> {
        let mut job = job(ui, map, &self.shares, self.blocks[i].tokens.clone(), self.look.size);
        job.wrap.max_width = self.width;
        let galley = ui.ctx().fonts_mut(|fonts| fonts.layout_job(job));
        (self.blocks[i].height, self.blocks[i].is_laid_out) = (galley.size().y, true);
        self.n_laid_out += 1;
        galley
    }

    /// The distance of a byte of the text from the top. Blocks from one window's height above it are
    /// laid out, so that the distance is still right when they are painted.
    fn top_of(&mut self, ui: &Ui, map: &KeptMap, page: &KeptPage, byte: usize, height: f32) -> f32 {
        let token = page.token_at(byte);
        let at =
            self.blocks.partition_point(|block| block.tokens.end <= token).min(self.blocks.len().saturating_sub(1));
        let Some(first) = self.blocks.get(at).map(|block| page.starts[block.tokens.start]) else { return 0.0 };
        let galley = self.lay_out(ui, map, at);
        let within = galley.pos_from_cursor(CCursor::new(letters(&page.text, first, byte))).top();
        let mut above = 0.0;
        for i in (0..at).rev() {
            if above > height {
                break;
            }
            self.lay_out(ui, map, i);
            above += self.blocks[i].height;
        }
        within + self.blocks[..at].iter().map(|block| block.height).sum::<f32>()
    }

    /// Paints the visible blocks. Returns by how much the text must scroll to stay where it is: how much
    /// new blocks have grown beyond what was estimated, above the first block of known height.
    fn paint(&mut self, ui: &mut Ui, map: &KeptMap, page: &KeptPage, viewport: Rect) -> f32 {
        ui.set_width(ui.available_width());
        ui.set_height(self.blocks.iter().map(|block| block.height).sum());
        // The text stands where the conversation does.
        let origin = ui.max_rect().min + vec2(((ui.available_width() - self.width) / 2.0).max(0.0).round(), 0.0);
        let (mut top, mut grown, mut is_known) = (0.0, 0.0, false);
        let mut visible = Vec::new();
        for i in 0..self.blocks.len() {
            let Block { height, is_laid_out, .. } = self.blocks[i];
            if top - grown > viewport.bottom() {
                break;
            }
            if top + height >= viewport.top() {
                let galley = self.lay_out(ui, map, i);
                is_known |= is_laid_out;
                if !is_known {
                    grown += self.blocks[i].height - height;
                }
                visible.push((i, top, galley));
            }
            top += self.blocks[i].height;
        }
        let shift = if is_known { grown } else { 0.0 };
        for (i, top, galley) in visible {
            self.paint_block(ui, map, page, i, &galley, origin + vec2(0.0, top - shift));
        }
        focus::follow(ui, true);
        shift
    }

    fn paint_block(&self, ui: &mut Ui, map: &KeptMap, page: &KeptPage, i: usize, galley: &Arc<Galley>, at: Pos2) {
        let rect = Rect::from_min_size(at, galley.size());
        let label = egui::Label::new(galley.clone()).selectable(true);
        let builder = UiBuilder::new().id_salt(("block", i)).max_rect(rect);
        let response = ui.scope_builder(builder, |ui| ui.add(label)).inner;
        let tokens = &self.blocks[i].tokens;
        let bytes = page.starts[tokens.start]..page.starts[tokens.end];
        for (n, place) in page.places.iter().enumerate() {
            if place.start < bytes.end && place.end > bytes.start {
                let letter = |byte: usize| letters(&page.text, bytes.start, byte.clamp(bytes.start, bytes.end));
                mark(ui, galley, letter(place.start)..letter(place.end), at.to_vec2(), n == page.current);
            }
        }
        if let Some(pointer) = response.hover_pos()
            && let Some(letter) = letter_at(galley, pointer - rect.min)
        {
            let text = &page.text[bytes.clone()];
            let byte =
                text.char_indices().nth(letter).map_or(bytes.end.saturating_sub(1), |(byte, _)| bytes.start + byte);
            let token = page.token_at(byte).min(tokens.end - 1);
            response.on_hover_text_at_pointer(self.said(map, token));
        }
    }

    /// What is said of a token.
    fn said(&self, map: &KeptMap, token: usize) -> String {
        let place = format!("token {} of {}", grouped(token + 1), grouped(map.tokens.len()));
        if token < map.sink {
            return format!("{place}: in the sink, always kept");
        }
        if token >= map.recent_start {
            return format!("{place}: recent, always kept");
        }
        let n = (self.shares[token] * self.n_heads as f64).round() as usize;
        let heads = if self.n_heads == 1 { "head" } else { "heads" };
        format!("{place}: kept by {} of {} {heads}", grouped(n), grouped(self.n_heads))
    }
}

/// The blocks of a text. Most end at a line break, so that they can stand below each other.
fn blocks(tokens: &[String]) -> Vec<Block> {
    let (mut blocks, mut start) = (Vec::new(), 0);
    for (i, token) in tokens.iter().enumerate() {
        let n = i + 1 - start;
        if n >= LEAST_TOKENS && token.ends_with('\n') || n == MOST_TOKENS || i + 1 == tokens.len() {
            blocks.push(Block { tokens: start..i + 1, height: 0.0, is_laid_out: false });
            start = i + 1;
        }
    }
    blocks
}

/// Marks tokens by background and also by underline and strikethrough, so that colour is not the
/// only cue. The line break at the end of the block is left out, because the next one is below.
fn job(ui: &Ui, map: &KeptMap, shares: &[f64], tokens: Range<usize>, size: f32) -> LayoutJob {
    let mut job = LayoutJob::default();
    let (ink, weak) = (ui.visuals().text_color(), ui.visuals().weak_text_color());
    let last = tokens.end - 1;
    for i in tokens {
        let mut format = TextFormat { font_id: FontId::proportional(size), color: ink, ..TextFormat::default() };
        if i < map.sink || i >= map.recent_start {
            format.background = style::whole(ui);
            format.underline = Stroke::new(1.0, weak);
        } else if shares[i] == 0.0 {
            format.color = weak;
            format.strikethrough = Stroke::new(1.0, weak);
        } else {
            format.background = style::kept(ui, shares[i] as f32);
        }
        let token = map.tokens[i].as_str();
        let token = if i == last { token.strip_suffix('\n').unwrap_or(token) } else { token };
        job.append(token, 0.0, format);
    }
    job
}

/// Letters of the text from one byte to another.
fn letters(text: &str, from: usize, to: usize) -> usize {
    text[from..to].chars().count()
}

/// The letter at a position in a galley.
fn letter_at(galley: &Galley, at: Vec2) -> Option<usize> {
    let cursor = galley.cursor_from_pos(at);
    let index = usize::from(cursor.index);
    // The cursor is at the nearer side of the letter.
    let is_right = galley.pos_from_cursor(cursor).left() > at.x;
    if is_right { index.checked_sub(1) } else { Some(index) }
}

/// Marks letters of a galley, row by row.
fn mark(ui: &Ui, galley: &Galley, range: Range<usize>, at: Vec2, is_current: bool) {
    let begin = CCursor { index: range.start.into(), prefer_next_row: true };
    let end = CCursor::new(range.end);
    let (first, last) = (galley.layout_from_cursor(begin).row, galley.layout_from_cursor(end).row);
    let fill = style::marked(ui);
    for row in first..=last {
        let Some(whole) = galley.rows.get(row).map(|row| row.rect()) else { break };
        let left = if row == first { galley.pos_from_cursor(begin).left() } else { whole.left() };
        let right = if row == last { galley.pos_from_cursor(end).left() } else { whole.right() };
        if right > left {
            let rect = Rect::from_min_max(pos2(left, whole.top()), pos2(right, whole.bottom())).translate(at);
            let width = if is_current { 2.0 } else { 0.0 };
            let edge = Stroke::new(width, if is_current { ui.visuals().text_color() } else { Color32::TRANSPARENT });
            ui.painter().rect(rect, 2.0, fill, edge, egui::StrokeKind::Outside);
        }
    }
}
