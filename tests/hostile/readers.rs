//! Every reader of untrusted files, as a function of bytes, for fuzzing and tests/hostile_files.rs.
//!
//! Each writes the bytes to the file that its reader expects, reads it, and uses the result as a
//! run would, since an accepted file must also be safe to use. Results are not checked, only that
//! the call returns.

use std::path::Path;
use std::sync::OnceLock;

use longreach::checkpoint::adapter_config::AdapterConfig;
use longreach::checkpoint::adapter_file::expected_tensors;
use longreach::checkpoint::record::Record;
use longreach::checkpoint::weight_names::expected_names;
use longreach::checkpoint::weights::WeightSource;
use longreach::data::dataset;
use longreach::formats::gguf::Gguf;
use longreach::formats::host_tensor::HostTensor;
use longreach::formats::safetensors_file::Checkpoint;
use longreach::model::config::ModelConfig;
use longreach::model::rope;
use longreach::text::chat_template::{ChatTemplate, Message};
use longreach::text::stop::StopTokens;
use longreach::text::tokenizer::Tokenizer;

/// A reader, called with its scratch folder and the bytes.
pub type Reader = fn(&Path, &[u8]);

/// All readers by name.
pub const READERS: [(&str, Reader); 10] = [
    ("gguf", gguf),
    ("gguf_split", gguf_split),
    ("safetensors", safetensors),
    ("tokenizer", tokenizer),
    ("gguf_tokenizer", gguf_tokenizer),
    ("dataset", dataset),
    ("csv", csv),
    ("parquet", parquet),
    ("model_json", model_json),
    ("chat_template", chat_template),
];

/// Texts that a tokenizer must encode or reject.
const TEXTS: [&str; 5] = [
    "",
    "Once upon a time, 1234 days",
    " \n\n\t  x",
    "naïve 🦙 日本語 \u{FDFA}\u{0}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
];

fn write(scratch: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = scratch.join(name);
    std::fs::write(&path, bytes).expect("the scratch folder can be written");
    path
}

fn use_tensor(tensor: &HostTensor) {
    let _ = (tensor.to_f32(), tensor.to_i64());
}

/// A GGUF file: header, configuration, every tensor.
pub fn gguf(scratch: &Path, bytes: &[u8]) {
    use_gguf(&write(scratch, "model.gguf", bytes));
}

/// A model in two GGUF files: those of the first, and those of the second from the last "GGUF" on.
pub fn gguf_split(scratch: &Path, bytes: &[u8]) {
    let cut = bytes.windows(4).rposition(|word| word == b"GGUF").unwrap_or(0);
    write(scratch, "model-00002-of-00002.gguf", &bytes[cut..]);
    use_gguf(&write(scratch, "model-00001-of-00002.gguf", &bytes[..cut]));
}

fn use_gguf(path: &Path) {
    let Ok(file) = Gguf::open(path) else { return };
    for (name, _) in file.tensors() {
        use_tensor(&file.read(name).expect("a tensor that was placed in the file is read"));
    }
    let Ok(config) = ModelConfig::from_gguf(&file) else { return };
    use_config(&config);
    let Ok(source) = WeightSource::open(path) else { return };
    for (name, shape) in expected_names(&config) {
        use_tensor(&source.read(&name, &shape).expect("a weight that was checked is read"));
    }
}

fn use_config(config: &ModelConfig) {
    let _ = ModelConfig { hf_json: None, ..config.clone() }.to_hf_json();
    for rope in &config.ropes {
        let _ = rope.llama3_from_factors();
        let _ = rope::tables(rope, 2, 0..2);
    }
}

/// A safetensors file: header and every tensor.
pub fn safetensors(scratch: &Path, bytes: &[u8]) {
    let path = write(scratch, "model.safetensors", bytes);
    let Ok(file) = Checkpoint::open(&path) else { return };
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in names {
        if let Ok(tensor) = file.read(&name) {
            use_tensor(&tensor);
        }
    }
}

