//! Where the newest question begins in a prompt: where the prompt parts from that of another question.

use crate::error::Result;

/// A question that nobody asks, and that no template trims.
const ANOTHER: &str = "\u{1}";

/// Bytes of the prompt up to its question. `render` takes another question and returns the prompt that
/// has it in place of this one.
pub fn question_start(prompt: &str, render: impl FnOnce(&str) -> Result<String>) -> Result<usize> {
    let other = render(ANOTHER)?;
    let same = prompt.char_indices().zip(other.chars()).find(|((_, a), b)| a != b);
    Ok(same.map_or(prompt.len().min(other.len()), |((at, _), _)| at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn the_question_begins_where_prompts_part() {
        let prompt = |question: &str| format!("<user>Ein Märchen.\n\n{question}</user><assistant>");
        let start = |question: &str| question_start(&prompt(question), |other| Ok(prompt(other))).unwrap();
        for question in ["Wer?", "Über wen?", "a", "Märchen.\n\nWer?"] {
            assert_eq!(start(question), "<user>Ein Märchen.\n\n".len(), "{question}");
        }
        // A prompt without its question, and one that ends where the other goes on.
        assert_eq!(question_start("same", |_| Ok("same".into())).unwrap(), 4);
        assert_eq!(question_start("same", |other| Ok(format!("same{other}"))).unwrap(), 4);
        assert!(question_start("same", |_| Err(Error::new("no template"))).is_err());
    }
}
