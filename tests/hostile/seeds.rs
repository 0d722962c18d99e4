//! Small valid files of every kind, as seeds for fuzzing and tests/hostile_files.rs.

use std::path::Path;

use longreach::formats::dtype::DType;
use longreach::formats::host_tensor::HostTensor;
use longreach::formats::safetensors_write::write_safetensors;
use serde_json::{Value as Json, json};

/// Valid inputs of a reader of [`READERS`](super::readers::READERS); `scratch` is a folder for
/// temporary files.
pub fn seeds(reader: &str, scratch: &Path) -> Vec<Vec<u8>> {
    match reader {
        "gguf" => vec![gguf_model(), gguf_tokenizer("llama"), gguf_values()],
        "gguf_split" => vec![gguf_parts()],
        "safetensors" => vec![
            safetensors_file(scratch),
            include_bytes!("../../assets/stories260k/model.safetensors")[..4096].to_vec(),
        ],
        "tokenizer" => tokenizers(),
        "gguf_tokenizer" => vec![gguf_tokenizer("llama"), gguf_tokenizer("gpt2")],
        "dataset" => vec![
            DATASET.as_bytes().to_vec(),
            [b"\xEF\xBB\xBF", DATASET.lines().next_back().unwrap().as_bytes()].concat(),
            format!("[{}]", DATASET.trim().replace("\n\n", "\n").replace('\n', ",\n")).into_bytes(),
        ],
        "csv" => vec![CSV.as_bytes().to_vec(), CSV.replace(',', ";").into_bytes()],
        "parquet" => vec![
            include_bytes!("../tables/messages.parquet").to_vec(),
            include_bytes!("../tables/texts.parquet").to_vec(),
            include_bytes!("../tables/ids.parquet").to_vec(),
        ],
        "model_json" => model_jsons(),
        "chat_template" => CHAT_TEMPLATES.iter().map(|t| t.as_bytes().to_vec()).collect(),
        other => panic!("no seeds for {other}"),
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A GGUF file from key-value pairs (key, type number and bytes of the value) and tensors (name,
/// ggml type, dimensions, bytes).
fn gguf(pairs: &[(&str, Vec<u8>)], tensors: &[(&str, u32, &[u64], usize)]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        out.extend(string(key));
        out.extend(value);
    }
    let mut offset = 0;
    for (name, kind, dims, n_bytes) in tensors {
        out.extend(string(name));
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(kind.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += n_bytes.next_multiple_of(32);
    }
    out.resize(out.len().next_multiple_of(32) + offset, 0x3c);
    out
}

fn value_u32(v: u32) -> Vec<u8> {
    [4u32.to_le_bytes(), v.to_le_bytes()].concat()
}

fn value_f32(v: f32) -> Vec<u8> {
    [6u32.to_le_bytes(), v.to_le_bytes()].concat()
}

fn value_text(v: &str) -> Vec<u8> {
    [&8u32.to_le_bytes()[..], &string(v)].concat()
}

fn value_list(kind: u32, values: &[Vec<u8>]) -> Vec<u8> {
    let head = [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(values.len() as u64).to_le_bytes()].concat();
    [head, values.concat()].concat()
}

fn strings(values: &[&str]) -> Vec<u8> {
    value_list(8, &values.iter().map(|v| string(v)).collect::<Vec<_>>())
}

/// A complete Llama of one block, with quantised tensors and RoPE divisors.
fn gguf_model() -> Vec<u8> {
    gguf(&llama_pairs(), LLAMA_TENSORS)
}

/// The same Llama in two parts, one after the other.
fn gguf_parts() -> Vec<u8> {
    let part = |no: u32| [2u32.to_le_bytes().to_vec(), (no as u16).to_le_bytes().to_vec()].concat();
    let n_tensors = LLAMA_TENSORS.len() as u32;
    let split =
        |no: u32| vec![("split.no", part(no)), ("split.count", part(2)), ("split.tensors.count", value_u32(n_tensors))];
    let (first, second) = LLAMA_TENSORS.split_at(5);
    [gguf(&[llama_pairs(), split(0)].concat(), first), gguf(&split(1), second)].concat()
}

fn llama_pairs() -> Vec<(&'static str, Vec<u8>)> {
    let mut pairs = vec![("general.architecture", value_text("llama"))];
    for (key, value) in [
        ("llama.embedding_length", 32),
        ("llama.feed_forward_length", 32),
        ("llama.block_count", 1),
        ("llama.context_length", 64),
        ("llama.attention.head_count", 2),
        ("llama.attention.head_count_kv", 1),
        ("llama.attention.key_length", 4),
        ("general.alignment", 32),
    ] {
        pairs.push((key, value_u32(value)));
    }
    pairs.push(("llama.attention.layer_norm_rms_epsilon", value_f32(1e-5)));
    pairs.push(("llama.rope.freq_base", value_f32(1e4)));
    pairs
}

/// Name, ggml type, dimensions and bytes.
const LLAMA_TENSORS: &[(&str, u32, &[u64], usize)] = &[
    ("token_embd.weight", Q8_0, &[32, 3], 3 * 34),
    ("output_norm.weight", F32, &[32], 128),
    ("rope_freqs.weight", F32, &[2], 8),
    ("blk.0.attn_norm.weight", F32, &[32], 128),
    ("blk.0.attn_q.weight", F16, &[32, 8], 512),
    ("blk.0.attn_k.weight", F16, &[32, 4], 256),
    ("blk.0.attn_v.weight", F16, &[32, 4], 256),
    ("blk.0.attn_output.weight", F16, &[8, 32], 512),
    ("blk.0.ffn_norm.weight", F32, &[32], 128),
    ("blk.0.ffn_gate.weight", 2, &[32, 32], 32 * 18),
    ("blk.0.ffn_up.weight", 3, &[32, 32], 32 * 20),
    ("blk.0.ffn_down.weight", Q8_0, &[32, 32], 32 * 34),
];
const F32: u32 = DType::F32.ggml();
const F16: u32 = DType::F16.ggml();
const Q8_0: u32 = DType::Q8_0.ggml();

/// A value of every type, nested arrays, and a tensor of every element type.
fn gguf_values() -> Vec<u8> {
    let one = |kind: u32, n: usize| [&kind.to_le_bytes()[..], &vec![1; n]].concat();
    let sizes = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
    let names: Vec<String> = (0..13).map(|i| format!("k{i}")).collect();
    let mut pairs: Vec<(&str, Vec<u8>)> = Vec::new();
    for (i, name) in names.iter().enumerate().filter(|(i, _)| !matches!(i, 8 | 9)) {
        pairs.push((name, one(i as u32, sizes[i])));
    }
    let inner = value_list(4, &[vec![1, 0, 0, 0], vec![2, 0, 0, 0]])[4..].to_vec();
    pairs.push(("nested", value_list(9, &[inner.clone(), inner])));
    pairs.push(("words", strings(&["a", "ß", ""])));
    let types = DType::ALL.map(|t| (t.name(), t.ggml(), [t.block_len() as u64, 1, 2], 2 * t.block_bytes()));
    let tensors: Vec<(&str, u32, &[u64], usize)> =
        types.iter().map(|(n, k, dims, size)| (*n, *k, &dims[..], *size)).collect();
    gguf(&pairs, &tensors)
}

fn gguf_tokenizer(kind: &str) -> Vec<u8> {
    let pieces: &[&str] = match kind {
        "llama" => {
            &["<unk>", "<s>", "</s>", "<0x0A>", "<0x61>", "\u{2581}", "a", "b", "ab", "\u{2581}a", "\u{2581}ab", "aa"]
        }
        _ => &["<unk>", "<s>", "</s>", "Ġ", "Ċ", "a", "b", "ab", "Ġa", "Ġab", "x", "<user>"],
    };
    let types: Vec<Vec<u8>> = [2u32, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 4]
        .map(|t| if kind == "llama" || t != 6 { t } else { 1 }.to_le_bytes().to_vec())
        .to_vec();
    let scores: Vec<Vec<u8>> = (0..12).map(|i| (-(i as f32)).to_le_bytes().to_vec()).collect();
    gguf(
        &[
            ("tokenizer.ggml.model", value_text(kind)),
            ("tokenizer.ggml.pre", value_text("qwen2")),
            ("tokenizer.ggml.tokens", strings(pieces)),
            ("tokenizer.ggml.token_type", value_list(5, &types)),
            ("tokenizer.ggml.scores", value_list(6, &scores)),
            ("tokenizer.ggml.merges", strings(&["a b", "Ġ a", "Ġa b"])),
            ("tokenizer.ggml.bos_token_id", value_u32(1)),
            ("tokenizer.ggml.eos_token_id", value_u32(2)),
            ("tokenizer.ggml.unknown_token_id", value_u32(0)),
            ("tokenizer.ggml.add_bos_token", [7u32.to_le_bytes().to_vec(), vec![1]].concat()),
            ("tokenizer.ggml.add_eos_token", [7u32.to_le_bytes().to_vec(), vec![1]].concat()),
            (
                "tokenizer.chat_template",
                value_text("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"),
            ),
        ],
        &[],
    )
}

fn safetensors_file(scratch: &Path) -> Vec<u8> {
    let path = scratch.join("seed.safetensors");
    let half = HostTensor::new(longreach::formats::dtype::DType::BF16, vec![2], vec![0x80, 0x3f, 0x00, 0x40]).unwrap();
    let tensors = [
        ("b".to_owned(), half),
        ("a".to_owned(), HostTensor::from_f32(&[1, 2], &[3.0, 4.0])),
        ("i".to_owned(), HostTensor::from_i32(&[1], &[-1])),
        ("none".to_owned(), HostTensor::from_f32(&[0, 3], &[])),
    ];
    write_safetensors(&path, &tensors, &[("format", "pt")]).unwrap();
    std::fs::read(path).unwrap()
}

const DATASET: &str = r#"{"prompt": "Once", "completion": " upon a time"}
{"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello \u00e9\n"}]}
{"text": "There was a \"cat\".", "extra": {"a": [1, 2.5e300, null, true]}}

{"input_ids": [1, 2, 511], "labels": [-100, 2, 511]}
{"conversations": [{"from": "system", "value": "Be."}, {"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Ho."}]}
{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b", "weight": 0}, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}], "tools": "[]"}
{"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}], "chat_template_kwargs": {"x": [1]}}
{"instruction": "Say", "input": "a", "output": "b", "system": "Be."}
{"input_ids": [5, 6, 7], "text": null}
"#;

const CSV: &str = "id,prompt,completion,input_ids\n1,\"Once, \"\"upon\"\"\n a\",time,\n2,,x,[1]\n3,a,b,\n";

const CHAT_TEMPLATES: [&str; 4] = [
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message.content|trim + eos_token }}{% endfor %}{% if add_generation_prompt %}{{- '<|a|>' }}{% endif %}",
    "{%- set ns = namespace(found=false) %}{% for m in messages[::-1] %}{% if not ns.found and m.role == 'user' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ raise_exception('no') if messages|length > 9 }}",
    "{% macro f(x, y=1) %}{{ x|upper ~ y * 2 ** 3 // 2 % 5 }}{% endmacro %}{{ f('a')|tojson(indent=2) }}{% generation %}{{ strftime_now('%d %b %Y') }}{% endgeneration %}{# c #}",
    "{{ messages|map(attribute='content')|join(', ') }}{% for k, v in {'a': [1, 2], 'b': none}.items() %}{{ k.strip().split('a')[0:1] }}{{ 'x' if v is defined and v else loop.index }}{% endfor %}{% filter upper %}a{% endfilter %}",
];

fn model_jsons() -> Vec<Vec<u8>> {
    let rope = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64});
    let config = json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320, "rope_theta": 5e5, "rope_scaling": rope, "eos_token_id": [1, 2], "rms_norm_eps": 1e-5, "tie_word_embeddings": true});
    let qwen = json!({"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 320, "rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e6}, "layer_types": ["full_attention", "full_attention", "sliding_attention"], "use_sliding_window": true, "sliding_window": 24});
    let gemma = json!({"model_type": "gemma3", "eos_token_id": [1, 106], "vision_config": {}, "text_config": {"model_type": "gemma3_text", "hidden_size": 64,
        "num_hidden_layers": 7, "sliding_window": 16, "rope_local_base_freq": 1e4, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 24,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8}, "sliding_attention": {"rope_theta": 1e4}}}});
    let phi = json!({"model_type": "phi3", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 64,
        "rope_scaling": {"type": "su", "short_factor": [1, 1.5, 2, 3, 4, 5], "long_factor": [1, 2, 3, 4, 5, 6]}});
    let smollm = json!({"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0], "rope_scaling": {"rope_type": "yarn", "factor": 4, "mscale": 1, "mscale_all_dim": 0.5, "truncate": false}});
    let ministral = json!({"model_type": "mistral3", "text_config": {"model_type": "ministral3", "rope_parameters": {"type": "yarn", "factor": 16, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 16384}}});
    let adapter = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "mlp.down_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 3.5}, "use_rslora": true, "lora_dropout": 0.1});
    let tokenizer_config = json!({"chat_template": [{"name": "default", "template": "{{ bos_token }}"}], "bos_token": {"content": "<s>"}, "eos_token": "</s>"});
    let tokens = json!({"tokenizer_class": "LlamaTokenizerFast", "add_eos_token": true, "bos_token": {"content": "<s>", "rstrip": true},
        "additional_special_tokens": ["<a>", {"content": "<b>", "lstrip": false}], "extra_special_tokens": {"image_token": "<i>"},
        "added_tokens_decoder": {"512": {"content": "<c>", "special": false}, "513": {"content": "a", "single_word": true}}, "<d>": 514});
    let index = json!({"metadata": {"total_size": 1}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}});
    let record = json!({"attention": "lrsa", "sink": 16, "lag": 128, "keep": 0.25});
    [config, qwen, gemma, phi, smollm, ministral, adapter, tokenizer_config, tokens, index, record]
        .iter()
        .map(|v| v.to_string().into_bytes())
        .collect()
}

