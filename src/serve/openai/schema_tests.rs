//! Tests of constraints: random walks over the allowed tokens end in texts of the form.

use super::super::tool_forms::Form;
use super::*;
use crate::text::test_tokenizers::{END, byte_level, stories};
use crate::text::tokenizer::Tokenizer;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const PADDING: usize = 5;

fn constraints(tokenizer: &Tokenizer, stop: &[u32]) -> Constraints {
    let table = TokenTable::new(tokenizer.token_bytes(tokenizer.vocab_size() + PADDING).unwrap(), |_| false);
    Constraints::new(&table, |id| tokenizer.is_special(id), stop).unwrap()
}

fn ids(words: &[u32]) -> Vec<u32> {
    (0..words.len() as u32 * 32).filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

/// Draws allowed tokens until the form is complete, and returns the text. Tokens that close
/// something are drawn more often, so that walks end.
fn walk(tokenizer: &Tokenizer, constraint: &mut dyn Constraint, stop: &[u32], rng: &mut StdRng) -> String {
    let mut said = Vec::new();
    for _ in 0..4000 {
        let allowed = ids(&constraint.allowed().unwrap());
        assert!(allowed.iter().all(|&id| (id as usize) < tokenizer.vocab_size()), "padding is never allowed");
        assert!(allowed.iter().all(|id| stop.contains(id) || !tokenizer.is_special(*id)), "special tokens are no text");
        let may_end = allowed.is_empty() || allowed.iter().any(|id| stop.contains(id));
        if may_end {
            break;
        }
        let closing: Vec<u32> = allowed
            .iter()
            .copied()
            .filter(|&id| matches!(tokenizer.decode(&[id], true).as_deref(), Ok("\"" | "}" | "]" | " }" | " ]")))
            .collect();
        let from = if !closing.is_empty() && rng.random_bool(0.5) { &closing } else { &allowed };
        let id = *from.choose(rng).unwrap();
        constraint.accept(id).unwrap();
        said.push(id);
    }
    let before = tokenizer.encode("a", false).unwrap();
    let text = tokenizer.decode(&[before, said].concat(), true).unwrap();
    text.strip_prefix('a').unwrap().to_owned()
}

#[test]
fn schemas_of_pydantic_are_followed() {
    let tokenizer = byte_level();
    let constraints = constraints(&tokenizer, &[END]);
    let cat = |kind: &str| json!({"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]});
    let union = json!({
        "$defs": {"Cat": cat("cat"), "Dog": cat("dog")},
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        "discriminator": {"propertyName": "kind"},
    });
    let secret = json!({"type": "object", "properties": {"key": {"type": "string", "format": "password"}}});
    for schema in [union, secret] {
        constraints.schema(schema.clone()).unwrap_or_else(|e| panic!("{schema}: {e}"));
    }
}

/// References of parameters are those of the tool, wherever its schema stands.
#[test]
fn calls_of_tools_with_definitions_are_followed() {
    let tokenizer = byte_level();
    let constraints = constraints(&tokenizer, &[END]);
    let tool = |name: &str, unit: &str| {
        let parameters = json!({
            "$id": "https://example.com/f",
            "$defs": {"Place": {"type": "object", "properties": {"unit": {"const": unit}}, "required": ["unit"],
                                "additionalProperties": false}},
            "properties": {"place": {"$ref": "#/$defs/Place"}},
            "required": ["place"],
            "additionalProperties": false,
        });
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    };
    for (form, arguments) in [(Form::Hermes, "arguments"), (Form::Llama, "parameters")] {
        let schema = form.schema(&[tool("f", "C"), tool("g", "F")]).unwrap();
        let rng = &mut StdRng::seed_from_u64(3);
        for _ in 0..10 {
            let mut constraint = constraints.schema(schema.clone()).unwrap();
            let text = walk(&tokenizer, constraint.as_mut(), &[END], rng);
            let call: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let unit = if call["name"] == "f" { "C" } else { "F" };
            assert_eq!(call[arguments], json!({"place": {"unit": unit}}), "{text}");
        }
    }
}

fn nested() -> Json {
    let item = json!({
        "type": "object",
        "properties": {"id": {"type": "integer"}, "kind": {"enum": ["naïve", "🦙"]}},
        "required": ["id", "kind"],
        "additionalProperties": false,
    });
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "items": {"type": "array", "items": item, "minItems": 1, "maxItems": 3},
            "ok": {"type": "boolean"},
        },
        "required": ["name", "items", "ok"],
        "additionalProperties": false,
    })
}

