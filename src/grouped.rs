//! Numbers as people read them, with commas between thousands.

/// A number with commas between groups of three digits.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of tokens.
pub fn tokens(n: usize) -> String {
    if n == 1 { "1 token".into() } else { format!("{} tokens", grouped(n)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1000, 12_431, 1_234_567, 1_000_000].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "12,431", "1,234,567", "1,000,000"]);
        assert_eq!((tokens(1), tokens(12_431)), ("1 token".into(), "12,431 tokens".into()));
    }
}
