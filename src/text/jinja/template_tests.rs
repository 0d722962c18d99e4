//! Tests of whole templates: beside Jinja2's answers, and against programs that want too much.

use super::*;
use serde_json::json;
use std::time::Instant;

fn render(source: &str) -> Result<String> {
    Template::parse(source)?.render(&Map::new()).map(|rendered| rendered.text)
}

/// The answers are those of Jinja2 with the settings of transformers; see
/// `tests/jinja/make_snippets.py`.
#[test]
fn snippets_print_what_jinja2_prints() {
    let file: Json = serde_json::from_str(include_str!("../../../tests/jinja/snippets.json")).unwrap();
    let variables = file["variables"].as_object().unwrap();
    let snippets = file["snippets"].as_array().unwrap();
    assert!(snippets.len() >= 120);
    let mut wrong = Vec::new();
    for snippet in snippets {
        let source = snippet["template"].as_str().unwrap();
        let got = Template::parse(source).and_then(|template| template.render(variables));
        match (&got, snippet["text"].as_str()) {
            (Ok(got), Some(wanted)) if got.text == wanted => {}
            (Err(_), None) => {}
            (got, wanted) => wrong.push(format!("{source}\n  gives  {got:?}\n  Jinja2 {wanted:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (source, message) in [
        ("a\n{{ x.y }}", "line 2: 'x' is undefined"),
        ("{{ raise_exception('no roles') }}", "line 1: no roles"),
        ("\n\n{% if %}", "line 3: unexpected '%}', expected an expression"),
        ("{{ [].append(1) }}", "line 1: access to attribute 'append' of 'list' object is unsafe"),
        ("{% include 'other' %}", "{% include %} is not supported"),
        ("{% if a %}", "the template ends before {% elif %} or {% else %} or {% endif %}"),
        ("{{ 'a'|nothing }}", "No filter named 'nothing'."),
        ("{% break %}", "'break' outside a loop"),
    ] {
        let e = render(source).unwrap_err().to_string();
        assert!(e.contains(message), "{source}: {e}");
    }
}

#[test]
fn generation_blocks_are_found_also_in_captured_text() {
    let source = "{% macro turn(t) %}<{% generation %}{{ t }}é{% endgeneration %}>{% endmacro %}é{{ turn('a') }}\
                  {% set b %}{{ turn('b') }}{% endset %}{{ b }}{% generation %}{% endgeneration %}";
    let rendered = Template::parse(source).unwrap().render(&Map::new()).unwrap();
    assert_eq!(rendered.text, "é<aé><bé>");
    let parts: Vec<&str> = rendered.generated.iter().map(|range| &rendered.text[range.clone()]).collect();
    assert_eq!(parts, ["aé", "bé", ""]);
    let nested = "{% generation %}{% generation %}{% endgeneration %}{% endgeneration %}";
    assert!(render(nested).is_err());
    // The characters that mark the blocks are free in what the template reads.
    let variables = json!({"x": "\u{F0000}\u{F0001}"});
    let echo = Template::parse("{% generation %}{{ x }}{% endgeneration %}").unwrap();
    assert_eq!(echo.render(variables.as_object().unwrap()).unwrap().generated, vec![0..8]);
}

#[test]
fn names_live_as_long_as_their_scope() {
    for (source, text) in [
        ("{% set ns = namespace() %}{% for i in [1] %}{% set ns.l = loop %}{% endfor %}{{ ns.l.index }}", ""),
        (
            "{% set ns = namespace() %}{% for i in [1] %}{% macro f() %}{{ i }}{% endmacro %}{% set ns.f = f %}{% endfor %}{{ ns.f() }}",
            "",
        ),
        ("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me.me.me == ns }}", "True"),
    ] {
        assert_eq!(render(source).unwrap(), text, "{source}");
    }
}

#[test]
fn sorts_refuse_what_has_no_order() {
    let mixed = "{% set nan = 'nan'|float %}{% set x = (range(30)|list + ['a', 'b', none, nan]) * 9 %}";
    for source in [
        "x|sort",
        "x|min",
        "x|max",
        "x|groupby(0)",
        "([nan, 1.0, 2.0] * 20)|sort",
        "{1: 2, 'a': 3}|tojson(sort_keys=true)",
    ] {
        assert!(render(&format!("{mixed}{{{{ {source} }}}}")).is_err(), "{source}");
    }
    let source = "{{ {nan: 1, 1.5: 2}|dictsort }}{{ {nan: 1, 1.5: 2}|tojson(sort_keys=true) }}";
    let e = render(&format!("{{% set nan = 'nan'|float %}}{source}")).unwrap_err().to_string();
    assert!(e.contains("cannot order nan"), "{e}");
    for (source, text) in [
        ("{{ [3, 1.5, 2, 9, 0]|sort }}{{ []|sort }}{{ [5, 4]|sort }}", "[0, 1.5, 2, 3, 9][][4, 5]"),
        ("{{ ['b', 'A', 'a', 'B', 'c']|sort(reverse=true) }}", "['c', 'b', 'B', 'A', 'a']"),
        ("{{ (range(1, 98)|list + range(50)|list)|sort == range(1, 98)|list }}", "False"),
        ("{{ range(97, 0, -1)|sort == range(1, 98)|list }}", "True"),
        ("{{ {'b': 1, 'a': 2, 'c': 0}|tojson(sort_keys=true) }}", "{\"a\": 2, \"b\": 1, \"c\": 0}"),
    ] {
        assert_eq!(render(source).unwrap(), text, "{source}");
    }
}

#[test]
fn ranges_and_wrapped_rows_are_those_of_python() {
    for (source, text) in [
        ("{{ range(0, 5, 2) }}{{ range(5, 2) }}", "range(0, 5, 2)range(5, 2)"),
        ("{{ range(0, 5, 2)[:] }}{{ range(9)[::-1] }}", "range(0, 6, 2)range(8, -1, -1)"),
        ("{{ range(9)[1:7:3] }}{{ range(5)[-9::-1] }}", "range(1, 7, 3)range(-1, -1, -1)"),
        ("{{ range(0, 5, 2)|list }}{{ range(5, 2)|list }}{{ range(5, 0, -2)|length }}", "[0, 2, 4][]3"),
        ("{{ range(0, 5, 2) == range(0, 6, 2) }}{{ range(9)[::-4]|list }}", "True[8, 4, 0]"),
        ("{{ 'aaaa bbbbbbbbbb'|wordwrap(5) }}", "aaaa \nbbbbb\nbbbbb"),
        ("{{ 'aaaaa bbbbbbbbbb c'|wordwrap(5) }}", "aaaaa\nbbbbb\nbbbbb\nc"),
        ("{{ 'aaaa bbbbbbbbbb'|wordwrap(4) }}", "aaaa\nbbbb\nbbbb\nbb"),
        ("{{ 'ab-cdefgh ij'|wordwrap(3) }}", "ab-\ncde\nfgh\nij"),
    ] {
        assert_eq!(render(source).unwrap(), text, "{source}");
    }
}

/// Each asks for gigabytes, for hours, or for more stack than there is.
#[test]
fn programs_that_want_too_much_are_refused_in_time() {
    let grow = |step: &str| {
        format!("{{% set ns = namespace(x='aaaa', y=[1]) %}}{{% for i in range(99999) %}}{step}{{% endfor %}}")
    };
    let chain = |open: &str, n: usize, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
    let mut sources: Vec<String> = [
        "{% set ns.x = ns.x ~ ns.x %}",
        "{% set ns.x = ns.x + ns.x %}",
        "{% set ns.y = ns.y + ns.y %}",
        "{% set ns.y = [ns.y] %}",
        "{% set ns.y = {'k': ns.y} %}",
        "{% set ns.y = (ns.y, ns.y) %}{% if loop.index == 60 %}{{ ns.y }}{{ ns.y|tojson }}{% endif %}",
        "{% set ns.x = '%s%s' % (ns.x, ns.x) %}",
        "{% set ns.x = '{0}{0}'.format(ns.x) %}",
        "{% set ns.x = ns.x|replace('a', ns.x) %}",
        "{% set ns.x = [ns.x, ns.x]|join(ns.x) %}",
        "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}",
        "{% set ns.y = ns.y + ['a' * 1000000] %}",
        "{% set x = range(99999)|list %}",
        "{% for j in range(99999) %}{% endfor %}",
    ]
    .map(grow)
    .to_vec();
    sources.extend([
        "{{ 'a' * 10**9 }}".to_owned(),
        "{{ [1] * 10**9 }}".to_owned(),
        "{{ 'a'|center(10**9) }}".to_owned(),
        "{{ 'a'.zfill(10**9) }}".to_owned(),
        "{{ ('a\n' * 1000000)|indent(1000000) }}".to_owned(),
        "{{ '%999999999d' % 1 }}".to_owned(),
        "{{ '{:999999999}'.format(1) }}".to_owned(),
        "{{ ('\t' * 100000).expandtabs(100000) }}".to_owned(),
        "{{ [1]|batch(10**9, 0)|list }}".to_owned(),
        "{{ [1]|slice(10**9)|list }}".to_owned(),
        "{{ 10**10**9 }}".to_owned(),
        "{{ range(10**9)|list }}".to_owned(),
        "{{ ('a b ' * 5000000)|wordwrap(1) }}".to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=['a'], y=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}\
         {% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}"
            .to_owned(),
        "{% if a %}".repeat(100_000),
        chain("(", 100_000, ")"),
        chain("[", 100_000, "]"),
        chain("not ", 100_000, ""),
        chain("-", 100_000, ""),
        chain("1 + ", 100_000, ""),
        chain("", 100_000, ".a"),
        chain("", 100_000, "|abs"),
        chain("1 if 1 else ", 100_000, ""),
    ]);
    for source in sources {
        let start = Instant::now();
        let excerpt = &source[..source.len().min(120)];
        let e = render(&source).expect_err(excerpt).to_string();
        assert!(start.elapsed().as_secs() < 30, "{excerpt} took {:?}: {e}", start.elapsed());
    }
}

#[test]
fn long_templates_are_fine() {
    let branches = "{% if a %}".to_owned() + &"{% elif a %}".repeat(20_000) + "{% endif %}";
    assert_eq!(render(&branches).unwrap(), "");
    assert_eq!(render(&("{{ 1".to_owned() + &" + 1".repeat(900) + " }}")).unwrap(), "901");
    let turns: Vec<Json> = (0..3000).map(|i| json!({"role": "user", "content": format!("turn {i}")})).collect();
    let source = "{% set ns = namespace(out='') %}{% for m in messages %}{% set ns.out = ns.out ~ m.role ~ m.content|trim %}\
                  {% endfor %}{{ ns.out|length }}";
    let variables = json!({"messages": turns});
    let rendered = Template::parse(source).unwrap().render(variables.as_object().unwrap()).unwrap();
    assert_eq!(rendered.text, "37890");
}
