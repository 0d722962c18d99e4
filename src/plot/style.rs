//! Series are told apart by colour, marker and dashes, any of which is enough.

/// Red, green, blue.
pub(super) type Colour = (u8, u8, u8);

/// The shape at the points of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
    TriangleDown,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Style {
    pub(super) colour: Colour,
    pub(super) marker: Marker,
    /// Lengths of strokes and gaps in turn; none for a solid line.
    pub(super) dashes: &'static [f64],
}

/// Text and axes.
pub(super) const INK: Colour = (40, 40, 40);
/// Lines of the grid.
pub(super) const GRID: Colour = (225, 225, 225);

/// Colours that people with any colour vision tell apart (Okabe and Ito, "Color Universal Design", 2008).
const COLOURS: [Colour; 6] = [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (60, 60, 60), (230, 159, 0)];
const MARKERS: [Marker; 6] =
    [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Cross, Marker::TriangleDown];
const DASHES: [&[f64]; 6] =
    [&[], &[9.0, 5.0], &[2.0, 4.0], &[10.0, 4.0, 2.0, 4.0], &[16.0, 5.0], &[10.0, 3.0, 2.0, 3.0, 2.0, 3.0]];

/// The style of the series with this number.
pub(super) fn style(i: usize) -> Style {
    let dashes = DASHES[i % DASHES.len()];
    Style { colour: COLOURS[i % COLOURS.len()], marker: MARKERS[i % MARKERS.len()], dashes }
}
