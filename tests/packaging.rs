//! The desktop entry of the app, and the release package of the platform that the tests run on.

use std::path::Path;
use std::process::Command;

fn project(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(project(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_desktop_entry_starts_the_app() {
    let entry = read("assets/packaging/longreach.desktop");
    let value = |key: &str| {
        let found = entry.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {key} in the desktop entry"))
    };
    assert_eq!(entry.lines().next(), Some("[Desktop Entry]"));
    assert_eq!((value("Type"), value("Icon"), value("StartupWMClass")), ("Application", "longreach", "longreach"));
    let words: Vec<&str> = value("Exec").split_whitespace().collect();
    assert_eq!((words[0], words[words.len() - 1]), ("longreach", "%f"));
    // %f is replaced by nothing or one file.
    for file in [&[][..], &["book.txt"]] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_longreach"));
        let out = program.args(&words[1..words.len() - 1]).args(file).arg("--help").output().unwrap();
        assert!(out.status.success(), "{out:?}");
    }
    let wrapper = read("assets/packaging/open-app");
    assert!(wrapper.contains("longreach\" app \"$@\""), "{wrapper}");
    assert!(read("assets/packaging/Info.plist").contains("<string>open-app</string>"));
}

#[test]
fn a_package_holds_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("longreach");
    std::fs::write(&binary, "a program").unwrap();
    let out = dir.path().join("dist");
    // Paths that bash accepts on Windows too.
    let plain = |path: &Path| path.display().to_string().replace('\\', "/");
    // Under its name alone Windows finds the launcher of its Linux subsystem.
    let bash = if cfg!(windows) { "C:/Program Files/Git/bin/bash.exe" } else { "bash" };
    let mut package = Command::new(bash);
    package.arg(plain(&project("scripts/package"))).args([plain(&binary), plain(&out)]);
    let ran = package.output().expect("bash, which packages are made with, runs");
    assert!(ran.status.success(), "{ran:?}");
    let made: Vec<_> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let name = made[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with(concat!("longreach-", env!("CARGO_PKG_VERSION"), "-")), "{name}");
    if !cfg!(windows) {
        // bsdtar lists zips too; on other systems packages are tarballs.
        let listed = Command::new("tar").arg("-tf").arg(&made[0]).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let wanted: &[&str] = if cfg!(target_os = "macos") {
            &["Contents/MacOS/longreach\n", "MacOS/open-app\n", "Resources/longreach.icns\n", "Contents/Info.plist\n"]
        } else {
            &[
                "/bin/longreach\n",
                "/share/applications/longreach.desktop\n",
                "/share/icons/hicolor/scalable/apps/longreach.svg\n",
                "/share/icons/hicolor/256x256/apps/longreach.png\n",
                "/share/doc/longreach/LICENSE-MIT\n",
            ]
        };
        for file in wanted {
            assert!(listed.contains(file), "no {file} in {listed}");
        }
    }
    let missing = Command::new(bash).arg(plain(&project("scripts/package"))).arg("no/such/file").output().unwrap();
    assert!(
        !missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("cargo build"),
        "{missing:?}"
    );
}
