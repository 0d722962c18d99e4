//! DPO and ORPO on whole models: TRL's losses, rewards, gradients and steps, slopes of the loss with
//! LRSA, and the plain definition from logits. `streamed_pairs.rs` streams the pairs.

mod common;

use common::pairs::{OBJECTIVES, folder, gradients, long_pairs, lrsa, norm, open, pair, sequence, tokens, values};
use common::stories::MODEL;
use longreach::attention::Attention;
use longreach::checkpoint::load::{Loaded, Train, load};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::checkpoint::record::AttentionRecord;
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::{Dataset, Example, IGNORED, Split};
use longreach::data::token_count::TokenCount;
use longreach::formats::safetensors_file::Checkpoint;
use longreach::gpu::{Buffer, CpuExecutor, Executor, Kind, Recording};
use longreach::kernels::case::random;
use longreach::kernels::head::Head;
use longreach::kernels::loss::Need;
use longreach::kernels::preference::{PairFactors, PairLoss, PairRows, preference};
use longreach::optim::AdamW;
use longreach::tensor::{Format, Tensor, copy_tensor};
use longreach::train::{
    GradientStep, ObjectiveKind, PairStats, Preference, ProbeRequest, StepSettings, Stepper, TrainJob, Trainer, probe,
};
use serde_json::Value as Json;

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What `make_preference.py` wrote.
struct Golden {
    json: Json,
    grads: Checkpoint,
}

impl Golden {
    fn open() -> Self {
        let text = std::fs::read_to_string(folder().join("preference.json")).unwrap();
        let grads = Checkpoint::open(&folder().join("preference.safetensors")).unwrap();
        Self { json: serde_json::from_str(&text).unwrap(), grads }
    }

    fn pairs(&self) -> Vec<Example> {
        let ids = |pair: &Json, key: &str| -> Vec<u32> { numbers(&pair[key]).into_iter().map(|x| x as u32).collect() };
        let example = |p: &Json| pair(&ids(p, "prompt"), &ids(p, "chosen"), &ids(p, "rejected"));
        self.json["pairs"].as_array().unwrap().iter().map(example).collect()
    }

    fn preference(&self, name: &str, with_reference: bool) -> Preference {
        Preference { with_reference, beta: self.json[name]["beta"].as_f64().unwrap() }
    }
}

/// Relative bounds of an executor: loss and rewards, gradients, and the losses of ten steps.
struct Bounds {
    loss: f64,
    grad: f64,
    losses: f64,
}

const F32: Bounds = Bounds { loss: 2e-6, grad: 1e-5, losses: 2e-5 };
/// transformers computes the tables of RoPE in f32, and the gradients are stored in f32.
const F64: Bounds = Bounds { loss: 1e-7, grad: 1e-6, losses: 1e-6 };
const DEVICE: Bounds = Bounds { loss: 6e-6, grad: 3e-5, losses: 6e-5 };

