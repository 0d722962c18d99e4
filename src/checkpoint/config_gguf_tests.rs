use super::super::gguf_keys::{self, KEYS, Use};
use super::*;
use crate::formats::gguf::Value;
use crate::formats::gguf::testing::gguf_bytes;
use crate::formats::host_tensor::HostTensor;
use crate::model::rope_config::{QueryScale, RopeConfig, RopeScaling};

/// Keys of a model of four layers, without the architecture in front, and their values.
type Pairs<'a> = &'a [(&'a str, Value)];

fn open(architecture: &str, more: Pairs, tensors: &[(&str, HostTensor)]) -> Result<Gguf> {
    let sizes = [("embedding_length", 16), ("feed_forward_length", 12), ("block_count", 4), ("context_length", 64)];
    let heads = [("attention.head_count", 4), ("attention.head_count_kv", 2)];
    let mut pairs: Vec<(&str, Value)> = sizes.into_iter().chain(heads).map(|(k, v)| (k, Value::U64(v))).collect();
    pairs.push(("attention.layer_norm_rms_epsilon", Value::F64(1e-5)));
    pairs.retain(|(key, _)| more.iter().all(|(other, _)| key != other));
    let mut pairs: Vec<(String, Value)> =
        pairs.iter().chain(more).map(|(k, v)| (format!("{architecture}.{k}"), v.clone())).collect();
    pairs.push(("general.architecture".into(), Value::String(architecture.into())));
    pairs.push(("tokenizer.ggml.eos_token_id".into(), Value::U64(2)));
    pairs.push(("tokenizer.ggml.eot_token_id".into(), Value::U64(7)));
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let mut all = vec![("token_embd.weight", HostTensor::from_f32(&[10, 16], &[0.5; 160]))];
    all.extend(tensors.iter().cloned());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), gguf_bytes(&pairs, &all)).unwrap();
    Gguf::open(file.path())
}

fn read_with(architecture: &str, more: Pairs, tensors: &[(&str, HostTensor)]) -> Result<ModelConfig> {
    ModelConfig::from_gguf(&open(architecture, more, tensors)?)
}

fn read(architecture: &str, more: Pairs) -> Result<ModelConfig> {
    read_with(architecture, more, &[])
}

fn refusal(architecture: &str, more: Pairs) -> String {
    read(architecture, more).expect_err("must be refused").to_string()
}

fn divisors(name: &'static str, values: &[f32]) -> (&'static str, HostTensor) {
    (name, HostTensor::from_f32(&[values.len()], values))
}

fn n(value: u64) -> Value {
    Value::U64(value)
}

