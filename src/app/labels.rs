//! Labels of the settings that messages name, and names of files, for the window.

use std::path::Path;

use crate::error::rename_settings;

/// The label of a setting: `max_length` is "max length".
pub fn label(setting: &str) -> String {
    match setting {
        "lr" => "learning rate".into(),
        name => name.replace('_', " "),
    }
}

/// A message of the library in words.
pub fn in_words(text: &str) -> String {
    rename_settings(text, |setting| Some(label(setting)))
}

/// A text of the command line with labels in place of flags: `--max-length` is "max length".
pub fn with_labels(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let mut parts = text.split("--");
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let end = part.find(|c| !is_part(c)).unwrap_or(part.len());
        out += &label(&part[..end].replace('-', "_"));
        out += &part[end..];
    }
    out
}

/// The name of the bundled model.
pub const BUNDLED: &str = "stories260K (bundled)";

/// The name of a file or folder: the last part of its path, or the path if it has none.
pub fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_words() {
        assert_eq!(in_words("lower `max_tokens`, or use `device` cpu"), "lower max tokens, or use device cpu");
        assert_eq!(in_words("`lr` 1"), "learning rate 1");
    }

    #[test]
    fn flags_become_words() {
        assert_eq!(with_labels("instead of --batch-size; see --lr"), "instead of batch size; see learning rate");
        assert_eq!(with_labels("--rank"), "rank");
        assert_eq!(with_labels("plain"), "plain");
    }
}
