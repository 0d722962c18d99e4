//! The `longreach-lab` program: a thin shell around [`longreach_lab::main`].

fn main() {
    std::process::exit(longreach_lab::main());
}
