//! Tests that every shader and kernel follows the shader rules.

use longreach_lab::lints;

#[test]
fn no_shader_breaks_a_rule_without_a_reason() {
    let found = lints::lints();
    let open: Vec<_> = found.iter().filter(|f| f.allowed.is_none()).collect();
    assert!(open.is_empty(), "mend these, or give a reason in lab/src/lints/check.rs:\n{open:#?}");
}

#[test]
fn every_file_is_linked_by_a_kernel() {
    let mut files = Vec::new();
    for family in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../shaders")).unwrap() {
        let family = family.unwrap();
        for file in std::fs::read_dir(family.path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            files.push(format!("shaders/{}/{name}", family.file_name().into_string().unwrap()));
        }
    }
    assert!(files.len() > 50, "only {files:?} were found");
    let unused = lints::unused_files(&files);
    assert!(unused.is_empty(), "{unused:#?}");
}
