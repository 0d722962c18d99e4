//! The `longreach` program: calls [`longreach::cli`].

fn main() {
    keep_drivers_quiet();
    #[cfg(unix)]
    explain_bus_errors();
    std::process::exit(longreach::cli::main());
}

/// Ends the program with a message when a mapped file becomes shorter while it is read: the system
/// reports that as SIGBUS, which ends a program without a word.
#[cfg(unix)]
fn explain_bus_errors() {
    extern "C" fn explain(_signal: libc::c_int) {
        const TEXT: &[u8] =
            b"error: a file of the model became shorter while it was read: another program writes to it, such \
            as a download. Start again when the file is whole\n";
        // SAFETY: both functions may be called in a signal handler, and TEXT is a valid buffer.
        unsafe {
            libc::write(libc::STDERR_FILENO, TEXT.as_ptr().cast(), TEXT.len());
            libc::_exit(1);
        }
    }
    let handler: extern "C" fn(libc::c_int) = explain;
    // SAFETY: the handler calls only functions that are allowed in one, and does not return.
    unsafe { libc::signal(libc::SIGBUS, handler as libc::sighandler_t) };
}

/// Sets `XDG_RUNTIME_DIR` if it is missing, as in containers and over ssh. Without it, Mesa's
/// drivers print a warning to stderr on every adapter query. They use it only to look for a window
/// system, which the program does not need.
fn keep_drivers_quiet() {
    const VARIABLE: &str = "XDG_RUNTIME_DIR";
    if cfg!(target_os = "linux") && std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread runs yet that could read the environment.
        unsafe { std::env::set_var(VARIABLE, std::env::temp_dir()) };
    }
}
