//! Common code of the fuzz targets: readers and seeds of the hostile-files test, and a scratch
//! folder of this process.

#[path = "../../tests/hostile/readers.rs"]
pub mod readers;
#[path = "../../tests/hostile/seeds.rs"]
pub mod seeds;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Names the folder that a target writes its seeds to before it starts; it is then to be named as a
/// corpus, too.
const SEEDS_VARIABLE: &str = "LONGREACH_FUZZ_SEEDS";

fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("longreach-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        path
    })
}

/// Runs a reader on bytes.
pub fn run(reader: readers::Reader, bytes: &[u8]) {
    reader(scratch(), bytes);
}

/// Writes the seeds of a target to the folder that the variable names, if it names one.
pub fn write_seeds(target: &str) {
    let Some(folder) = std::env::var_os(SEEDS_VARIABLE).map(PathBuf::from) else { return };
    for (i, seed) in seeds::seeds(target, scratch()).iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{i}")), seed).expect("the folder of the seeds can be written");
    }
}

/// For readers that catch panics of a library: only a panic that comes through ends the process.
pub fn let_caught_panics_pass() {
    std::panic::set_hook(Box::new(|_| ()));
}
