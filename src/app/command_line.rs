//! The settings of a job in texts, and its command line.

use serde_json::Value;

use crate::checkpoint::record::AttentionRecord;
use crate::train::{Keep, TrainJob};

/// The settings of a job that are not the defaults, by the names of their fields: all but its model,
/// its data and its folder. The attention is in its four settings. The text of a switch is empty.
pub fn settings(job: &TrainJob) -> Vec<(String, String)> {
    let object = |job: &TrainJob| match serde_json::to_value(job) {
        Ok(Value::Object(fields)) => fields,
        _ => unreachable!("a job is an object"),
    };
    let usual = object(&TrainJob::default());
    let mut all = attention(job);
    for (name, value) in object(job) {
        let is_own = ["model", "data", "out", "attention", "keeps"].contains(&name.as_str());
        if is_own || usual.get(&name) == Some(&value) {
            continue;
        }
        match value {
            Value::Array(items) if items.iter().any(Value::is_array) => {
                // A pattern and its number.
                all.extend(items.iter().map(|item| (name.clone(), listed(item, "="))));
            }
            Value::Bool(_) => all.push((name, String::new())),
            value => all.push((name, listed(&value, ","))),
        }
    }
    all
}

fn attention(job: &TrainJob) -> Vec<(String, String)> {
    let (sink, lag, keep) = match job.attention {
        None => return vec![],
        Some(AttentionRecord::Dense) => return vec![("attention".into(), "dense".into())],
        Some(AttentionRecord::Lrsa { sink, lag, keep }) => (sink, lag, keep),
    };
    let lrsa = |more| vec![("attention", "lrsa".into()), ("sink", sink.to_string()), ("lag", lag.to_string()), more];
    let all = match job.keeps.as_deref() {
        // The steps draw from the usual list.
        None => vec![("attention", format!("{}x", 1.0 / keep)), ("sink", sink.to_string()), ("lag", lag.to_string())],
        Some([]) => lrsa(("keep", keep.to_string())),
        Some(keeps) => lrsa(("keep", Keep::list(keeps).replace(' ', ""))),
    };
    all.into_iter().map(|(name, text)| (name.to_string(), text)).collect()
}

fn listed(value: &Value, between: &str) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(|item| listed(item, between)).collect::<Vec<_>>().join(between),
        other => other.to_string(),
    }
}

/// The command that runs a job.
pub fn command_line(job: &TrainJob, device: &str) -> String {
    let (data, out) = (job.data.display().to_string(), job.out.display().to_string());
    let mut line = format!(
        "longreach train --model {} --data {} --out {} --device {}",
        quoted(&job.model),
        quoted(&data),
        quoted(&out),
        quoted(device)
    );
    for (name, text) in settings(job) {
        line += &format!(" --{}", name.replace('_', "-"));
        if !text.is_empty() {
            line += &format!(" {}", quoted(&text));
        }
    }
    if job.resume {
        line += " --resume";
    }
    line
}

fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:\\,=+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text.into() } else { format!("\"{text}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_the_defaults_are_left_out() {
        assert_eq!(settings(&TrainJob::default()), []);
        let job = TrainJob {
            rank: Some(8),
            dora: true,
            betas: Some((0.9, 0.95)),
            rank_pattern: vec![("down_proj".into(), 32), ("v".into(), 4)],
            modules_to_save: vec!["embed_tokens".into(), "lm_head".into()],
            attention: Some(AttentionRecord::Dense),
            ..TrainJob::default()
        };
        let expected = [
            ("attention", "dense"),
            ("rank", "8"),
            ("modules_to_save", "embed_tokens,lm_head"),
            ("rank_pattern", "down_proj=32"),
            ("rank_pattern", "v=4"),
            ("dora", ""),
            ("betas", "0.9,0.95"),
        ];
        assert_eq!(settings(&job), expected.map(|(name, text)| (name.to_string(), text.to_string())));
    }
}
