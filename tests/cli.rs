//! The command line on good input: help, `probe` and `generate` on golden cases, prompts, devices,
//! the hub.

mod common;
mod program;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use longreach::attention::{Attention, Lrsa};
use program::{arg, golden, project, rows, run, run_with, tensors, write_lists};
use serde_json::json;

/// Flags of the tested golden modes.
const MODES: [(&str, &[&str]); 2] =
    [("dense", &["--attention", "dense"]), ("lrsa-4-16-0.25", &["--sink", "4", "--lag", "16", "--keep", "0.25"])];

#[test]
fn help_lists_verbs_that_exist_and_the_exit_status_tells_them_from_others() {
    let help = run(&["--help"]);
    assert_eq!(help.code, 0);
    let verbs = help.stdout.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let verbs: Vec<&str> = verbs.filter_map(|l| l.split_whitespace().next()).filter(|v| *v != "help").collect();
    for verb in ["generate", "probe", "info"] {
        assert!(verbs.contains(&verb), "{verbs:?}");
    }
    for verb in &verbs {
        assert_eq!(run(&[verb, "--help"]).code, 0, "{verb}");
    }
    for wrong in [&["nonsense"][..], &[], &["info", "--nonsense"]] {
        let got = run(wrong);
        assert!(got.code == 2 && got.stdout.is_empty() && !got.stderr.is_empty(), "{wrong:?}: {got:?}");
    }
    assert!(run(&["info", "--json"]).json()["auto"].is_string());
}

/// ‖got − want‖ / ‖want‖.
fn relative(got: &[f32], want: &[f32]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    assert_eq!(got.len(), want.len());
    norm(&mut got.iter().zip(want).map(|(&g, &w)| f64::from(g - w))) / norm(&mut want.iter().map(|&w| f64::from(w)))
}

fn check_probe(case: &str, mode: &str, flags: &[&str], with_adapter: bool) {
    let dir = tempfile::tempdir().unwrap();
    let want = tensors(&golden(case).join("golden.safetensors"));
    let ids = write_lists(dir.path(), "ids.json", &rows(&want["input_ids"]));
    let labels = write_lists(dir.path(), "labels.json", &rows(&want["labels"]));
    let (model, adapter, out) = (golden(case), golden(case).join("lora"), dir.path().join("out/probe.safetensors"));
    let mut args = vec!["probe", "--device", "cpu", "--json", "--grads", "--model", arg(&model), "--ids", arg(&ids)];
    args.extend(["--labels", arg(&labels), "--out", arg(&out)]);
    args.extend(flags);
    if with_adapter {
        args.extend(["--adapter", arg(&adapter), "--recompute"]);
    }
    let report = run(&args).json();
    let got = tensors(&out);
    assert_eq!(report["tensors"], got.len());
    let prefix = if with_adapter { format!("lora.{mode}.") } else { format!("{mode}.") };
    let mut n_compared = 0;
    for (name, want) in want.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?, t))) {
        if name == "losses" || name == "generated" {
            continue; // from training and generation
        }
        let got = got.get(name).unwrap_or_else(|| panic!("{case} {prefix}: no {name}"));
        assert_eq!(got.shape.iter().product::<usize>(), want.shape.iter().product::<usize>(), "{name}");
        n_compared += 1;
        if name.starts_with("kept") {
            assert_eq!((&got.shape, got.to_i64().unwrap()), (&want.shape, want.to_i64().unwrap()), "{name}");
            continue;
        }
        let (got, want) = (got.to_f32().unwrap(), want.to_f32().unwrap());
        if name == "logits" {
            let worst = got.iter().zip(&want).fold(0.0f32, |m, (g, w)| m.max((g - w).abs()));
            assert!(worst < 3e-5, "{case} {prefix}logits: {worst:e}");
        } else {
            let error = relative(&got, &want);
            assert!(error < if name == "loss" { 2e-6 } else { 1e-5 }, "{case} {prefix}{name}: {error:e}");
        }
    }
    assert!(n_compared > 10, "{n_compared} tensors of {case} {prefix} compared");
}

