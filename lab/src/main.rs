//! The `longreach-lab` program: calls [`longreach_lab::main`].

fn main() {
    std::process::exit(longreach_lab::main());
}
