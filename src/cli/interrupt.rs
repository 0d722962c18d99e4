//! Ctrl-C and SIGTERM, and on Unix a closed terminal: the first asks the work to end in order, and the
//! next ends the program at once. A program that was started to survive its terminal (`nohup`) does.

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
    keeping_nohup(|| ctrlc::set_handler(handler)).map_err(|e| Error::new(format!("catching signals: {e}")))
}

/// Sets a handler, and leaves SIGHUP ignored if it was.
#[cfg(unix)]
fn keeping_nohup<T>(set: impl FnOnce() -> T) -> T {
    // SAFETY: SIGHUP and SIG_IGN are a valid signal and disposition; what was there comes back.
    let before = unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    let done = set();
    if before == libc::SIG_IGN {
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }
    done
}

#[cfg(not(unix))]
fn keeping_nohup<T>(set: impl FnOnce() -> T) -> T {
    set()
}

/// Whether a signal came.
pub fn is_asked() -> bool {
    IS_ASKED.load(Ordering::SeqCst)
}