fn check_golden(device: &mut dyn Executor, bounds: &Bounds) {
    let golden = Golden::open();
    let pairs = golden.pairs();
    for (name, with_reference) in OBJECTIVES {
        let (want, preference) = (&golden.json[name], golden.preference(name, with_reference));
        let close = |what: &str, got: f64, want: f64, bound: f64| {
            let error = (got - want).abs() / want.abs();
            assert!(error < bound, "{name} {what}: {got} for {want}, relative {error:e}");
        };
        let loss = want["loss"].as_f64().unwrap();
        let rewards = [&want["rewards_chosen"], &want["rewards_rejected"]].map(numbers);
        let higher: Vec<f64> = rewards[0].iter().zip(&rewards[1]).map(|(c, r)| f64::from(u8::from(c > r))).collect();

        let mut loaded = open(device, true);
        let evaluation = GradientStep::new(device, false, None).unwrap();
        let batches: Vec<Batch> = pairs.iter().map(|p| Batch::new([p])).collect();
        let (found, stats) =
            evaluation.evaluate_pairs(device, &mut loaded, &batches, Attention::Dense, preference).unwrap();
        close("evaluation", found, loss, bounds.loss);
        // Rewards are small differences of sums, so their errors count beside the size of the sums.
        let near = |got: f64, want: f64| assert!((got - want).abs() < 10.0 * bounds.loss, "{name}: {got} for {want}");
        near(stats.rewards_chosen, mean(&rewards[0]));
        near(stats.rewards_rejected, mean(&rewards[1]));
        near(stats.margin, mean(&rewards[0]) - mean(&rewards[1]));
        assert_eq!(stats.accuracy, mean(&higher), "{name}");

        // Both pairs at once, each in a batch of its own, and with recomputation.
        let at_once = vec![Batch::new(&pairs)];
        let mut first = None;
        for (batches, recompute) in [(&at_once, false), (&at_once, true), (&batches, false)] {
            let step = GradientStep::new(device, recompute, None).unwrap();
            step.run_pairs(device, &mut loaded, batches, Attention::Dense, None, preference).unwrap();
            close("loss", device.read_f64(step.loss()).unwrap()[0], loss, bounds.loss);
            let found = gradients(device, &loaded);
            for (t, got) in loaded.trainables.iter().zip(&found) {
                let want = golden.grads.read(&format!("{name}.grad.{}", t.name)).unwrap().to_f32().unwrap();
                let want = want.iter().map(|&w| f64::from(w));
                let error = norm(got.iter().zip(want.clone()).map(|(g, w)| g - w)) / norm(want);
                assert!(error < bounds.grad, "{name} gradient of {}: {error:e}", t.name);
            }
            match &first {
                None => first = Some(found),
                Some(first) if recompute => assert!(*first == found, "{name}: recomputation changes no bit"),
                Some(_) => {}
            }
        }

        let rule = Box::new(AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 });
        let settings = StepSettings { preference: Some(preference), ..StepSettings::default() };
        let mut stepper = Stepper::new(device, &loaded, rule, settings).unwrap();
        for (step, want) in numbers(&want["losses"]).into_iter().enumerate() {
            let report = stepper.step(device, &mut loaded, &at_once, Attention::Dense, 1e-3).unwrap();
            close(&format!("step {step}"), report.loss, want, bounds.losses);
            if step == 0 {
                near(report.pairs.unwrap().rewards_chosen, mean(&rewards[0]));
            }
        }
    }
}

#[test]
fn losses_rewards_gradients_and_steps_are_those_of_trl_in_f64() {
    check_golden(&mut CpuExecutor::<f64>::new(), &F64);
}

#[test]
fn losses_rewards_gradients_and_steps_are_those_of_trl_in_f32() {
    check_golden(&mut CpuExecutor::<f32>::new(), &F32);
}

#[test]
fn losses_rewards_gradients_and_steps_are_those_of_trl_on_a_device() {
    let Some(mut device) = common::software_device() else { return };
    check_golden(&mut device, &DEVICE);
}

