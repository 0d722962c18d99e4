//! The steps of a run by their r. Their losses are not comparable: a compressed cache has fewer keys
//! and values to predict from than the dense one.

use super::observer::StepLine;
use crate::attention::cache_name;

/// Most values of r that a run's steps are grouped by.
const MOST_GROUPS: usize = 5;

/// The steps of a run that have one r.
#[derive(Clone, Debug, PartialEq)]
pub struct KeepGroup<'a> {
    /// r.
    pub keep: f64,
    /// The steps, in order.
    pub steps: Vec<&'a StepLine>,
}

impl<'a> KeepGroup<'a> {
    /// The groups of a run's steps, from the largest r down. There are none if all steps attend alike, if
    /// r takes more than five values, as it does where it anneals over many steps, and while there are
    /// fewer than twice as many steps as values.
    pub fn of(steps: &'a [StepLine]) -> Vec<Self> {
        let by_keep = by_keep(steps.iter().map(|step| (step.keep, step))).unwrap_or_default();
        let group = |(keep, steps): (Option<f64>, _)| Some(Self { keep: keep?, steps });
        let mut groups: Vec<Self> = by_keep.into_iter().map(group).collect::<Option<_>>().unwrap_or_default();
        groups.sort_by(|a, b| b.keep.total_cmp(&a.keep));
        if groups.len() > 1 && steps.len() >= 2 * groups.len() { groups } else { Vec::new() }
    }

    /// The lines of a run's curves with their names: one for each group, or one of this name.
    pub fn lines(steps: &'a [StepLine], name: &str) -> Vec<(String, Vec<&'a StepLine>)> {
        let groups = Self::of(steps);
        if groups.is_empty() {
            return vec![(name.to_string(), steps.iter().collect())];
        }
        groups.into_iter().map(|group| (group.name(), group.steps)).collect()
    }

    /// The cache of these steps: `dense` or a compression such as `4x`.
    pub fn name(&self) -> String {
        cache_name(self.keep)
    }

    /// Mean loss of the last quarter of the group's steps.
    pub fn last_loss(&self) -> f64 {
        let last = &self.steps[self.steps.len() - self.steps.len().div_ceil(4)..];
        last.iter().map(|step| step.loss).sum::<f64>() / last.len() as f64
    }
}

/// The values of steps by their r, each r where it first comes. `None` if r takes more than five values.
pub(super) fn by_keep<T>(values: impl Iterator<Item = (Option<f64>, T)>) -> Option<Vec<(Option<f64>, Vec<T>)>> {
    let mut groups: Vec<(Option<f64>, Vec<T>)> = Vec::new();
    for (keep, value) in values {
        match groups.iter().position(|(other, _)| *other == keep) {
            Some(i) => groups[i].1.push(value),
            None if groups.len() == MOST_GROUPS => return None,
            None => groups.push((keep, vec![value])),
        }
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(keeps: &[Option<f64>]) -> Vec<StepLine> {
        let step = |(i, keep): (usize, &Option<f64>)| {
            let line = json!({"step": i + 1, "loss": i, "keep": keep, "lr": 1e-4, "grad_norm": 1.0, "tokens": 1,
                              "seconds": 1.0, "bytes": 1});
            serde_json::from_value(line).unwrap()
        };
        keeps.iter().enumerate().map(step).collect()
    }

    #[test]
    fn steps_are_grouped_by_their_r_dense_first() {
        let keeps = [0.25, 1.0, 0.125, 1.0].repeat(2).into_iter().map(Some).collect::<Vec<_>>();
        let steps_of_run = steps(&keeps);
        let groups = KeepGroup::of(&steps_of_run);
        let shape: Vec<_> = groups.iter().map(|g| (g.name(), g.steps.iter().map(|s| s.step).collect())).collect();
        let expected = [("dense", vec![2, 4, 6, 8]), ("4x", vec![1, 5]), ("8x", vec![3, 7])];
        assert_eq!(shape, expected.map(|(name, steps)| (name.to_string(), steps)));
        let losses: Vec<f64> = groups.iter().map(KeepGroup::last_loss).collect();
        assert_eq!(losses, [7.0, 4.0, 6.0], "one step of up to four is the last quarter");
        let nine = steps(&[Some(0.5); 9]);
        let many = KeepGroup { keep: 0.5, steps: nine.iter().collect() };
        assert_eq!(many.last_loss(), 7.0, "the mean of three steps of nine");
    }

    #[test]
    fn steps_of_one_r_and_of_a_range_have_no_groups() {
        assert_eq!(KeepGroup::of(&[]), []);
        assert_eq!(KeepGroup::of(&steps(&[None; 4])), []);
        assert_eq!(KeepGroup::of(&steps(&[Some(0.5); 4])), []);
        assert_eq!(KeepGroup::of(&steps(&[Some(0.5), None])), []);
        let range: Vec<Option<f64>> = (1..=12).map(|i| Some(1.0 / f64::from(i))).collect();
        assert!((0..=12).all(|n| KeepGroup::of(&steps(&range[..n])).is_empty()), "r that anneals");
        let of = |n: usize| KeepGroup::of(&steps(&range[..n].repeat(2))).len();
        assert_eq!([2, 5, 6].map(of), [2, 5, 0]);
    }
}
