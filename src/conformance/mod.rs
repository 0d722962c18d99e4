//! Floor 9: conformance: checks every kernel and gradient on a device and reports the results.
//!
//! `check.rs` is the order of things on one adapter; `cases.rs` and `steps.rs` make the rows of a
//! report (`row.rs`), from the kernels' cases and from whole runs; `deviations.rs` is what is known
//! to be wrong elsewhere; `report.rs` is the whole, `html.rs` and `table.rs` how people read it.
//! What can be proved on any machine, without a device: `shaders.rs` translates every shader to
//! every driver's language. The crate in `lab/` checks the rules that shaders keep, and that all of
//! this finds faults.

mod cases;
mod check;
mod deviations;
mod html;
mod report;
mod row;
pub mod shaders;
mod static_checks;
mod steps;
mod table;
mod validator;

pub use cases::{all_cases, every_case, quick_cases};
pub use check::{CheckOptions, Watch, check_adapter, check_cpu, check_without_device};
pub use html::page;
pub use report::{DeviceReport, Report};
pub use row::{Direction, Row, Status};
pub use steps::Models;
pub use table::table;
