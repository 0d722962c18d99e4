//! Styles of series: colour, marker and dashes, each of which alone distinguishes up to six series.

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

/// The style of series number `i`. From the seventh on, colours return with other markers and
/// dashes.
pub(super) fn style(i: usize) -> Style {
    let shifted = (i + i / COLOURS.len()) % MARKERS.len();
    Style { colour: COLOURS[i % COLOURS.len()], marker: MARKERS[shifted], dashes: DASHES[shifted] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_dozen_series_have_their_own_styles() {
        let all: Vec<Style> = (0..36).map(style).collect();
        assert!((0..36).all(|i| all[..i].iter().all(|other| *other != all[i])));
        assert_eq!(all[1], Style { colour: COLOURS[1], marker: MARKERS[1], dashes: DASHES[1] });
    }
}