/// Loss and statistics of the op alone, from hidden states, against the formulas in f64.
#[test]
fn the_op_is_its_formula_to_the_ninth_digit() {
    const CHANNELS: usize = 12;
    const VOCABULARY: usize = 40;
    const BETA: f64 = 0.25;
    let device = &mut CpuExecutor::<f64>::new();
    let bounds = [0usize, 5, 12, 12, 20, 21];
    let (n, n_pairs, total) = (21, 2, 3);
    // The first two rows of each chosen sequence are its prompt.
    let answers: Vec<u32> = (0..n).map(|i| u32::from(![0, 1, 12, 13].contains(&i))).collect();
    let (hidden, head) = (random(1, n * CHANNELS, 1.0), random(2, VOCABULARY * CHANNELS, 0.4));
    let labels: Vec<u32> = (0..n as u32).map(|i| i * 7 % VOCABULARY as u32).collect();
    let before: Vec<f32> =
        random(3, n, 0.5).iter().enumerate().map(|(i, x)| if i < 12 { 3.7 + x } else { 9.0 + x }).collect();
    let losses: Vec<f64> = (0..n)
        .map(|row| {
            let logit = |v: usize| -> f64 {
                let of = |c: usize| f64::from(hidden[row * CHANNELS + c]) * f64::from(head[v * CHANNELS + c]);
                (0..CHANNELS).map(of).sum()
            };
            (0..VOCABULARY).map(|v| logit(v).exp()).sum::<f64>().ln() - logit(labels[row] as usize)
        })
        .collect();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let tokens = 40;
    for with_reference in [true, false] {
        let mut want = [0.0; 4];
        for pair in bounds.chunks(3) {
            let (chosen, rejected) = (pair[0]..pair[1], pair[1]..pair[2]);
            let reward = |rows: &std::ops::Range<usize>| -> f64 {
                BETA * rows.clone().map(|i| f64::from(before[i]) - losses[i]).sum::<f64>()
            };
            let mean_log = |rows: &std::ops::Range<usize>| {
                mean(&rows.clone().filter(|&i| answers[i] == 1).map(|i| -losses[i]).collect::<Vec<_>>())
            };
            let odds = |mean: f64| (mean.exp() / (1.0 - mean.exp())).ln();
            let (of_chosen, of_rejected, loss) = if with_reference {
                let (c, r) = (reward(&chosen), reward(&rejected));
                (c, r, -sigmoid(c - r).ln() / total as f64)
            } else {
                let (c, r) = (mean_log(&chosen), mean_log(&rejected));
                let nll: f64 = chosen.clone().map(|i| losses[i]).sum();
                let ratio = BETA * sigmoid(odds(c) - odds(r)).ln();
                (BETA * c, BETA * r, nll / tokens as f64 - ratio / total as f64)
            };
            let stats = [loss, of_chosen, of_rejected, f64::from(u8::from(of_chosen > of_rejected))];
            want.iter_mut().zip(stats).for_each(|(sum, x)| *sum += x);
        }
        let put = |device: &mut dyn Executor, rows: usize, cols: usize, values: &[f32]| {
            let t = Tensor::persistent("t", Format::F32, rows, cols, &device.limits()).unwrap();
            t.write(device, values).unwrap();
            t
        };
        let words = |device: &mut dyn Executor, words: &[u32]| {
            let span = Buffer::persistent("words", Kind::U32, words.len()).span();
            device.write_words(&span, words).unwrap();
            span
        };
        let (states, weight) = (put(device, n, CHANNELS, &hidden), put(device, VOCABULARY, CHANNELS, &head));
        let (reference, kept) = (put(device, 1, n, &before), put(device, 1, 4, &[0.0; 4]));
        let bounds_of: Vec<u32> = bounds.iter().map(|&b| b as u32).collect();
        let [labels, bounds, answers] = [&labels, &bounds_of, &answers].map(|list| words(device, list));
        let rows = PairRows { labels: &labels, bounds: &bounds, answers: &answers };
        let loss = match with_reference {
            true => PairLoss::Dpo { reference: reference.span() },
            false => PairLoss::Orpo { tokens },
        };
        let (factors, need) = (PairFactors { beta: BETA as f32, total }, Need { hidden: true, head: true });
        let max_elements = device.limits().max_elements();
        let mut rec = Recording::new();
        let head = Head::from(&weight);
        let (_, sums) = preference(&mut rec, (&states, head), rows, loss, factors, need, max_elements).unwrap();
        copy_tensor(&mut rec, &sums, &kept);
        device.run(&rec).unwrap();
        let found = device.read_f64(kept.span()).unwrap();
        assert_eq!(bounds.len, 3 * n_pairs);
        for (got, want) in found.iter().zip(want) {
            assert!((got - want).abs() <= 1e-9 * want.abs(), "{with_reference}: {found:?} for {want}");
        }
    }
}

