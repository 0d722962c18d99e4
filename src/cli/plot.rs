//! `longreach plot`: draws the curves of training runs.

use std::path::{Path, PathBuf};

use clap::Args;

use super::output::print_line;
use crate::atomic_file::{check_target, write_file};
use crate::error::{Error, Result};
use crate::plot::{LineChart, save};
use crate::train::{Curve, run_chart};

/// Flags of `plot`.
#[derive(Args, Debug)]
pub struct PlotArgs {
    /// Output folders of train; a run may still go on
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Curve to draw
    #[arg(long, value_enum, default_value_t)]
    what: Curve,
    /// File to write [default: plot.svg and plot.png in the first run's folder]
    #[arg(long, value_name = "FILE.svg|FILE.png")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &PlotArgs) -> Result<()> {
    if let Some(path) = &args.out {
        format_of(path)?;
        check_target(path)?;
    }
    let chart = run_chart(&args.runs, args.what)?;
    let written = match &args.out {
        Some(path) => {
            write_file(path, format_of(path)?(&chart)?)?;
            vec![path.clone()]
        }
        None => save(&args.runs[0], "plot", chart.to_svg()?, chart.to_png()?)?.to_vec(),
    };
    written.iter().try_for_each(|path| print_line(&format!("wrote {}", path.display())))
}

type Format = fn(&LineChart) -> Result<Vec<u8>>;

/// The format that the ending of a file names.
fn format_of(path: &Path) -> Result<Format> {
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    match ending.as_ref().and_then(|ending| ending.to_str()) {
        Some("svg") => Ok(|chart| Ok(chart.to_svg()?.into_bytes())),
        Some("png") => Ok(LineChart::to_png),
        _ => Err(Error::usage(format!("--out {}: the name must end in .svg or .png", path.display()))),
    }
}
