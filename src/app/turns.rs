//! The turns of a conversation, with the versions that edited questions and regenerated answers
//! leave.

use serde::{Deserialize, Serialize};

/// One question of a conversation and its answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    pub question: String,
    pub answer: String,
    /// What cut the answer, unless the model ended it.
    pub cut: Option<Cut>,
    /// The other versions of this turn, each with the turns that followed it.
    pub others: Vec<Vec<Turn>>,
    /// The place of this version among all.
    pub at: usize,
}

/// What cut an answer, with the tokens that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// The user stopped it.
    Stopped(usize),
    /// It reached the limit of tokens.
    Limit(usize),
}

impl Cut {
    /// Tokens of the answer.
    pub fn n_tokens(self) -> usize {
        match self {
            Self::Stopped(n) | Self::Limit(n) => n,
        }
    }
}

impl Turn {
    /// A turn without an answer.
    pub fn asked(question: impl Into<String>) -> Self {
        Self { question: question.into(), ..Self::default() }
    }

    /// Question and answer without the other versions.
    pub fn alone(&self) -> Self {
        Self { question: self.question.clone(), answer: self.answer.clone(), cut: self.cut, ..Self::default() }
    }

    /// Another version of this turn.
    pub fn other(&self, at: usize) -> Option<&Turn> {
        if at == self.at {
            return None;
        }
        self.others.get(at - usize::from(at > self.at))?.first()
    }

    /// The number of versions of this turn.
    pub fn n_versions(&self) -> usize {
        1 + self.others.len()
    }
}

/// Puts a new version in place of turn `i` and of those that follow it. The old ones stay as another
/// version.
pub fn branch(turns: &mut Vec<Turn>, i: usize, new: Turn) {
    let mut tail = turns.split_off(i.min(turns.len()));
    let mut turn = Turn { others: vec![], at: 0, ..new };
    if let Some(old) = tail.first_mut() {
        turn.others = std::mem::take(&mut old.others);
        turn.others.insert(std::mem::take(&mut old.at), tail);
        turn.at = turn.others.len();
    }
    turns.push(turn);
}

/// Shows version `to` of turn `i` with the turns that followed it.
pub fn show(turns: &mut Vec<Turn>, i: usize, to: usize) {
    let Some(turn) = turns.get(i).filter(|turn| turn.at != to && to < turn.n_versions()) else { return };
    let at = turn.at;
    let mut tail = turns.split_off(i);
    let mut others = std::mem::take(&mut tail[0].others);
    tail[0].at = 0;
    others.insert(at, tail);
    let mut shown = others.remove(to);
    (shown[0].others, shown[0].at) = (others, to);
    turns.append(&mut shown);
}

/// Removes the shown version of turn `i` and shows version `to` instead. Without another version the
/// turns end before `i`. Returns what was removed.
pub fn remove(turns: &mut Vec<Turn>, i: usize, to: usize) -> Vec<Turn> {
    let mut removed = turns.split_off(i.min(turns.len()));
    let Some(turn) = removed.first_mut() else { return removed };
    let mut others = std::mem::take(&mut turn.others);
    if !others.is_empty() {
        let to = to.min(others.len() - 1);
        let mut shown = others.remove(to);
        (shown[0].others, shown[0].at) = (others, to);
        turns.append(&mut shown);
    }
    removed
}

/// One version of a turn in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTurn {
    /// The turn before it, by its place in the list; `None` for a first turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<usize>,
    question: String,
    answer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut: Option<Cut>,
    /// Whether this version is shown where the turn before it is.
    shown: bool,
}

/// The turns as a flat list for a file: a tree could nest deeper than readers of JSON allow.
/// Versions of a turn keep their order.
pub fn flat(turns: &[Turn]) -> Vec<SavedTurn> {
    let mut list = Vec::new();
    flatten(turns, None, true, &mut list);
    list
}

fn flatten(turns: &[Turn], mut after: Option<usize>, mut shown: bool, list: &mut Vec<SavedTurn>) {
    for turn in turns {
        let (before, behind) = turn.others.split_at(turn.at.min(turn.others.len()));
        for tail in before {
            flatten(tail, after, false, list);
        }
        let (question, answer) = (turn.question.clone(), turn.answer.clone());
        let here = list.len();
        list.push(SavedTurn { after, question, answer, cut: turn.cut, shown });
        for tail in behind {
            flatten(tail, after, false, list);
        }
        (after, shown) = (Some(here), true);
    }
}

