//! Labels of the settings that messages name, for the window.

use crate::error::rename_settings;

/// A message of the library in words: `max_length` is "max length".
pub fn in_words(text: &str) -> String {
    rename_settings(text, |setting| Some(setting.replace('_', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_words() {
        assert_eq!(in_words("lower `max_tokens`, or use `device` cpu"), "lower max tokens, or use device cpu");
    }
}
