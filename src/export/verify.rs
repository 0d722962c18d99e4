//! Compares an export with the model in memory: tokens, chat template and logits.

use std::path::Path;

use serde_json::json;

use crate::attention::Attention;
use crate::checkpoint::bundled::MOBY_DICK;
use crate::checkpoint::load::{Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Context, Error, Result};
use crate::gpu::Executor;
use crate::small_file;
use crate::text::chat_template::{Conversation, Message};
use crate::train::{ProbeRequest, probe};

/// The most tokens to compare.
const MOST_TOKENS: usize = 192;
/// Logits that are computed at once; large vocabularies are compared on fewer tokens.
const MOST_LOGITS: usize = 1 << 25;

/// A text on which tokenizers differ: accents in one character and in two, other scripts, digits,
/// runs of spaces, line breaks.
const UNUSUAL: &str =
    "na\u{ef}ve nai\u{308}ve \u{65e5}\u{672c}\u{8a9e} \u{1f600} 31415926  x\t\tI'LL\r\n\n  don't (\u{ff21})";

/// How far an export is from the model in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Tokens of the text.
    pub tokens: usize,
    /// The largest difference of two logits.
    pub largest_difference: f64,
    /// Mean over the tokens of KL(model in memory ‖ export), in nats.
    pub divergence: f64,
    /// Tokens after which both hold the same token for the most likely one.
    pub same_choice: usize,
}

/// The ids of the text to compare on.
pub(super) fn ids_of_text(files: &ModelFiles, text: Option<&Path>) -> Result<Vec<u32>> {
    let config = files.config();
    let most = MOST_TOKENS.min(config.max_positions).min(MOST_LOGITS / config.vocab).max(1);
    let text = match text {
        Some(path) => small_file::read_text(path).with_context(|| format!("`text` {}", path.display()))?,
        None => MOBY_DICK.chars().take(4 * MOST_TOKENS).collect(),
    };
    let mut ids = match files.tokenizer() {
        Ok(_) => files.prompt_ids(&text, false)?,
        // Any ids do to compare two models.
        Err(_) => (0..most).map(|i| (i * 7919 % config.vocab) as u32).collect(),
    };
    ids.truncate(most);
    if ids.len() < 2 {
        return Err(Error::usage("`text` has fewer than 2 tokens: there is nothing to compare on"));
    }
    Ok(ids)
}

/// Dense logits [tokens, vocabulary] of a model with its adapter, and with this factor of its
/// embeddings.
pub(super) fn logits(device: &mut dyn Executor, files: &ModelFiles, ids: &[u32], embed_scale: f64) -> Result<Vec<f32>> {
    let mut loaded = load(device, &files.source, files.adapter.as_ref(), Train::Nothing)?;
    loaded.model.config.embed_scale = embed_scale;
    let request = ProbeRequest {
        ids: &[ids.to_vec()],
        labels: None,
        grads: false,
        recompute: false,
        attention: Attention::Dense,
        distill: None,
        chunk: None,
    };
    probe(device, &mut loaded, &request)?.remove(0).1.to_f32()
}

/// Fails unless the export's tokenizer gives these ids for the text, and both chat templates write
/// the same for a question, also with a tool where the model has a template of its own for tools.
pub(super) fn same_text(before: &ModelFiles, after: &ModelFiles, ids: &[u32], text: Option<&Path>) -> Result<()> {
    let Ok(tokenizer) = before.tokenizer() else { return Ok(()) };
    let written = after.tokenizer().context("the export's tokenizer")?;
    crate::ensure!(
        tokenizer.encode(UNUSUAL, true)? == written.encode(UNUSUAL, true)?,
        "the export's tokenizer gives other tokens for {UNUSUAL:?}"
    );
    let found = ids_of_text(after, text).context("the export's tokenizer")?;
    if let Some(at) = (0..ids.len()).find(|&i| found.get(i) != Some(&ids[i])) {
        crate::bail!(
            "the export's tokenizer gives other tokens: {:?} for token {at}, and not {}",
            found.get(at),
            ids[at]
        );
    }
    let question: Conversation = vec![Message::new("user", "Why do tides rise twice a day?")].into();
    let is_same = |asked: &Conversation| {
        let [before, after] = [before, after]
            .map(|files| files.template.as_ref().map(|t| t.render(asked, true).map_err(|e| e.to_string())));
        before == after
    };
    crate::ensure!(is_same(&question), "the export's chat template writes another text");
    if before.template.as_ref().is_some_and(|template| template.tool_use_source().is_some()) {
        let tool = json!({
            "type": "function",
            "function": {
                "name": "tide_times",
                "description": "The times of high tide",
                "parameters": {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]},
            },
        });
        let asked = Conversation { tools: Some(json!([tool])), ..question };
        crate::ensure!(is_same(&asked), "the export's chat template for tools writes another text");
    }
    Ok(())
}

