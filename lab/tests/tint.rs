//! Checks every variant of every linked shader with tint, the WGSL compiler of browsers.
//!
//! naga, which wgpu uses, does not check that barriers and subgroup operations are in uniform
//! control flow; tint does. If tint is not on the PATH, the test prints that it is skipped.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use longreach::conformance::shaders;

/// tint's messages about a WGSL file; `None` if there are none.
fn verdict(file: &Path) -> Option<String> {
    let out =
        Command::new("tint").args(["-f", "wgsl", "-o"]).arg(file.with_extension("out")).arg(file).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let is_fine = out.status.success() && !said.contains("error:") && !said.contains("warning:");
    (!is_fine).then(|| format!("{}:\n{said}", file.display()))
}

#[test]
fn tint_accepts_every_shader() {
    if let Err(e) = Command::new("tint").arg("--help").output() {
        assert_eq!(e.kind(), ErrorKind::NotFound, "tint does not start: {e}");
        eprintln!("SKIPPED: tint is not installed, so nothing but naga judged the shaders");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let n = shaders::dump(dir.path()).unwrap();
    let files: Vec<_> = shaders::all().iter().map(|s| dir.path().join(s.file_name())).collect();
    let wrong: Vec<String> = files.iter().filter_map(|file| verdict(file)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(n == files.len() && n > 30, "only {n} shaders were looked at");
}

#[test]
fn tint_refuses_a_barrier_in_divergent_flow() {
    if Command::new("tint").arg("--help").output().is_err() {
        return; // the test above prints the skip
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("split.wgsl");
    let text = "@compute @workgroup_size(64)\nfn split(@builtin(local_invocation_index) i: u32) {\n    if i < 3u {\n        \
                workgroupBarrier();\n    }\n}\n";
    std::fs::write(&file, text).unwrap();
    let said = verdict(&file).expect("a split barrier is an error");
    assert!(said.contains("uniform"), "{said}");
}
