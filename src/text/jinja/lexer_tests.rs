//! Tests of the lexer: numbers, escapes and white-space control.

use super::*;

fn kinds(source: &str) -> Vec<TokenKind<'_>> {
    tokens(source).unwrap().into_iter().map(|token| token.kind).collect()
}

#[test]
fn numbers_texts_and_signs_are_told_apart() {
    use TokenKind::{Float, Int, Name, PrintBegin, PrintEnd, Sign, Text};
    let inner = |source: &'static str| {
        let all = kinds(source);
        assert_eq!((all.first(), all.last()), (Some(&PrintBegin), Some(&PrintEnd)));
        all[1..all.len() - 1].to_vec()
    };
    assert_eq!(
        inner("{{ 1_000 0x1f 1.5e-3 a.0.1 }}"),
        [Int(1000), Int(31), Float(0.0015), Name("a"), Sign("."), Int(0), Sign("."), Int(1)]
    );
    assert_eq!(inner(r#"{{ 'a\n\x41\101\q' "}}" }}"#), [Text("a\nAA\\q".into()), Text("}}".into())]);
    assert_eq!(inner("{{ {'a': {}} }}").len(), 6);
    for wrong in ["{{ 'a }}", "{{ ) }}", "{{ (] }}", "{{ $ }}", r"{{ '\ud800' }}", "{# a", "{% raw %}a"] {
        assert!(tokens(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn white_space_around_tags_goes_as_in_jinja2() {
    let data = |source: &str| {
        let all = tokens(source).unwrap();
        all.into_iter()
            .filter_map(|t| if let TokenKind::Data(text) = t.kind { Some(text.to_owned()) } else { None })
            .collect::<Vec<_>>()
    };
    assert_eq!(data("a\n  {% x %}\n  b"), ["a\n", "  b"]);
    assert_eq!(data("a  {% x %}\n\nb"), ["a  ", "\nb"]);
    assert_eq!(data(" {{- x -}} b"), ["b"]);
    assert_eq!(data("  {%+ x +%}\nb"), ["  ", "\nb"]);
    assert_eq!(data("a {#- c -#} \n b {# é#}\nc"), ["a", "b ", "c"]);
    assert_eq!(data("{% raw %}{{ x }}{%- y %} {%- endraw -%} z"), ["{{ x }}{%- y %}", "z"]);
    assert_eq!(normalize("a\r\nb\rc\n\n"), "a\nb\nc\n");
}
