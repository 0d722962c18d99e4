//! Heat maps: a grid of values between 0 and 1, each shown as a shade and a number.

use super::canvas::{Anchor, Canvas, png, svg};
use super::style::{Colour, INK};
use crate::error::Result;

/// A grid of values.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Title of the chart.
    pub title: String,
    /// Small text below the title.
    pub subtitle: String,
    /// Label of the columns.
    pub x_label: String,
    /// Label of the rows.
    pub y_label: String,
    /// Names of the columns, from the left.
    pub columns: Vec<String>,
    /// Names of the rows, from the top.
    pub rows: Vec<String>,
    /// Values by row; `None` if not measured.
    pub values: Vec<Vec<Option<f64>>>,
}

/// Width and height of a cell.
const CELL: (f64, f64) = (76.0, 34.0);
const LEFT: f64 = 96.0;
const TOP: f64 = 66.0;
/// Minimum width, so that a title fits above few columns.
const MIN_WIDTH: f64 = 560.0;

impl HeatMap {
    /// Renders the map as SVG.
    pub fn to_svg(&self) -> Result<String> {
        svg(self.size(), |canvas| self.draw(canvas))
    }

    /// Renders the map as PNG.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        png(self.size(), |canvas| self.draw(canvas))
    }

    fn size(&self) -> (u32, u32) {
        let width = (LEFT + self.columns.len() as f64 * CELL.0 + 24.0).max(MIN_WIDTH);
        (width as u32, (TOP + self.rows.len() as f64 * CELL.1 + 62.0) as u32)
    }

    fn draw(&self, canvas: &dyn Canvas) -> Result<()> {
        canvas.text(&self.title, (24.0, 22.0), Anchor::Left, 20.0, INK)?;
        canvas.text(&self.subtitle, (24.0, 45.0), Anchor::Left, 13.5, (100, 100, 100))?;
        let bottom = TOP + self.rows.len() as f64 * CELL.1;
        for (r, name) in self.rows.iter().enumerate() {
            let y = TOP + (r as f64 + 0.5) * CELL.1;
            canvas.text(name, (LEFT - 9.0, y), Anchor::Right, 14.0, INK)?;
            for (c, value) in self.values[r].iter().enumerate() {
                let Some(value) = value.map(|v| v.clamp(0.0, 1.0)) else { continue };
                let corner = (LEFT + c as f64 * CELL.0, TOP + r as f64 * CELL.1);
                canvas.rectangle(corner, (CELL.0 - 1.0, CELL.1 - 1.0), shade(value))?;
                let ink = if value > 0.55 { (255, 255, 255) } else { INK };
                canvas.text(&format!("{value:.2}"), (corner.0 + 23.0, y), Anchor::Left, 14.0, ink)?;
            }
        }
        for (c, name) in self.columns.iter().enumerate() {
            canvas.text(name, (LEFT + (c as f64 + 0.5) * CELL.0, bottom + 7.0), Anchor::Top, 14.0, INK)?;
        }
        let middle = LEFT + self.columns.len() as f64 * CELL.0 / 2.0;
        canvas.text(&self.x_label, (middle, bottom + 30.0), Anchor::Top, 15.0, INK)?;
        canvas.text(&self.y_label, (16.0, (TOP + bottom) / 2.0), Anchor::Upwards, 15.0, INK)
    }
}

/// White to deep blue. The lightness alone shows the value, without the hue.
fn shade(value: f64) -> Colour {
    let mix = |full: f64| (245.0 + (full - 245.0) * value).round() as u8;
    (mix(0.0), mix(60.0), mix(120.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_stands_in_its_cell() {
        let map = HeatMap {
            title: "exact".into(),
            subtitle: String::new(),
            x_label: "tokens".into(),
            y_label: "depth".into(),
            columns: vec!["1000".into(), "2000".into()],
            rows: vec!["0 %".into(), "50 %".into()],
            values: vec![vec![Some(1.0), Some(0.25)], vec![None, Some(0.0)]],
        };
        let svg = map.to_svg().unwrap();
        for text in ["1.00", "0.25", "0.00", "2000", "50 %", "depth"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<rect").count(), 1 + 3, "the paper and three cells");
        assert!(map.to_png().unwrap().starts_with(b"\x89PNG"));
    }
}
