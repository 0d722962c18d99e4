//! Ctrl-C, SIGTERM and a closed terminal: the first asks the work to end in order, and the next ends
//! the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

use super::output::{INTERRUPTED, note};
use crate::error::{Error, Result};

static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// Catches signals from now on. Says `what` happens at the first one. Call it once.
pub fn catch(what: &'static str) -> Result<()> {
    let handler = move || {
        if IS_ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED);
        }
        note(&format!("\n{what}. Once more ends it at once"));
    };
    ctrlc::set_handler(handler).map_err(|e| Error::new(format!("catching signals: {e}")))
}

/// Whether a signal came.
pub fn is_asked() -> bool {
    IS_ASKED.load(Ordering::SeqCst)
}
