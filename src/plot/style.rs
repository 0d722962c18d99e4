//! Styles of series: colour, marker and dashes, each of which alone distinguishes the series.

/// Red, green, blue.
pub(super) type Colour = (u8, u8, u8);

/// Shape of the points of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
    TriangleDown,
}

/// Style of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Style {
    pub(super) colour: Colour,
    pub(super) marker: Marker,
    /// Alternating lengths of strokes and gaps; empty for a solid line.
    pub(super) dashes: &'static [f64],
}

/// Colour of text and axes.
pub(super) const INK: Colour = (40, 40, 40);
/// Colour of the grid lines.
pub(super) const GRID: Colour = (225, 225, 225);

/// Colours that people with any type of colour vision can distinguish (Okabe and Ito, "Color
/// Universal Design", 2008).
const COLOURS: [Colour; 6] = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (60, 60, 60), (230, 159, 0)];
const MARKERS: [Marker; 6] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Cross, Marker::TriangleDown];
const DASHES: [&[f64]; 6] =
    [&[], &[9.0, 5.0], &[2.0, 4.0], &[10.0, 4.0, 2.0, 4.0], &[16.0, 5.0], &[10.0, 3.0, 2.0, 3.0, 2.0, 3.0]];

/// The style of series number `i`.
pub(super) fn style(i: usize) -> Style {
    let dashes = DASHES[i % DASHES.len()];
    Style { colour: COLOURS[i % COLOURS.len()], marker: MARKERS[i % MARKERS.len()], dashes }
}
