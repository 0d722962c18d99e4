//! The `longreach` program: calls [`longreach::cli`].

fn main() {
    keep_drivers_quiet();
    std::process::exit(longreach::cli::main());
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
