//! Architecture rules, read from the sources: imports, names, file sizes and the file map.
//!
//! They check which module may import which, where wgpu is named, which file a kernel is in, how
//! long a file is, and that ARCHITECTURE.md lists all files. Each failure message says what to do.

#[path = "architecture/file_map.rs"]
mod file_map;
#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/sources.rs"]
mod sources;

use std::collections::BTreeSet;
use std::fs;

use imports::Imports;
use longreach::gpu::KernelDef;
use longreach::kernels;
use sources::{fail_if, files, is_ident, product, product_code, root};

/// The floors from bottom to top. A module imports from lower floors, and within its floor only
/// from modules to its left.
const FLOORS: &[&[&str]] = &[
    &["error", "atomic_file", "grouped", "plain_json", "small_file", "real", "simd", "plot"],
    &["formats", "gpu"],
    &["tensor"],
    &["kernels"],
    &["attention"],
    &["autograd"],
    &["nn", "model"],
    &["text", "checkpoint", "optim", "data"],
    &["generate", "train", "eval", "export", "study"],
    &["verify", "conformance", "bench"],
    &["serve", "app", "cli"],
];

/// The folders of `gpu/`, and the other folders that each may use. All may use the files of `gpu/`
/// itself; `open.rs` selects the executor.
const GPU_ROOMS: &[(&str, &[&str])] = &[
    ("src/gpu/shader/", &[]),
    ("src/gpu/cpu/", &[]),
    ("src/gpu/wgpu/", &["src/gpu/shader/", "src/gpu/cpu/host_memory.rs"]),
];

/// Maximum lines of a source file. Split it by meaning before it gets there.
const MAX_LINES: usize = 500;
/// Maximum lines of a function in a `mod.rs`: enough to collect a list or to dispatch a subcommand.
const MAX_MOD_FN_LINES: usize = 24;

/// Line numbers (from 1) and first path segments of every `crate::…` in the code; a group yields
/// each of its members.
fn crate_imports(code: &str) -> Vec<(usize, String)> {
    let of_crate = imports::paths(code).into_iter().filter(|i| i.path.len() > 1 && i.path[0] == "crate");
    let mut found: Vec<_> = of_crate.map(|mut i| (i.line, i.path.swap_remove(1))).collect();
    found.sort_by_key(|(line, _)| *line);
    found.dedup();
    found
}

/// The module below `src/` that a file belongs to; `None` for `lib.rs` and `main.rs`, which are
/// above all floors.
fn module_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    let first = rest.split('/').next()?;
    match first.strip_suffix(".rs") {
        Some("lib" | "main") => None,
        Some(file) => Some(file),
        None => Some(first),
    }
}

fn floor_of(module: &str) -> Option<(usize, usize)> {
    let place = |(floor, row): (usize, &&[&str])| row.iter().position(|m| *m == module).map(|column| (floor, column));
    FLOORS.iter().enumerate().find_map(place)
}

#[test]
fn modules_import_only_lower_floors() {
    let product = product();
    let modules: BTreeSet<&str> = product.keys().filter_map(|path| module_of(path)).collect();
    let homeless: Vec<String> =
        modules.iter().filter(|m| floor_of(m).is_none()).map(|m| format!("src/{m} stands on no floor")).collect();
    fail_if(&homeless, "Give it a place in FLOORS (tests/architecture.rs) and in ARCHITECTURE.md.");
    let mut wrong = Vec::new();
    for (path, code) in &product {
        let Some(module) = module_of(path) else { continue };
        for (line, target) in crate_imports(code) {
            // Macros and names that lib.rs re-exports are not modules.
            if modules.contains(target.as_str()) && target != module && floor_of(&target) >= floor_of(module) {
                wrong.push(format!("{path}:{line}: {module} imports {target}"));
            }
        }
        for (at, _) in code.match_indices("super::super::") {
            wrong.push(format!("{path}:{}: super::super:: hides a floor", code[..at].matches('\n').count() + 1));
        }
    }
    fail_if(&wrong, "Move the shared part to a lower floor, or pass it in from above; name floors as crate::floor.");
}

#[test]
fn the_rooms_of_gpu_keep_to_themselves() {
    let product = product();
    let imports = Imports::new(&product);
    let room_of = |file: &str| GPU_ROOMS.iter().find(|(room, _)| file.starts_with(room));
    let mut wrong = Vec::new();
    for file in product.keys().filter(|f| f.starts_with("src/gpu/")) {
        if matches!(file.as_str(), "src/gpu/mod.rs" | "src/gpu/open.rs") {
            continue;
        }
        let own = room_of(file);
        for (target, line) in imports.of(file) {
            let Some((room, _)) = room_of(target) else { continue };
            let may = own.is_some_and(|(own, others)| own == room || others.iter().any(|o| target.starts_with(o)));
            if !may {
                wrong.push(format!("{file}:{line} uses {target}"));
            }
        }
    }
    fail_if(&wrong, "Move what both need to gpu/ itself.");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let product = product();
    let circles: Vec<String> = Imports::new(&product).circles().iter().map(|c| c.join(" <-> ")).collect();
    fail_if(&circles, "Move what both need to a file of its own, or pass it in.");
}

