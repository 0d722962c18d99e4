//! Labels of the settings that messages name, for the window.

use crate::error::rename_settings;

/// A message of the library in words: `max_length` is "max length".
pub fn in_words(text: &str) -> String {
    rename_settings(text, |setting| Some(setting.replace('_', " ")))
}

/// A number with commas between groups of three digits.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let comma = |(i, digit): (usize, char)| {
        let is_first = i > 0 && (digits.len() - i).is_multiple_of(3);
        is_first.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(comma).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_words() {
        assert_eq!(in_words("lower `max_tokens`, or use `device` cpu"), "lower max tokens, or use device cpu");
    }

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1000, 12_431, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "12,431", "1,234,567"]);
    }
}
