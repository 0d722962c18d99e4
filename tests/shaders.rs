//! Checks of every shader that need no device: translation to the languages of all drivers, judged
//! by Khronos' validators where they are installed, and its text as standard WGSL.

use longreach::conformance::shaders::{self, TranslationStatus};
use longreach::gpu::shader::translate::Target;

#[test]
fn every_shader_translates_to_every_language() {
    let rows = shaders::translations();
    assert_eq!(rows.len(), shaders::all().len() * Target::ALL.len());
    let mut missing = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for row in rows {
        let name = format!("{} {} for {}", row.kernel, row.variant, row.target.name());
        match row.status {
            TranslationStatus::Failed(why) => wrong.push(format!("{name}: {why}")),
            TranslationStatus::Validated(_) => assert!(row.bytes > 100, "{name} is empty"),
            TranslationStatus::Translated(why) if matches!(row.target, Target::SpirV | Target::GlslEs) => {
                missing.insert(why);
            }
            TranslationStatus::Translated(_) => assert!(row.bytes > 100, "{name} is empty"),
            TranslationStatus::NotApplicable => assert_eq!(row.target, Target::GlslEs, "{name} is made everywhere"),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let missing: Vec<String> = missing.into_iter().collect();
    if !missing.is_empty() {
        let what = format!("{}; on Debian 12: apt-get install spirv-tools glslang-tools", missing.join(", "));
        let must = std::env::var_os("CI").is_some() && cfg!(target_os = "linux"); // the setup script installs them there
        assert!(!must, "{what}");
        eprintln!("SKIPPED: {what}");
    }
}

#[test]
fn dumped_shaders_are_the_linked_ones_under_names_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let n = shaders::dump(dir.path()).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        // naga rejects this line of the standard and works without it.
        let text = text.replace("enable subgroups;\n", "");
        naga::front::wgsl::parse_str(&text).unwrap();
        seen += 1;
    }
    assert!(n == seen && n > 30, "{n} written, {seen} found");
    assert_eq!(n, shaders::all().len());
    for shader in shaders::all() {
        let text = std::fs::read_to_string(dir.path().join(shader.file_name())).unwrap();
        let text = text.replace("enable subgroups;\n", "");
        assert!(text == longreach::gpu::shader::link(shader.kernel, &shader.constants, shader.features), "{shader:?}");
    }
    let names: Vec<String> = shaders::all().iter().map(|s| s.file_name()).collect();
    for name in ["matmul.tile.nt.f32.wgsl", "matmul.shared_tile.nt.bf16.wgsl", "attend.forward.D4-8.wgsl"] {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
    assert_eq!(shaders::dump(dir.path()).unwrap(), n, "a folder is written again");
}
