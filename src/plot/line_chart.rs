//! Line charts: several series of points, with axes and a legend.

use super::axis::{Axis, Layout, tick_label};
use super::canvas::{Anchor, Canvas, png, svg};
use super::style::{Colour, GRID, INK, style};
use crate::error::Result;

/// How a series is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// A line with a marker at each point, in dashes of its own.
    #[default]
    Marked,
    /// A thin pale line without markers.
    Pale,
    /// A solid line without markers.
    Solid,
    /// Markers without a line.
    Markers,
}

/// One line of the chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend. A series without a name is not in the legend.
    pub label: String,
    /// (x, y), ascending in x.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub look: Look,
    /// Series of one group have the same colour. `None` is a group of its own.
    pub group: Option<usize>,
}

impl Series {
    /// A line with markers, in a colour of its own.
    pub fn new(label: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { label: label.into(), points, look: Look::Marked, group: None }
    }
}

/// A chart of one or more series.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    /// Title of the chart.
    pub title: String,
    /// Small text below the title, such as the device and the settings. May be empty.
    pub subtitle: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// The series, in the order of the legend.
    pub series: Vec<Series>,
}

/// Size of the picture.
const SIZE: (u32, u32) = (860, 480);
/// Edges of the plot area.
const LEFT: f64 = 84.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 480.0 - 58.0;
/// Right edge of the plot area. The legend is to the right of it.
const RIGHT: f64 = 860.0 - 190.0;

impl LineChart {
    /// Renders the chart as SVG.
    pub fn to_svg(&self) -> Result<String> {
        svg(SIZE, |canvas| self.draw(canvas))
    }

    /// Renders the chart as PNG.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        png(SIZE, |canvas| self.draw(canvas))
    }

    fn draw(&self, canvas: &dyn Canvas) -> Result<()> {
        let points = || self.series.iter().flat_map(|s| &s.points);
        let x = Layout::new(&self.x, points().map(|p| p.0));
        let y = Layout::new(&self.y, points().map(|p| p.1));
        canvas.text(&self.title, (LEFT, 22.0), Anchor::Left, 20.0, INK)?;
        canvas.text(&self.subtitle, (LEFT, 45.0), Anchor::Left, 13.5, (100, 100, 100))?;
        self.draw_axes(canvas, &x, &y)?;
        let at = |&(px, py): &(f64, f64)| (LEFT + x.place(px) * (RIGHT - LEFT), BOTTOM - y.place(py) * (BOTTOM - TOP));
        let mut middle = TOP + 12.0;
        for (i, series) in self.series.iter().enumerate() {
            let is_shown = |p: &&(f64, f64)| x.place(p.0).is_finite() && y.place(p.1).is_finite();
            let places: Vec<(f64, f64)> = series.points.iter().filter(is_shown).map(at).collect();
            let i = series.group.unwrap_or(i);
            draw_series(canvas, series.look, i, &places, &places)?;
            if series.label.is_empty() {
                continue;
            }
            let sample = [RIGHT + 18.0, RIGHT + 35.0, RIGHT + 52.0].map(|x| (x, middle));
            draw_series(canvas, series.look, i, &[sample[0], sample[2]], &sample[1..2])?;
            // Long labels are smaller: a letter is about 0.55 of the size wide.
            let size = 15f64.min(128.0 / (0.55 * series.label.chars().count().max(1) as f64));
            canvas.text(&series.label, (RIGHT + 60.0, middle), Anchor::Left, size, INK)?;
            middle += 24.0;
        }
        Ok(())
    }

    fn draw_axes(&self, canvas: &dyn Canvas, x: &Layout, y: &Layout) -> Result<()> {
        for &tick in &x.ticks {
            let at = LEFT + x.place(tick) * (RIGHT - LEFT);
            canvas.line(&[(at, TOP), (at, BOTTOM)], GRID, 1.0, &[])?;
            canvas.line(&[(at, BOTTOM), (at, BOTTOM + 5.0)], INK, 1.0, &[])?;
            canvas.text(&tick_label(tick), (at, BOTTOM + 9.0), Anchor::Top, 14.0, INK)?;
        }
        for &tick in &y.ticks {
            let at = BOTTOM - y.place(tick) * (BOTTOM - TOP);
            canvas.line(&[(LEFT, at), (RIGHT, at)], GRID, 1.0, &[])?;
            canvas.line(&[(LEFT - 5.0, at), (LEFT, at)], INK, 1.0, &[])?;
            canvas.text(&tick_label(tick), (LEFT - 9.0, at), Anchor::Right, 14.0, INK)?;
        }
        canvas.line(&[(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], INK, 1.0, &[])?;
        canvas.text(&self.x.label, ((LEFT + RIGHT) / 2.0, BOTTOM + 32.0), Anchor::Top, 15.0, INK)?;
        canvas.text(&self.y.label, (16.0, (TOP + BOTTOM) / 2.0), Anchor::Upwards, 15.0, INK)
    }
}