/// Every gradient equals the slope of the loss along a random direction.
fn check_slopes(with_adapter: bool, (name, with_reference): (&str, bool)) {
    const STEP: f64 = 1e-5;
    let device = &mut CpuExecutor::<f64>::new();
    let mut loaded = open(device, with_adapter);
    let preference = Preference { with_reference, beta: 0.3 };
    let batches = [Batch::new(&long_pairs())];
    let step = GradientStep::new(device, true, None).unwrap();
    step.run_pairs(device, &mut loaded, &batches, lrsa(), None, preference).unwrap();
    let found = gradients(device, &loaded);
    for (i, gradient) in found.iter().enumerate() {
        let (tensor, title) = (loaded.trainables[i].value.clone(), loaded.trainables[i].name.clone());
        let before = values(device, &tensor);
        let direction: Vec<f64> = random(i as u64, before.len(), 1.0).into_iter().map(f64::from).collect();
        let h = STEP * before.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        let mut loss_at = |by: f64| {
            let moved: Vec<f64> = before.iter().zip(&direction).map(|(v, d)| v + by * d).collect();
            for p in tensor.pieces() {
                device.write_f64(&p.span, &moved[p.row * tensor.cols..][..p.rows * tensor.cols]).unwrap();
            }
            step.evaluate_pairs(device, &mut loaded, &batches, lrsa(), preference).unwrap().0
        };
        let numeric = (loss_at(h) - loss_at(-h)) / (2.0 * h);
        loss_at(0.0);
        let analytic: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let length = norm(gradient.iter().copied());
        assert!(length > 0.0, "{name} {title}: no gradient reached it");
        let error = (analytic - numeric).abs() / length.max(analytic.abs());
        assert!(error < 1e-6, "{name} {title}: {analytic:e} and {numeric:e}, error {error:e}");
    }
}

#[test]
fn gradients_of_an_adapter_with_lrsa_are_slopes_of_the_loss() {
    OBJECTIVES.iter().for_each(|&objective| check_slopes(true, objective));
}

#[test]
fn gradients_of_a_whole_model_with_lrsa_are_slopes_of_the_orpo_loss() {
    check_slopes(false, OBJECTIVES[1]);
}

/// log p of each token after the first, from the logits of a forward pass.
fn log_probs(device: &mut dyn Executor, loaded: &mut Loaded, ids: &[u32]) -> Vec<f64> {
    let ids = [ids.to_vec()];
    let request = ProbeRequest {
        ids: &ids,
        labels: None,
        grads: false,
        recompute: false,
        attention: lrsa(),
        distill: None,
        chunk: None,
    };
    let found = probe(device, loaded, &request).unwrap();
    let logits = found.iter().find(|(name, _)| name == "logits").unwrap().1.to_f32().unwrap();
    let vocab = loaded.model.config.vocab;
    let log_p = |(row, &next): (&[f32], &u32)| {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        f64::from(row[next as usize]) - sum.ln()
    };
    logits.chunks(vocab).zip(&ids[0][1..]).map(log_p).collect()
}

/// The definition, from the logits of the model with and without its adapter, all with LRSA.
#[test]
fn losses_with_lrsa_follow_their_definition() {
    let device = &mut CpuExecutor::<f64>::new();
    let mut loaded = open(device, true);
    let mut plain = load(device, &WeightSource::open(&folder()).unwrap(), None, Train::Nothing).unwrap();
    let pairs = long_pairs();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let beta = 0.3;
    let of_answer = |s: &Example, all: &[f64]| -> Vec<f64> {
        all.iter().zip(&s.labels[1..]).filter(|(_, label)| **label != IGNORED).map(|(p, _)| *p).collect()
    };
    let (mut dpo, mut odds, mut nll) = (0.0, 0.0, Vec::new());
    for pair in &pairs {
        let (mut rewards, mut log_odds) = (Vec::new(), Vec::new());
        for (i, s) in pair.sequences().enumerate() {
            let all = log_probs(device, &mut loaded, &s.ids);
            let (policy, before) = (of_answer(s, &all), of_answer(s, &log_probs(device, &mut plain, &s.ids)));
            rewards.push(beta * (policy.iter().sum::<f64>() - before.iter().sum::<f64>()));
            let q = mean(&policy).exp();
            log_odds.push((q / (1.0 - q)).ln());
            if i == 0 {
                nll.extend(all.iter().map(|p| -p));
            }
        }
        dpo -= sigmoid(rewards[0] - rewards[1]).ln() / 2.0;
        odds -= beta * sigmoid(log_odds[0] - log_odds[1]).ln() / 2.0;
    }
    for ((name, with_reference), want) in OBJECTIVES.into_iter().zip([dpo, mean(&nll) + odds]) {
        let step = GradientStep::new(device, false, None).unwrap();
        let preference = Preference { with_reference, beta };
        step.run_pairs(device, &mut loaded, &[Batch::new(&pairs)], lrsa(), None, preference).unwrap();
        let found = device.read_f64(step.loss()).unwrap()[0];
        assert!((found - want).abs() < 1e-6 * want, "{name}: {found} for {want}");
    }
}

