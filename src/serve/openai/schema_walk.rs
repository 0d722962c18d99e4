//! Visits the parts of a JSON schema.

use serde_json::{Map, Value as Json};

/// Keywords whose value maps names of the user's to schemas.
const NAMED: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];
/// Keywords whose value is data, in which the names of keywords mean nothing.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];

/// Calls `change` for a schema and every schema in it.
pub fn each_schema(schema: &mut Json, change: &mut impl FnMut(&mut Map<String, Json>)) {
    match schema {
        Json::Array(list) => list.iter_mut().for_each(|part| each_schema(part, change)),
        Json::Object(map) => {
            change(map);
            for (name, part) in map {
                match part {
                    _ if DATA.contains(&name.as_str()) => {}
                    Json::Object(parts) if NAMED.contains(&name.as_str()) => {
                        parts.values_mut().for_each(|part| each_schema(part, change));
                    }
                    part => each_schema(part, change),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn data_and_the_users_own_names_are_no_keywords() {
        let mut schema = json!({
            "format": "a",
            "properties": {"format": {"format": "b"}, "const": {"items": {"format": "c"}}},
            "anyOf": [{"format": "d"}, true],
            "default": {"format": "kept"},
            "enum": [{"format": "kept"}],
        });
        let mut seen = Vec::new();
        each_schema(&mut schema, &mut |map| seen.extend(map.remove("format")));
        seen.sort_by_key(Json::to_string);
        assert_eq!(json!(seen), json!(["a", "b", "c", "d"]));
        assert_eq!(schema["properties"]["format"], json!({}));
        assert_eq!((&schema["default"], &schema["enum"][0]), (&json!({"format": "kept"}), &json!({"format": "kept"})));
    }
}