/// Draws a line through `line`, and markers at `markers`, as far as the look has them.
fn draw_series(canvas: &dyn Canvas, look: Look, i: usize, line: &[(f64, f64)], markers: &[(f64, f64)]) -> Result<()> {
    let style = style(i);
    let (width, colour, dashes) = match look {
        Look::Marked => (2.0, style.colour, style.dashes),
        Look::Pale => (1.0, pale(style.colour), &[][..]),
        Look::Solid => (2.5, style.colour, &[][..]),
        Look::Markers => (0.0, style.colour, &[][..]),
    };
    if line.len() > 1 && width > 0.0 {
        canvas.line(line, colour, width, dashes)?;
    }
    match look {
        Look::Marked | Look::Markers => markers.iter().try_for_each(|&p| canvas.marker(p, style, 4.5)),
        Look::Pale | Look::Solid => Ok(()),
    }
}

/// The colour mixed with two thirds of white.
fn pale((r, g, b): Colour) -> Colour {
    let mix = |c: u8| 255 - (255 - c) / 3;
    (mix(r), mix(g), mix(b))
}

#[cfg(test)]
mod tests {
    use super::super::Scale;
    use super::*;

    fn chart() -> LineChart {
        let series = |label: &str, factor: f64| {
            Series::new(label, [512.0, 1024.0, 2048.0].map(|n| (n, factor * n * n)).to_vec())
        };
        LineChart {
            title: "time & length".to_string(),
            subtitle: String::new(),
            x: Axis::new("tokens", Scale::Log).with_ticks(vec![512.0, 1024.0, 2048.0]),
            y: Axis::new("time (ms)", Scale::Log),
            series: vec![series("dense", 1e-3), series("LRSA", 2e-4)],
        }
    }

    #[test]
    fn an_svg_holds_labels_ticks_and_legend() {
        let svg = chart().to_svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for text in ["time &amp; length", "tokens", "time (ms)", "dense", "LRSA", "1024"] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
        assert!(svg.contains("width=\"860\" height=\"480\" viewBox=\"0 0 3440 1920\""), "{svg}");
    }

    #[test]
    fn a_png_has_the_colours_of_its_series() {
        let bytes = chart().to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let mut dots = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut dots).unwrap();
        assert_eq!((info.width, info.height), (1720, 960));
        let count = |c: [u8; 3]| dots.chunks(3).filter(|dot| *dot == c).count();
        assert!(count([0, 114, 178]) > 300 && count([213, 94, 0]) > 300, "both lines are there");
        assert!(count([255, 255, 255]) > 1_000_000, "most of it is paper");
    }

    #[test]
    fn nothing_to_show_is_an_empty_chart() {
        let empty = LineChart { series: vec![], ..chart() };
        assert!(empty.to_svg().unwrap().contains("tokens"));
        let bad = vec![Series::new("bad", vec![(0.0, -1.0), (512.0, f64::NAN)])];
        assert!(LineChart { series: bad, ..chart() }.to_png().is_ok());
    }

    #[test]
    fn series_of_a_group_share_a_colour_and_looks_differ() {
        let mut chart = chart();
        let looks = [Look::Pale, Look::Solid, Look::Markers];
        let points = chart.series[0].points.clone();
        chart.series = looks.map(|look| Series { look, group: Some(1), ..Series::new("", points.clone()) }).to_vec();
        chart.series[1].label = "mean".into();
        let svg = chart.to_svg().unwrap();
        let (orange, pale) = ("#D55E00", "#F1CAAA");
        assert!(svg.contains(pale) && !svg.contains("#0072B2"), "{svg}");
        assert_eq!(svg.matches(&format!("stroke=\"{orange}\"")).count(), 2, "the line, and its sample in the legend");
        assert_eq!(svg.matches(&format!("fill=\"{orange}\"")).count(), 3, "markers");
    }
}
