//! Reads JSON in which no key has a meaning of its own.
//!
//! `serde_json::Value` takes an object with the key `$serde_json::private::RawValue` for JSON in a
//! text, and reads that text with a new limit of depth. A request or a file could nest such objects
//! and so make a value whose depth overflows the stack of the code that walks it. [`Plain`] reads
//! them as they are written, so that the parser's limit of 128 levels holds for the whole value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A JSON value as it is written.
pub struct Plain(pub Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Plain(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, Plain(value))) = map.next_entry()? {
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> serde_json::Result<Value> {
        serde_json::from_str(text).map(|Plain(value)| value)
    }

    #[test]
    fn values_are_read_as_serde_json_reads_them() {
        let text = r#"{"n": null, "b": true, "i": -3, "u": 18446744073709551615, "f": 1e-7, "t": "a\u00e9\n",
            "l": [1, [], {}], "o": {"z": 1, "a": {"": "x"}}, "b": false}"#;
        let value = read(text).unwrap();
        assert_eq!(value.to_string(), serde_json::from_str::<Value>(text).unwrap().to_string());
        for wrong in ["", "{", "{a:1}", "[1,]", "1e999", "{} x", "\"\\ud800\"", "NaN"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_key_of_raw_values_is_a_key_and_the_depth_is_limited() {
        const KEY: &str = "$serde_json::private::RawValue";
        let text = json!({KEY: "[1]"}).to_string();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!([1]), "what this file is against");
        assert_eq!(read(&text).unwrap(), json!({KEY: "[1]"}));
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(&nested(120)).is_ok() && read(&nested(128)).is_err());
        let twice = nested(100).replace("[]", &format!("[{}]", json!({KEY: nested(100)})));
        let shown = read(&twice).map(|value| value.to_string());
        assert_eq!(shown.ok().as_deref(), Some(twice.as_str()), "a text is not opened");
    }
}