#[test]
fn probe_writes_the_golden_answers() {
    for (mode, flags) in MODES {
        for with_adapter in [false, true] {
            check_probe("llama-gqa", mode, flags, with_adapter);
        }
    }
    check_probe("qwen2-bias-tied", MODES[1].0, MODES[1].1, false);
}

#[test]
fn probe_streams_to_the_golden_answers() {
    for (mode, flags) in MODES {
        for (chunk, with_adapter) in [("10", true), ("33", false)] {
            check_probe("llama-gqa", mode, &[flags, &["--chunk", chunk][..]].concat(), with_adapter);
        }
    }
}

#[test]
fn probe_distils_as_the_golden_answers_do() {
    let dir = tempfile::tempdir().unwrap();
    let case = golden("llama-gqa-distill");
    let want = tensors(&case.join("golden.safetensors"));
    let ids = write_lists(dir.path(), "ids.json", &rows(&want["input_ids"]));
    let labels = write_lists(dir.path(), "labels.json", &rows(&want["labels"]));
    let (adapter, out) = (case.join("lora"), dir.path().join("probe.safetensors"));
    let (mode, flags) = MODES[1];
    let mut args = vec!["probe", "--device", "cpu", "--model", arg(&case), "--ids", arg(&ids), "--out", arg(&out)];
    args.extend(flags);
    args.extend(["--labels", arg(&labels), "--distill", "0.5", "--teacher"]);
    let adapted = [&args[..], &["self", "--grads", "--adapter", arg(&adapter)]].concat();
    assert_eq!(run(&adapted).code, 0);
    let with_gradients = tensors(&out);
    let adapted = [&args[..], &["base", "--adapter", arg(&adapter)]].concat();
    assert_eq!(run(&adapted).code, 0);
    for (teacher, got) in [("self", &with_gradients), ("base", &tensors(&out))] {
        for name in ["loss", "ce", "kl"] {
            let want = want[&format!("distill.{teacher}.{mode}.{name}")].to_f32().unwrap();
            let error = relative(&got[name].to_f32().unwrap(), &want);
            assert!(error < 2e-6, "{teacher} {name}: {error:e}");
        }
    }
    let prefix = format!("distill.self.{mode}.grad.");
    let grads = want.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?, t)));
    for (name, want) in grads {
        let got = with_gradients[&format!("grad.{name}")].to_f32().unwrap();
        assert!(relative(&got, &want.to_f32().unwrap()) < 1e-5, "{name}");
    }
    let refused = run(&[&args[..], &["base"]].concat());
    assert!(refused.code == 2 && refused.stderr.contains("--teacher base"), "{refused:?}");
}

#[test]
fn probe_pads_ragged_rows_and_computes_them_as_if_alone() {
    let dir = tempfile::tempdir().unwrap();
    let all = rows(&tensors(&golden("llama-gqa").join("golden.safetensors"))["input_ids"]);
    let (long, short) = (all[0][..60].to_vec(), all[1][..41].to_vec());
    let probe = |name: &str, lists: &[Vec<i64>]| {
        let ids = write_lists(dir.path(), name, lists);
        let (model, out) = (golden("llama-gqa"), dir.path().join(format!("{name}.safetensors")));
        let args = ["probe", "--device", "cpu", "--model", arg(&model), "--ids", arg(&ids), "--out", arg(&out)];
        let got = run(&[&args[..], MODES[1].1].concat());
        assert_eq!(got.code, 0, "{got:?}");
        tensors(&out)
    };
    let (both, alone) = (probe("both", &[long, short.clone()]), probe("alone", &[short]));
    assert!(!both.contains_key("loss"));
    let (logits, one) = (both["logits"].to_f32().unwrap(), alone["logits"].to_f32().unwrap());
    assert_eq!((&both["logits"].shape[..], &alone["logits"].shape[..]), (&[2, 60, 320][..], &[1, 41, 320][..]));
    let second = &logits[60 * 320..];
    assert!(one.iter().zip(second).all(|(a, b)| (a - b).abs() < 1e-5), "a row does not see its neighbour");
    assert!(second[41 * 320..].iter().all(|&x| x == 0.0), "padding is 0");
    // Row 0 has 3 partitions of 16 after the sink of 4, so 2 with a selection of 4; row 1 has 2 and
    // 1.
    let (kept, one) = (both["kept.0"].to_i64().unwrap(), alone["kept.0"].to_i64().unwrap());
    assert_eq!((&both["kept.0"].shape[..], &alone["kept.0"].shape[..]), (&[2, 2, 2, 4][..], &[1, 2, 1, 4][..]));
    for head in 0..2 {
        let at = (2 + head) * 8;
        assert_eq!(kept[at..at + 4], one[head * 4..head * 4 + 4]);
        assert_eq!(kept[at + 4..at + 8], [-1; 4]);
    }
}

