//! The `longreach` program: a thin shell around [`longreach::cli`].

fn main() {
    keep_drivers_quiet();
    std::process::exit(longreach::cli::main());
}

/// Mesa's drivers complain on stderr, once for each look at the adapters, where this variable is missing, as in containers
/// and over ssh. They only look for a window system there, which nothing here needs.
fn keep_drivers_quiet() {
    const VARIABLE: &str = "XDG_RUNTIME_DIR";
    if cfg!(target_os = "linux") && std::env::var_os(VARIABLE).is_none() {
        // SAFETY: nothing else runs yet in this process that could read the environment.
        unsafe { std::env::set_var(VARIABLE, std::env::temp_dir()) };
    }
}