fn x(value: f64) -> Value {
    Value::F64(value)
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn flags(values: &[bool]) -> Value {
    Value::Array(values.iter().map(|v| Value::Bool(*v)).collect())
}

#[test]
fn facts_come_from_keys_and_tensors() {
    let c = read("llama", &[]).unwrap();
    assert_eq!((c.vocab, c.head_dim, c.n_kv_heads, c.tied, c.qkv_bias), (10, 4, 2, true, false));
    assert_eq!((c.bos, c.eos.clone(), c.ropes.clone()), (None, vec![2, 7], vec![RopeConfig::plain(1e4, 4)]));
    let output = ("output.weight", HostTensor::from_f32(&[10, 16], &[0.5; 160]));
    let bias = ("blk.0.attn_q.bias", HostTensor::from_f32(&[16], &[0.0; 16]));
    let c = read_with("llama", &[], &[output, bias]).unwrap();
    assert_eq!((c.tied, c.qkv_bias), (false, true));
}

#[test]
fn an_architecture_is_a_family_and_a_window_tells_two_apart() {
    let of = |architecture: &str, more: Pairs| read(architecture, more).unwrap().architecture.model_type();
    let window = [("attention.sliding_window", n(16))];
    for (name, family) in [
        ("llama", "llama"),
        ("qwen2", "qwen2"),
        ("qwen3", "qwen3"),
        ("gemma3", "gemma3_text"),
        ("smollm3", "smollm3"),
        ("phi3", "phi3"),
        ("granite", "granite"),
        ("mistral3", "ministral3"),
    ] {
        assert_eq!(of(name, &[]), family);
    }
    assert_eq!((of("llama", &window), of("olmo2", &window)), ("mistral", "olmo3"));
    let e = refusal("falcon", &[]);
    assert!(e.contains("'falcon'") && e.contains("llama, ") && e.contains("gemma3"), "{e}");
}

/// Every key that is read: an architecture, keys, and what the configuration must then be.
#[test]
fn every_key_that_is_read_counts() {
    type Case<'a> = (&'a str, &'a [(&'a str, Value)], fn(&ModelConfig) -> bool);
    let window = || ("attention.sliding_window", n(16));
    let yarn = || [("rope.scaling.type", text("yarn")), ("rope.scaling.factor", x(4.0))];
    let with = |more: &[(&'static str, Value)]| yarn().into_iter().chain(more.iter().cloned()).collect::<Vec<_>>();
    let original = with(&[("rope.scaling.original_context_length", n(16))]);
    let log = with(&[("rope.scaling.yarn_log_multiplier", x(1.0))]);
    let factor = with(&[("rope.scaling.yarn_attn_factor", x(1.25))]);
    let fast = with(&[("rope.scaling.yarn_beta_fast", x(16.0))]);
    let slow = with(&[("rope.scaling.yarn_beta_slow", x(2.0))]);
    let cases: &[Case] = &[
        ("llama", &[("context_length", n(128))], |c| c.max_positions == 128),
        ("llama", &[("embedding_length", n(32))], |c| (c.hidden, c.head_dim) == (32, 8)),
        ("llama", &[("block_count", n(2))], |c| c.n_layers() == 2),
        ("llama", &[("feed_forward_length", n(20))], |c| c.inner == 20),
        ("llama", &[("feed_forward_length", Value::Array(vec![n(20); 4]))], |c| c.inner == 20),
        ("llama", &[("attention.head_count", n(2))], |c| c.n_heads == 2),
        ("llama", &[("attention.head_count_kv", n(4))], |c| c.n_kv_heads == 4),
        ("llama", &[("attention.key_length", n(8)), ("attention.value_length", n(8))], |c| c.head_dim == 8),
        ("llama", &[("attention.layer_norm_rms_epsilon", x(0.25))], |c| c.rms_eps == 0.25),
        ("llama", &[window()], |c| c.layers.iter().all(|l| l.window == Some(16))),
        ("phi3", &[window()], |c| c.layers.iter().all(|l| l.window == Some(16))),
        ("phi3", &[("attention.sliding_window", n(0))], |c| c.layers.iter().all(|l| l.window.is_none())),
        ("gemma3", &[window(), ("block_count", n(7))], |c| (0..7).all(|i| c.layers[i].window.is_none() == (i == 5))),
        ("olmo2", &[window()], |c| (0..4).all(|i| c.layers[i].window.is_none() == (i == 3))),
        ("gemma3", &[window(), ("attention.sliding_window_pattern", n(2))], |c| {
            (0..4).all(|i| c.layers[i].window.is_none() == (i % 2 == 1))
        }),
        ("qwen3", &[window(), ("attention.sliding_window_pattern", flags(&[false, true, true, false]))], |c| {
            (0..4).all(|i| c.layers[i].window.is_some() == (i == 1 || i == 2))
        }),
        ("granite", &[("attention.scale", x(0.3))], |c| c.layers[3].scale == 0.3),
        ("gemma3", &[("attention.scale", x(0.3))], |c| c.layers[0].scale == 0.3),
        ("granite", &[("embedding_scale", x(12.0))], |c| (c.embed_scale, c.noise_scale) == (12.0, 12.0)),
        ("granite", &[("residual_scale", x(f64::from(0.22f32)))], |c| c.residual_scale == 0.22),
        ("granite", &[("logit_scale", x(8.0))], |c| c.logit_scale == 0.125),
        ("gemma3", &[("final_logit_softcapping", x(30.0))], |c| c.logit_softcap == Some(30.0)),
        (
            "mistral3",
            &[("attention.temperature_scale", x(0.1)), ("rope.scaling.original_context_length", n(32))],
            |c| c.ropes[0].query_scale == Some(QueryScale { beta: 0.1, original_max_positions: 32 }),
        ),
        ("smollm3", &[], |c| (0..4).all(|i| c.layers[i].rope.is_none() == (i == 3))),
        ("smollm3", &[("attention.rope_pattern", flags(&[true, false, true, true]))], |c| {
            (0..4).all(|i| c.layers[i].rope.is_none() == (i == 1))
        }),
        ("phi3", &[("rope.dimension_count", n(2))], |c| c.ropes[0].rotary_dim == 2),
        ("llama", &[("rope.freq_base", x(5e5))], |c| c.ropes == [RopeConfig::plain(5e5, 4)]),
        ("gemma3", &[("rope.global.freq_base", x(1e6))], |c| c.ropes == [RopeConfig::plain(1e6, 4)]),
        ("gemma3", &[window(), ("rope.freq_base", x(1e6))], |c| {
            c.ropes == [1e6, 1e4].map(|theta| RopeConfig::plain(theta, 4)) && c.layers[0].rope == Some(1)
        }),
        ("gemma3", &[window(), ("rope.freq_base_swa", x(2e4))], |c| c.ropes[1].theta == 2e4),
        ("gemma3", &[window(), ("rope.local.freq_base", x(2e4))], |c| c.ropes[1].theta == 2e4),
        ("gemma3", &[window(), ("rope.scaling.factor", x(8.0))], |c| {
            c.ropes[0].scaling == RopeScaling::Linear { factor: 8.0 } && c.ropes[1].scaling == RopeScaling::None
        }),
        ("olmo2", &[window(), ("rope.scaling.factor", x(8.0))], |c| {
            c.ropes[0].scaling == RopeScaling::Linear { factor: 8.0 } && c.ropes[1] == RopeConfig::plain(1e4, 4)
        }),
        ("llama", &[("rope.scaling.factor", x(4.0))], |c| c.ropes[0].scaling == RopeScaling::Linear { factor: 4.0 }),
        ("llama", &[("rope.scaling.factor", x(0.0))], |c| c.ropes[0].scaling == RopeScaling::None),
        ("llama", &[("rope.scale_linear", x(4.0))], |c| c.ropes[0].scaling == RopeScaling::Linear { factor: 4.0 }),
        ("llama", &[("rope.scaling.type", text("none")), ("rope.scaling.factor", x(4.0))], |c| {
            c.ropes[0].scaling == RopeScaling::None
        }),
        ("llama", &[("rope.scaling.attn_factor", x(1.5)), ("rope.scaling.factor", x(4.0))], |c| {
            matches!(&c.ropes[0].scaling, RopeScaling::LongRope { short, long, attention_factor: 1.5, .. }
                if short == &[4.0; 2] && long == short)
        }),
        ("granite", &[("rope.scaling.finetuned", Value::Bool(false))], |c| c.layers.iter().all(|l| l.rope.is_none())),
        ("llama", &[("rope.scaling.finetuned", Value::Bool(false))], |c| c.layers.iter().all(|l| l.rope.is_some())),
        ("qwen2", &original, |c| {
            let usual = 0.1 * 4f64.ln() + 1.0;
            c.ropes[0].scaling
                == RopeScaling::Yarn {
                    factor: 4.0,
                    original_max_positions: 16,
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    truncate: true,
                    attention_factor: usual,
                }
        }),
        ("qwen2", &yarn(), |c| c.max_positions == 4 * 64), // as transformers' reader, the length that YaRN reaches
        ("mistral3", &log, |c| matches!(c.ropes[0].scaling, RopeScaling::Yarn { attention_factor: 1.0, .. })),
        ("olmo2", &factor, |c| matches!(c.ropes[0].scaling, RopeScaling::Yarn { attention_factor: 1.25, .. })),
        ("qwen2", &fast, |c| matches!(c.ropes[0].scaling, RopeScaling::Yarn { beta_fast: 16.0, .. })),
        ("qwen2", &slow, |c| matches!(c.ropes[0].scaling, RopeScaling::Yarn { beta_slow: 2.0, .. })),
    ];
    for (architecture, keys, holds) in cases {
        let config = read(architecture, keys).unwrap_or_else(|e| panic!("{architecture} {keys:?}: {e}"));
        assert!(holds(&config), "{architecture} {keys:?}: {config:?}");
    }
    // These three must agree with other keys, and the next one is ignored where it may be read.
    for key in ["attention.value_length", "attention.key_length_swa", "attention.value_length_swa"] {
        assert!(refusal("llama", &[(key, n(8))]).contains(key));
    }
    for key in ["rope.dimension_count", "rope.dimension_count_swa"] {
        assert!(refusal("llama", &[(key, n(2))]).contains(key));
    }
    let gemma = read("gemma3", &[]).unwrap();
    assert_eq!(read("gemma3", &[("attn_logit_softcapping", x(50.0))]).unwrap(), gemma);
    let tested: Vec<&str> = cases.iter().flat_map(|(_, keys, _)| keys.iter().map(|(key, _)| *key)).collect();
    let elsewhere = [
        "attention.key_length_swa",
        "attention.value_length_swa",
        "rope.dimension_count_swa",
        "attn_logit_softcapping",
    ];
    for (key, _) in KEYS.iter().filter(|(_, what)| matches!(what, Use::Read | Use::ReadBy(..))) {
        assert!(tested.contains(key) || elsewhere.contains(key), "{key} is read, but no case shows it");
    }
}

#[test]
fn every_other_key_is_neutral_or_refused_by_name_or_without_effect() {
    let plain = read("llama", &[]).unwrap();
    for (key, what) in KEYS {
        let key = if key.ends_with('.') { format!("{key}some") } else { key.to_string() };
        match what {
            Use::Read => {}
            Use::NoEffect => assert_eq!(read("llama", &[(&key, x(7.0))]).unwrap(), plain, "{key}"),
            Use::Neutral(numbers) | Use::ReadBy(_, numbers) => {
                let e = refusal("llama", &[(&key, x(7.0))]);
                assert!(e.contains(&format!("'llama.{key}'")) && e.contains('7'), "{e}");
                for number in *numbers {
                    assert_eq!(read("llama", &[(&key, x(*number))]).unwrap(), plain, "{key} = {number}");
                }
            }
        }
    }
    assert!(refusal("llama", &[("attention.causal", Value::Bool(false))]).contains("attention.causal"));
    assert_eq!(read("llama", &[("attention.causal", Value::Bool(true))]).unwrap(), plain);
    let e = refusal("llama", &[("rope.dimension_sections", Value::Array(vec![n(1), n(0)]))]);
    assert!(e.contains("rope.dimension_sections"), "{e}");
}

#[test]
fn unknown_keys_are_noted() {
    let gguf = open("llama", &[("new.key", n(1)), ("vocab_size", n(10)), ("ssm.some", n(0))], &[]).unwrap();
    let note = gguf_keys::unknown_note(&gguf.metadata).unwrap();
    assert!(note.ends_with("ignored: llama.new.key"), "{note}");
    assert_eq!(gguf_keys::unknown_note(&open("llama", &[], &[]).unwrap().metadata), None);
}

#[test]
fn divisors_of_frequencies_come_from_tensors() {
    let of = |architecture: &str, more: Pairs, tensors: &[(&str, HostTensor)]| {
        read_with(architecture, more, tensors).map(|c| c.ropes[0].scaling.clone())
    };
    let freqs = divisors("rope_freqs.weight", &[1.0, 8.0]);
    let short = divisors("rope_factors_short.weight", &[1.0, 2.0]);
    let long = divisors("rope_factors_long.weight", &[3.0, 4.0]);
    assert_eq!(of("llama", &[], std::slice::from_ref(&freqs)).unwrap(), RopeScaling::Factors(vec![1.0, 8.0]));
    let factor = [("rope.scaling.factor", x(2.0))];
    assert_eq!(of("llama", &factor, std::slice::from_ref(&freqs)).unwrap(), RopeScaling::Factors(vec![2.0, 16.0]));
    let keys = [("rope.scaling.original_context_length", n(32)), ("rope.scaling.attn_factor", x(1.5))];
    let expected = RopeScaling::LongRope {
        short: vec![1.0, 2.0],
        long: vec![3.0, 4.0],
        original_max_positions: 32,
        attention_factor: 1.5,
    };
    assert_eq!(of("phi3", &keys, &[short.clone(), long.clone()]).unwrap(), expected);
    let wrong = |more: Pairs, tensors: &[(&str, HostTensor)]| of("phi3", more, tensors).unwrap_err().to_string();
    assert!(wrong(&[], std::slice::from_ref(&short)).contains("both rope_factors_short.weight and"));
    assert!(wrong(&[], &[freqs.clone(), short, long]).contains("expected rope_freqs.weight, or both"));
    assert!(wrong(&[("rope.scaling.type", text("longrope"))], &[]).contains("longrope"));
    assert!(wrong(&[("rope.scaling.type", text("yarn"))], &[freqs]).contains("YaRN together"));
    assert!(wrong(&[("rope.scaling.type", text("other"))], &[]).contains("'other'"));
}

#[test]
fn the_score_scale_of_gemma_is_that_of_its_heads_except_in_the_largest_model() {
    assert_eq!(read("gemma3", &[("attention.key_length", n(16))]).unwrap().layers[0].scale, 0.25);
    let largest = [("attention.key_length", n(16)), ("block_count", n(62)), ("embedding_length", n(144))];
    assert_eq!(read("gemma3", &largest).unwrap().layers[0].scale, 1.0 / 6.0);
    let gemma = read("gemma3", &[]).unwrap();
    assert_eq!((gemma.embed_scale, gemma.noise_scale), (4.0, 1.0));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (architecture, key, value, word) in [
        ("llama", "expert_count", n(8), "llama.expert_count"),
        ("llama", "attention.key_length", n(0), "head_dim"),
        ("qwen2", "attention.sliding_window", n(16), "qwen2.attention.sliding_window_pattern"),
        ("granite", "attention.sliding_window", n(16), "granite.attention.sliding_window"),
        ("llama", "feed_forward_length", Value::Array(vec![n(12), n(16)]), "different sizes (12 and 16)"),
        ("gemma3", "attention.sliding_window_pattern", flags(&[true]), "4 layers, found 1"),
    ] {
        let window = [("attention.sliding_window", n(16)), (key, value.clone())];
        let keys = if key.ends_with("pattern") { &window[..] } else { &window[1..] };
        let e = refusal(architecture, keys);
        assert!(e.contains(word), "{word}: {e}");
    }
    // A window of all positions excludes nothing.
    assert_eq!(read("qwen2", &[("attention.sliding_window", n(64))]).unwrap(), read("qwen2", &[]).unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = |pairs: &[(&str, Value)]| {
        std::fs::write(file.path(), gguf_bytes(pairs, &[])).unwrap();
        ModelConfig::from_gguf(&Gguf::open(file.path()).unwrap()).unwrap_err().to_string()
    };
    assert!(error(&[("general.type", text("adapter"))]).contains("'adapter'"));
    assert!(error(&[]).contains("general.architecture"));
}

#[test]
fn a_number_stored_in_f32_is_the_decimal_that_was_meant() {
    assert_eq!(gguf_keys::decimal(f64::from(1e-5f32)), 1e-5);
    assert_eq!(gguf_keys::decimal(1e-5), 1e-5);
    assert!(gguf_keys::decimal(f64::INFINITY).is_infinite());
}
