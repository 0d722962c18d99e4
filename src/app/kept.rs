//! State of the view of kept tokens: its text, the search in it, and the places of the evidence.

use std::ops::Range;

use crate::eval::KeptMap;

/// What the marked places are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marked {
    #[default]
    Found,
    /// Places that share words with the last answer.
    OfAnswer,
    /// Places that share words with the last question.
    OfQuestion,
}

/// State of the view of kept tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeptPage {
    /// The number of the map that is shown.
    pub serial: u64,
    /// The text of all tokens.
    pub text: String,
    /// Where the text of each token begins, in bytes, and where the last one ends.
    pub starts: Vec<usize>,
    /// What the search field says.
    pub query: String,
    pub marked: Marked,
    /// The marked byte ranges of the text, in the order in which the user visits them.
    pub places: Vec<Range<usize>>,
    /// The place that the user visits.
    pub current: usize,
    /// Whether the view scrolls to that place in the next frame.
    pub scrolls: bool,
}

impl KeptPage {
    /// Shows another map.
    pub fn renew(&mut self, map: &KeptMap) {
        let mut starts = vec![0];
        starts.extend(map.tokens.iter().scan(0, |end, token| {
            *end += token.len();
            Some(*end)
        }));
        *self = Self { serial: self.serial + 1, text: map.tokens.concat(), starts, ..Self::default() };
    }

    /// Marks what the search field says, and visits the first place.
    pub fn search(&mut self) {
        self.mark(Marked::Found, occurrences(&self.text, &self.query));
    }

    /// Marks places, and visits the first one.
    pub fn mark(&mut self, marked: Marked, places: Vec<Range<usize>>) {
        (self.marked, self.current, self.scrolls) = (marked, 0, !places.is_empty());
        self.places = places;
    }

    /// Visits the next place, or the previous one. After the last comes the first.
    pub fn step(&mut self, is_next: bool) {
        let n = self.places.len();
        if n > 0 {
            self.current = (self.current + if is_next { 1 } else { n - 1 }) % n;
            self.scrolls = true;
        }
    }

    /// How many places there are, and which one is visited.
    pub fn summary(&self) -> String {
        let (at, n) = (self.current + 1, self.places.len());
        match (self.marked, n) {
            (Marked::Found, 0) if self.query.is_empty() => String::new(),
            (Marked::Found, 0) => "not found".into(),
            (Marked::Found, _) => format!("{at} of {n}"),
            (_, 0) => "The document has no phrase of the answer or the question.".into(),
            (Marked::OfAnswer, _) => format!("{at} of {n} that share words with the answer"),
            (Marked::OfQuestion, _) => format!("{at} of {n} that share words with the question"),
        }
    }

    /// The token that has this byte of the text.
    pub fn token_at(&self, byte: usize) -> usize {
        let after = self.starts.partition_point(|&start| start <= byte);
        after.saturating_sub(1).min(self.starts.len().saturating_sub(2))
    }
}

/// Where a text says the query, whatever the case and the kind of white space. Places do not overlap.
fn occurrences(text: &str, query: &str) -> Vec<Range<usize>> {
    let query: Vec<char> = query.chars().flat_map(char::to_lowercase).collect();
    let mut found = Vec::new();
    let mut from = 0;
    for (at, _) in text.char_indices() {
        if at >= from
            && let Some(length) = length_at(&text[at..], &query)
        {
            from = at + length;
            found.push(at..from);
        }
    }
    found
}

/// Bytes of the query at the beginning of a text, if it begins with it.
fn length_at(text: &str, query: &[char]) -> Option<usize> {
    let mut rest = query;
    for (at, letter) in text.char_indices() {
        if rest.is_empty() {
            return (at > 0).then_some(at);
        }
        for lower in letter.to_lowercase() {
            let (first, after) = rest.split_first()?;
            if *first != lower && !(first.is_whitespace() && lower.is_whitespace()) {
                return None;
            }
            rest = after;
        }
    }
    (rest.is_empty() && !query.is_empty()).then_some(text.len())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn map(tokens: &[&str]) -> KeptMap {
        let tokens = tokens.iter().map(|token| token.to_string()).collect();
        KeptMap { tokens, sink: 1, lag: 8, keep: 0.5, recent_start: 1, kept: vec![vec![vec![]]] }
    }

    #[test]
    fn the_search_visits_every_place_in_turn() {
        let mut page = KeptPage::default();
        page.renew(&map(&["Call", " me", "", " ISH", "mael.\n", "İ", "call\nme"]));
        assert_eq!((page.serial, page.text.as_str()), (1, "Call me ISHmael.\nİcall\nme"));
        assert_eq!(page.starts, [0, 4, 7, 7, 11, 17, 19, 26]);
        assert_eq!([0, 3, 4, 7, 16, 18, 25, 99].map(|byte| page.token_at(byte)), [0, 0, 1, 3, 4, 5, 6, 6]);
        assert_eq!(page.summary(), "");
        let mut visit = |query: &str| {
            page.query = query.into();
            page.search();
            page.places.iter().map(|place| page.text[place.clone()].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(visit("ishmael"), ["ISHmael"]);
        assert_eq!(visit("İ"), ["İ"], "a letter whose lower case has two");
        assert_eq!(visit("whale"), Vec::<String>::new());
        assert_eq!(visit(""), Vec::<String>::new());
        assert_eq!(visit("Call me"), ["Call me", "call\nme"]);
        assert_eq!((page.summary().as_str(), std::mem::take(&mut page.scrolls)), ("1 of 2", true));
        page.step(true);
        assert_eq!((page.summary().as_str(), page.scrolls), ("2 of 2", true));
        page.step(true);
        page.step(false);
        assert_eq!(page.current, 1);
        page.query = "whale".into();
        page.search();
        page.step(true);
        assert_eq!((page.summary().as_str(), page.scrolls), ("not found", false));
        assert_eq!(occurrences("aaaaa", "aa"), [0..2, 2..4]);
    }
}
