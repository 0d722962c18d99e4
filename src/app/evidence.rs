//! Finds the places of a text that share the longest phrases of words with an answer.

use std::collections::HashMap;
use std::ops::Range;

/// Most places that are found.
const MAX_PLACES: usize = 20;
/// Letters of a word that counts as a phrase on its own.
const LONG_WORD: usize = 5;
/// A shorter word tells something too if it has so many letters and is in the text no more often than
/// this. Most of the others are "the", "is" and "of".
const SHORT_WORD: usize = 3;
const OFTEN: usize = 2;

/// The places of `text` whose words, whatever their case, also stand in this order in `said`, as byte
/// ranges with the longest first. A place is as long as it can be. It has one long word or a number, or
/// two words of which one is rare, and at least half the words of the longest place.
pub fn shared_places(text: &str, said: &str) -> Vec<Range<usize>> {
    let (of_text, of_said) = (words(text), words(said));
    let mut positions: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, (word, _)) in of_said.iter().enumerate() {
        positions.entry(word).or_default().push(at);
    }
    // The longest phrase that ends at each word of the text, from the phrases that end at the word
    // before it, by their last position in `said`.
    let mut longest = Vec::with_capacity(of_text.len());
    let mut before: HashMap<usize, usize> = HashMap::new();
    for (word, _) in &of_text {
        let ends = positions.get(word.as_str()).map_or(&[][..], Vec::as_slice);
        let length = |at: usize| 1 + at.checked_sub(1).and_then(|last| before.get(&last)).copied().unwrap_or(0);
        let here: HashMap<usize, usize> = ends.iter().map(|&at| (at, length(at))).collect();
        longest.push(here.values().copied().max().unwrap_or(0));
        before = here;
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (word, _) in &of_text {
        *counts.entry(word).or_default() += 1;
    }
    let tells = |(word, _): &(String, Range<usize>)| {
        let n = word.chars().count();
        let is_rare = n >= SHORT_WORD && counts[word.as_str()] <= OFTEN;
        n >= LONG_WORD || is_rare || word.chars().any(char::is_numeric)
    };
    let mut places: Vec<(usize, Range<usize>)> = Vec::new();
    for (i, &n) in longest.iter().enumerate() {
        let goes_on = longest.get(i + 1).is_some_and(|&next| next > n);
        let counts = match n {
            0 => false,
            1 => of_text[i].0.chars().count() >= LONG_WORD,
            _ => of_text[i + 1 - n..=i].iter().any(tells),
        };
        if counts && !goes_on {
            places.push((n, of_text[i + 1 - n].1.start..of_text[i].1.end));
        }
    }
    places.sort_by_key(|(n, range)| (std::cmp::Reverse((*n, range.len())), range.start));
    let least = places.first().map_or(0, |(n, _)| n.div_ceil(2));
    places.into_iter().take_while(|(n, _)| *n >= least).take(MAX_PLACES).map(|(_, range)| range).collect()
}

/// The words of a text in lower case, with their byte ranges.
fn words(text: &str) -> Vec<(String, Range<usize>)> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, letter.is_alphanumeric()) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                words.push((text[from..at].to_lowercase(), from..at));
                start = None;
            }
            _ => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Call me Ishmael. Some years ago, never mind how long, having little money, I thought I would \
        sail about a little.\nCaptain Ahab lost his leg. The captain lost his mind.";

    fn found(said: &str) -> Vec<&'static str> {
        shared_places(TEXT, said).into_iter().map(|range| &TEXT[range]).collect()
    }

    #[test]
    fn the_longest_shared_phrases_come_first() {
        assert_eq!(found("They CALL me\nIshmael; some years passed."), ["Call me Ishmael. Some years"]);
        // Punctuation and case do not count. Shorter phrases follow down to half the words.
        assert_eq!(
            found("Ahab lost his leg, and he had little money."),
            ["Ahab lost his leg", "little money", "lost his"]
        );
        assert_eq!(found("He lost his mind"), ["lost his mind", "lost his"]);
        // One long word is a phrase, a short one is not.
        assert_eq!(found("Ishmael."), ["Ishmael"]);
        assert_eq!(found("sail captain"), ["Captain", "captain"]);
        assert_eq!(found("a leg"), Vec::<&str>::new());
        // Words that every text has are no evidence.
        let text = "It is of the sea, of the ship, of the crew; it is a log of the year 1851.";
        let places = shared_places(text, "It is of the best. It is a diary of the year.");
        assert_eq!(places.into_iter().map(|range| &text[range]).collect::<Vec<_>>(), ["of the year"]);
        assert_eq!(found(""), Vec::<&str>::new());
        assert!(shared_places("", "Ahab").is_empty());
        // The text of each place is exactly the words, in any script.
        let text = "«Éloge» de la Folie, 漢字 end";
        let places = shared_places(text, "ÉLOGE DE LA folie");
        assert_eq!(places.into_iter().map(|range| &text[range]).collect::<Vec<_>>(), ["Éloge» de la Folie"]);
    }

    #[test]
    fn long_texts_take_linear_time() {
        let text = "the whale and the sea and the ship ".repeat(20_000);
        let places = shared_places(&text, "the whale and the sea");
        assert_eq!((places.len(), &text[places[0].clone()]), (MAX_PLACES, "the whale and the sea"));
    }
}
