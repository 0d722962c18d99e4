//! `--activations q8`: what it changes, what it costs, and where it is refused.

mod program;

use longreach::checkpoint::model_files::ModelFiles;
use longreach::gpu::{Activations, CpuExecutor, Executor, open_device, software_adapter};
use longreach::train::{TrainJob, Trainer};
use program::{arg, project, run};

/// The bundled model in q8_0, and a text of two pages.
fn files(dir: &std::path::Path) -> (String, String) {
    let (model, text) = (dir.join("stories.gguf"), dir.join("text.txt"));
    let source = project("assets/stories260k");
    let done = run(&[
        "export",
        "--model",
        arg(&source),
        "--to",
        "gguf",
        "--quantise",
        "q8_0",
        "--device",
        "cpu",
        "--out",
        arg(&model),
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    std::fs::write(&text, "Once upon a time there was a little girl who loved to play in the park. ".repeat(30))
        .unwrap();
    (arg(&model).to_string(), arg(&text).to_string())
}

#[test]
fn eval_measures_what_rounding_costs() {
    let dir = tempfile::tempdir().unwrap();
    let (model, text) = files(dir.path());
    let rows = |model: &str, more: &[&str]| {
        let flags = ["eval", "perplexity", "--model", model, "--text", &text, "--length", "200", "--windows", "2"];
        let report =
            run(&[&flags[..], &["--attentions", "dense,4x", "--device", "cpu", "--json"], more].concat()).json();
        let value = |row: &serde_json::Value, name: &str| row["values"][name].as_f64();
        let rows = report["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| ["perplexity", "f32 perplexity", "KL", "same token"].map(|name| value(row, name)));
        (report["device"].as_str().unwrap().to_string(), rows.collect::<Vec<_>>())
    };
    let (_, exact) = rows(&model, &[]);
    // Chunks of up to 32 tokens multiply weights as they lie, longer ones lay them out.
    let (device, short) = rows(&model, &["--activations", "q8", "--chunk", "16"]);
    let (_, long) = rows(&model, &["--activations", "q8"]);
    assert!(device.contains("activations q8"), "{device}");
    for (exact, rounded) in exact.iter().chain(&exact).zip(short.iter().chain(&long)) {
        let [Some(perplexity), Some(of_f32), Some(divergence), Some(same)] = *rounded else { panic!("{rounded:?}") };
        let without = exact[0].unwrap();
        assert!((of_f32 / without - 1.0).abs() < 1e-5, "{of_f32} is the perplexity without the flag, {without}");
        assert!(perplexity != of_f32 && (perplexity / of_f32 - 1.0).abs() < 0.02, "{perplexity} beside {of_f32}");
        assert!(divergence > 1e-7 && divergence < 1e-2, "KL {divergence}");
        assert!(same > 0.9 && same <= 1.0, "{same}");
    }
    // Weights of the bundled folder are f32: nothing is rounded.
    let (_, plain) = rows("stories260k", &["--activations", "q8"]);
    for row in plain {
        let [Some(perplexity), Some(of_f32), Some(divergence), Some(same)] = row else { panic!("{row:?}") };
        assert!(perplexity == of_f32 && divergence.abs() < 1e-12 && same == 1.0, "{row:?}");
    }
}

#[test]
fn generate_names_the_activations_and_gives_the_same_text_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _) = files(dir.path());
    let text = |more: &[&str]| {
        let flags = ["generate", "--model", &model, "--prompt", "Once upon a", "--max-tokens", "40", "--device", "cpu"];
        run(&[&flags[..], &["--json", "--activations", "q8"], more].concat()).json()
    };
    let (once, chunked) = (text(&[]), text(&["--chunk", "1"]));
    assert!(once["device"].as_str().unwrap().contains("activations q8"), "{once}");
    assert_eq!(once["text"], text(&[])["text"]);
    // Prompts of up to 32 tokens take the same kernels as single tokens.
    assert_eq!(once["text"], chunked["text"]);
}

#[test]
fn training_and_gpus_refuse_rounded_activations() {
    let refused = |args: &[&str], part: &str| {
        let done = run(args);
        assert!(done.code != 0 && done.stderr.contains(part), "{part:?} in {done:?}");
    };
    let bench = ["bench", "--device", "cpu", "--activations", "q8"];
    refused(&[&bench[..], &["--method", "lora"]].concat(), "attention and training compute with f32");
    refused(&bench, "give a GGUF file that has some as --model");
    refused(
        &[&bench[..], &["--part", "model", "--model", "stories260k"]].concat(),
        "no weight of stories260k is quantised",
    );
    refused(&["train", "--activations", "q8"], "unexpected argument");
    let mut device = CpuExecutor::<f32>::new();
    device.set_activations(Activations::Q8).unwrap();
    let job = TrainJob { model: "stories260k".to_string(), ..TrainJob::default() };
    let files = ModelFiles::open(&job.model, None).unwrap();
    let error = Trainer::new(&mut device, &files, &job).err().expect("an error").to_string();
    assert!(error.contains("training needs f32 activations"), "{error}");
    assert!(CpuExecutor::<f64>::new().set_activations(Activations::Q8).is_err());
    if let Some(adapter) = software_adapter() {
        let mut gpu = open_device(&adapter.index.to_string()).unwrap();
        let error = gpu.set_activations(Activations::Q8).unwrap_err().to_string();
        assert!(error.contains("choose the device cpu"), "{error}");
    } else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no software Vulkan driver");
    }
}