#[test]
fn generate_continues_ids_as_the_golden_answers_do() {
    let dir = tempfile::tempdir().unwrap();
    for case in ["llama-gqa", "qwen3-qknorm"] {
        let want = tensors(&golden(case).join("golden.safetensors"));
        let prompt = want["prompt_ids"].to_i64().unwrap();
        let ids = write_lists(dir.path(), "prompt.json", std::slice::from_ref(&prompt));
        for (mode, flags) in MODES {
            let generated = want[&format!("{mode}.generated")].to_i64().unwrap();
            let n = generated.len().to_string();
            let model = golden(case);
            let args =
                ["generate", "--device", "cpu", "--json", "--ignore-eos", "--model", arg(&model), "--ids", arg(&ids)];
            let json = run(&[&args[..], &["--max-tokens", &n, "--chunk", "7"], flags].concat()).json();
            assert_eq!(json["ids"], json!(generated), "{case} {mode}");
            let attention =
                if mode == "dense" { Attention::Dense } else { Attention::Lrsa(Lrsa::new(4, 16, 0.25).unwrap()) };
            let n_fed = prompt.len() + generated.len() - 1;
            assert_eq!(json["kv_entries"], attention.cache_length(n_fed), "{case} {mode}");
            assert_eq!((&json["prompt_tokens"], &json["text"]), (&json!(prompt.len()), &json!("")));
            assert_eq!(
                (&json["attention"], &json["stopped_by"]),
                (&json!(attention.to_string()), &json!("max_tokens"))
            );
        }
    }
}

#[test]
fn the_json_of_generate_says_why_it_stopped_and_the_guide_has_its_keys() {
    let base = ["generate", "--device", "cpu", "--json", "--model", "stories260k", "--prompt", "Once upon a time"];
    let generate = |more: &[&str]| run(&[&base[..], more].concat()).json();
    let (cut, stopped) = (generate(&["--max-tokens", "20"]), generate(&["--stop", "was"]));
    assert_eq!((&cut["stopped_by"], &stopped["stopped_by"]), (&json!("max_tokens"), &json!("stop_text")));
    assert_eq!(cut["attention"], "dense");
    let lrsa = generate(&["--max-tokens", "2", "--attention", "4x"]);
    assert_eq!(lrsa["attention"], Attention::Lrsa(Lrsa::default()).to_string());
    let guide = std::fs::read_to_string(project("docs/guide/generate.md")).unwrap();
    for key in cut.as_object().unwrap().keys() {
        assert!(guide.contains(&format!("| `{key}` |")), "docs/guide/generate.md has no {key}");
    }
}

#[test]
fn flags_without_effect_at_temperature_0_are_named() {
    let base = ["generate", "--device", "cpu", "--model", "stories260k", "--prompt", "Once", "--max-tokens", "2"];
    let said = |more: &[&str]| run(&[&base[..], more].concat()).stderr;
    let note = "note: --top-p and --seed have no effect at temperature 0";
    assert!(said(&["--top-p", "0.9", "--seed", "3"]).contains(note));
    assert!(!said(&["--top-p", "0.9", "--seed", "3", "--temp", "0.5"]).contains("no effect"));
    assert!(!said(&[]).contains("no effect"));
}

