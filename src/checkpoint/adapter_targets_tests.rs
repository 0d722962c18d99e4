//! Tests of the choice of modules. The expected modules are those that PEFT 0.21 adapts.

use super::*;
use crate::model::config::testing::small;

fn names(names: &[&str]) -> ModuleSet {
    ModuleSet::Names(names.iter().map(|n| n.to_string()).collect())
}

fn pattern(text: &str) -> ModuleSet {
    ModuleSet::Pattern(text.into())
}

/// Layer and last name of each path.
fn short(targets: &Targets) -> Vec<String> {
    let paths = targets.paths(&small()).unwrap();
    let one = |path: &String| {
        let parts: Vec<&str> = path.split('.').collect();
        format!("{}.{}", parts[2], parts[4])
    };
    paths.iter().map(one).collect()
}

fn error_of(targets: &Targets) -> String {
    targets.paths(&small()).unwrap_err().to_string()
}

#[test]
fn names_are_ends_of_paths_and_one_match_is_enough() {
    assert_eq!(short(&Targets::of(names(&["c_attn", "q_proj"]))), ["0.q_proj", "1.q_proj"]);
    assert_eq!(short(&Targets::of(names(&["layers.1.mlp.up_proj", "roj"]))), ["1.up_proj"]);
    let e = error_of(&Targets::of(names(&["c_attn"])));
    assert!(e.contains("c_attn") && e.contains("down_proj"), "{e}");
}

#[test]
fn a_text_is_a_regular_expression_of_whole_paths() {
    assert_eq!(
        short(&Targets::of(pattern(r".*\.self_attn\.(q|v)_proj"))),
        ["0.q_proj", "0.v_proj", "1.q_proj", "1.v_proj"]
    );
    assert_eq!(short(&Targets::of(pattern(r"(?!.*\.0\.)(?P<all>.*)\.(?:gate|up)_proj"))), ["1.gate_proj", "1.up_proj"]);
    assert_eq!(short(&Targets::of(pattern("model.layers.1.mlp.up_proj"))), ["1.up_proj"]);
    assert!(error_of(&Targets::of(pattern("q_proj"))).contains("q_proj"), "an end of a path is not a match");
    assert!(error_of(&Targets::of(pattern(".*self_attn.*"))).contains("'model.layers.0.self_attn'"));
    assert!(error_of(&Targets::of(pattern(".*(embed_tokens|q_proj)"))).contains("modules_to_save"));
}

#[test]
fn all_linear_is_every_linear_layer_but_the_head() {
    for text in ["all-linear", "ALL-LINEAR"] {
        assert_eq!(short(&Targets::of(pattern(text))).len(), 14);
    }
    let some = Targets { layers: Some(vec![1]), ..Targets::of(pattern(ALL_LINEAR)) };
    assert_eq!(short(&some).len(), 7);
}

#[test]
fn layers_count_in_the_list_of_layers() {
    let base = Targets { layers: Some(vec![1, 9]), ..Targets::of(names(&["q_proj"])) };
    assert_eq!(short(&base), ["1.q_proj"]);
    let with = |list: &[&str]| Targets { layers_pattern: list.iter().map(|n| n.to_string()).collect(), ..base.clone() };
    assert_eq!(short(&with(&["h", "layers"])), ["1.q_proj"]);
    assert!(error_of(&with(&["h"])).contains("layers_to_transform [1, 9]"));
    // A whole path is adapted whatever its layer.
    let whole = Targets { modules: names(&["model.layers.0.self_attn.k_proj", "q_proj"]), ..base };
    assert_eq!(short(&whole), ["0.k_proj", "1.q_proj"]);
}

