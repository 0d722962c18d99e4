//! Exports hold what was exported: merged weights, tokens, the recorded attention; and nothing is
//! written that does not read back.

mod program;

use std::path::{Path, PathBuf};

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::gguf_weights::in_gguf_order;
use longreach::checkpoint::model_files::ModelFiles;
use longreach::export::{ExportFormat, ExportJob, WeightType, export};
use longreach::formats::host_tensor::HostTensor;
use longreach::gpu::open_device;
use longreach::train::{Method, TrainJob, run};
use program::{golden, run as program};

fn job(model: &Path, to: ExportFormat, out: &Path) -> ExportJob {
    let model = model.to_string_lossy().into_owned();
    ExportJob { model, adapter: None, rope_scaling: None, to, quantise: None, out: out.to_path_buf(), text: None }
}

/// An adapter with B away from 0, trained for two steps on a golden model, which has no tokenizer.
fn adapter(model: &Path, dir: &Path, change: impl FnOnce(&mut TrainJob)) -> PathBuf {
    let data = dir.join("train.jsonl");
    std::fs::write(
        &data,
        r#"{"input_ids": [3, 9, 4, 7, 5, 3, 9, 4, 7, 5, 11, 2], "labels": [3, 9, 4, 7, 5, 3, 9, 4, 7, 5, 11, 2]}"#,
    )
    .unwrap();
    let mut job = TrainJob {
        model: model.to_string_lossy().into_owned(),
        data,
        out: dir.join("adapter"),
        steps: Some(2),
        lr: Some(0.05),
        attention: Some(longreach::checkpoint::record::AttentionRecord::Lrsa { sink: 2, lag: 4, keep: 0.5 }),
        ..TrainJob::default()
    };
    change(&mut job);
    run(&job, open_device("cpu").unwrap().as_mut(), &mut ()).unwrap();
    job.out
}

/// Every family of the golden models, with an adapter, in every format. `export` itself compares
/// logits; what it says must be below the rounding of the type.
#[test]
fn every_family_exports_in_every_format() {
    let families = [
        "llama-gqa",
        "llama3-rope",
        "qwen2-bias-tied",
        "qwen3-qknorm",
        "gemma3",
        "granite",
        "olmo2",
        "olmo3",
        "phi4-mini",
        "smollm3",
        "mistral-window",
        "ministral3",
    ];
    let device = &mut *open_device("cpu").unwrap();
    for family in families {
        let dir = tempfile::tempdir().unwrap();
        let model = golden(family);
        let adapter = adapter(&model, dir.path(), |_| {});
        for (to, kind, out) in [
            (ExportFormat::Hf, WeightType::F32, "hf"),
            (ExportFormat::Mlx, WeightType::Bf16, "mlx"),
            (ExportFormat::Gguf, WeightType::F32, "f32.gguf"),
            (ExportFormat::Gguf, WeightType::Q8_0, "q8_0.gguf"),
            (ExportFormat::AdapterGguf, WeightType::F32, "adapter.gguf"),
        ] {
            let out = dir.path().join(out);
            let job = ExportJob { adapter: Some(adapter.clone()), quantise: Some(kind), ..job(&model, to, &out) };
            let done = export(&job, device, &mut ()).unwrap_or_else(|e| panic!("{family} to {}: {e}", to.name()));
            assert!(done.comparison.tokens >= 16 && done.bytes > 0, "{family}: {done:?}");
            // The record travels along: the same command generates with the trained attention.
            let lrsa = Some(Attention::Lrsa(Lrsa::new(2, 4, 0.5).unwrap()));
            let read = match to {
                ExportFormat::AdapterGguf => ModelFiles::open(&job.model, Some(&out)),
                _ => ModelFiles::open(&out.to_string_lossy(), None),
            };
            assert_eq!(read.unwrap().recorded, lrsa, "{family} to {}", to.name());
        }
    }
}

