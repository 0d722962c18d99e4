//! Tests of the methods of texts that the snippets beside Jinja2's answers do not reach.

use super::*;

#[test]
fn every_method_can_be_called() {
    assert!(NAMES.is_sorted(), "lookups search them in halves");
    let budget = Budget::default();
    let text = Text::new("Ab c", &budget).unwrap();
    let of = |positional| Args { positional, ..Args::default() };
    let word = |s: &str| Value::text(s, &budget).unwrap();
    for name in NAMES {
        let args = match name {
            "center" | "ljust" | "rjust" | "zfill" => vec![Value::Int(9)],
            "count" | "find" | "rfind" | "index" | "rindex" | "startswith" | "endswith" | "partition"
            | "rpartition" | "removeprefix" | "removesuffix" => vec![word("b")],
            "replace" => vec![word("b"), word("é")],
            "join" => vec![Value::list(vec![word("x"), word("y")], &budget).unwrap()],
            "format_map" => vec![Value::Dict(crate::text::jinja::value::Dict::new(Vec::new(), &budget).unwrap())],
            _ => Vec::new(),
        };
        call(&text, name, of(args), &budget).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    assert!(call(&text, "upper", of(vec![Value::None]), &budget).is_err());
    assert!(call(&text, "encode", Args::default(), &budget).is_err());
}

#[test]
fn parts_of_long_texts_stop_above_the_longest_list() {
    let budget = Budget::default();
    let spaces = "a\n".repeat(MAX_ITEMS + 9);
    let line_end = || Value::text("\n", &budget).map(Some).unwrap();
    for from_end in [false, true] {
        assert_eq!(split(&spaces, None, usize::MAX, from_end).unwrap().len(), MAX_ITEMS + 1);
        assert_eq!(split(&spaces, line_end(), usize::MAX, from_end).unwrap().len(), MAX_ITEMS + 1);
    }
    let text = Text::new(spaces, &budget).unwrap();
    assert!(call(&text, "splitlines", Args::default(), &budget).is_err());
}

#[test]
fn strip_takes_many_letters() {
    let budget = Budget::default();
    let letters = |n: u32| {
        Some(Value::text((0..n).filter_map(|i| char::from_u32(0x4000 - i)).collect::<String>(), &budget).unwrap())
    };
    assert_eq!(strip("\u{4000}a\u{3ff0}", letters(1000), true, true, &budget).unwrap(), "a");
    assert_eq!(strip("\u{4000}a\u{3ff0}", letters(5), true, true, &budget).unwrap(), "a\u{3ff0}");
    assert!(strip("a", letters(1001), true, true, &budget).is_err());
}
