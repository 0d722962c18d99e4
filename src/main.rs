//! The `longreach` program: a thin shell around [`longreach::cli`].

fn main() {
    std::process::exit(longreach::cli::main());
}
