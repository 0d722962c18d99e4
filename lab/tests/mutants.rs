//! `longreach-lab mutants` end to end on two small shaders: the cases detect planted faults.

use std::process::{Command, Output};

use longreach::gpu::{adapters, find_adapter, software_adapter};

/// Runs the program and returns its exit status, stdout and stderr.
fn run(args: &[&str]) -> (i32, String, String) {
    let program = env!("CARGO_BIN_EXE_longreach-lab");
    let Output { status, stdout, stderr } = Command::new(program).args(args).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
    (status.code().expect("no signal ends the program"), text(stdout), text(stderr))
}

/// The run's JSON object, whatever the score, on the device in LONGREACH_TEST_DEVICE or on a
/// software adapter. Without an adapter it fails in CI and prints a skip elsewhere.
fn mutants(args: &[&str]) -> Option<serde_json::Value> {
    let named = std::env::var("LONGREACH_TEST_DEVICE").ok();
    let is_there = match &named {
        Some(name) => find_adapter(&adapters(), name).map(|_| true).expect("LONGREACH_TEST_DEVICE names an adapter"),
        None => software_adapter().is_some(),
    };
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "no software Vulkan adapter: run scripts/setup");
        eprintln!("SKIPPED: no software Vulkan adapter; on Debian: apt-get install mesa-vulkan-drivers");
        return None;
    }
    let device = named.as_deref().map_or(vec![], |name| vec!["--device", name]);
    let (code, stdout, stderr) = run(&[&["mutants", "--json"], args, &device].concat());
    assert!(code < 2, "{stderr}");
    Some(serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}")))
}

#[test]
fn the_cases_find_the_faults_of_two_small_shaders() {
    let Some(report) = mutants(&["--shader", "elementwise/add"]) else { return };
    let names: Vec<&String> = report["shaders"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["elementwise/add", "elementwise/add_into"]);
    let total = &report["total"];
    assert!(total["killed"].as_u64().unwrap() > 20, "{report}");
    assert_eq!(total["survivors"], 0, "{report}");
    assert_eq!(report["shortfalls"], serde_json::json!([]));
}

#[test]
fn a_weak_suite_lets_mutants_survive() {
    let Some(report) = mutants(&["--shader", "elementwise/add_into", "--cases", "no case has this name"]) else {
        return;
    };
    let total = &report["total"];
    assert_eq!((&total["killed"], &total["score"]), (&0.into(), &0.0.into()), "{report}");
    assert!(total["survivors"].as_u64().unwrap() > 10);
    assert!(!report["shortfalls"].as_array().unwrap().is_empty());
}

#[test]
fn what_cannot_be_run_is_refused_with_a_reason() {
    for (args, part) in [
        (["--shader", "no/such"], "no/such"),
        (["--timeout", "0"], "--timeout"),
        (["--device", "no such device"], "no such device"),
    ] {
        let refused = run(&[&["mutants"], &args[..]].concat());
        assert_eq!(refused.0, 2, "{args:?}: {refused:?}");
        assert!(refused.2.contains(part), "{refused:?}");
    }
}

#[test]
fn a_read_behind_the_end_is_found_though_what_it_gives_is_never_used() {
    let folder = tempfile::tempdir().unwrap();
    let given = folder.path().join("faults.txt");
    let fault = "matmul/row: cols[i] = w_first(min(col + i, p.n - 1u)); → cols[i] = w_first(col + i);\n";
    std::fs::write(&given, fault).unwrap();
    let Some(report) = mutants(&["--given", given.to_str().unwrap()]) else { return };
    assert_eq!((&report["total"]["killed"], &report["total"]["survivors"]), (&1.into(), &0.into()), "{report}");
}
