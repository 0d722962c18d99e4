//! Axes: map values to positions and choose the ticks.

/// Scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Linear; starts at 0 if no value is negative.
    Linear,
    /// Linear over the range of the values alone.
    Fitted,
    /// Logarithmic. Values must be positive.
    Log,
}

/// One axis of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Label with the unit: `time of a step (ms)`.
    pub label: String,
    /// Linear, fitted or logarithmic.
    pub scale: Scale,
    /// Values with a tick. If empty, the axis chooses round values.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// An axis with round ticks.
    pub fn new(label: impl Into<String>, scale: Scale) -> Self {
        Self { label: label.into(), scale, ticks: vec![] }
    }

    /// The same axis with ticks at these values.
    pub fn with_ticks(self, ticks: Vec<f64>) -> Self {
        Self { ticks, ..self }
    }
}

/// Range and ticks of an axis for given values.
pub(super) struct Layout {
    scale: Scale,
    low: f64,
    high: f64,
    /// Ticks within the range, ascending.
    pub(super) ticks: Vec<f64>,
}

/// Fraction of the range added as a margin at each end.
const MARGIN: f64 = 0.06;
/// Approximate number of ticks.
const N_TICKS: f64 = 6.0;

impl Layout {
    /// Fits the range to the finite values. Without any, the range is 1 to 10 (log) or 0 to 1
    /// (linear).
    pub(super) fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let place = |x: f64| if axis.scale == Scale::Log { x.log10() } else { x };
        let finite = values.map(place).filter(|x| x.is_finite());
        let range = finite.fold(None, |range: Option<(f64, f64)>, x| match range {
            Some((low, high)) => Some((low.min(x), high.max(x))),
            None => Some((x, x)),
        });
        let (mut low, mut high) = range.unwrap_or((0.0, 1.0));
        if axis.scale == Scale::Linear {
            low = low.min(0.0);
        }
        if high - low < 1e-9 * high.abs().max(1e-9) {
            let half = if axis.scale == Scale::Log { 0.5 } else { high.abs().max(1.0) / 2.0 };
            (low, high) = (low - half, high + half);
        }
        let margin = MARGIN * (high - low);
        let starts_at_zero = axis.scale == Scale::Linear && low == 0.0;
        (low, high) = (if starts_at_zero { 0.0 } else { low - margin }, high + margin);
        let mut layout = Self { scale: axis.scale, low, high, ticks: axis.ticks.clone() };
        if layout.ticks.is_empty() {
            layout.ticks = layout.round_values();
        }
        layout.ticks.sort_by(f64::total_cmp);
        let inside = |x: &f64| (-1e-9..=1.0 + 1e-9).contains(&((place(*x) - low) / (high - low)));
        layout.ticks.retain(inside);
        layout
    }

    /// Position of a value on the axis, from 0 to 1.
    pub(super) fn place(&self, x: f64) -> f64 {
        let x = if self.scale == Scale::Log { x.log10() } else { x };
        (x - self.low) / (self.high - self.low)
    }

    fn round_values(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear | Scale::Fitted => {
                let step = round_step((self.high - self.low) / N_TICKS);
                let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
                (first..=last).map(|i| i as f64 * step).collect()
            }
            Scale::Log => {
                let decades = self.high - self.low;
                let factors: &[f64] = match decades {
                    d if d > 4.0 => &[1.0],
                    d if d > 0.8 => &[1.0, 2.0, 5.0],
                    _ => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
                };
                let exponents = self.low.floor() as i32..=self.high.ceil() as i32;
                exponents.flat_map(|e| factors.iter().map(move |f| f * 10f64.powi(e))).collect()
            }
        }
    }
}

/// The smallest of 1, 2, 5, 10, 20, … (or 0.5, 0.2, …) that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

/// A short label for a tick.
pub(super) fn tick_label(x: f64) -> String {
    let size = x.abs();
    if size != 0.0 && !(1e-4..1e6).contains(&size) {
        let text = format!("{x:.4e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'));
    }
    let text = format!("{x:.5}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    // A comma as the thousands separator, from five digits on.
    let whole = match whole.len() {
        n if n > 4 && x > 0.0 => format!("{},{}", &whole[..n - 3], &whole[n - 3..]),
        _ => whole.to_string(),
    };
    fraction.map_or(whole.clone(), |f| format!("{whole}.{f}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(scale: Scale, values: &[f64]) -> Vec<f64> {
        Layout::new(&Axis::new("x", scale), values.iter().copied()).ticks
    }

    #[test]
    fn linear_axes_begin_at_zero_and_have_round_ticks() {
        assert_eq!(ticks(Scale::Linear, &[3.0, 95.0]), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let layout = Layout::new(&Axis::new("x", Scale::Linear), [10.0].into_iter());
        assert_eq!(layout.place(0.0), 0.0);
        assert!(layout.place(10.0) > 0.9);
        assert!(ticks(Scale::Linear, &[-5.0, 5.0]).contains(&-4.0));
        assert_eq!(
            ticks(Scale::Fitted, &[3.0, 4.0]),
            [3.0, 3.2, 3.4, 3.6, 3.8, 4.0].map(|x: f64| (x / 0.2).round() * 0.2)
        );
    }

    #[test]
    fn log_axes_space_factors_evenly_and_leave_room_at_the_ends() {
        let layout = Layout::new(&Axis::new("x", Scale::Log), [1.0, 10.0, 100.0].into_iter());
        let [a, b, c] = [1.0, 10.0, 100.0].map(|x| layout.place(x));
        assert!((b - a - (c - b)).abs() < 1e-12 && a > 0.0 && c < 1.0);
        assert_eq!(layout.ticks, [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(ticks(Scale::Log, &[1e-3, 1e5]), [1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5]);
        assert!(ticks(Scale::Log, &[100.0, 160.0]).len() >= 2);
    }

    #[test]
    fn one_value_and_none_have_an_axis_too() {
        for scale in [Scale::Linear, Scale::Fitted, Scale::Log] {
            for values in [&[7.0][..], &[]] {
                let layout = Layout::new(&Axis::new("x", scale), values.iter().copied());
                assert!(layout.low < layout.high && !layout.ticks.is_empty(), "{scale:?} {values:?}");
            }
        }
        let layout =
            Layout::new(&Axis::new("x", Scale::Log).with_ticks(vec![512.0, 4096.0]), [512.0, 1024.0].into_iter());
        assert_eq!(layout.ticks, [512.0], "a tick beyond the axis is left out");
    }

    #[test]
    fn labels_are_short() {
        let labels = [0.0, 0.05, 1.5, 512.0, 2048.0, 16384.0, 2e6, 1e-5, 3.0 * 1.1e-5].map(tick_label);
        assert_eq!(labels, ["0", "0.05", "1.5", "512", "2048", "16,384", "2e6", "1e-5", "3.3e-5"]);
    }
}