fn job(objective: ObjectiveKind) -> TrainJob {
    let attention = Some(AttentionRecord::Lrsa { sink: 2, lag: 8, keep: 0.25 });
    TrainJob { objective, attention, steps: Some(8), lr: Some(5e-3), rank: Some(4), ..TrainJob::default() }
}

fn data() -> Dataset {
    let short = |n: usize, seed: usize| tokens(n, seed).into_iter().map(|id| id % 500 + 3).collect::<Vec<_>>();
    let examples =
        |from: usize, n: usize| (from..from + n).map(|i| pair(&short(20, i), &short(12, i + 50), &short(9, i + 90)));
    let split = |examples| Split { examples, ..Split::default() };
    Dataset { train: split(examples(0, 4).collect()), valid: Some(split(examples(9, 3).collect())) }
}

#[test]
fn a_run_starts_at_the_reference_and_comes_to_prefer_the_chosen_answers() {
    let device = &mut CpuExecutor::<f32>::new();
    let files = ModelFiles::open(MODEL, None).unwrap();
    for objective in [ObjectiveKind::Dpo, ObjectiveKind::Orpo] {
        let data = data();
        let mut trainer = Trainer::new(device, &files, &TrainJob { batch_size: 2, ..job(objective) }).unwrap();
        let attention = trainer.attention;
        let before = trainer.evaluate(device, &data.train.examples, attention).unwrap();
        if objective == ObjectiveKind::Dpo {
            let nothing = PairStats { rewards_chosen: 0.0, rewards_rejected: 0.0, margin: 0.0, accuracy: 0.0 };
            assert_eq!(before.pairs, Some(nothing), "a new adapter changes nothing");
            assert!((before.loss - 2f64.ln()).abs() < 1e-6);
        }
        assert_eq!(before.perplexity, None);
        let summary = trainer.fit(device, &data, None, &mut ()).unwrap();
        let after = trainer.evaluate(device, &data.train.examples, attention).unwrap();
        let margins = [before, after].map(|line| line.pairs.unwrap().margin);
        assert!(after.loss < before.loss && margins[1] > margins[0], "{before:?} {after:?}");
        let valid = trainer.evaluate(device, &data.valid.unwrap().examples, attention).unwrap();
        assert_eq!(summary.eval_loss, Some(valid.loss));
    }
}

