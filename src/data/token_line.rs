//! A line of token ids, with labels and masks: one document, or several that are packed.
//!
//! The tokens that `attention_mask` leaves out are padding: no other token sees them in
//! transformers, so they do not become part of a sequence. The other masks say what is learnt. TRL
//! packs documents and saves their lengths as `seq_lengths`; other programs save `position_ids`,
//! which begin again with each document.

use super::example::{Example, IGNORED};
use super::fields::Fields;
use super::raw::{is_list, kind, list};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The documents of a line, without padding: at least one, which is empty if all is padding.
///
/// Without labels every token is learnt. The masks of what is learnt hold in both cases.
pub fn documents(ids: &RawValue, fields: &Fields) -> Result<Vec<Example>> {
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
    let is_kept = match fields.attention_mask {
        Some(value) => mask("attention_mask", value, n)?,
        None => vec![true; n],
    };
    let begins = beginnings(fields, &is_kept)?;
    let mut documents = Vec::new();
    let mut document = Example::default();
    for (((id, label), is_kept), begins) in ids.into_iter().zip(labels).zip(is_kept).zip(begins) {
        if begins && !document.ids.is_empty() {
            documents.push(std::mem::take(&mut document));
        }
        if is_kept {
            document.ids.push(id);
            document.labels.push(label);
        }
    }
    if documents.is_empty() || !document.ids.is_empty() {
        documents.push(document);
    }
    Ok(documents)
}

/// For each token, whether a document begins with it. `is_kept` says which tokens are no padding.
fn beginnings(fields: &Fields, is_kept: &[bool]) -> Result<Vec<bool>> {
    let n = is_kept.len();
    let mut begins = vec![false; n];
    if let Some(value) = fields.seq_lengths {
        let lengths: Vec<usize> = entries("seq_lengths", value, "that is no number of tokens", |_| true)?;
        let total = lengths.iter().try_fold(0usize, |sum, &length| sum.checked_add(length));
        crate::ensure!(
            total == Some(n),
            "\"seq_lengths\" add up to {}, and \"input_ids\" has {n} entries, so nobody knows where the documents end: give \
             the length of each document, or delete \"seq_lengths\" if the line is one document",
            total.map_or("more than any line has".to_owned(), |total| total.to_string())
        );
        let mut begin = 0;
        for length in lengths.into_iter().filter(|&length| length > 0) {
            begins[begin] = true;
            begin += length;
        }
    }
    if let Some(value) = fields.position_ids {
        let positions: Vec<i64> = entries("position_ids", value, "that is no position", |_| true)?;
        let positions = one_each("position_ids", positions, n)?;
        for (i, begins) in begins.iter_mut().enumerate() {
            *begins |= positions[i] == 0;
            let follows = i == 0 || *begins || positions[i - 1].checked_add(1) == Some(positions[i]);
            crate::ensure!(
                follows || !is_kept[i - 1] || !is_kept[i],
                "\"position_ids\" goes from {} to {} at token {i}, and positions that skip or repeat numbers are not \
                 supported: count up from 0 in each document, or delete \"position_ids\" if the line is one document",
                positions[i - 1],
                positions[i]
            );
        }
    }
    Ok(begins)
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
            let wrong = match name {
                "attention_mask" => {
                    "other than 0 and 1: give a 0 or a 1 for each token, and the lengths of packed documents as \
                     \"seq_lengths\""
                }
                _ => "other than 0 and 1: give a 0 or a 1 for each token",
            };
            entries::<u8>(name, value, wrong, |&number| number <= 1)?.into_iter().map(|number| number == 1).collect()
        }
    };
    one_each(name, mask, n)
}

#[cfg(test)]
#[path = "token_line_tests.rs"]
mod tests;