/// The tokens that end a generation before, and not after.
pub(super) fn lost_ends(before: &ModelFiles, after: &ModelFiles) -> Vec<u32> {
    let has_tokenizer = before.tokenizer().is_ok();
    before.stop.ids().iter().copied().filter(|id| has_tokenizer && !after.stop.contains(*id)).collect()
}

/// Compares logits [tokens, vocabulary].
pub(super) fn compare(before: &[f32], after: &[f32], vocab: usize) -> Comparison {
    let mut all = Comparison { tokens: 0, largest_difference: 0.0, divergence: 0.0, same_choice: 0 };
    for (p, q) in before.chunks_exact(vocab).zip(after.chunks_exact(vocab)) {
        let log_sum = |x: &[f32]| {
            let most = x.iter().fold(f32::MIN, |m, v| m.max(*v));
            f64::from(most) + x.iter().map(|v| f64::from(v - most).exp()).sum::<f64>().ln()
        };
        let choice = |x: &[f32]| (0..x.len()).max_by(|&a, &b| x[a].total_cmp(&x[b]).then(b.cmp(&a)));
        let (sum_p, sum_q) = (log_sum(p), log_sum(q));
        for (p, q) in p.iter().zip(q) {
            let (log_p, log_q) = (f64::from(*p) - sum_p, f64::from(*q) - sum_q);
            all.divergence += log_p.exp() * (log_p - log_q);
            all.largest_difference = all.largest_difference.max(f64::from((p - q).abs()));
        }
        all.tokens += 1;
        all.same_choice += usize::from(choice(p) == choice(q));
    }
    all.divergence /= all.tokens.max(1) as f64;
    if all.divergence < 0.0 {
        all.divergence = 0.0; // the rounding of a sum that is never below 0
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_template_for_tools_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
        let model = |name: &str, config: serde_json::Value| {
            let to = dir.path().join(name);
            std::fs::create_dir(&to).unwrap();
            for name in ["config.json", "model.safetensors", "tokenizer.json"] {
                std::fs::copy(bundled.join(name), to.join(name)).unwrap();
            }
            std::fs::write(to.join("tokenizer_config.json"), config.to_string()).unwrap();
            ModelFiles::open(&to.to_string_lossy(), None).unwrap()
        };
        let plain = "{% for m in messages %}{{ m.content }}{% endfor %}";
        let for_tools = "{{ tools[0].function.name }}{% for m in messages %}{{ m.content }}{% endfor %}";
        let both = json!([{"name": "default", "template": plain}, {"name": "tool_use", "template": for_tools}]);
        let (both, one) =
            (model("both", json!({"chat_template": both})), model("one", json!({"chat_template": plain})));
        let ids = ids_of_text(&both, None).unwrap();
        same_text(&both, &both, &ids, None).unwrap();
        same_text(&one, &one, &ids, None).unwrap();
        let e = same_text(&both, &one, &ids, None).unwrap_err().to_string();
        assert!(e.contains("template for tools"), "{e}");
    }

    #[test]
    fn a_comparison_is_the_textbooks() {
        let before = [0.0, 0.0, 1.0, 2.0];
        let after = [0.0, 3f32.ln(), 1.0, 2.0];
        let found = compare(&before, &after, 2);
        // KL of (1/2, 1/2) from (1/4, 3/4), and 0.
        let expected = 0.5 * (0.5f64 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln());
        assert!((found.divergence - expected).abs() < 1e-7, "{found:?}");
        assert_eq!((found.tokens, found.same_choice), (2, 1));
        assert!((found.largest_difference - 3f64.ln()).abs() < 1e-6);
        assert!(compare(&[f32::NAN, 0.0], &[0.0, 0.0], 2).divergence.is_nan());
    }
}
