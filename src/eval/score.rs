//! Scores of an answer: exact match, F1 and simple containment.
//!
//! Exact match and F1 follow SQuAD's official script (Rajpurkar et al., arXiv 1606.05250): lower
//! case, no ASCII punctuation, no articles (a, an, the), single spaces. HotpotQA (arXiv 1809.09600)
//! treats yes and no differently.

use std::collections::HashMap;

/// Normalises an answer like the official script.
fn normalised(text: &str) -> String {
    let lower: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // The script removes articles between word boundaries. Words consist of letters, digits and
    // underscores of any language; underscores are already removed with the punctuation.
    let mut kept = String::new();
    let mut rest = lower.as_str();
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric()) {
        let end = rest[start..].find(|c: char| !c.is_alphanumeric()).map_or(rest.len(), |n| start + n);
        kept.push_str(&rest[..start]);
        match &rest[start..end] {
            "a" | "an" | "the" => kept.push(' '),
            word => kept.push_str(word),
        }
        rest = &rest[end..];
    }
    kept.push_str(rest);
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// 1 if both are equal after normalisation, otherwise 0.
pub fn exact_match(answer: &str, right: &str) -> f64 {
    f64::from(normalised(answer) == normalised(right))
}

/// Harmonic mean of word precision and word recall. If either text has no words: 1 if both have
/// none, otherwise 0.
pub fn f1(answer: &str, right: &str) -> f64 {
    let (answer, right) = (normalised(answer), normalised(right));
    let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let (answer, right) = (words(&answer), words(&right));
    if answer.is_empty() || right.is_empty() {
        return f64::from(answer == right);
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    right.iter().for_each(|w| *left.entry(w).or_default() += 1);
    let mut common = 0;
    for word in &answer {
        if let Some(n) = left.get_mut(word.as_str()).filter(|n| **n > 0) {
            *n -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) = (f64::from(common) / answer.len() as f64, f64::from(common) / right.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// HotpotQA's F1: 0 if one text is yes, no or noanswer and the other differs.
pub(super) fn f1_hotpot(answer: &str, right: &str) -> f64 {
    let (a, r) = (normalised(answer), normalised(right));
    let special = |text: &str| matches!(text, "yes" | "no" | "noanswer");
    if a != r && (special(&a) || special(&r)) { 0.0 } else { f1(answer, right) }
}

/// The first run of digits.
pub(super) fn first_number(text: &str) -> &str {
    let Some(start) = text.find(|c: char| c.is_ascii_digit()) else { return "" };
    let rest = &text[start..];
    &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())]
}

/// Length of the common prefix, as a fraction of `right`.
pub(super) fn leading_share(answer: &str, right: &str) -> f64 {
    let same = answer.chars().zip(right.chars()).take_while(|(a, b)| a == b).count();
    same as f64 / right.chars().count().max(1) as f64
}

/// Whether a text contains a word as a whole word, ignoring case.
pub(super) fn contains_word(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.to_lowercase());
    text.match_indices(&word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_word(before) && !is_word(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalised_as_the_official_script_does() {
        // The right-hand sides are the output of the script's normalize_answer.
        for (text, expected) in [
            ("The  Apple.", "apple"),
            ("an  A-the day", "athe day"),
            ("The U.S.A.", "usa"),
            ("10th and 11th\ncenturies", "10th and 11th centuries"),
            ("the", ""),
            ("Théâtre a l'an", "théâtre lan"),
            ("snake_case the_a", "snakecase thea"),
            ("$5,000 (a)", "5000"),
            ("“the” end", "“ ” end"),
        ] {
            assert_eq!(normalised(text), expected, "{text}");
        }
    }

    #[test]
    fn f1_counts_common_words() {
        assert_eq!(f1("the cat sat", "a cat"), 2.0 * 0.5 / 1.5);
        assert_eq!((f1("dog", "cat"), f1("", "the"), f1("", "cat"), f1("cat cat", "cat")), (0.0, 1.0, 0.0, 2.0 / 3.0));
        assert_eq!((exact_match("The Cat!", "cat"), exact_match("cats", "cat")), (1.0, 0.0));
        assert_eq!((f1("yes it is", "yes"), f1_hotpot("yes it is", "yes"), f1_hotpot("Yes.", "yes")), (0.5, 0.0, 1.0));
    }

    #[test]
    fn numbers_and_words_are_found() {
        assert_eq!((first_number("It is 1234567."), first_number("none")), ("1234567", ""));
        assert_eq!((leading_share("123", "1234567"), leading_share("", "12")), (3.0 / 7.0, 0.0));
        assert!(
            contains_word("Codes: 123, 456.", "456") && !contains_word("1234", "123") && contains_word("Moss.", "moss")
        );
    }
}
