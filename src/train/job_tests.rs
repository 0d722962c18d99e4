//! Tests of the job: rejected settings, defaults, and that flags, JSON and library agree.

use super::*;
use crate::checkpoint::adapter_targets::LayerList;
use crate::checkpoint::load::Decay;
use crate::data::token_count::TokenCount;
use crate::optim::{OptimizerKind, Phases, Schedule};
use crate::train::Keep;

fn names(names: &[&str]) -> ModuleSet {
    ModuleSet::Names(names.iter().map(|n| n.to_string()).collect())
}

#[test]
fn a_job_survives_json_and_unknown_fields_are_named() {
    let job = TrainJob {
        model: "m".into(),
        targets: Some(names(&["q_proj"])),
        layers: Some(LayerList(vec![0, 3])),
        attention: Some(AttentionRecord::Lrsa { sink: 4, lag: 20, keep: 0.35 }),
        ..TrainJob::default()
    };
    let text = serde_json::to_string(&job).unwrap();
    assert_eq!(serde_json::from_str::<TrainJob>(&text).unwrap(), job);
    let short: TrainJob = serde_json::from_str(r#"{"model": "m", "schedule": "linear", "decay": "all"}"#).unwrap();
    assert_eq!((short.schedule, short.decay, short.clip), (Schedule::Linear, Decay::All, 1.0));
    let e = serde_json::from_str::<TrainJob>(r#"{"learning_rate": 1}"#).unwrap_err().to_string();
    assert!(e.contains("learning_rate"), "{e}");
}

#[test]
fn what_no_run_can_mean_names_its_field() {
    type Change = fn(&mut TrainJob);
    let cases: [(&str, Change); 56] = [
        ("`epochs`", |j| (j.steps, j.epochs) = (Some(1), Some(1))),
        ("`steps`", |j| j.steps = Some(0)),
        ("`batch_size`", |j| j.batch_size = 0),
        ("`accumulate`", |j| j.accumulate = 0),
        ("`max_length`", |j| j.max_length = Some(1)),
        ("`valid_fraction`", |j| j.valid_fraction = Some(0.0)),
        ("`valid_fraction`", |j| j.valid_fraction = Some(1.0)),
        ("`valid_fraction`", |j| j.valid_fraction = Some(f64::NAN)),
        ("`batch_size`", |j| (j.batch_size, j.batch_tokens) = (2, Some(TokenCount::Auto))),
        ("`epochs`", |j| (j.epochs, j.batch_tokens) = (Some(1 << 40), Some(TokenCount::Auto))),
        ("`max_length`", |j| j.long = Long::Window),
        ("`overlap`", |j| (j.max_length, j.overlap) = (Some(100), Some(10))),
        ("`overlap`", |j| (j.max_length, j.long, j.overlap) = (Some(100), Long::Window, Some(99))),
        ("`lr`", |j| j.lr = Some(f64::NAN)),
        ("`distill`", |j| j.distill = 1.5),
        ("`distill`", |j| j.distill = -0.1),
        ("`distill`", |j| j.distill = f64::NAN),
        ("`teacher`", |j| (j.method, j.distill) = (Method::Full, 0.5)),
        ("`modules_to_save`", |j| (j.distill, j.modules_to_save) = (0.5, vec!["lm_head".into()])),
        ("`beta`", |j| j.beta = Some(0.1)),
        ("`beta`", |j| (j.objective, j.beta) = (ObjectiveKind::Dpo, Some(0.0))),
        ("`beta`", |j| (j.objective, j.beta) = (ObjectiveKind::Orpo, Some(f64::NAN))),
        ("`distill`", |j| (j.objective, j.distill) = (ObjectiveKind::Dpo, 0.5)),
        ("`method` full", |j| (j.objective, j.method) = (ObjectiveKind::Dpo, Method::Full)),
        ("`objective` orpo", |j| (j.objective, j.modules_to_save) = (ObjectiveKind::Dpo, vec!["lm_head".into()])),
        ("`distill`", |j| (j.objective, j.distill) = (ObjectiveKind::Orpo, 0.1)),
        ("`long` window", |j| (j.objective, j.max_length, j.long) = (ObjectiveKind::Dpo, Some(64), Long::Window)),
        ("`clip`", |j| j.clip = -1.0),
        ("`warmup_ratio`", |j| j.warmup_ratio = Some(1.1)),
        ("`warmup_ratio`", |j| j.warmup_ratio = Some(f64::NAN)),
        ("`warmup_ratio`", |j| (j.warmup, j.warmup_ratio) = (3, Some(0.1))),
        ("`decay_ratio`", |j| (j.schedule, j.decay_ratio) = (Schedule::Wsd, Some(0.0))),
        ("`decay_ratio`", |j| (j.schedule, j.decay_ratio) = (Schedule::Wsd, Some(1.5))),
        ("`schedule`", |j| j.decay_ratio = Some(0.3)),
        ("`lora_plus`", |j| j.lora_plus = Some(0.0)),
        ("`lora_plus`", |j| j.lora_plus = Some(f64::INFINITY)),
        ("`lora_plus`", |j| (j.method, j.lora_plus) = (Method::Full, Some(16.0))),
        ("`neftune`", |j| j.neftune = -1.0),
        ("`neftune`", |j| j.neftune = f64::NAN),
        ("`momentum`", |j| j.momentum = Some(0.9)),
        ("`eps`", |j| (j.optimizer, j.eps) = (OptimizerKind::Lion, Some(1e-8))),
        ("`momentum`", |j| (j.optimizer, j.momentum) = (OptimizerKind::Sgd, Some(1.0))),
        ("`rank`", |j| j.rank = Some(0)),
        ("`alpha`", |j| j.alpha = Some(f64::INFINITY)),
        ("`dropout`", |j| j.dropout = Some(1.0)),
        ("`targets`", |j| (j.method, j.targets) = (Method::Full, Some(names(&["q_proj"])))),
        ("`dora`", |j| (j.method, j.dora) = (Method::Full, true)),
        ("`rslora`", |j| (j.rslora, j.adapter) = (true, Some("a".into()))),
        ("`modules_to_save`", |j| (j.modules_to_save, j.adapter) = (vec!["lm_head".into()], Some("a".into()))),
        ("`layers`", |j| (j.targets, j.layers) = (ModuleSet::parse(".*_proj").ok(), Some(LayerList(vec![0])))),
        ("`adapter`", |j| (j.rank, j.adapter) = (Some(4), Some("a".into()))),
        ("`keep`", |j| j.attention = Some(AttentionRecord::Lrsa { sink: 4, lag: 10, keep: 0.01 })),
        ("`keep`", |j| j.keeps = Some(vec![Keep::Fixed(0.5), Keep::Fixed(0.001)])),
        ("`keep`", |j| j.keeps = Some(vec![Keep::Anneal { from: 0.5, to: 0.001 }])),
        ("`keep`", |j| j.keeps = Some(vec![Keep::Anneal { from: 0.001, to: 0.5 }])),
        ("`keep`", |j| (j.attention, j.keeps) = (Some(AttentionRecord::Dense), Some(vec![Keep::Fixed(0.5)]))),
    ];
    TrainJob::default().validate().unwrap();
    for (field, change) in cases {
        let mut job = TrainJob::default();
        change(&mut job);
        let e = job.validate().expect_err(field);
        assert!(e.to_string().contains(field), "{field}: {e}");
        assert_eq!(e.kind(), crate::error::ErrorKind::Usage);
    }
}

#[test]
fn a_teacher_needs_a_weight() {
    let alone = TrainJob { teacher: Teacher::Oneself, ..TrainJob::default() };
    assert!(alone.validate().unwrap_err().to_string().contains("`distill`"));
    let job: TrainJob = serde_json::from_str(r#"{"method": "full", "distill": 1, "teacher": "self"}"#).unwrap();
    job.validate().unwrap();
    assert_eq!(job.distillation(), Some(Distill { weight: 1.0, teacher: Teacher::Oneself }));
    let base: TrainJob = serde_json::from_str(r#"{"method": "full", "teacher": "base"}"#).unwrap();
    base.validate().unwrap();
}

#[test]
fn preferences_have_a_beta_and_dpo_a_reference() {
    let read = |json: &str| serde_json::from_str::<TrainJob>(json).unwrap();
    assert_eq!(TrainJob::default().preference(), None);
    let dpo = read(r#"{"objective": "dpo"}"#);
    dpo.validate().unwrap();
    assert_eq!(dpo.preference(), Some(Preference { with_reference: true, beta: 0.1 }));
    let orpo = read(r#"{"objective": "orpo", "beta": 0.25, "method": "full"}"#);
    orpo.validate().unwrap();
    assert_eq!(orpo.preference(), Some(Preference { with_reference: false, beta: 0.25 }));
}

#[test]
fn defaults_follow_the_method_and_the_rank() {
    let config = crate::model::config::testing::small();
    let job = TrainJob { rank: Some(4), ..TrainJob::default() };
    let adapter = job.new_adapter(&config).unwrap();
    assert_eq!((adapter.r, adapter.alpha, adapter.modules(&config).unwrap().len()), (4, 8.0, 14));
    let patterns = TrainJob {
        rank_pattern: vec![("down_proj".into(), 2), (r"layers\.0\..*".into(), 8)],
        alpha_pattern: vec![("down_proj".into(), 1.0)],
        ..job.clone()
    };
    let modules = patterns.new_adapter(&config).unwrap().modules(&config).unwrap();
    let of = |path: &str| modules.iter().find(|m| m.path == path).map(|m| (m.rank, m.scale)).unwrap();
    assert_eq!(of("model.layers.0.mlp.down_proj"), (2, 0.5), "the first match counts");
    assert_eq!(of("model.layers.0.self_attn.q_proj"), (8, 1.0));
    assert_eq!(of("model.layers.1.self_attn.q_proj"), (4, 2.0));
    assert_eq!((adapter.use_rslora, adapter.use_dora, adapter.targets.ensure_weight_tying), (false, false, false));
    assert_eq!(job.learning_rate(), 2e-4);
    assert_eq!(TrainJob { method: Method::Full, ..TrainJob::default() }.learning_rate(), 2e-5);
    let sampler = job.sampler(vec![5; 7]).unwrap();
    assert_eq!((job.total_steps(&sampler), TrainJob { epochs: Some(3), ..job.clone() }.total_steps(&sampler)), (7, 21));
    let unknown = TrainJob { targets: Some(names(&["lm_head"])), ..TrainJob::default() };
    assert!(unknown.new_adapter(&config).unwrap_err().to_string().contains("lm_head"));
}

/// transformers: warm-up steps = ceil(ratio · steps).
#[test]
fn phases_are_given_in_steps_or_as_fractions_of_them() {
    let of = |job: TrainJob, total| {
        job.validate().unwrap();
        let Phases { warmup, decay, total: whole } = job.phases(total);
        assert_eq!(whole, total);
        (warmup, decay)
    };
    let ratio = |r: f64| TrainJob { warmup_ratio: Some(r), ..TrainJob::default() };
    assert_eq!([0.0, 0.1, 1.0].map(|r| of(ratio(r), 101).0), [0, 11, 101]);
    assert_eq!(of(TrainJob { warmup: 7, ..TrainJob::default() }, 101).0, 7);
    let wsd = TrainJob { schedule: Schedule::Wsd, ..TrainJob::default() };
    assert_eq!((of(wsd.clone(), 101).1, of(TrainJob { decay_ratio: Some(0.5), ..wsd }, 101).1), (21, 51));
}

#[test]
fn modules_to_save_keep_a_models_tie() {
    let job = TrainJob { modules_to_save: vec!["embed_tokens".into()], dora: true, ..TrainJob::default() };
    let model = ModelConfig { tied: true, ..crate::model::config::testing::small() };
    let adapter = job.new_adapter(&model).unwrap();
    assert!(adapter.targets.ensure_weight_tying && adapter.targets.keeps_tie(&model) && adapter.use_dora);
    assert!(!job.new_adapter(&crate::model::config::testing::small()).unwrap().targets.ensure_weight_tying);
    let typo = TrainJob { modules_to_save: vec!["lm_haed".into()], ..TrainJob::default() };
    assert!(typo.new_adapter(&model).unwrap_err().to_string().contains("lm_haed"));
}

#[test]
fn targets_in_json_are_a_list_or_a_text() {
    let read = |json: &str| serde_json::from_str::<TrainJob>(json).unwrap().targets.unwrap();
    assert_eq!(read(r#"{"targets": ["q_proj"]}"#), names(&["q_proj"]));
    assert_eq!(read(r#"{"targets": ".*q_proj"}"#), ModuleSet::Pattern(".*q_proj".into()));
}

/// A command line with only the job's flags.
#[derive(clap::Parser, Debug)]
struct Line {
    #[command(flatten)]
    job: TrainJob,
}

#[test]
fn flags_json_and_the_library_have_the_same_defaults() {
    let required = TrainJob { model: "m".into(), data: "d".into(), out: "o".into(), ..TrainJob::default() };
    let flags = ["train", "--model", "m", "--data", "d", "--out", "o"];
    assert_eq!(<Line as clap::Parser>::try_parse_from(flags).unwrap().job, required);
    let json = r#"{"model": "m", "data": "d", "out": "o"}"#;
    assert_eq!(serde_json::from_str::<TrainJob>(json).unwrap(), required);
}

#[test]
fn every_field_is_a_flag_but_the_attention() {
    use clap::CommandFactory;
    let command = Line::command();
    let flags: Vec<String> =
        command.get_arguments().filter_map(|a| a.get_long()).map(|f| f.replace('-', "_")).collect();
    // How a command meets the folder is no part of a job.
    let flags: Vec<String> = flags.into_iter().filter(|f| f != "resume" && f != "overwrite").collect();
    let value = serde_json::to_value(TrainJob::default()).unwrap();
    let fields = value.as_object().unwrap().keys().filter(|k| *k != "attention" && *k != "keeps");
    assert!(fields.clone().all(|field| flags.contains(field)) && fields.count() == flags.len(), "{flags:?}");
    for argument in command.get_arguments() {
        assert!(argument.get_help().is_some(), "{}", argument.get_id());
    }
}

#[test]
fn the_help_names_every_optimisers_own_defaults() {
    use clap::ValueEnum;
    for kind in OptimizerKind::ALL {
        let info = kind.info();
        let value = kind.to_possible_value().unwrap();
        let help = value.get_help().unwrap().to_string().replace('\n', " ");
        let [lora, full] = info.default_lr;
        let mut defaults = vec![format!("lr {lora:e} for lora and {full:e} for full")];
        let rule = format!("{:?}", (info.make)(&Default::default()));
        for setting in info.settings {
            let at = rule.find(&format!("{setting}: ")).unwrap() + setting.len() + 2;
            let shown = rule[at..].split([')', '}']).next().unwrap().trim_start_matches('(').replace(", ", ",");
            let shown = if *setting == "betas" { shown } else { shown.split(',').next().unwrap().to_string() };
            defaults.push(format!("{setting} {shown}"));
        }
        for default in defaults {
            assert!(help.contains(&default), "{default} is not in: {help}");
        }
        assert_eq!((value.get_name(), serde_json::to_value(kind).unwrap()), (info.name, info.name.into()));
    }
}

#[test]
fn jobs_written_before_there_was_a_choice_of_optimiser_are_read() {
    let text = r#"{"betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1, "lr": null, "schedule": "cosine"}"#;
    let job: TrainJob = serde_json::from_str(text).unwrap();
    job.validate().unwrap();
    assert_eq!((job.optimizer, job.betas, job.eps), (OptimizerKind::AdamW, Some((0.8, 0.95)), Some(1e-6)));
    let lion: TrainJob = serde_json::from_str(r#"{"optimizer": "lion"}"#).unwrap();
    assert_eq!((lion.optimizer, lion.learning_rate()), (OptimizerKind::Lion, 4e-5));
}

#[test]
fn steps_draw_their_keep_ratio_and_ranges_move_with_the_steps() {
    let read = |json: &str| serde_json::from_str::<TrainJob>(json).unwrap();
    let old = read(r#"{"keeps": [1.0, 0.5, 0.25]}"#);
    assert_eq!(old.keeps, Some([1.0, 0.5, 0.25].map(Keep::Fixed).to_vec()));
    let attention = Attention::Lrsa(Lrsa::new(4, 64, 0.125).unwrap());
    let keeps = |job: &TrainJob, total: u64| -> Vec<f64> {
        let keep = |step| match job.attention_of(attention, 1000, step, total).unwrap() {
            Attention::Lrsa(l) => l.keep(),
            Attention::Dense => panic!("LRSA stays LRSA"),
        };
        (1..=total).map(keep).collect()
    };
    assert!(keeps(&read(r#"{"keeps": []}"#), 3).iter().all(|&keep| keep == 0.125));
    // A list alone does not depend on the length of the run.
    assert_eq!(keeps(&old, 40)[..20], keeps(&old, 20));
    let job = read(r#"{"keeps": [1.0, "0.5..0.125"]}"#);
    assert_eq!(serde_json::to_value(&job).unwrap()["keeps"], serde_json::json!([1.0, "0.5..0.125"]));
    let drawn = keeps(&job, 40);
    let annealed: Vec<f64> = drawn.iter().copied().filter(|&keep| keep < 1.0).collect();
    assert!((10..31).contains(&annealed.len()) && annealed.windows(2).all(|pair| pair[1] < pair[0]), "{drawn:?}");
    assert_eq!(drawn, keeps(&job, 40));
    let with = |keep: f64| Attention::Lrsa(Lrsa::new(4, 64, keep).unwrap());
    let all = job.attentions(attention, 1000).unwrap();
    assert_eq!(all, [(with(0.125), 0.25), (with(0.5), 0.25), (with(1.0), 0.5)]);
    assert_eq!(job.attentions(Attention::Dense, 1000).unwrap(), [(Attention::Dense, 1.0)]);
    assert_eq!(read(r#"{"keeps": []}"#).attentions(attention, 9).unwrap(), [(attention, 1.0)]);
}

#[test]
fn steps_are_told_apart_where_they_attend_differently() {
    let own = Attention::Lrsa(Lrsa::new(4, 64, 0.25).unwrap());
    let keep = |keeps, attention, longest| {
        let job = TrainJob { keeps, ..TrainJob::default() };
        let step = job.attention_of(attention, longest, 3, 48).unwrap();
        job.keep_of(attention, longest, step)
    };

    assert_eq!(keep(None, own, 1000), Some(0.25));
    assert_eq!([132, 133].map(|longest| keep(None, own, longest).is_some()), [false, true], "S + 2L = 132");
    assert_eq!(keep(None, Attention::Dense, 1000), None);
    let fixed = Keep::Fixed(0.25);
    for one in [vec![], vec![fixed], vec![fixed, fixed]] {
        assert_eq!(keep(Some(one), own, 1000), None);
    }
    assert!(keep(Some(vec![Keep::Anneal { from: 1.0, to: 0.25 }]), own, 1000).is_some());
}

#[test]
fn without_a_list_every_few_steps_have_each_ratio_once() {
    let own = |lag: usize, keep: f64| Lrsa::new(4, lag, keep).unwrap();
    let usual = |lag, keep, longest| Keep::list(Draws::usual(own(lag, keep), longest).keeps());
    assert_eq!(usual(64, 0.25, 8192), "0.25, 0.125, 1, 1");
    assert_eq!(usual(64, 0.25, 8193), "0.25, 0.125, 0.5");
    assert_eq!(usual(4, 0.25, 1000), "0.25, 1", "an eighth of 4 tokens is none");
    assert_eq!(usual(64, 0.5, 9000), "0.5, 0.25", "no dense step on long texts");
    assert_eq!(usual(64, 1.0, 1000), "");
    let steps = |seed: u64, longest: usize| -> Vec<f64> {
        let job = TrainJob { seed, ..TrainJob::default() };
        let keep = |step| match job.attention_of(Attention::Lrsa(own(64, 0.25)), longest, step, 48).unwrap() {
            Attention::Lrsa(l) => l.keep(),
            Attention::Dense => panic!("LRSA stays LRSA"),
        };
        (1..=48).map(keep).collect()
    };
    for (longest, all) in [(1000, &[0.125, 0.25, 1.0, 1.0][..]), (9000, &[0.125, 0.25, 0.5])] {
        for turn in steps(0, longest).chunks(all.len()) {
            let mut turn = turn.to_vec();
            turn.sort_by(f64::total_cmp);
            assert_eq!(turn, all);
        }
    }
    // The order is another one in each turn, and for each seed.
    let turns: std::collections::BTreeSet<String> = steps(0, 1000).chunks(4).map(|turn| format!("{turn:?}")).collect();
    assert!(turns.len() > 5, "{turns:?}");
    assert_ne!(steps(0, 1000), steps(1, 1000));
    // The texts of a step decide, not those of the others.
    let job = TrainJob::default();
    let attention = Attention::Lrsa(own(64, 0.25));
    let step = |longest| job.attention_of(attention, longest, 1, 48).unwrap();
    assert_eq!(
        [step(8192), step(9000)].map(|step| job.keep_of(attention, 9000, step)),
        [Some(1.0), Some(steps(0, 9000)[0])]
    );
    // The Python package has the same order.
    assert_eq!(steps(0, 1000)[..8], [1.0, 1.0, 0.25, 0.125, 0.125, 0.25, 1.0, 1.0]);
}
