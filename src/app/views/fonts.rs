//! The fonts of the app: Inter first, then those of egui, then those of the system.

use std::sync::Arc;

use egui::{Context, FontData, FontDefinitions, FontFamily};
use egui_system_font_provider::SystemFontProvider;

/// Inter in its regular weight, which is easier to read on white than the light font of egui.
const INTER: &[u8] = include_bytes!("../../../assets/fonts/Inter-Regular.ttf");

/// The built-in fonts: Latin, Greek, Cyrillic, arrows and signs, and emoji in one colour.
pub fn built_in() -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    fonts.font_data.insert("Inter".into(), Arc::new(FontData::from_static(INTER)));
    fonts.families.entry(FontFamily::Proportional).or_default().insert(0, "Inter".into());
    fonts.families.entry(FontFamily::Monospace).or_default().push("Inter".into());
    fonts
}

/// Asks the system for a font where a text has a character that no built-in font has, for example
/// Chinese, Arabic or Hindi. The list of its fonts is read on another thread.
pub fn add_system_fonts(ctx: &Context) {
    ctx.add_font_provider(Arc::new(SystemFontProvider::new()));
}

#[cfg(test)]
mod tests {
    use egui::{FontId, TextStyle};

    use super::*;

    #[test]
    fn signs_and_emoji_have_glyphs_without_a_font_of_the_system() {
        let ctx = Context::default();
        ctx.set_fonts(built_in());
        let mut output = ctx.run_ui(egui::RawInput::default(), |ui| {
            ui.label("x");
        });
        output.textures_delta.clear(); // nothing is painted
        for (text, is_there) in
            [("Größe żółw", true), ("Ωμέγα Жизнь", true), ("→ ✓ ≤ ×", true), ("😀 🚀", true), ("漢", false)]
        {
            for font in [FontId::proportional(14.0), FontId::monospace(13.0)] {
                let mut has_all = true;
                ctx.fonts_mut(|fonts| {
                    has_all = text.chars().filter(|c| !c.is_whitespace()).all(|c| fonts.has_glyph(&font, c));
                });
                assert_eq!(has_all, is_there, "{text} in {font:?}");
            }
        }
        let first = |family: &FontFamily| built_in().families[family][0].clone();
        assert_eq!(first(&FontFamily::Proportional), "Inter");
        assert_ne!(first(&FontFamily::Monospace), "Inter");
        assert!(ctx.global_style().text_styles.contains_key(&TextStyle::Body));
    }
}
