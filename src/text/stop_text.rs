//! Stop texts: end a generation at a text that may begin and end anywhere within tokens.

/// Finds the first stop text in pieces of a text, and holds back what may be the start of one.
pub struct StopTexts {
    texts: Vec<String>,
    held: String,
}

/// The result of a piece.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed {
    /// Text that is certainly before any stop text.
    pub text: String,
    /// Whether a stop text followed it.
    pub is_end: bool,
}

impl StopTexts {
    /// Looks for these texts. Empty ones never match.
    pub fn new(texts: &[String]) -> Self {
        Self { texts: texts.to_vec(), held: String::new() }
    }

    /// Takes the next piece. After an end, no more pieces are to come.
    pub fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let texts = || self.texts.iter().filter(|text| !text.is_empty());
        if let Some(at) = texts().filter_map(|text| self.held.find(text.as_str())).min() {
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), is_end: true };
        }
        let longest = texts().map(|text| overlap(&self.held, text)).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - longest);
        Passed { text: std::mem::replace(&mut self.held, held), is_end: false }
    }

    /// The text still held back, when no more pieces come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` with which `stop` begins, but does not end.
fn overlap(text: &str, stop: &str) -> usize {
    let mut starts = stop.char_indices().rev().map(|(at, _)| at).filter(|&at| at <= text.len());
    starts.find(|&at| text.ends_with(&stop[..at])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed for each piece, and whether a stop text came.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut texts = StopTexts::new(&stops);
        let mut passed = Vec::new();
        for piece in pieces {
            let got = texts.push(piece);
            passed.push(got.text);
            if got.is_end {
                return (passed, true);
            }
        }
        passed.push(texts.finish());
        (passed, false)
    }

    #[test]
    fn a_stop_text_ends_the_text_wherever_the_pieces_are_cut() {
        let whole = "One. Two.\n\nUser: three";
        for stop in ["\n\nUser:", "O", "e", ". T", "three", "User"] {
            let expected = &whole[..whole.find(stop).unwrap()];
            for cut in 1..whole.len() {
                let mut pieces: Vec<&str> = Vec::new();
                let mut rest = whole;
                while rest.len() > cut {
                    pieces.push(&rest[..cut]);
                    rest = &rest[cut..];
                }
                pieces.push(rest);
                let (passed, is_end) = run(&[stop], &pieces);
                assert!(is_end && passed.concat() == expected, "{stop:?} at {cut}: {passed:?}");
            }
        }
    }

    #[test]
    fn only_a_possible_start_is_held_back() {
        assert_eq!(
            run(&["END"], &["a", "bE", "N", "x", "E"]),
            (["a", "b", "", "ENx", "", "E"].map(String::from).into(), false)
        );
        assert_eq!(run(&[], &["a", "b"]).0, ["a", "b", ""]);
        assert_eq!(run(&["", "x"], &["ab", "xc"]), (["ab", ""].map(String::from).into(), true));
    }

    #[test]
    fn of_several_the_first_in_the_text_counts_and_letters_stay_whole() {
        assert_eq!(run(&["two", "one"], &["no o", "ne tw", "o"]), (["no ", ""].map(String::from).into(), true));
        assert_eq!(run(&["aab"], &["aa", "ab"]).0.concat(), "a");
        assert_eq!(run(&["日本"], &["naïve 日", "本語"]), (["naïve ", ""].map(String::from).into(), true));
        assert_eq!(run(&["é!"], &["é", "è"]).0.concat(), "éè");
        // Several starts of a stop text may end a text: the longest counts.
        assert_eq!(run(&["aaab"], &["aaaa", "b"]), (["a", ""].map(String::from).into(), true));
    }
}
