//! Floor 0: plots as SVG and PNG. It knows points, axes and words, not what they stand for.
//!
//! A chart says what is shown ([`LineChart`], [`HeatMap`]), `axis.rs` where a value lies and which values get a tick, and `canvas.rs` is
//! what is drawn on: a library's, on either format. Text needs no font of the system.

mod axis;
mod canvas;
mod files;
mod heat_map;
mod line_chart;
mod style;

pub use axis::{Axis, Scale};
pub use files::save;
pub use heat_map::HeatMap;
pub use line_chart::{LineChart, Series};