/// LoRA and DoRA adapters with values, which a run continues.
#[test]
fn an_adapter_that_a_run_continues_is_its_reference() {
    let device = &mut CpuExecutor::<f32>::new();
    let data = Dataset { train: Split { examples: long_pairs(), ..Split::default() }, valid: None };
    let job = TrainJob { rank: None, dropout: Some(0.1), ..job(ObjectiveKind::Dpo) };
    for adapter in [folder().join("lora"), folder().join("../adapters/dora")] {
        let files = ModelFiles::open(folder().to_str().unwrap(), Some(&adapter)).unwrap();
        let mut trainer = Trainer::new(device, &files, &job).unwrap();
        let attention = trainer.attention;
        let before = trainer.evaluate(device, &data.train.examples, attention).unwrap();
        assert_eq!(before.pairs.map(|p| (p.rewards_chosen, p.rewards_rejected)), Some((0.0, 0.0)));
        trainer.fit(device, &data, None, &mut ()).unwrap();
        let after = trainer.evaluate(device, &data.train.examples, attention).unwrap();
        assert!(after.loss < before.loss && after.pairs.unwrap().margin > 0.0, "{before:?} {after:?}");
        // A run that resumes compares with the adapter that it began with.
        let mut again = Trainer::new(device, &files, &job).unwrap();
        let state = trainer.state(device).unwrap();
        again.load_state(device, &state).unwrap();
        assert_eq!(again.evaluate(device, &data.train.examples, attention).unwrap(), after);
    }
}

#[test]
fn a_refusal_for_memory_names_smaller_batches() {
    let files = ModelFiles::open(MODEL, None).unwrap();
    let examples = data().train.examples;
    let (of_pairs, of_tokens) = (job(ObjectiveKind::Dpo), job(ObjectiveKind::Orpo));
    let of_tokens = TrainJob { batch_tokens: Some(TokenCount::Tokens(240)), ..of_tokens };
    for (job, named) in [(TrainJob { batch_size: 4, ..of_pairs }, "`batch_size` "), (of_tokens, "`batch_tokens` ")] {
        let refusal = |kib: u64| {
            let device = &mut CpuExecutor::<f32>::new().pretending_memory(kib << 10);
            let mut trainer = Trainer::new(device, &files, &job).ok()?;
            Some(trainer.check_largest(device, &examples).err()?.to_string())
        };
        let all: Vec<String> = (1..16).filter_map(|n| refusal(n * 512)).collect();
        let settings = |e: &String| Some(e.split_once("it fits with ")?.1.split(": ").next()?.to_string());
        let all: Vec<String> = all.iter().filter_map(settings).collect();
        assert!(all.iter().any(|said| said.contains(named) && said.contains("`accumulate` ")), "{all:?}");
        assert!(all.iter().all(|said| !said.contains("`chunk`")), "{all:?}");
    }
}

#[test]
fn data_and_settings_that_do_not_fit_are_refused() {
    let device = &mut CpuExecutor::<f32>::new();
    let files = ModelFiles::open(MODEL, None).unwrap();
    let plain = Dataset { train: Split { examples: vec![sequence(&[5], &[6, 7])], ..Split::default() }, valid: None };
    for (objective, data, words) in [
        (ObjectiveKind::Dpo, &plain, "learns from preference pairs"),
        (ObjectiveKind::Sft, &data(), "use `objective` dpo or orpo"),
    ] {
        let mut trainer = Trainer::new(device, &files, &job(objective)).unwrap();
        let e = trainer.fit(device, data, None, &mut ()).unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
        let e = trainer.evaluate(device, &data.train.examples, Attention::Dense).unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
    }
    let mut loaded = open(device, true);
    let preference = Preference { with_reference: true, beta: 0.1 };
    let silent = pair(&[5, 6], &[7], &[]);
    for (examples, chunk, words) in [
        (vec![sequence(&[5], &[6, 7])], None, "pairs of sequences"),
        (vec![sequence(&[5], &[6, 7])], Some(2), "pairs of sequences"),
        (vec![silent.clone()], None, "no token of an answer"),
        (vec![silent], Some(2), "no token of an answer"),
    ] {
        let step = GradientStep::new(device, false, chunk).unwrap();
        let batches = [Batch::new(&examples)];
        let e = step.run_pairs(device, &mut loaded, &batches, Attention::Dense, None, preference).unwrap_err();
        assert!(e.to_string().contains(words), "{e}");
    }
    let saved =
        TrainJob { objective: ObjectiveKind::Dpo, modules_to_save: vec!["lm_head".into()], ..TrainJob::default() };
    assert!(Trainer::new(device, &files, &saved).is_err());
}