#[test]
fn generate_on_a_named_device_agrees() {
    let Some(adapter) = longreach::gpu::software_adapter() else {
        common::software_device(); // prints that the test is skipped, or fails in CI
        return;
    };
    let model = project("assets/stories260k");
    let generate = |device: &str| {
        let args = ["generate", "--model", arg(&model), "--prompt", "Once upon a time", "--max-tokens", "40", "--json"];
        run(&[&args[..], &["--device", device, "--attention", "lrsa", "--lag", "8"]].concat()).json()
    };
    let (cpu, named) = (generate("cpu"), generate(&format!("vulkan:{}", adapter.name)));
    assert_eq!(cpu["text"], named["text"]);
    assert!(named["device"].as_str().unwrap().contains(&adapter.name), "{named}");
}

#[test]
fn prompts_come_from_arguments_files_and_stdin_and_through_templates() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("stories");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(project("assets/stories260k").join(file), model.join(file)).unwrap();
    }
    let file = dir.path().join("prompt.txt");
    std::fs::write(&file, "Once upon a time\n").unwrap();
    let base = ["generate", "--device", "cpu", "--json", "--max-tokens", "20", "--model", arg(&model)];
    let text = |more: &[&str], input: &str| {
        let json = run_with(&[&base[..], more].concat(), input, &[]).json();
        (json["prompt_tokens"].as_u64().unwrap(), json["text"].as_str().unwrap().to_string())
    };
    let plain = text(&["--prompt", "Once upon a time"], "");
    assert!(plain.1.starts_with(", there was"), "{plain:?}");
    assert_eq!(text(&["--prompt", "-"], "Once upon a time\n"), plain);
    assert_eq!(text(&["--prompt-file", arg(&file)], ""), plain);
    let seed = |n: &str| text(&["--prompt", "Once upon a time", "--temp", "1", "--seed", n], "");
    assert_eq!(seed("1"), seed("1"));
    assert_ne!(seed("1"), seed("2"));

    let template = "{{ bos_token }}Once upon a time{% for m in messages %}{{ m.content }}{% endfor %}";
    std::fs::write(model.join("chat_template.jinja"), template).unwrap();
    let turn = text(&["--prompt", ", there was"], "");
    assert!(turn.0 > text(&["--prompt", ", there was", "--no-chat-template"], "").0);
    assert_eq!(text(&["--prompt", "Once upon a time", "--no-chat-template"], ""), plain);
}

const COMMIT: &str = "c0ffee0000000000000000000000000000000000";

/// Serves the files of `dir` as `/org/tiny/resolve/REVISION/FILE`, as the hub does, until the
/// process ends. The revisions are `main` and its commit.
fn serve(dir: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let dir = dir.to_path_buf();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &dir); // a client may hang up early
        }
    });
    endpoint
}

fn answer(mut stream: TcpStream, dir: &Path) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path = request.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let file = path.strip_prefix("/org/tiny/resolve/").and_then(|rest| rest.split_once('/'));
    let body = match file {
        Some((revision, name)) if !name.contains('/') && ["main", COMMIT].contains(&revision) => {
            std::fs::read(dir.join(name)).ok()
        }
        _ => None,
    };
    let Some(body) = body else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (etag, length) = (format!("{:040x}", body.len()), body.len());
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}

#[test]
fn a_hub_id_is_downloaded_and_then_found_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = serve(&golden("llama-gqa"));
    let ids = write_lists(dir.path(), "ids.json", &[vec![1, 5, 9]]);
    let home = dir.path().join("hf");
    let generate = |model: &str, offline: &str| {
        let env = [
            ("HF_ENDPOINT", endpoint.as_str()),
            ("HF_HOME", arg(&home)),
            ("HF_HUB_CACHE", ""),
            ("HF_TOKEN", ""),
            ("HF_HUB_OFFLINE", offline),
            ("NO_PROXY", "127.0.0.1"),
        ];
        let args = ["generate", "--device", "cpu", "--json", "--ids", arg(&ids), "--max-tokens", "5", "--model", model];
        run_with(&args, "", &env)
    };
    let model = golden("llama-gqa");
    let local = generate(arg(&model), "").json();
    assert_eq!(generate("org/tiny", "").json()["ids"], local["ids"]);
    assert_eq!(generate("org/tiny", "1").json()["ids"], local["ids"]);
    let absent = generate("org/absent", "");
    assert!(absent.code == 1 && absent.stderr.contains("org/absent"), "{absent:?}");
}
