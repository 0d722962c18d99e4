//! Examples that are longer than the maximum length: refused, cut at the end, or cut into windows.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::example::{Example, IGNORED};

/// What becomes of an example that is longer than the maximum length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Long {
    /// The run is refused; the message names the longest example
    Whole,
    /// The end is cut off
    #[default]
    Cut,
    /// The example becomes windows that overlap and learn each token once
    Window,
}

/// Tokens that two neighbouring windows of `max_length` tokens share by default.
pub fn default_overlap(max_length: usize) -> usize {
    max_length / 8
}

/// Cuts an example of one sequence into windows of up to `max_length` tokens.
///
/// Each window after the first begins with the last `overlap` tokens of the one before, whose
/// labels do not count again. If the example begins with `bos`, so does every window. Needs
/// `overlap + 2 <= max_length`.
pub(super) fn windows(example: Example, max_length: usize, overlap: usize, bos: Option<u32>) -> Vec<Example> {
    assert!(overlap + 2 <= max_length, "a window needs a new token beside its BOS and the overlap");
    let n = example.ids.len();
    if n <= max_length {
        return vec![example];
    }
    let bos = bos.filter(|bos| example.ids.first() == Some(bos));
    let n_bos = usize::from(bos.is_some());
    let (ids, labels) = (example.ids[..max_length].to_vec(), example.labels[..max_length].to_vec());
    let first = Example { ids, labels, rejected: None };
    let (mut windows, mut end) = (vec![first], max_length);
    while end < n {
        let start = end - overlap;
        let next = n.min(start + max_length - n_bos);
        let ids = bos.into_iter().chain(example.ids[start..next].iter().copied()).collect();
        let mut labels = vec![IGNORED; n_bos + overlap];
        labels.extend_from_slice(&example.labels[end..next]);
        windows.push(Example { ids, labels, rejected: None });
        end = next;
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOS: u32 = 1;

    /// BOS, if asked for, and the numbers from 10, all learnt but for those divisible by 5.
    fn example(n: usize, bos: bool) -> Example {
        let ids: Vec<u32> = bos.then_some(BOS).into_iter().chain(10..).take(n).collect();
        let labels = ids.iter().map(|&id| if id.is_multiple_of(5) { IGNORED } else { id as i32 }).collect();
        Example { ids, labels, rejected: None }
    }

    #[test]
    fn a_window_begins_with_bos_and_the_end_of_the_one_before() {
        let cut = windows(example(12, true), 6, 2, Some(BOS));
        let ids: Vec<&[u32]> = cut.iter().map(|w| w.ids.as_slice()).collect();
        assert_eq!(ids, [&[1, 10, 11, 12, 13, 14][..], &[1, 13, 14, 15, 16, 17], &[1, 16, 17, 18, 19, 20]]);
        assert_eq!(cut[1].labels, [-100, -100, -100, -100, 16, 17]);
        assert_eq!(cut[2].labels, [-100, -100, -100, 18, 19, -100]);
        // Without BOS at its beginning, an example's windows have none.
        let cut = windows(example(9, false), 6, 2, Some(BOS));
        assert_eq!(cut[1].ids, [14, 15, 16, 17, 18]);
    }

    #[test]
    fn windows_learn_every_token_once() {
        for (max, overlap) in [(2, 0), (6, 0), (6, 1), (6, 4), (16, 2), (50, 6)] {
            for bos in [false, true] {
                for n in [max, max + 1, 3 * max + 1, 61] {
                    let whole = example(n, bos);
                    let cut = windows(whole.clone(), max, overlap, Some(BOS));
                    let learnt = |e: &Example| -> Vec<i32> {
                        e.labels.iter().skip(1).copied().filter(|&label| label != IGNORED).collect()
                    };
                    let all: Vec<i32> = cut.iter().flat_map(learnt).collect();
                    if overlap > 0 || bos {
                        assert_eq!(all, learnt(&whole), "windows of {max}, overlap {overlap}, {n} tokens");
                    } else {
                        // Nothing comes before the first token of a window.
                        assert!(all.len() + cut.len() > learnt(&whole).len());
                    }
                    for window in &cut {
                        assert!(window.ids.len() <= max && window.ids.len() == window.labels.len());
                        assert!(!bos || window.ids[0] == BOS);
                    }
                    assert!(cut[..cut.len() - 1].iter().all(|window| window.ids.len() == max));
                }
            }
        }
    }
}
