//! Rounds of the engine: each gives every answer a token, in passes with prompts read in between.

use std::collections::VecDeque;
use std::time::Duration;

/// How long prompts are read in one round, or one piece if it takes longer.
const READ_TIME: Duration = Duration::from_millis(200);

/// The rest of the current round.
pub struct Round {
    /// Models whose answers still get a token in this round, and the number of these answers.
    left: VecDeque<(usize, usize)>,
    read_time: Duration,
    /// Most answers in one pass.
    most: usize,
}

impl Round {
    /// A round that is over, with passes of at most so many answers.
    pub fn new(most: usize) -> Self {
        Self { left: VecDeque::new(), read_time: READ_TIME, most }
    }

    /// Whether prompts may be read before the next pass.
    pub fn may_read(&self) -> bool {
        !self.read_time.is_zero()
    }

    /// Takes the time of a piece of a prompt from what the round has for prompts.
    pub fn note_read(&mut self, time: Duration) {
        self.read_time = self.read_time.saturating_sub(time);
    }

    /// Makes the first tokens of new answers the next pass.
    pub fn first(&mut self, model: usize, n_answers: usize) {
        self.left.push_front((model, n_answers));
    }

    /// The next pass: a model, and how many of its answers get a token. Begins a new round if this one
    /// is over, with the answers that each model has now. `None` if there are none.
    pub fn next_pass(&mut self, n_answers: impl Iterator<Item = usize>) -> Option<(usize, usize)> {
        if self.left.is_empty() {
            self.left.extend(n_answers.enumerate().filter(|&(_, n)| n > 0));
            self.read_time = READ_TIME;
        }
        let (model, left) = self.left.pop_front()?;
        let n = left.min(self.most);
        if left > n {
            self.left.push_front((model, left - n));
        }
        Some((model, n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_passes_over_every_answer_and_new_answers_come_first() {
        let mut round = Round::new(4);
        let passes = |round: &mut Round, n: usize, running: [usize; 3]| -> Vec<(usize, usize)> {
            (0..n).map_while(|_| round.next_pass(running.into_iter())).collect()
        };
        assert_eq!(passes(&mut round, 2, [9, 0, 2]), [(0, 4), (0, 4)]);
        round.first(1, 3);
        assert_eq!(passes(&mut round, 3, [9, 3, 2]), [(1, 3), (0, 1), (2, 2)]);
        assert_eq!(passes(&mut round, 1, [9, 3, 2]), [(0, 4)], "the next round has the answers of then");
        assert_eq!(Round::new(4).next_pass([0, 0].into_iter()), None);
    }

    #[test]
    fn prompts_have_their_time_in_each_round() {
        let mut round = Round::new(4);
        round.note_read(READ_TIME / 2);
        assert!(round.may_read());
        round.note_read(READ_TIME);
        assert!(!round.may_read());
        round.next_pass([6].into_iter());
        assert!(round.may_read(), "a new round has begun");
        round.note_read(READ_TIME);
        round.next_pass([6].into_iter());
        assert!(!round.may_read(), "the round goes on");
        round.next_pass([6].into_iter());
        assert!(round.may_read());
    }
}
