//! The canvas of a chart: draws lines, markers and text to SVG or PNG with plotters' backends.
//!
//! Lengths are in units of the SVG. The PNG is drawn at a higher resolution and averaged down to
//! smooth its edges.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::{
    BitMapBackend, Circle, DrawingArea, DrawingBackend, IntoDrawingArea, IntoFont, PathElement, Polygon, RGBColor,
    Rectangle, SVGBackend, Text, TextStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, FontTransform, register_font};

use super::style::{Colour, Marker, Style};
use crate::error::{Context, Error, Result};

/// Pixels of the PNG per unit of length.
const PNG_SCALE: u32 = 2;
/// Pixels drawn per pixel of the PNG, along each side.
const OVERSAMPLING: u32 = 2;
/// Coordinates of the SVG per unit of length. The backend supports only integer coordinates.
const SVG_SCALE: u32 = 4;

/// The corners of an upright cross.
const CROSS: [(f64, f64); 12] = [
    (-0.4, -1.2),
    (0.4, -1.2),
    (0.4, -0.4),
    (1.2, -0.4),
    (1.2, 0.4),
    (0.4, 0.4),
    (0.4, 1.2),
    (-0.4, 1.2),
    (-0.4, 0.4),
    (-1.2, 0.4),
    (-1.2, -0.4),
    (-0.4, -0.4),
];

/// Position of text relative to its anchor point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// Starts at the point, vertically centred.
    Left,
    /// Ends at the point, vertically centred.
    Right,
    /// Below the point, horizontally centred.
    Top,
    /// Rotated to read upwards, to the right of the point, vertically centred.
    Upwards,
}

/// A drawing surface.
pub(super) trait Canvas {
    /// Draws a line through points.
    fn line(&self, points: &[(f64, f64)], colour: Colour, width: f64, dashes: &[f64]) -> Result<()>;
    /// Draws a marker.
    fn marker(&self, at: (f64, f64), style: Style, radius: f64) -> Result<()>;
    /// Draws a filled rectangle from its upper left corner.
    fn rectangle(&self, corner: (f64, f64), size: (f64, f64), colour: Colour) -> Result<()>;
    /// Draws text.
    fn text(&self, text: &str, at: (f64, f64), anchor: Anchor, size: f64, colour: Colour) -> Result<()>;
}

struct Surface<DB: DrawingBackend> {
    area: DrawingArea<DB, Shift>,
    scale: f64,
    /// Vertical offset of centred text in this format, as a fraction of the font size: the backend
    /// draws it too high.
    raised: f64,
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(format!("drawing a plot failed: {e}"))
}

impl<DB: DrawingBackend> Surface<DB> {
    fn at(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn width(&self, width: f64) -> u32 {
        (width * self.scale).round().max(1.0) as u32
    }
}

fn rgb((r, g, b): Colour) -> RGBColor {
    RGBColor(r, g, b)
}

impl<DB: DrawingBackend> Canvas for Surface<DB> {
    fn line(&self, points: &[(f64, f64)], colour: Colour, width: f64, dashes: &[f64]) -> Result<()> {
        let stroke = rgb(colour).stroke_width(self.width(width));
        for piece in pieces(points, dashes) {
            let path: Vec<(i32, i32)> = piece.iter().map(|&p| self.at(p)).collect();
            self.area.draw(&PathElement::new(path, stroke)).map_err(failed)?;
        }
        Ok(())
    }

