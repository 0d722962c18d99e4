//! Malicious files by reader, each named after what it attacks.

use serde_json::{Value as Json, json};

/// The attacks on a reader, each with its name.
pub fn attacks(reader: &str) -> Vec<(&'static str, Vec<u8>)> {
    match reader {
        "gguf" | "gguf_tokenizer" => gguf(),
        "gguf_split" => gguf_split(),
        "safetensors" => safetensors(),
        "tokenizer" => tokenizers(),
        "dataset" => dataset(),
        "csv" => csv(),
        "parquet" => parquet(),
        "model_json" => model_json(),
        "chat_template" => chat_templates(),
        other => panic!("no attacks on {other}"),
    }
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

fn header(n_tensors: u64, n_pairs: u64, rest: &[u8]) -> Vec<u8> {
    [b"GGUF\x03\0\0\0", &n_tensors.to_le_bytes()[..], &n_pairs.to_le_bytes(), rest].concat()
}

/// A key-value pair with an array: key, element type, count, and the bytes of the elements.
fn array(key: &str, kind: u32, n: usize, elements: &[u8]) -> Vec<u8> {
    let head = [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(n as u64).to_le_bytes()].concat();
    [text(key), head, elements.to_vec()].concat()
}

fn gguf() -> Vec<(&'static str, Vec<u8>)> {
    let overlapping = |n: usize| {
        let info = |i: usize| {
            let shape =
                [&1u32.to_le_bytes()[..], &(1u64 << 16).to_le_bytes(), &0u32.to_le_bytes(), &0u64.to_le_bytes()];
            [text(&format!("t{i}")), shape.concat()].concat()
        };
        let mut bytes = header(n as u64, 0, &(0..n).flat_map(info).collect::<Vec<_>>());
        bytes.resize(bytes.len() + (1 << 18) + 64, 0);
        bytes
    };
    let empty_arrays = [&4u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat();
    let vocabulary = |pieces: Vec<String>| {
        let words: Vec<u8> = pieces.iter().flat_map(|piece| text(piece)).collect();
        let model = [text("tokenizer.ggml.model"), 8u32.to_le_bytes().to_vec(), text("llama")].concat();
        let n = pieces.len();
        let tokens = array("tokenizer.ggml.tokens", 8, n, &words);
        header(0, 3, &[model, tokens, array("tokenizer.ggml.scores", 6, n, &vec![0; 4 * n])].concat())
    };
    vec![
        ("tensors on the same bytes", overlapping(2000)),
        (
            "many small integers",
            header(0, 2, &[array("a", 0, 1 << 20, &[7; 1 << 20]), array("b", 7, 1 << 20, &[1; 1 << 20])].concat()),
        ),
        ("arrays of empty arrays", header(0, 1, &array("a", 9, 1 << 16, &empty_arrays.repeat(1 << 16)))),
        ("empty strings", header(0, 1, &array("a", 8, 1 << 17, &[0; 1 << 20]))),
        ("a piece of a million bytes", vocabulary(vec!["a".into(), "a".repeat(1 << 20)])),
        ("every run of a letter", vocabulary((1..500).map(|n| "a".repeat(n)).collect())),
        ("huge counts", header(u64::MAX, u64::MAX, &[0; 64])),
    ]
}

/// Two parts, one after the other.
fn gguf_split() -> Vec<(&'static str, Vec<u8>)> {
    let number = |key: &str, n: u64| [text(key), 10u32.to_le_bytes().to_vec(), n.to_le_bytes().to_vec()].concat();
    let part = |no: u64, count: u64, tensors: u64| {
        let keys = [number("split.no", no), number("split.count", count), number("split.tensors.count", tensors)];
        header(0, 3, &keys.concat())
    };
    vec![
        ("more parts than there can be", [part(0, u64::MAX, 0), part(1, u64::MAX, 0)].concat()),
        ("as many parts as there may be", [part(0, 65_535, 0), part(1, 65_535, 0)].concat()),
        ("two first parts", [part(0, 2, 0), part(0, 2, 0)].concat()),
        ("more tensors than there are", [part(0, 2, u64::MAX), part(1, 2, u64::MAX)].concat()),
        ("no tensors", [part(0, 2, 0), part(1, 2, 0)].concat()),
    ]
}

fn safetensors() -> Vec<(&'static str, Vec<u8>)> {
    let file = |header: String| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    let zeros = "0,".repeat(1 << 20);
    let entry = |i: usize| format!(r#""t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    vec![
        (
            "a shape of a million zeros",
            file(format!(r#"{{"a":{{"dtype":"F32","shape":[{zeros}0],"data_offsets":[0,0]}}}}"#)),
        ),
        (
            "unknown fields with long lists",
            file(format!(r#"{{"a":{{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":[{zeros}0]}}}}"#)),
        ),
        ("a long list as metadata", file(format!(r#"{{"__metadata__":[{zeros}0]}}"#))),
        ("deep nesting", file(format!(r#"{{"__metadata__":{}"#, "[".repeat(1 << 20)))),
        ("many empty tensors", file(format!("{{{}}}", (0..20_000).map(entry).collect::<Vec<_>>().join(",")))),
        ("a name twice", file(format!("{{{},{}}}", entry(0), entry(0)))),
    ]
}

/// A small tokenizer with one modification.
fn tokenizer(change: impl FnOnce(&mut Json)) -> Vec<u8> {
    let mut file = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}});
    change(&mut file);
    file.to_string().into_bytes()
}

fn tokenizers() -> Vec<(&'static str, Vec<u8>)> {
    let part = |key: &'static str, value: Json| tokenizer(|file| file[key] = value);
    let sequence =
        |key: &'static str, list: &str, parts: Vec<Json>| part(key, json!({"type": "Sequence", list: parts}));
    let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let regex = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let template =
        |single: Json| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}});
    let text_a = json!({"Sequence": {"id": "A", "type_id": 0}});
    let added = |content: &str, left: bool| json!({"id": 9, "content": content, "single_word": false, "lstrip": left, "rstrip": !left, "normalized": false, "special": true});
    let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let nested = |depth: usize| {
        (0..depth).fold(json!({"type": "NFC"}), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}))
    };
    vec![
        (
            "a replacement of nothing",
            sequence(
                "normalizer",
                "normalizers",
                vec![
                    json!({"type": "Replace", "pattern": {"Regex": " {0,}"}, "content": " "}),
                    json!({"type": "StripAccents"}),
                ],
            ),
        ),
        ("doubling sixty times", sequence("normalizer", "normalizers", vec![doubling.clone(); 60])),
        ("doubling while decoding", sequence("decoder", "decoders", vec![doubling; 60])),
        ("bytes of bytes of bytes", sequence("pre_tokenizer", "pretokenizers", vec![level; 40])),
        ("prepending a megabyte", part("normalizer", json!({"type": "Prepend", "prepend": "a".repeat(1 << 20)}))),
        ("lists in lists", part("normalizer", nested(38))),
        (
            "lists in lists without types",
            part("normalizer", (0..40).fold(json!({}), |inner, _| json!({"normalizers": [inner]}))),
        ),
        ("chunks of no length", part("pre_tokenizer", json!({"type": "FixedLength", "length": 0}))),
        (
            "a second text where there is one",
            part("post_processor", template(json!([{"Sequence": {"id": "B", "type_id": 0}}]))),
        ),
        (
            "a special token that is not explained",
            part("post_processor", template(json!([{"SpecialToken": {"id": "x", "type_id": 0}}]))),
        ),
        (
            "a template by another name",
            part("post_processor", {
                let mut by_another_name = template(json!([{"Sequence": {"id": "B", "type_id": 0}}]));
                by_another_name["type"] = json!("ByteLevel");
                by_another_name
            }),
        ),
        (
            "templates on templates",
            sequence("post_processor", "processors", vec![template(json!([text_a, text_a])); 30]),
        ),
        (
            "an end cut off what has none",
            part("decoder", json!({"type": "Strip", "content": "a", "start": 0, "stop": 3})),
        ),
        ("a suffix for no token", part("decoder", json!({"type": "BPEDecoder", "suffix": "</w>"}))),
        (
            "a table of replacements that is none",
            part("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="})),
        ),
        (
            "spaces that two tokens take",
            tokenizer(|file| file["added_tokens"] = json!([added("x", false), added(" ", true)])),
        ),
        ("a merge to nothing", tokenizer(|file| file["model"]["merges"] = json!(["ab ab"]))),
        ("a prefix longer than its piece", tokenizer(|file| file["model"]["continuing_subword_prefix"] = json!("###"))),
        ("an id at the end of all ids", tokenizer(|file| file["model"]["vocab"]["c"] = json!(u32::MAX))),
        ("an id far beyond the others", tokenizer(|file| file["model"]["vocab"]["c"] = json!(999_999_990))),
        ("a pattern that goes back", part("pre_tokenizer", regex("(?=(a+)+$)(a|a)*\\1b"))),
        ("a pattern of patterns", part("pre_tokenizer", regex("(?=((\\w{900}){900}){900})"))),
        ("a long pattern", part("pre_tokenizer", regex(&"(?=\\w)".repeat(100_000)))),
        ("deep parentheses", part("pre_tokenizer", regex(&"(".repeat(4000)))),
        (
            "words of any length",
            part(
                "model",
                json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "", "max_input_chars_per_word": 1u64 << 40, "vocab": {"a": 0}}),
            ),
        ),
        ("deep nesting", b"[".repeat(1 << 20)),
    ]
}