/// The turns of a flat list. Turns that follow none of the list are left out.
pub fn unflat(list: &[SavedTurn]) -> Vec<Turn> {
    let mut children = vec![vec![]; list.len() + 1];
    for (i, saved) in list.iter().enumerate() {
        match saved.after {
            None => children[list.len()].push(i),
            Some(after) if after < i => children[after].push(i),
            Some(_) => {}
        }
    }
    grow(list, &children, list.len())
}

fn grow(list: &[SavedTurn], children: &[Vec<usize>], mut of: usize) -> Vec<Turn> {
    let mut turns = Vec::new();
    while let Some(at) = children[of].iter().position(|&i| list[i].shown).or((!children[of].is_empty()).then_some(0)) {
        let here = children[of][at];
        let rest = children[of].iter().filter(|&&i| i != here);
        let others = rest.map(|&i| [vec![turn(&list[i])], grow(list, children, i)].concat()).collect();
        turns.push(Turn { others, at, ..turn(&list[here]) });
        of = here;
    }
    turns
}

fn turn(saved: &SavedTurn) -> Turn {
    Turn { answer: saved.answer.clone(), cut: saved.cut, ..Turn::asked(&*saved.question) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(question: &str) -> Turn {
        Turn { answer: format!("answer to {question}"), ..Turn::asked(question) }
    }

    fn questions(turns: &[Turn]) -> Vec<&str> {
        turns.iter().map(|turn| turn.question.as_str()).collect()
    }

    /// Three versions of the first turn; the second one goes on in two ways.
    fn tree() -> Vec<Turn> {
        let mut turns = vec![said("a"), said("a1"), said("a2")];
        branch(&mut turns, 0, said("b"));
        turns.push(said("b1"));
        branch(&mut turns, 1, said("b1'"));
        turns.push(said("b2'"));
        branch(&mut turns, 0, said("c"));
        turns
    }

    #[test]
    fn every_version_can_be_shown_with_what_followed_it() {
        let mut turns = tree();
        assert_eq!((questions(&turns), turns[0].at, turns[0].n_versions()), (vec!["c"], 2, 3));
        show(&mut turns, 0, 1);
        assert_eq!(questions(&turns), ["b", "b1'", "b2'"]);
        assert_eq!((turns[1].at, turns[1].n_versions(), turns[2].n_versions()), (1, 2, 1));
        show(&mut turns, 1, 0);
        assert_eq!(questions(&turns), ["b", "b1"]);
        show(&mut turns, 0, 0);
        assert_eq!(questions(&turns), ["a", "a1", "a2"]);
        show(&mut turns, 0, 1);
        assert_eq!(questions(&turns), ["b", "b1"], "each version remembers which one of the next turn was shown");
        for (i, to) in [(0, 3), (7, 0), (0, 1)] {
            let before = turns.clone();
            show(&mut turns, i, to);
            assert_eq!(turns, before);
        }
    }

    #[test]
    fn a_removed_version_leaves_the_others() {
        let mut turns = tree();
        assert_eq!(questions(&remove(&mut turns, 0, 1)), ["c"]);
        assert_eq!((questions(&turns), turns[0].n_versions()), (vec!["b", "b1'", "b2'"], 2));
        remove(&mut turns, 1, 0);
        assert_eq!((questions(&turns), turns[1].n_versions(), turns[1].at), (vec!["b", "b1"], 1, 0));
        remove(&mut turns, 1, 0);
        assert_eq!(questions(&turns), ["b"]);
        assert!(remove(&mut turns, 9, 0).is_empty());
    }

    #[test]
    fn a_file_keeps_the_tree() {
        let mut turns = tree();
        for (i, to) in [(0, 2), (0, 1), (1, 0), (0, 0)] {
            show(&mut turns, i, to);
            let text = serde_json::to_string(&flat(&turns)).unwrap();
            let list: Vec<SavedTurn> = serde_json::from_str(&text).unwrap();
            assert_eq!(unflat(&list), turns);
        }
        assert_eq!(flat(&turns).len(), 8);
        assert!(unflat(&[]).is_empty());
        // A damaged list makes no loop.
        let mut list = flat(&[said("a"), said("b")]);
        list[0].after = Some(1);
        assert!(unflat(&list).is_empty());
    }

    #[test]
    fn a_deep_tree_is_no_deep_file() {
        let mut turns: Vec<Turn> = (0..300).map(|i| said(&format!("{i}"))).collect();
        for i in (0..300).rev() {
            branch(&mut turns, i, said(&format!("again {i}")));
        }
        let text = serde_json::to_string(&flat(&turns)).unwrap();
        assert_eq!(unflat(&serde_json::from_str::<Vec<SavedTurn>>(&text).unwrap()), turns);
    }
}
