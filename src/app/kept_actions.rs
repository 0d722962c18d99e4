//! Updates of the app's state in the view of kept tokens: another map, and the places of the evidence.

use std::ops::Range;

use super::documents::joined;
use super::evidence::shared_places;
use super::kept::Marked;
use super::state::{App, Effect};
use crate::eval::KeptMap;

impl App {
    /// Takes a map of kept tokens and shows it.
    pub(super) fn show_map(&mut self, map: KeptMap) {
        self.chat.kept_page.renew(&map);
        self.chat.kept = Some(map);
        self.chat.shows_kept = true;
    }

    /// Marks the places of the documents that share the longest phrases with the last answer, or else
    /// with the last question.
    pub(super) fn find_evidence(&mut self) -> Vec<Effect> {
        let (page, turns) = (&self.chat.kept_page, &self.chat.turns);
        let Some(turn) = turns.last() else { return vec![] };
        let documents = joined(&self.chat.documents);
        // A question follows the documents. Those that were changed since are not in this text.
        let asked = || page.text.find(&turns[0].question).unwrap_or(0);
        let range = match page.text.find(documents.trim()) {
            Some(start) if !documents.is_empty() => start..start + documents.trim().len(),
            _ => 0..asked(),
        };
        let places = |said: &str| -> Vec<Range<usize>> {
            let found = shared_places(&page.text[range.clone()], said).into_iter();
            found.map(|place| place.start + range.start..place.end + range.start).collect()
        };
        let (marked, found) = match places(&turn.answer) {
            found if found.is_empty() => (Marked::OfQuestion, places(&turn.question)),
            found => (Marked::OfAnswer, found),
        };
        self.chat.kept_page.query.clear();
        self.chat.kept_page.mark(marked, found);
        vec![]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::documents::Document;
    use crate::app::kept::tests::map;
    use crate::app::message::Event;
    use crate::app::state::Action;
    use crate::app::state_tests::{answer, ask, opened};

    #[test]
    fn the_evidence_is_in_the_documents() {
        let mut app = opened();
        app.on_action(Action::Document(Document::new("a.txt", "Ahab lost his leg. The whale is white.\n")));
        ask(&mut app, "What did Ahab lose?");
        app.on_event(Event::Answered(answer("He lost his leg at sea.")));
        let text =
            "<user>Ahab lost his leg. The whale is white.\n\n\nWhat did Ahab lose?<model>He lost his leg at sea.";
        app.on_event(Event::Kept(Box::new(map(&text.split_inclusive(' ').collect::<Vec<_>>()))));
        assert!(app.chat.shows_kept);
        let evidence = |app: &mut App| {
            app.on_action(Action::Evidence);
            let page = &app.chat.kept_page;
            (page.places.iter().map(|place| page.text[place.clone()].to_string()).collect::<Vec<_>>(), page.summary())
        };
        let of_answer = (vec!["lost his leg".to_string()], "1 of 1 that share words with the answer".to_string());
        assert_eq!(evidence(&mut app), of_answer);
        assert_eq!(app.chat.kept_page.places[0].start, 11, "not in the answer itself");
        // Without the documents, the text before the first question is searched.
        app.chat.documents.clear();
        assert_eq!(evidence(&mut app), of_answer);
        app.chat.turns[0].answer = "No.".into();
        app.chat.turns[0].question = "The whale?".into();
        app.chat.documents = vec![Document::new("a.txt", "Ahab lost his leg. The whale is white.\n")];
        let of_question = (vec!["The whale".to_string()], "1 of 1 that share words with the question".to_string());
        assert_eq!(evidence(&mut app), of_question);
        app.chat.turns[0].question = "Why?".into();
        assert_eq!(evidence(&mut app), (vec![], "The document has no phrase of the answer or the question.".into()));
    }
}