fn dataset() -> Vec<(&'static str, Vec<u8>)> {
    let line = |body: String| body.into_bytes();
    vec![
        ("a line of four million ids", line(format!("{{\"input_ids\": [{}1]}}", "1,".repeat(4 << 20)))),
        ("a line of a million messages", line(format!("{{\"messages\": [{}0]}}", "0,".repeat(1 << 20)))),
        ("a long field that nobody wants", line(format!("{{\"text\": \"a\", \"x\": [{}0]}}", "{},".repeat(1 << 20)))),
        ("fields without end", line(format!("{{{}\"a\": 0}}", "\"\":0,".repeat(1 << 19)))),
        ("deep nesting", line(format!("{{\"text\": {}", "[".repeat(1 << 20)))),
        (
            "deep nesting aside",
            line(format!("{{\"text\": \"a\", \"x\": {}{}}}", "[".repeat(1 << 20), "]".repeat(1 << 20))),
        ),
        ("a long word", line(format!("{{\"text\": \"{}\"}}", "a".repeat(1 << 18)))),
        ("a text above the limit", line(format!("{{\"text\": \"{}\"}}", "a".repeat(9 << 20)))),
        ("a long string in place of a list", line(format!("{{\"input_ids\": \"{}\"}}", "a".repeat(1 << 20)))),
        ("many empty lines", b"\n \r\n".repeat(1 << 18)),
        ("not UTF-8", b"{\"text\": \"\xff\xfe\"}".to_vec()),
        ("half a surrogate", b"{\"text\": \"\\ud800\"}".to_vec()),
        ("huge numbers", b"{\"input_ids\": [1e999, 99999999999999999999999999]}".to_vec()),
        ("a list of two million elements", line(format!("[{}0]", "0,".repeat(1 << 21)))),
        ("a list of two million texts", line(format!("[{}", "{\"text\":\"a\"},".repeat(1 << 17)))),
        ("a deep list", line("[".repeat(1 << 20))),
        (
            "a message of many parts",
            line(format!("{{\"messages\": [{{\"role\": \"user\", \"content\": [{}0]}}]}}", "\"a\",".repeat(1 << 18))),
        ),
        (
            "deep tools",
            line(format!("{{\"messages\": [], \"tools\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000))),
        ),
        ("a pointer", b"version https://git-lfs.github.com/spec/v1\n".repeat(1000)),
    ]
}

fn csv() -> Vec<(&'static str, Vec<u8>)> {
    let table = |body: String| body.into_bytes();
    vec![
        ("a quote without end", table(format!("text\n\"{}", "a\n".repeat(1 << 20)))),
        ("a million columns", table(format!("text{}\na\n", ",x".repeat(1 << 20)))),
        ("a million rows of one cell", table(format!("text,x\n{}", "a\n".repeat(1 << 20)))),
        ("a million empty rows", table(format!("text\n{}", "\"\"\n".repeat(1 << 17)))),
        ("the same column again and again", table(format!("text{}\n", ",text".repeat(1 << 12)))),
        ("deep JSON in a cell", table(format!("messages\n{}\n", "[".repeat(1 << 20)))),
        ("not UTF-8", b"text\n\xff\xfe\n".to_vec()),
        ("zeros", vec![0; 1 << 16]),
    ]
}

fn parquet() -> Vec<(&'static str, Vec<u8>)> {
    let footer = |footer: &[u8]| [b"PAR1", footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat();
    let table = include_bytes!("../tables/texts.parquet");
    // A group in a group in a group: name "a" and one child.
    let nested =
        [&[0x15, 2, 0x19, 0xFC, 0xA0, 0x8D, 6][..], &b"\x35\x00\x18\x01a\x15\x02\x00".repeat(100_000)].concat();
    vec![
        ("a group of two thousand million", footer(b"\x15\x02\x19\x1c\x48\x01a\x15\xFE\xFF\xFF\xFF\x0F\x00\x00")),
        ("a schema of 100,000 levels", footer(&nested)),
        ("a footer longer than the file", [&table[..table.len() - 8], b"\xFF\xFF\xFF\x7FPAR1"].concat()),
        ("half a table", table[table.len() / 2..].to_vec()),
        ("a page header that goes on behind the end", include_bytes!("endless_page.parquet").to_vec()),
        ("an encrypted one", [&table[..table.len() - 4], b"PARE"].concat()),
    ]
}

fn model_json() -> Vec<(&'static str, Vec<u8>)> {
    let config = |key: &str, value: Json| {
        let mut file = json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4096,
            "num_attention_heads": 1, "vocab_size": 320, "head_dim": 64});
        file[key] = value;
        file.to_string().into_bytes()
    };
    let targets: Vec<String> = vec!["layers.1.mlp.down_proj".into(); 20_000];
    vec![
        ("as many layers as there may be", config("x", Json::Null)),
        ("heads of a million channels", config("head_dim", json!(1 << 20))),
        ("a million end tokens", config("eos_token_id", json!(vec![1; 1 << 18]))),
        (
            "more targets than maps",
            json!({"peft_type": "LORA", "r": 1, "target_modules": targets}).to_string().into_bytes(),
        ),
        ("a file that is far too large", [b"{\"a\": [", &b"0,".repeat(3 << 20)[..], b"0]}"].concat()),
        ("deep nesting", b"{\"a\":".repeat(1 << 18)),
        (
            "shards outside of the folder",
            br#"{"weight_map": {"a": "../x", "b": "/etc/passwd", "c": "", "d": "."}}"#.to_vec(),
        ),
        (
            "a partition of all tokens",
            br#"{"attention": "lrsa", "sink": 18446744073709551615, "lag": 18446744073709551615, "keep": 1.0}"#
                .to_vec(),
        ),
    ]
}

fn chat_templates() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a tag that ends where it begins", b"{{%}sa{%  mge[s".to_vec()),
        ("half a million attributes", ("{{ a".to_owned() + &".b".repeat(1 << 18) + " }}").into_bytes()),
        ("half a million filters", ("{{ a".to_owned() + &"|f".repeat(1 << 18) + " }}").into_bytes()),
        ("a quarter of a million negations", ("{{ ".to_owned() + &"not ".repeat(1 << 17) + "a }}").into_bytes()),
        ("sums behind strings", ("{{ a".to_owned() + &"+'%}'".repeat(1 << 16) + " }}").into_bytes()),
        ("elif without end", ("{% if a %}".to_owned() + &"{% elif a %}".repeat(1 << 15) + "{% endif %}").into_bytes()),
        ("blocks in blocks", "{% if a %}".repeat(1 << 15).into_bytes()),
        ("a slice that ends before it begins", b"{{ messages[:9:-1] }}".to_vec()),
        (
            "texts joined with texts",
            ("{{ '0123456789012345678901234567890123456789'".to_owned()
                + &"|join('0123456789012345678901234567890123456789')".repeat(9)
                + " }}")
                .into_bytes(),
        ),
        (
            "an attribute that no letter of a long text has",
            b"{{ messages|length > 1 and ('a' * 1000000)|join('                      ', 'b') }}".to_vec(),
        ),
        ("a macro that calls itself", b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_vec()),
        (
            "tags hidden in raw blocks",
            ("{% raw %}{{ ' {% endraw %}{{ ".to_owned() + &"not ".repeat(1 << 16) + "a }}'").into_bytes(),
        ),
        (
            "no end of output",
            b"{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}".to_vec(),
        ),
    ]
}
