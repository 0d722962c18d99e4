//! Floor 0: plots as SVG and PNG.
//!
//! [`LineChart`] and [`HeatMap`] describe a chart. `axis.rs` maps values to positions and chooses
//! ticks. `canvas.rs` draws to either format with the plotters crate. Text needs no system font.
//! Nothing here knows what the numbers mean.

mod axis;
mod canvas;
mod files;
mod heat_map;
mod line_chart;
mod style;

pub use axis::{Axis, Scale};
pub use files::save;
pub use heat_map::HeatMap;
pub use line_chart::{LineChart, Look, Series};