/// DoRA, rsLoRA and modules that are saved whole merge too; GGUF adapters cannot hold the first and
/// the last.
#[test]
fn every_kind_of_adapter_merges() {
    let device = &mut *open_device("cpu").unwrap();
    let model = golden("qwen2-bias-tied");
    type Change = fn(&mut TrainJob);
    let kinds: [(&str, Change); 4] = [
        ("dora", |j| j.dora = true),
        ("rslora", |j| j.rslora = true),
        ("tied", |j| j.modules_to_save = vec!["embed_tokens".into()]),
        ("norms", |j| j.modules_to_save = vec!["model.norm".into()]),
    ];
    for (name, change) in kinds {
        let dir = tempfile::tempdir().unwrap();
        let adapter = adapter(&model, dir.path(), change);
        for (to, out) in
            [(ExportFormat::Hf, "hf"), (ExportFormat::Gguf, "a.gguf"), (ExportFormat::AdapterGguf, "b.gguf")]
        {
            let out = dir.path().join(out);
            let quantise = Some(WeightType::F32);
            let job = ExportJob { adapter: Some(adapter.clone()), quantise, ..job(&model, to, &out) };
            let done = export(&job, device, &mut ());
            if to == ExportFormat::AdapterGguf && name != "rslora" {
                assert!(done.unwrap_err().to_string().contains("merge the adapter"), "{name}");
                assert!(!out.exists());
            } else {
                assert!(done.unwrap_or_else(|e| panic!("{name}: {e}")).comparison.divergence < 1e-6, "{name}");
            }
        }
        let left = std::fs::read_dir(dir.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".longreach"));
        assert_eq!(left.count(), 0, "{name}: temporary files stay");
    }
}

#[test]
fn the_program_exports_and_refuses_what_it_would_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("stories.gguf");
    let out = out.to_str().unwrap();
    let model = program::project("assets/stories260k");
    let model = model.to_str().unwrap();
    let flags = |to, kind, out| {
        program(&["export", "--model", model, "--to", to, "--quantise", kind, "--device", "cpu", "--out", out])
    };
    let done = flags("gguf", "q8_0", out);
    assert_eq!(done.code, 0, "{done:?}");
    for part in ["(gguf, q8_0, 0.3 MiB)", "read back and compared", "KL", "next: longreach generate --model"] {
        assert!(done.stdout.contains(part), "no {part:?} in {done:?}");
    }
    let text =
        program(&["generate", "--model", out, "--prompt", "Once upon a", "--max-tokens", "3", "--device", "cpu"]);
    assert!(text.stdout.contains("time"), "{text:?}");
    let lone = dir.path().join("lone.gguf");
    for (to, kind, out, part) in [
        ("gguf", "q8_0", out, "exists: remove it"),
        ("gguf", "q8_0", "new.bin", "give new.bin.gguf"),
        ("hf", "q8_0", "new", "--to hf holds f32, f16 and bf16, not --quantise q8_0"),
        ("adapter-gguf", "f32", lone.to_str().unwrap(), "give one as --adapter"),
    ] {
        let refused = flags(to, kind, out);
        assert!(refused.code == 2 && refused.stderr.contains(part), "{part}: {refused:?}");
    }
}

/// llama.cpp's converter reshapes the rows of queries and keys to (heads, 2, d/2) and swaps the last
/// two axes.
#[test]
fn rows_of_queries_lie_where_llama_cpp_looks_for_them() {
    let (heads, d) = (3, 8);
    let rows: Vec<f32> = (0..heads * d).map(|row| row as f32).collect();
    let found = in_gguf_order(HostTensor::from_f32(&[heads * d, 1], &rows), Some(heads)).to_f32().unwrap();
    for row in 0..heads * d {
        let (head, part, i) = (row / d, row % d / (d / 2), row % (d / 2));
        assert_eq!(found[head * d + 2 * i + part], row as f32, "row {row}");
    }
}