fn use_tokenizer(tokenizer: &Tokenizer) {
    for text in TEXTS {
        let _ = tokenizer.encode_continuation(text);
        let _ = tokenizer.encode_with_offsets(text, false);
        let Ok(ids) = tokenizer.encode(text, true) else { continue };
        let _ = tokenizer.decode(&ids, false);
        let mut stream = tokenizer.stream();
        for id in ids.into_iter().take(20) {
            let _ = stream.push(id);
        }
        let _ = stream.finish();
    }
    let some: Vec<u32> = (0..300).filter(|&id| tokenizer.id_to_token(id).is_some()).collect();
    let _ = tokenizer.decode(&some, true);
    let _ = (tokenizer.bos(), tokenizer.eos(), tokenizer.to_json());
}

/// A `tokenizer.json`.
pub fn tokenizer(_: &Path, bytes: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_json_bytes(bytes) {
        use_tokenizer(&tokenizer);
    }
}

/// The tokenizer, stop tokens and chat template in a GGUF file.
pub fn gguf_tokenizer(scratch: &Path, bytes: &[u8]) {
    let Ok(file) = Gguf::open(&write(scratch, "tokenizer.gguf", bytes)) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(&file.metadata) else { return };
    let _ = StopTokens::from_gguf(&file.metadata, Some(&tokenizer));
    let _ = ChatTemplate::from_gguf(&file.metadata);
    use_tokenizer(&tokenizer);
}

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A file of training data in JSON.
pub fn dataset(scratch: &Path, bytes: &[u8]) {
    data(scratch, "train.jsonl", bytes);
}

/// A table of training data as text.
pub fn csv(scratch: &Path, bytes: &[u8]) {
    data(scratch, "train.csv", bytes);
}

/// A Parquet table of training data.
pub fn parquet(scratch: &Path, bytes: &[u8]) {
    data(scratch, "train.parquet", bytes);
}

fn data(scratch: &Path, name: &str, bytes: &[u8]) {
    static PARTS: OnceLock<(Tokenizer, ChatTemplate)> = OnceLock::new();
    let (tokenizer, template) = PARTS.get_or_init(|| {
        let json = include_bytes!("../../assets/stories260k/tokenizer.json");
        (Tokenizer::from_json_bytes(json).unwrap(), ChatTemplate::new(CHATML, "<s>", "</s>").unwrap())
    });
    let path = write(scratch, name, bytes);
    let reader = dataset::Reader {
        tokenizer: Some(tokenizer),
        template: Some(template),
        eos: Some(2),
        vocab_size: 512,
        max_length: Some(64),
        long: longreach::data::long::Long::Window,
        overlap: 8,
        pairs: true,
    };
    let _ = reader.read_file(&path);
}

/// The same bytes as each of the JSON files of a model folder.
pub fn model_json(scratch: &Path, bytes: &[u8]) {
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "longreach.json",
        "model.safetensors.index.json",
    ] {
        write(scratch, name, bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(config) = ModelConfig::from_hf_json(text) {
            use_config(&config);
        }
        let model = small_model();
        if let Ok(adapter) = AdapterConfig::from_json(text, model) {
            let _ = (expected_tensors(&adapter, model), adapter.to_json());
        }
    }
    write(scratch, "tokenizer.json", include_bytes!("../../assets/stories260k/tokenizer.json"));
    if let Ok(tokenizer) = Tokenizer::from_dir(scratch) {
        use_tokenizer(&tokenizer);
    }
    let _ = StopTokens::from_dir(scratch, None);
    let _ = ChatTemplate::from_dir(scratch);
    let _ = Checkpoint::open(scratch);
    if let Ok(Some(record)) = Record::read(scratch) {
        let _ = record.attention.attention().map(|a| a.cache_length(1 << 20));
    }
}

fn small_model() -> &'static ModelConfig {
    static MODEL: OnceLock<ModelConfig> = OnceLock::new();
    MODEL.get_or_init(|| {
        let text = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "vocab_size": 10}"#;
        ModelConfig::from_hf_json(text).unwrap()
    })
}

/// A chat template, applied to one conversation.
pub fn chat_template(_: &Path, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(template) = ChatTemplate::new(text, "<s>", "</s>") else { return };
    let messages = [Message::new("user", "Hi."), Message::new("assistant", "Hello!")];
    let _ = template.render(&messages[..1].to_vec().into(), true);
    let _ = template.render_with_assistant_spans(&messages.to_vec().into());
}
