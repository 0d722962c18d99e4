//! Floor 9: conformance: checks every kernel and gradient on a device and reports the results.
//!
//! `check.rs` runs the checks of one adapter in order. `cases.rs` and `steps.rs` make the rows of a
//! report (`row.rs`) from the kernels' cases and from whole runs. `deviations.rs` lists known driver
//! faults. `report.rs` holds the report; `html.rs` and `table.rs` render it. `shaders.rs` translates
//! every shader to every driver's language, on any machine and without a device. The crate in `lab/`
//! checks the rules for shaders, and that the cases detect faults.

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
