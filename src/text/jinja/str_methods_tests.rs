//! Tests of the methods of texts that the snippets beside Jinja2's answers do not reach.

use super::*;

#[test]
fn every_method_can_be_called() {
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