/// Keys as the converter of llama.cpp writes them, by hand from its sources.
#[test]
fn the_keys_of_a_model_are_those_that_llama_cpp_reads() {
    let metadata = |family: &str| {
        let files = ModelFiles::open(&golden(family).to_string_lossy(), None).unwrap();
        files.config().to_gguf().unwrap().metadata
    };
    let ministral = metadata("ministral3");
    assert_eq!(ministral.str("general.architecture").unwrap(), "mistral3");
    assert_eq!(ministral.str("mistral3.rope.scaling.type").unwrap(), "yarn");
    assert_eq!(ministral.f64("mistral3.rope.scaling.factor").unwrap(), 4.0);
    assert_eq!(ministral.u64("mistral3.rope.scaling.original_context_length").unwrap(), 32);
    // llama.cpp computes its own factor, and takes none under this name.
    assert!(!ministral.contains("mistral3.rope.scaling.yarn_attn_factor"));
    assert_eq!(ministral.f64("mistral3.rope.scaling.yarn_log_multiplier").unwrap(), 1.0);
    assert_eq!(ministral.f64("mistral3.attention.temperature_scale").unwrap(), 0.1);
    let gemma = metadata("gemma3");
    assert!(gemma.contains("gemma3.attention.sliding_window") && gemma.contains("gemma3.rope.freq_base_swa"));
    let granite = metadata("granite");
    for key in ["embedding_scale", "residual_scale", "logit_scale", "attention.scale"] {
        assert!(granite.contains(&format!("granite.{key}")), "{key}");
    }
    let llama = metadata("llama-gqa");
    for key in [
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "rope.freq_base",
        "rope.dimension_count",
        "vocab_size",
    ] {
        assert!(llama.contains(&format!("llama.{key}")), "{key}");
    }
}

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}";
const FOR_TOOLS: &str =
    "{% for t in tools %}[{{ t.function.name }}] {% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}";

/// The bundled model with a template for tools beside the usual one.
fn model_with_two_templates(dir: &Path) -> PathBuf {
    let model = dir.join("model");
    std::fs::create_dir_all(model.join("additional_chat_templates")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(program::project("assets/stories260k").join(name), model.join(name)).unwrap();
    }
    std::fs::write(model.join("chat_template.jinja"), TEMPLATE).unwrap();
    std::fs::write(model.join("additional_chat_templates/tool_use.jinja"), FOR_TOOLS).unwrap();
    model
}

fn templates(model: &Path) -> [Option<String>; 2] {
    let files = ModelFiles::open(&model.to_string_lossy(), None).unwrap();
    let template = files.template.unwrap();
    [Some(template.source().to_string()), template.tool_use_source().map(str::to_string)]
}

#[test]
fn the_template_for_tools_is_in_everything_that_is_written() {
    let device = &mut *open_device("cpu").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let model = model_with_two_templates(dir.path());
    let both = [TEMPLATE, FOR_TOOLS].map(|text| Some(text.to_string()));
    assert_eq!(templates(&model), both);
    let gguf = dir.path().join("a.gguf");
    for (from, to, out) in [
        (&model, ExportFormat::Hf, "hf"),
        (&model, ExportFormat::Gguf, "a.gguf"),
        (&gguf, ExportFormat::Gguf, "b.gguf"),
        (&gguf, ExportFormat::Mlx, "mlx"),
    ] {
        let out = dir.path().join(out);
        let job = ExportJob { quantise: Some(WeightType::F32), ..job(from, to, &out) };
        export(&job, device, &mut ()).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
        assert_eq!(templates(&out), both, "{}", out.display());
    }
    // A run saves a second time over its first result.
    let data = dir.path().join("train.jsonl");
    std::fs::write(&data, r#"{"input_ids": [3, 9, 4, 7], "labels": [3, 9, 4, 7]}"#).unwrap();
    let train = TrainJob {
        model: model.to_string_lossy().into_owned(),
        data,
        out: dir.path().join("run"),
        method: Method::Full,
        steps: Some(2),
        save_every: 1,
        ..TrainJob::default()
    };
    run(&train, device, &mut ()).unwrap();
    for folder in ["run", "run/checkpoints/step-1", "run/checkpoints/step-2"] {
        assert_eq!(templates(&dir.path().join(folder)), both, "{folder}");
    }
}