    fn marker(&self, (x, y): (f64, f64), style: Style, radius: f64) -> Result<()> {
        let fill = rgb(style.colour).filled();
        let corners: &[(f64, f64)] = match style.marker {
            Marker::Circle => {
                let circle = Circle::new(self.at((x, y)), self.width(radius), fill);
                return self.area.draw(&circle).map_err(failed);
            }
            Marker::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            Marker::Triangle => &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
            Marker::TriangleDown => &[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
            Marker::Cross => &CROSS,
            Marker::Diamond => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
        };
        let corners: Vec<(i32, i32)> =
            corners.iter().map(|(dx, dy)| self.at((x + dx * radius, y + dy * radius))).collect();
        self.area.draw(&Polygon::new(corners, fill)).map_err(failed)
    }

    fn rectangle(&self, (x, y): (f64, f64), (w, h): (f64, f64), colour: Colour) -> Result<()> {
        let corners = [self.at((x, y)), self.at((x + w, y + h))];
        self.area.draw(&Rectangle::new(corners, rgb(colour).filled())).map_err(failed)
    }

    fn text(&self, text: &str, at: (f64, f64), anchor: Anchor, size: f64, colour: Colour) -> Result<()> {
        let (h, v, turn) = match anchor {
            Anchor::Left => (HPos::Left, VPos::Center, FontTransform::None),
            Anchor::Right => (HPos::Right, VPos::Center, FontTransform::None),
            Anchor::Top => (HPos::Center, VPos::Top, FontTransform::None),
            Anchor::Upwards => (HPos::Center, VPos::Top, FontTransform::Rotate270),
        };
        let font = ("sans-serif", size * self.scale).into_font().transform(turn);
        let colour = rgb(colour);
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(h, v));
        let drop = if matches!(anchor, Anchor::Left | Anchor::Right) { self.raised * size } else { 0.0 };
        self.area.draw(&Text::new(text, self.at((at.0, at.1 + drop)), style)).map_err(failed)
    }
}

/// The strokes of a line: the whole line if it is solid, otherwise its dashes.
fn pieces(points: &[(f64, f64)], dashes: &[f64]) -> Vec<Vec<(f64, f64)>> {
    if dashes.is_empty() {
        return vec![points.to_vec()];
    }
    let mut strokes = Vec::new();
    let (mut turn, mut left) = (0, dashes[0]);
    let mut stroke = points.first().map(|&p| vec![p]).unwrap_or_default();
    for ends in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (ends[0], ends[1]);
        let length = (x1 - x0).hypot(y1 - y0);
        let along = |t: f64| (x0 + (x1 - x0) * t / length, y0 + (y1 - y0) * t / length);
        let mut done = 0.0;
        while length - done > left {
            done += left;
            if turn % 2 == 0 {
                stroke.push(along(done));
                strokes.push(std::mem::take(&mut stroke));
            } else {
                stroke = vec![along(done)];
            }
            turn += 1;
            left = dashes[turn % dashes.len()];
        }
        left -= length - done;
        if turn % 2 == 0 {
            stroke.push((x1, y1));
        }
    }
    if stroke.len() > 1 {
        strokes.push(stroke);
    }
    strokes
}

/// Registers the font of both formats. Its metrics place the text, and the PNG uses its glyphs.
fn use_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The font is bundled and valid. If registration fails, drawing text returns the error.
        let _ = register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
}

/// Renders `draw` to an SVG of this size.
pub(super) fn svg(size: (u32, u32), draw: impl Fn(&dyn Canvas) -> Result<()>) -> Result<String> {
    use_font();
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, (size.0 * SVG_SCALE, size.1 * SVG_SCALE)).into_drawing_area();
    area.fill(&rgb((255, 255, 255))).map_err(failed)?;
    let surface = Surface { area, scale: f64::from(SVG_SCALE), raised: 0.0 };
    draw(&surface)?;
    surface.area.present().map_err(failed)?;
    drop(surface);
    // Set the displayed size to the requested one. The view box keeps the finer grid.
    let fine = format!("width=\"{}\" height=\"{}\" viewBox", size.0 * SVG_SCALE, size.1 * SVG_SCALE);
    Ok(text.replacen(&fine, &format!("width=\"{}\" height=\"{}\" viewBox", size.0, size.1), 1))
}

/// Renders `draw` to a PNG of this size in units of length.
pub(super) fn png(size: (u32, u32), draw: impl Fn(&dyn Canvas) -> Result<()>) -> Result<Vec<u8>> {
    use_font();
    let (width, height) = (size.0 * PNG_SCALE, size.1 * PNG_SCALE);
    let fine = (width * OVERSAMPLING, height * OVERSAMPLING);
    let mut dots = vec![255; 3 * (fine.0 * fine.1) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut dots, fine).into_drawing_area();
        let surface = Surface { area, scale: f64::from(PNG_SCALE * OVERSAMPLING), raised: 0.15 };
        draw(&surface)?;
        surface.area.present().map_err(failed)?;
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed).context("writing a PNG")?;
    writer.write_image_data(&averaged(&dots, width as usize, height as usize)).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// Averages squares of pixels.
fn averaged(dots: &[u8], width: usize, height: usize) -> Vec<u8> {
    let n = OVERSAMPLING as usize;
    let mut out = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let square = (0..n * n).map(|i| ((y * n + i / n) * width * n + x * n + i % n) * 3 + channel);
                let sum: usize = square.map(|at| usize::from(dots[at])).sum();
                out.push((sum / (n * n)) as u8);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_go_on_around_corners() {
        let strokes = pieces(&[(0.0, 0.0), (5.0, 0.0), (5.0, 5.0)], &[4.0, 2.0]);
        assert_eq!(strokes, [vec![(0.0, 0.0), (4.0, 0.0)], vec![(5.0, 1.0), (5.0, 5.0)]]);
        assert_eq!(pieces(&[(0.0, 0.0), (1.0, 0.0)], &[]).len(), 1);
    }
}
