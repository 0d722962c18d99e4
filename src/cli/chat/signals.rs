//! Signals of a conversation: Ctrl-C stops the answer, the next one in it ends the program; SIGTERM
//! stops the answer and ends the program in order. At the prompt each ends it at once.
//!
//! A terminal at the prompt is in raw mode, where Ctrl-C is a key, so the line editor sees it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::cli::output::INTERRUPTED;
use crate::error::Result;

/// Whether the program works, rather than waits for a line.
static IS_BUSY: AtomicBool = AtomicBool::new(false);
/// Interrupts since the work began.
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);
/// Whether the program is to end after this work.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// The work for a line begins.
pub fn begin_work() {
    INTERRUPTS.store(0, Ordering::SeqCst);
    IS_BUSY.store(true, Ordering::SeqCst);
}

/// The program waits for a line.
pub fn begin_waiting() {
    IS_BUSY.store(false, Ordering::SeqCst);
}

/// Whether the answer is to stop.
pub fn is_stopped() -> bool {
    INTERRUPTS.load(Ordering::SeqCst) > 0 || is_ending()
}

/// Whether the program is to end.
pub fn is_ending() -> bool {
    IS_ENDING.load(Ordering::SeqCst)
}

/// Takes note of a signal; returns whether the program ends at once.
fn ends_at_once(is_interrupt: bool) -> bool {
    let is_busy = IS_BUSY.load(Ordering::SeqCst);
    match is_interrupt {
        true => INTERRUPTS.fetch_add(1, Ordering::SeqCst) > 0 || !is_busy,
        false => IS_ENDING.swap(true, Ordering::SeqCst) || !is_busy,
    }
}

#[cfg(unix)]
mod system {
    use std::sync::OnceLock;

    use super::{INTERRUPTED, Result, ends_at_once};

    /// The state of the terminal at the start.
    static TERMINAL: OnceLock<libc::termios> = OnceLock::new();

    /// Catches the signals from now on. Call it before the terminal changes its mode.
    pub fn catch() -> Result<()> {
        let mut mode = std::mem::MaybeUninit::uninit();
        // SAFETY: tcgetattr fills the structure if it returns 0.
        let mode = unsafe { (libc::tcgetattr(libc::STDIN_FILENO, mode.as_mut_ptr()) == 0).then(|| mode.assume_init()) };
        if let Some(mode) = mode {
            TERMINAL.get_or_init(|| mode);
        }
        let handler: extern "C" fn(libc::c_int) = on_signal;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the handler only touches atomics and calls functions that are allowed in one.
            let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
            if signal == libc::SIGHUP && before == libc::SIG_IGN {
                // SAFETY: as above; a program that survives its terminal keeps doing so.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
        }
        Ok(())
    }

    extern "C" fn on_signal(signal: libc::c_int) {
        if !ends_at_once(signal == libc::SIGINT) {
            return;
        }
        const PASTE_OFF: &[u8] = b"\x1b[?2004l\n";
        // SAFETY: tcsetattr, write and _exit may be called in a handler, and the buffers are valid.
        unsafe {
            if let Some(mode) = TERMINAL.get() {
                libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, mode);
                libc::write(libc::STDIN_FILENO, PASTE_OFF.as_ptr().cast(), PASTE_OFF.len());
            }
            libc::_exit(INTERRUPTED);
        }
    }
}

#[cfg(not(unix))]
mod system {
    use super::{INTERRUPTED, Result, ends_at_once};
    use crate::error::Error;

    /// Catches Ctrl-C from now on.
    pub fn catch() -> Result<()> {
        let handler = || {
            if ends_at_once(true) {
                std::process::exit(INTERRUPTED);
            }
        };
        ctrlc::set_handler(handler).map_err(|e| Error::new(format!("catching signals: {e}")))
    }
}

pub use system::catch;
