//! `longreach info --model MODEL`: the family of a model, its sizes, and how each of its layers attends.

use serde_json::{Value, json};

use super::output::print_line;
use crate::checkpoint::families;
use crate::checkpoint::model_facts::ModelFacts;
use crate::checkpoint::model_files::open_weights;
use crate::checkpoint::rope_override::RopeOverride;
use crate::error::Result;
use crate::model::config::ModelConfig;
use crate::model::rope_config::RopeScaling;

/// Prints the description, as JSON if asked for. A RoPE scaling takes the place of the model's own.
pub(super) fn describe(model: &str, scaling: Option<RopeOverride>, as_json: bool) -> Result<()> {
    let mut source = open_weights(model)?;
    if let Some(scaling) = scaling {
        source.rescale(scaling)?;
    }
    let facts = ModelFacts::of(&source)?;
    if as_json {
        return print_line(&to_json(&facts).to_string());
    }
    let of_files = lines_of_files(&facts);
    lines(&facts.config).iter().chain(&of_files).chain(&source.notes()).try_for_each(|line| print_line(line))
}

/// What the files hold beside the configuration.
fn lines_of_files(facts: &ModelFacts) -> Vec<String> {
    let (mib, types) = (facts.weight_bytes as f64 / f64::from(1 << 20), facts.type_names());
    let template = match (facts.has_tokenizer, facts.has_chat_template) {
        (true, true) => "tokenizer and chat template",
        (true, false) => "tokenizer, no chat template",
        (false, _) => "no tokenizer",
    };
    vec![format!("weights  {} parameters, {mib:.1} MiB as {types}", facts.n_parameters), format!("text     {template}")]
}

fn to_json(facts: &ModelFacts) -> Value {
    let config = &facts.config;
    let layer = |i: usize| {
        let rope = config.layers[i].rope.map(|rope| &config.ropes[rope]);
        json!({"window": config.window(i), "rope_theta": rope.map(|rope| rope.theta)})
    };
    json!({
        "family": facts.family(),
        "class": facts.class(),
        "layers": (0..config.n_layers()).map(layer).collect::<Vec<_>>(),
        "hidden_size": config.hidden,
        "intermediate_size": config.inner,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab,
        "max_position_embeddings": config.max_positions,
        "parameters": facts.n_parameters,
        "weight_bytes": facts.weight_bytes,
        "weight_types": facts.types.iter().map(|(dtype, n)| json!({"type": dtype.name(), "parameters": n})).collect::<Vec<_>>(),
        "has_tokenizer": facts.has_tokenizer,
        "has_chat_template": facts.has_chat_template,
    })
}

fn lines(config: &ModelConfig) -> Vec<String> {
    let layers = |is_meant: &dyn Fn(usize) -> bool| {
        let found: Vec<usize> = (0..config.n_layers()).filter(|&layer| is_meant(layer)).collect();
        (found.len(), ranges(&found))
    };
    let mut out = vec![
        format!("family   {} ({})", config.architecture.model_type(), families::of(config.architecture).class),
        format!(
            "sizes    {} layers of {} channels, {} query heads and {} key heads of {}, {} inside the feed-forward part, \
             {} tokens in the vocabulary",
            config.n_layers(),
            config.hidden,
            config.n_heads,
            config.n_kv_heads,
            config.head_dim,
            config.inner,
            config.vocab
        ),
        format!("length   {} positions", config.max_positions),
    ];
    let mut windows: Vec<usize> = (0..config.n_layers()).filter_map(|layer| config.window(layer)).collect();
    windows.sort_unstable();
    windows.dedup();
    let (n_full, full) = layers(&|layer| config.window(layer).is_none());
    match n_full {
        0 => out.push("full     no layer".to_string()),
        n if n == config.n_layers() => out.push("full     all layers".to_string()),
        n => out.push(format!("full     {}: {full}", layers_of(n))),
    }
    for window in windows {
        let (n, which) = layers(&|layer| config.window(layer) == Some(window));
        out.push(format!("window   {window} tokens in {}: {which}", layers_of(n)));
    }
    let (n_still, still) = layers(&|layer| config.layers[layer].rope.is_none());
    if n_still > 0 {
        out.push(format!("no RoPE  {}: {still}", layers_of(n_still)));
    }
    out.extend(config.ropes.first().and_then(|rope| scaling_line(&rope.scaling)));
    out
}

/// The RoPE scaling of full layers in words, if there is one.
fn scaling_line(scaling: &RopeScaling) -> Option<String> {
    let said = match scaling {
        RopeScaling::None => return None,
        RopeScaling::Linear { factor } => format!("linear by {factor}"),
        RopeScaling::Dynamic { factor, original_max_positions } => {
            format!("dynamic by {factor}, from {original_max_positions} positions")
        }
        RopeScaling::Yarn { factor, original_max_positions, .. } => {
            format!("YaRN by {factor}, from {original_max_positions} positions")
        }
        RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => "divisors of each frequency, as in Llama 3".into(),
        RopeScaling::LongRope { .. } => "LongRoPE".into(),
    };
    Some(format!("RoPE     {said}"))
}

fn layers_of(n: usize) -> String {
    if n == 1 { "1 layer".to_string() } else { format!("{n} layers") }
}

/// Ascending numbers in short, such as `0-4, 6`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let one = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    };
    runs.map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::weights::WeightSource;
    use std::path::Path;

    #[test]
    fn the_layers_of_a_model_are_listed_by_kind() {
        let golden = |name: &str| {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
            lines(WeightSource::open(&dir).unwrap().config())
        };
        let gemma = golden("gemma3");
        assert_eq!(gemma[0], "family   gemma3_text (Gemma3ForCausalLM)");
        assert_eq!(gemma[3..], ["full     1 layer: 5", "window   16 tokens in 5 layers: 0-4"]);
        assert_eq!(golden("smollm3")[3..], ["full     all layers", "no RoPE  1 layer: 3"]);
        assert_eq!(golden("mistral-window")[3], "full     no layer");
        assert_eq!(ranges(&[0, 1, 2, 4, 6, 7]), "0-2, 4, 6-7");
    }

    #[test]
    fn what_the_files_hold_is_said_in_two_lines() {
        let facts = ModelFacts::of(&crate::checkpoint::bundled::stories().unwrap()).unwrap();
        let said = lines_of_files(&facts);
        assert!(said[0].starts_with(&format!("weights  {} parameters, ", facts.n_parameters)), "{said:?}");
        assert_eq!(said[1], "text     tokenizer, no chat template");
        assert_eq!(to_json(&facts)["parameters"], json!(facts.n_parameters));
    }
}
