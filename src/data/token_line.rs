//! A line of token ids, with labels and masks.
//!
//! The tokens that `attention_mask` leaves out are padding: no other token sees them in
//! transformers, so they do not become part of the sequence. The other masks say what is learnt.

use super::example::{Example, IGNORED};
use super::fields::Fields;
use super::raw::{is_list, kind, list};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Ids and labels of a line. Without labels every token is learnt. The masks of what is learnt hold
/// in both cases.
pub fn tokens(ids: &RawValue, fields: &Fields) -> Result<Example> {
    let ids: Vec<u32> = entries("input_ids", ids, "that is not a token id", |&id| id <= i32::MAX as u32)?;
    let n = ids.len();
    let mut labels: Vec<i32> = match fields.labels {
        Some(labels) => {
            let is_label = |&label: &i32| label >= 0 || label == IGNORED;
            let labels = entries("labels", labels, "that is neither a token id nor -100", is_label)?;
            one_each("labels", labels, n)?
        }
        None => ids.iter().map(|&id| id as i32).collect(),
    };
    for (name, value) in [("completion_mask", fields.completion_mask), ("assistant_masks", fields.assistant_masks)] {
        let Some(value) = value else { continue };
        for (label, is_learnt) in labels.iter_mut().zip(mask(name, value, n)?) {
            *label = if is_learnt { *label } else { IGNORED };
        }
    }
    let Some(value) = fields.attention_mask else {
        return Ok(Example { ids, labels, rejected: None });
    };
    let is_kept = mask("attention_mask", value, n)?;
    let tokens = ids.into_iter().zip(labels).zip(is_kept);
    let (ids, labels) = tokens.filter(|(_, is_kept)| *is_kept).map(|(token, _)| token).unzip();
    Ok(Example { ids, labels, rejected: None })
}

/// The entries of a list. `wrong` says what is the matter with an entry that does not fit.
fn entries<'a, T: Deserialize<'a>>(
    name: &str,
    value: &'a RawValue,
    wrong: &str,
    fits: impl Fn(&T) -> bool,
) -> Result<Vec<T>> {
    crate::ensure!(is_list(value), "\"{name}\" is {}; expected a list of integers", kind(value));
    let entries = list::<T>(value).filter(|entries| entries.iter().all(fits));
    entries.ok_or_else(|| Error::new(format!("\"{name}\" contains a value {wrong}")))
}

/// The entries if there is one for each of `n` tokens.
fn one_each<T>(name: &str, entries: Vec<T>, n: usize) -> Result<Vec<T>> {
    crate::ensure!(
        entries.len() == n,
        "\"input_ids\" has {n} entries and \"{name}\" {}, so they do not belong together: give one entry for each token, \
         or delete \"{name}\"",
        entries.len()
    );
    Ok(entries)
}

/// A mask of `n` tokens, of 0 and 1 or of `false` and `true`.
fn mask(name: &str, value: &RawValue, n: usize) -> Result<Vec<bool>> {
    let mask = match list::<bool>(value) {
        Some(mask) => mask,
        None => {
            let wrong = "other than 0 and 1: give a 0 or a 1 for each token";
            entries::<u8>(name, value, wrong, |&number| number <= 1)?.into_iter().map(|number| number == 1).collect()
        }
    };
    one_each(name, mask, n)
}

#[cfg(test)]
#[path = "token_line_tests.rs"]
mod tests;