#[test]
fn wgpu_and_winit_are_named_only_where_they_live() {
    let homes = [("wgpu", &["src/gpu/wgpu/", "src/app/"][..]), ("winit", &["src/app/"]), ("egui", &["src/app/"])];
    let mut wrong = Vec::new();
    for (path, code) in product() {
        for (name, homes) in homes {
            let names = code.match_indices(&format!("{name}::")).any(|(at, _)| {
                // egui_wgpu:: counts; mywgpu:: and gpu::wgpu:: do not.
                !code[..at].chars().next_back().is_some_and(|c| is_ident(c) && c != '_' || c == ':')
            });
            if names && !homes.iter().any(|h| path.starts_with(h)) {
                wrong.push(format!("{path} names {name}:: outside {}", homes.join(" and ")));
            }
        }
    }
    fail_if(&wrong, "Say what is needed with the types of gpu/ and let gpu/wgpu/ or app/ talk to the library.");
}

fn all_kernels() -> Vec<&'static KernelDef> {
    longreach::attention::kernels().into_iter().chain(kernels::all()).map(|(kernel, _)| kernel).collect()
}

#[test]
fn a_kernel_is_called_what_its_file_is_called() {
    let mut wrong = Vec::new();
    for kernel in all_kernels() {
        let entry = format!("fn {}(", kernel.entry_point());
        match kernel.parts.iter().find(|p| p.path == kernel.label) {
            None => wrong.push(format!("{}: none of its parts is shaders/{}.wgsl", kernel.name(), kernel.label)),
            Some(part) if !part.text.contains(&entry) => {
                wrong.push(format!("shaders/{}.wgsl has no entry point `{entry}…`", part.path));
            }
            Some(_) => {}
        }
    }
    fail_if(&wrong, "Label, file below shaders/ and entry point are one name: family/kernel.");
}

#[test]
fn files_stay_small_and_mod_files_hold_no_logic() {
    let mut wrong = Vec::new();
    for (dir, ending) in [("src", "rs"), ("lab", "rs"), ("tests", "rs"), ("examples", "rs"), ("shaders", "wgsl")] {
        for (path, text) in files(dir, ending) {
            let n = text.lines().count();
            if n > MAX_LINES {
                wrong.push(format!("{path} has {n} lines; at most {MAX_LINES}: split it by meaning"));
            }
        }
    }
    for (path, code) in product().iter().filter(|(path, _)| path.ends_with("/mod.rs")) {
        let lines: Vec<&str> = code.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let head = line.trim_start();
            if !(head.starts_with("fn ") || head.starts_with("pub") && head.contains(" fn ")) {
                continue;
            }
            let close = format!("{}}}", &line[..line.len() - head.len()]);
            let n = lines[i..].iter().position(|l| *l == close).unwrap_or(0) + 1;
            if n > MAX_MOD_FN_LINES {
                wrong.push(format!("{path}:{}: a function of {n} lines: move it to a file of its own", i + 1));
            }
        }
    }
    fail_if(&wrong, "Small files with one meaning each are what a newcomer can read.");
}

/// Environment variable that makes the test write the map instead of comparing it.
const WRITE: &str = "LONGREACH_WRITE_FILE_MAP";

#[test]
fn architecture_md_has_the_map_of_all_files() {
    let path = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, old) = text.split_once("\n## File map\n").expect("ARCHITECTURE.md has a section `## File map`");
    let (intro, _) = old.split_once("\n### ").expect("the map has floors");
    let sources = files("src", "rs").into_iter().chain(files("lab/src", "rs")).collect();
    let map = file_map::file_map(FLOORS, &sources);
    let new = format!("{before}\n## File map\n{intro}{map}");
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, new).unwrap();
        return;
    }
    let stale: Vec<&str> = new.lines().filter(|line| !text.contains(line)).collect();
    assert!(text == new, "the file map is stale, first {stale:?}: run {WRITE}=1 cargo test --test architecture");
}

/// The packages that `longreach` uses according to a lock file, with versions where a name has
/// several.
fn locked(lock: &str) -> BTreeSet<String> {
    let block = lock.split("[[package]]").find(|b| b.contains("\nname = \"longreach\"\n")).expect("it names longreach");
    let list = block.split_once("dependencies = [").map_or("", |(_, list)| list);
    list.lines().filter_map(|l| l.trim().strip_prefix('"')?.split(['"', ' ']).next()).map(String::from).collect()
}

#[test]
fn the_fuzz_targets_are_locked_to_what_the_crate_uses() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let mut own = locked(&read("Cargo.lock"));
    // Tests name the crate itself and egui_kittest, and the targets do without optional features.
    let manifest = read("Cargo.toml");
    let optional: Vec<&str> = manifest.lines().filter(|line| line.contains("optional = true")).collect();
    let is_optional = |name: &str| optional.iter().any(|line| line.split(" = ").next() == Some(name));
    own.retain(|name| !["longreach", "tempfile", "egui_kittest"].contains(&name.as_str()) && !is_optional(name));
    let missing: Vec<String> = own.difference(&locked(&read("fuzz/Cargo.lock"))).cloned().collect();
    fail_if(&missing, "not in fuzz/Cargo.lock: run `cargo update --workspace` in fuzz/, or scripts/fuzz stops");
}

#[test]
fn the_scanner_sees_groups_and_skips_comments_and_tests() {
    let text = "use crate::{gpu::{Span, Buffer}, tensor, wgsl};\n// use crate::cli;\nlet x = $crate::nn::y(\"//\"); //! crate::app\n\
                #[cfg(test)]\nmod tests {\n    use crate::train;\n}\nuse crate::optim::AdamW;\n";
    let found = crate_imports(&product_code(text));
    let names: Vec<(usize, &str)> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(names, [(1, "gpu"), (1, "tensor"), (1, "wgsl"), (3, "nn"), (8, "optim")]);
}