#[test]
fn exceptions_and_saved_modules_are_not_adapted() {
    let base = Targets::of(names(&["q_proj", "up_proj"]));
    let except = |set: ModuleSet| Targets { exclude: Some(set), ..base.clone() };
    assert_eq!(short(&except(names(&["q_proj", "1.mlp.up_proj"]))), ["0.up_proj"]);
    assert_eq!(short(&except(pattern(r".*layers\.0\..*"))), ["1.q_proj", "1.up_proj"]);
    assert!(error_of(&except(pattern(".*"))).contains("exclude_modules"));
    let saved = Targets { to_save: vec!["mlp".into()], ..base.clone() };
    assert_eq!(short(&saved), ["0.q_proj", "1.q_proj"]);
}

#[test]
fn saved_modules_are_ends_of_paths_and_what_they_contain() {
    let of = |names: &[&str], tied: bool, ensure_weight_tying: bool| -> Vec<String> {
        let to_save = names.iter().map(|n| n.to_string()).collect();
        let targets = Targets { to_save, ensure_weight_tying, ..Targets::of(pattern(ALL_LINEAR)) };
        let model = ModelConfig { tied, ..small() };
        targets.saved_weights(&model).into_iter().map(|weight| weight.name).collect()
    };
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    assert_eq!(of(&["lm_head"], false, false), [head]);
    assert_eq!(of(&["head", "embed_tokens", "score"], false, true), [embedding, head]);
    assert_eq!(of(&["lm_head"], true, false), [head]);
    assert_eq!(of(&["embed_tokens"], true, false), [embedding]);
    assert_eq!(of(&["embed_tokens", "lm_head"], true, true), [embedding]);
    assert_eq!(of(&["lm_head"], true, true), [embedding]);
    assert_eq!(of(&["norm"], false, false).len(), 5);
    assert_eq!(of(&["layers.1"], false, false).len(), 9);
}

#[test]
fn patterns_that_take_too_long_are_refused() {
    let e = error_of(&Targets::of(pattern(r"(?:(?=.)[a-z.0-9_]*)*(?=x)!")));
    assert!(e.contains("simplify it") && e.contains("target_modules"), "{e}");
    for hostile in ["(".repeat(100_000), format!("{}a{}", "(".repeat(5000), ")".repeat(5000)), "a{999}{999}{99}".into()]
    {
        assert!(error_of(&Targets::of(pattern(&hostile))).contains("target_modules"));
    }
    let many: Vec<(String, usize)> = (0..1 << 20).map(|i| (format!("a{i}"), 1)).collect();
    assert!(PathPatterns::new(&many, "rank_pattern", 14).unwrap_err().to_string().contains("too many"));
}

#[test]
fn the_command_line_separates_names_by_commas_or_spaces() {
    let parse = |text: &str| ModuleSet::parse(text).unwrap();
    assert_eq!(parse(" q_proj, v_proj"), names(&["q_proj", "v_proj"]));
    assert_eq!(parse("q_proj v_proj,"), names(&["q_proj", "v_proj"]));
    assert_eq!(parse("model.layers.0.mlp.up_proj"), names(&["model.layers.0.mlp.up_proj"]));
    assert!(parse("all").is_all_linear() && parse("all-linear").is_all_linear());
    assert_eq!(parse(r".*\.(q|v)_proj"), pattern(r".*\.(q|v)_proj"));
    assert!(ModuleSet::parse(" , ").is_err());
    assert_eq!(LayerList::parse("0, 4-6,9").unwrap().0, [0, 4, 5, 6, 9]);
    for bad in ["", "a", "3-1", "1-", "0-99999999999"] {
        assert!(LayerList::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_name_typed_in_vain_is_told() {
    let check = |targets: Targets| targets.check_every_name(&small()).unwrap_err().to_string();
    assert!(check(Targets::of(names(&["q_proj", "q_porj"]))).contains("'q_porj'"));
    let saved = Targets { to_save: vec!["classifier".into()], ..Targets::of(names(&["q_proj"])) };
    assert!(check(saved).contains("'classifier'"));
    let layer = Targets { layers: Some(vec![0, 2]), ..Targets::of(names(&["q_proj"])) };
    assert!(check(layer).contains("layer 2 is not in the model, which has layers 0 to 1"));
}