/// Tokenizers that together contain every type of component.
fn tokenizers() -> Vec<Vec<u8>> {
    let added = json!([{"id": 9, "content": "<s>", "single_word": false, "lstrip": true, "rstrip": false, "normalized": false, "special": true},
                       {"id": 10, "content": "hi", "single_word": true, "lstrip": false, "rstrip": true, "normalized": true, "special": false}]);
    let vocab = json!({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġa": 4, "<0x0A>": 5, "\u{2581}": 6, "<unk>": 7, "c": 8});
    let bpe = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "vocab": vocab, "merges": ["a b", "Ġ a"]});
    let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let split = json!({"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\s+(?!\\S)"}, "behavior": "Isolated", "invert": false});
    let template = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [9], "tokens": ["<s>"]}}});
    let file = |model: &Json, normalizer: Json, pre: Json, post: Json, decoder: Json| {
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre,
            "post_processor": post, "decoder": decoder, "model": model})
    };
    let sequence = |key: &str, parts: Vec<Json>| json!({"type": "Sequence", key: parts});
    let replace = |a: Json, b: &str| json!({"type": "Replace", "pattern": a, "content": b});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [["<unk>", 0.0], ["a", -1.0], ["\u{2581}a", -2.5], ["ab", -3.0]]});
    let word_piece = json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"<unk>": 0, "a": 1, "##b": 2}});
    let word_level = json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "hello": 2}});
    let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true});
    let merges_as_pairs = {
        let mut model = bpe.clone();
        model["merges"] = json!([["a", "b"], ["Ġ", "a"]]);
        model["continuing_subword_prefix"] = json!("");
        model
    };
    [
        file(&bpe, json!({"type": "NFC"}), sequence("pretokenizers", vec![split, level.clone()]), sequence("processors", vec![level.clone(), template.clone()]), level.clone()),
        file(&merges_as_pairs, sequence("normalizers", vec![json!({"type": "Prepend", "prepend": "\u{2581}"}), replace(json!({"String": " "}), "\u{2581}")]), Json::Null, template.clone(),
            sequence("decoders", vec![replace(json!({"String": "\u{2581}"}), " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"}), json!({"type": "Strip", "content": " ", "start": 1, "stop": 0})])),
        file(&unigram, sequence("normalizers", vec![json!({"type": "NFKC"}), json!({"type": "Nmt"}), replace(json!({"String": "  "}), " "), json!({"type": "Strip", "strip_left": true, "strip_right": true}), json!({"type": "StripAccents"})]), metaspace.clone(), Json::Null, metaspace),
        file(&word_piece, bert, json!({"type": "BertPreTokenizer"}), json!({"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}), json!({"type": "WordPiece", "prefix": "##", "cleanup": true})),
        file(&word_level, json!({"type": "Lowercase"}), sequence("pretokenizers", vec![json!({"type": "Whitespace"}), json!({"type": "Punctuation", "behavior": "MergedWithPrevious"}), json!({"type": "Digits", "individual_digits": false}), json!({"type": "UnicodeScripts"}), json!({"type": "FixedLength", "length": 3})]),
            json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": true}), Json::Null),
        file(&bpe, json!({"type": "ByteLevel"}), json!({"type": "WhitespaceSplit"}), Json::Null, Json::Null),
    ]
    .iter()
    .map(|v| v.to_string().into_bytes())
    .collect()
}
