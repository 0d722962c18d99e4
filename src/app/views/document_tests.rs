//! Tests of the documents above the conversation: what is said of them, and their buttons.

use egui_kittest::kittest::{NodeT, Queryable};

use super::header::UNTRAINED;
use super::pictures::painted;
use super::view_tests::{Shown, harness, kept, opened};
use crate::app::documents::Document;
use crate::app::settings::Theme;
use crate::app::state::{Action, App};

const SIZE: (f32, f32) = (1280.0, 800.0);

/// An app with documents of so many tokens, for a model that reads 8192.
pub(super) fn with_documents(counts: &[Option<usize>]) -> App {
    let mut app = opened();
    for (i, &n_tokens) in counts.iter().enumerate() {
        let document = Document::new(format!("chapter-{}.pdf", i + 1), "Call me Ishmael. ".repeat(400));
        app.on_action(Action::Document(document));
        (app.chat.documents[i].n_tokens, app.chat.documents[i].is_counting) = (n_tokens, n_tokens.is_none());
    }
    if let Some(last) = app.chat.documents.last_mut() {
        last.note = "text layer only, 3 of 12 pages have no text".into();
    }
    app
}

fn says(harness: &egui_kittest::Harness<'_, Shown>, text: &str) -> bool {
    harness.query_all_by(|_| true).any(|node| {
        let node = node.accesskit_node();
        node.label().is_some_and(|label| label == text) || node.value().is_some_and(|value| value == text)
    })
}

#[test]
fn documents_have_their_tokens_and_the_cache_its_size() {
    // S = 16, L = 128, r = 1/4: 4096 tokens are the sink, 31 partitions and 112 tokens; 30 partitions keep
    // 32 tokens each.
    let harness = harness(with_documents(&[Some(3072), Some(1024)]), SIZE);
    for text in [
        "chapter-1.pdf",
        "3,072 tokens · 38 % of the context",
        "1,024 tokens · 12 % of the context",
        "(text layer only, 3 of 12 pages have no text)",
        "compresses beyond ~272 tokens",
        "Add a document…",
        UNTRAINED,
    ] {
        assert!(says(&harness, text), "'{text}'");
    }
    let entries = 16 + 30 * 32 + 128 + 112;
    let (small, large) = (entries as f64 * 46_080.0 / 1_048_576.0, 4096.0 * 46_080.0 / 1_048_576.0);
    let text = format!("{:.1}x smaller: {small:.1} instead of {large:.1} MiB", 4096.0 / f64::from(entries));
    assert!(says(&harness, &text), "'{text}'");
}

#[test]
fn documents_that_do_not_fit_say_what_to_do() {
    let text = "The documents have at least 9,000 tokens, but the model reads at most 8,192: remove some text, or open a \
        model with a longer context.";
    assert!(says(&harness(with_documents(&[Some(6000), Some(3000), None]), SIZE), text));
    let harness = harness(with_documents(&[Some(6000), Some(3000)]), SIZE);
    let text = "The documents have 9,000 tokens, but the model reads at most 8,192: remove some text, or open a model \
        with a longer context.";
    assert!(says(&harness, text));
    assert!(!says(&harness, "compresses beyond ~272 tokens"));
    let mut app = with_documents(&[Some(100)]);
    app.settings.factor = 1;
    let dense = self::harness(app, SIZE);
    assert!(says(&dense, "dense cache: 4.4 MiB") && !says(&dense, UNTRAINED));
    assert!(says(&self::harness(with_documents(&[Some(100)]), SIZE), "no smaller yet: 4.4 MiB"));
}

#[test]
fn documents_are_counted_and_removed() {
    let mut harness = harness(with_documents(&[Some(3072), None]), SIZE);
    assert!(says(&harness, "counting…") && !says(&harness, "compresses beyond ~272 tokens"));
    harness.get_all_by_label("Remove").nth(1).expect("a button for each document").click();
    harness.run_steps(2);
    assert_eq!(harness.state().actions, [Action::RemoveDocument(1)]);
    let mut app = with_documents(&[None]);
    app.chat.documents[0].is_counting = false;
    assert!(says(&self::harness(app, SIZE), "6,800 characters"));
}

#[test]
fn documents_and_kept_tokens_are_painted_in_a_small_window() {
    let mut found = kept();
    found.chat.kept_page.query = "word12".into();
    found.chat.kept_page.search();
    let states = [("documents", with_documents(&[Some(3072), Some(6000), None])), ("kept", found)];
    for ((name, app), theme) in states.iter().flat_map(|state| [(state, Theme::Light), (state, Theme::Dark)]) {
        let mut app = app.clone();
        app.settings.theme = theme;
        let name = format!("small-{name}-{theme:?}");
        let Some(dots) = painted(&mut harness(app, (800.0, 600.0)), &name) else { return };
        let ground = if theme == Theme::Light { 248 } else { 27 };
        let n = dots.iter().filter(|dot| dot.iter().all(|&c| c.abs_diff(ground) > 40)).count();
        assert!((2_000..200_000).contains(&n), "{name}: {n} dots of ink");
    }
}