/// Whether a value is one of [`nested`].
fn is_nested(value: &Json) -> bool {
    let keys = |value: &Json, names: &[&str]| {
        value
            .as_object()
            .is_some_and(|map| map.len() == names.len() && names.iter().all(|name| map.contains_key(*name)))
    };
    let item = |item: &Json| {
        keys(item, &["id", "kind"])
            && item["id"].as_f64().is_some_and(|x| x.fract() == 0.0)
            && (item["kind"] == "naïve" || item["kind"] == "🦙")
    };
    keys(value, &["name", "items", "ok"])
        && value["name"].as_str().is_some_and(|name| name.chars().count() <= 8)
        && value["items"].as_array().is_some_and(|items| (1..=3).contains(&items.len()) && items.iter().all(item))
        && value["ok"].is_boolean()
}

#[test]
fn every_walk_ends_in_a_text_of_the_schema() {
    let mut rng = StdRng::seed_from_u64(7);
    for (tokenizer, stop) in [(byte_level(), vec![END]), (stories(), vec![2]), (stories(), vec![])] {
        let constraints = constraints(&tokenizer, &stop);
        for i in 0..8 {
            let mut constraint = constraints.schema(nested()).unwrap();
            let text = walk(&tokenizer, &mut *constraint, &stop, &mut rng);
            let value: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("walk {i}: {e}: {text}"));
            assert!(is_nested(&value), "walk {i}: {text}");
        }
        let mut constraint = constraints.any_object().unwrap();
        let text = walk(&tokenizer, &mut *constraint, &stop, &mut rng);
        let value: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(value.is_object(), "{text}");
    }
}

#[test]
fn the_end_comes_only_when_the_form_is_complete_and_then_nothing_else() {
    let tokenizer = byte_level();
    let constraints = constraints(&tokenizer, &[END, 300]);
    let mut constraint = constraints.schema(json!({"const": "hello"})).unwrap();
    for letter in ["\"", "hello", "\""] {
        let allowed = ids(&constraint.allowed().unwrap());
        assert!(!allowed.contains(&END));
        constraint.accept(tokenizer.token_to_id(letter).unwrap()).unwrap();
    }
    assert_eq!(ids(&constraint.allowed().unwrap()), [END]);
    constraint.copy().accept(END).unwrap();
    let quote = tokenizer.token_to_id("\"").unwrap();
    assert!(constraint.accept(quote).is_err());
}

#[test]
fn a_copy_goes_its_own_way() {
    let tokenizer = byte_level();
    let mut one = constraints(&tokenizer, &[END]).schema(json!({"enum": ["a", "b"]})).unwrap();
    let id = |text: &str| tokenizer.token_to_id(text).unwrap();
    one.accept(id("\"")).unwrap();
    let mut other = one.copy();
    one.accept(id("a")).unwrap();
    assert_eq!(ids(&one.allowed().unwrap()), [id("\"")]);
    let mut allowed = ids(&other.allowed().unwrap());
    allowed.sort_unstable();
    assert_eq!(allowed, [id("a"), id("b")]);
}

#[test]
fn what_cannot_be_followed_is_refused_with_a_reason() {
    let tokenizer = stories();
    let constraints = constraints(&tokenizer, &[2]);
    for schema in [
        json!({"type": "strange"}),
        json!({"type": "array", "uniqueItems": true}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"type": "object", "properties": 3}),
        json!({"type": "string", "pattern": "("}),
        json!({"type": "integer", "minimum": 3, "maximum": 2}),
        json!(3),
    ] {
        let e = constraints.schema(schema.clone()).err().unwrap_or_else(|| panic!("{schema}")).to_string();
        assert!(!e.is_empty() && e.len() < 1000, "{schema}: {e}");
    }
}

#[test]
fn hostile_schemas_take_little_time() {
    let tokenizer = stories();
    let constraints = constraints(&tokenizer, &[2]);
    let deep = (0..60).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}));
    let names: Vec<String> = (0..20_000).map(|i| format!("name {i}")).collect();
    for schema in [
        deep,
        json!({"enum": names}),
        json!({"type": "string", "minLength": 1_000_000_000}),
        json!({"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"}),
        json!({"type": "array", "minItems": 1_000_000_000, "items": {"type": "null"}}),
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#/allOf/1"}, {"$ref": "#/allOf/0"}]}),
    ] {
        let began = std::time::Instant::now();
        if let Ok(mut constraint) = constraints.schema(schema.clone()) {
            _ = constraint.allowed();
        }
        let text: String = schema.to_string().chars().take(60).collect();
        assert!(began.elapsed().as_secs() < 10, "{text}: {:?}", began.elapsed());
    }
}
