//! Pictures of pages, for tests.
//!
//! If LONGREACH_APP_PICTURES names a folder, each picture is written to it.

use std::path::PathBuf;

use egui_kittest::Harness;

use super::view_tests::Shown;

/// The folder for pictures.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("LONGREACH_APP_PICTURES").map(PathBuf::from)
}

/// Paints a page and returns its dots row by row. `None` if no adapter can render here, which is a
/// failure with CI=true.
pub fn painted(harness: &mut Harness<'_, Shown>, name: &str) -> Option<Vec<[u8; 3]>> {
    let image = match harness.render() {
        Ok(image) => image,
        Err(e) if std::env::var_os("CI").is_none() => {
            eprintln!("no adapter can render here, so the test skips the pictures: {e}");
            return None;
        }
        Err(e) => panic!("{name}: {e}"),
    };
    if let Some(folder) = folder() {
        let path = folder.join(format!("{name}.png").to_lowercase());
        image.save(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    Some(image.pixels().map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]).collect())
}
