//! A line of token ids, with labels and masks.

use super::example::IGNORED;
use super::fields::Fields;
use super::raw::{is_list, kind, list};
use crate::error::{Error, Result};
use serde_json::value::RawValue;

/// Ids and labels of a line. Without labels every token is learnt, but for those whose number is 0
/// in one of the masks.
pub fn tokens(ids: &RawValue, fields: &Fields) -> Result<(Vec<u32>, Vec<i32>)> {
    let check = |key: &str, value: &RawValue| {
        let wrong = || Error::new(format!("\"{key}\" is {}; expected a list of integers", kind(value)));
        is_list(value).then_some(()).ok_or_else(wrong)
    };
    check("input_ids", ids)?;
    let ids = list::<u32>(ids)
        .filter(|ids| ids.iter().all(|&id| id <= i32::MAX as u32))
        .ok_or_else(|| Error::new("\"input_ids\" contains a value that is not a token id"))?;
    let Some(labels) = fields.labels else {
        let mut labels: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        for (key, mask) in [
            ("attention_mask", fields.attention_mask),
            ("completion_mask", fields.completion_mask),
            ("assistant_masks", fields.assistant_masks),
        ] {
            let Some(mask) = mask else { continue };
            check(key, mask)?;
            let mask = list::<u8>(mask)
                .or_else(|| Some(list::<bool>(mask)?.into_iter().map(u8::from).collect()))
                .filter(|mask| mask.len() == ids.len() && mask.iter().all(|&on| on <= 1));
            let mask = mask.ok_or_else(|| Error::new(format!("\"{key}\" is no list of a 0 or 1 for each token")))?;
            labels.iter_mut().zip(mask).filter(|(_, on)| *on == 0).for_each(|(label, _)| *label = IGNORED);
        }
        return Ok((ids, labels));
    };
    check("labels", labels)?;
    let labels = list::<i32>(labels)
        .filter(|labels| labels.iter().all(|&label| label >= 0 || label == IGNORED))
        .ok_or_else(|| Error::new("\"labels\" contains a value that is neither a token id nor -100"))?;
    let (n, m) = (ids.len(), labels.len());
    crate::ensure!(n == m, "\"input_ids\" has {n} entries and \"labels\" {m}: give one label per token");
    Ok((ids, labels))
}

#[cfg(test)]
#[path = "token_line_tests.rs"]
mod tests;
