//! Tests of the view of kept tokens: the search, what is said of a token, and the cost of long texts.

use std::collections::BTreeMap;

use egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};

use super::kept_text::laid;
use super::view_tests::{Shown, harness, kept, press, talking};
use crate::app::message::Event;
use crate::app::state::{Action, App};
use crate::eval::KeptMap;

const SIZE: (f32, f32) = (1280.0, 800.0);

fn says(harness: &Harness<'_, Shown>, text: &str) -> bool {
    harness.query_all_by(|_| true).any(|node| {
        let node = node.accesskit_node();
        node.label().is_some_and(|label| label.contains(text)) || node.value().is_some_and(|value| value.contains(text))
    })
}

#[test]
fn the_search_goes_from_place_to_place() {
    let mut harness = harness(kept(), SIZE);
    press(&mut harness, Modifiers::COMMAND, Key::F);
    harness.event(egui::Event::Text("Word29".into()));
    harness.run_steps(3);
    // word29 and word290 to word299.
    assert!(says(&harness, "1 of 11"));
    for (modifiers, summary) in
        [(Modifiers::NONE, "2 of 11"), (Modifiers::SHIFT, "1 of 11"), (Modifiers::SHIFT, "11 of 11")]
    {
        press(&mut harness, modifiers, Key::Enter);
        assert!(says(&harness, summary), "{summary}");
    }
    harness.get_by_label("Next").click();
    harness.run_steps(2);
    assert!(says(&harness, "1 of 11"));
    harness.get_by_label("Jump to the evidence").click();
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::Evidence]);
    press(&mut harness, Modifiers::COMMAND, Key::F);
    harness.event(egui::Event::Text("whale".into()));
    harness.run_steps(2);
    assert!(says(&harness, "not found"));
}

#[test]
fn a_token_says_which_heads_keep_it() {
    let mut app = talking();
    let tokens: Vec<String> = ["sink\n", "kept\n", "gone\n", "recent"].map(String::from).to_vec();
    let kept = vec![vec![vec![1], vec![1]], vec![vec![1], vec![]]];
    app.on_event(Event::Kept(Box::new(KeptMap { tokens, sink: 1, lag: 8, keep: 0.5, recent_start: 3, kept })));
    let expected = [
        "token 1 of 4: in the sink, always kept",
        "token 2 of 4: kept by 3 of 4 heads",
        "token 3 of 4: kept by 0 of 4 heads",
        "token 4 of 4: recent, always kept",
    ];
    for (row, text) in expected.iter().enumerate() {
        let mut harness = harness(app.clone(), SIZE);
        let rect = harness.query_all_by(|_| true).find(|node| {
            node.accesskit_node().value().is_some_and(|value| value.contains("sink\nkept"))
                || node.accesskit_node().label().is_some_and(|label| label.contains("sink\nkept"))
        });
        let rect = rect.expect("the text").rect();
        let at = rect.left_top() + egui::vec2(8.0, rect.height() * (row as f32 + 0.5) / 4.0);
        harness.event(egui::Event::PointerMoved(at));
        harness.run_steps(30);
        assert!(says(&harness, text), "row {row}: '{text}'");
    }
}

/// A conversation of 100,000 tokens in paragraphs of 100; the last token is alone.
fn long() -> App {
    let mut app = talking();
    let word = |i: usize| if i % 100 == 99 { format!(" word{i}.\n") } else { format!(" word{i}") };
    let tokens: Vec<String> = (0..100_000).map(word).collect();
    let every = |step: usize| (16..99_900).step_by(step).collect::<Vec<_>>();
    let kept = (0..4).map(|layer| vec![every(4 + layer), every(3 + layer)]).collect();
    app.on_event(Event::Kept(Box::new(KeptMap { tokens, sink: 16, lag: 64, keep: 0.25, recent_start: 99_900, kept })));
    app
}

#[test]
fn a_frame_lays_out_only_what_is_visible() {
    let mut harness = harness(long(), SIZE);
    let n_laid_out = |harness: &Harness<'_, Shown>| laid(&harness.ctx).lock().unwrap().n_laid_out;
    // A paragraph has two rows at least, so the window shows fewer than 25 of the 1000.
    assert!((2..25).contains(&n_laid_out(&harness)), "{} at the top", n_laid_out(&harness));
    assert!(says(&harness, "word150") && !says(&harness, "word50000"));
    let began = std::time::Instant::now();
    harness.run_steps(10);
    eprintln!("a frame of 100,000 tokens takes {:.2} ms", began.elapsed().as_secs_f64() * 100.0);
    // A search jumps far down; a frame still lays out little, and the place is in the window.
    harness.state_mut().app.chat.kept_page.query = "word73456".into();
    harness.state_mut().app.chat.kept_page.search();
    harness.run_steps(1);
    assert!(n_laid_out(&harness) < 60, "{} for the jump", n_laid_out(&harness));
    harness.run_steps(3);
    assert!((2..25).contains(&n_laid_out(&harness)), "{} after the jump", n_laid_out(&harness));
    let top = *tops(&harness).get("word73400").expect("the place is laid out");
    assert!((150.0..600.0).contains(&top), "{top}");
    // Each turn of the wheel moves what stays visible by the same distance, also where blocks of unknown
    // height appear.
    harness.state_mut().app.chat.kept_page.places.clear();
    harness.event(egui::Event::PointerMoved(egui::pos2(400.0, top + 20.0)));
    let mut distances = Vec::new();
    for _ in 0..8 {
        let before = tops(&harness);
        harness.event(egui::Event::MouseWheel {
            unit: egui::MouseWheelUnit::Point,
            delta: egui::vec2(0.0, 100.0),
            phase: egui::TouchPhase::Move,
            source: egui::MouseWheelSource::Unknown,
            modifiers: Modifiers::NONE,
        });
        harness.run_steps(30);
        let after = tops(&harness);
        let moved = before.iter().rev().find_map(|(text, top)| after.get(text).map(|after| after - top));
        distances.push(moved.expect("a block that stays visible"));
    }
    assert!(distances.iter().all(|d| *d > 50.0 && (d - distances[0]).abs() < 2.0), "{distances:?}");
}

/// Where the blocks that are laid out begin, by their first word.
fn tops(harness: &Harness<'_, Shown>) -> BTreeMap<String, f32> {
    let mut tops = BTreeMap::new();
    for node in harness.query_all_by(|_| true) {
        let texts = [node.accesskit_node().label(), node.accesskit_node().value()];
        if let Some(text) = texts.into_iter().flatten().find(|text| text.starts_with(" word")) {
            tops.insert(text.split_whitespace().next().unwrap_or_default().to_string(), node.rect().top());
        }
    }
    tops
}
