//! Holds out a fraction of the training data for validation.
//!
//! Records are held out, not examples: the windows of a long text stay together, so that no text is
//! in both parts. So do both answers of a preference pair.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;

use super::dataset::Split;
use super::rng::seeded;
use crate::error::{Error, Result};

/// The fraction of the records to hold out, above 0 and below 1, and the seed that draws them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HoldOut {
    pub fraction: f64,
    pub seed: u64,
}

/// The stream of random numbers that draws the records; epochs count from 0.
const STREAM: u64 = u64::MAX;

impl HoldOut {
    /// Draws from `records`, numbers in ascending order that may repeat: the fraction of them,
    /// rounded, but at least one, and never all. Fails if there is only one.
    pub fn drawn(&self, records: &[usize]) -> Result<BTreeSet<usize>> {
        let mut records = records.to_vec();
        records.dedup();
        let n = records.len();
        if n < 2 {
            return Err(Error::usage(format!(
                "`valid_fraction` needs at least 2 training examples, one to learn and one to hold out; the data has {n}"
            )));
        }
        records.shuffle(&mut seeded(self.seed, STREAM));
        records.truncate(((n as f64 * self.fraction).round() as usize).clamp(1, n - 1));
        Ok(records.into_iter().collect())
    }

    /// Moves the drawn records of a split to a new one. Both keep the order of the files.
    pub fn take_from(&self, split: &mut Split) -> Result<Split> {
        let held = self.drawn(&split.records)?;
        let mut taken = Split::default();
        let examples = std::mem::take(&mut split.examples).into_iter().zip(std::mem::take(&mut split.records));
        for (example, record) in examples {
            let to = if held.contains(&record) { &mut taken } else { &mut *split };
            to.examples.push(example);
            to.records.push(record);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::Example;
    use super::*;

    #[test]
    fn a_fraction_is_drawn_and_never_none_or_all() {
        let records: Vec<usize> = (0..40).map(|i| 2 * i).collect();
        let draw = |fraction, seed| HoldOut { fraction, seed }.drawn(&records).unwrap();
        assert_eq!([0.001, 0.1, 0.5, 0.999].map(|fraction| draw(fraction, 0).len()), [1, 4, 20, 39]);
        assert_eq!(draw(0.25, 7), draw(0.25, 7));
        assert_ne!(draw(0.25, 7), draw(0.25, 8));
        assert!(draw(0.25, 7).iter().all(|record| records.contains(record)));
        let few = |records: &[usize]| HoldOut { fraction: 0.5, seed: 0 }.drawn(records);
        assert_eq!(few(&[3, 9]).unwrap().len(), 1);
        for records in [&[][..], &[4], &[4, 4, 4]] {
            assert!(few(records).unwrap_err().to_string().contains("`valid_fraction`"));
        }
    }

    #[test]
    fn windows_of_a_record_stay_together_and_in_order() {
        let example = |id: u32| Example { ids: vec![id; 3], labels: vec![id as i32; 3], rejected: None };
        let records = vec![0, 0, 0, 1, 2, 2, 5, 5];
        let mut train = Split { examples: (0..8).map(example).collect(), records, ..Split::default() };
        let valid = HoldOut { fraction: 0.5, seed: 3 }.take_from(&mut train).unwrap();
        let of = |split: &Split| split.records.iter().copied().collect::<BTreeSet<usize>>();
        assert!(of(&train).is_disjoint(&of(&valid)));
        assert_eq!((of(&train).len(), of(&valid).len()), (2, 2));
        for split in [&train, &valid] {
            assert!(split.records.is_sorted() && split.examples.is_sorted_by_key(|e| e.ids[0]));
            for (example, &record) in split.examples.iter().zip(&split.records) {
                assert_eq!(record, [0, 0, 0, 1, 2, 2, 5, 5][example.ids[0] as usize]);
            }
        }
        assert_eq!(train.examples.len() + valid.examples.len(), 8);
    }
}
