//! Fields of a request: reads them with their types and ranges, and names the one that is wrong.

use std::ops::RangeInclusive;

use serde_json::{Map, Value as Json};

use crate::serve::http::failure::ApiError;

/// The fields of a JSON object, and where in the request it stands. A field that is null is absent.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    map: &'a Map<String, Json>,
    path: &'a str,
}

type Result<T> = std::result::Result<T, ApiError>;

impl<'a> Fields<'a> {
    /// The fields of the request itself.
    pub fn of(map: &'a Map<String, Json>) -> Self {
        Self { map, path: "" }
    }

    /// The fields of the object at this path.
    pub fn at(map: &'a Map<String, Json>, path: &'a str) -> Self {
        Self { map, path }
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&'a Json> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether a field is given.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The names of all fields, also of those that are null.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    /// The path of a field.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The error for a field.
    pub fn wrong(&self, name: &str, message: impl Into<String>) -> ApiError {
        ApiError::field(self.path(name), message)
    }

    fn expected(&self, name: &str, value: &Json, what: &str) -> ApiError {
        self.wrong(name, format!("`{}` is {}; expected {what}", self.path(name), excerpt(value)))
    }

    /// A field that must be there.
    pub fn required(&self, name: &str) -> Result<&'a Json> {
        self.get(name).ok_or_else(|| self.wrong(name, format!("`{}` is missing", self.path(name))))
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        let text = |value: &'a Json| value.as_str().ok_or_else(|| self.expected(name, value, "a string"));
        self.get(name).map(text).transpose()
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        let flag = |value: &Json| value.as_bool().ok_or_else(|| self.expected(name, value, "true or false"));
        self.get(name).map(flag).transpose()
    }

    pub fn object(&self, name: &str) -> Result<Option<&'a Map<String, Json>>> {
        let object = |value: &'a Json| value.as_object().ok_or_else(|| self.expected(name, value, "an object"));
        self.get(name).map(object).transpose()
    }

    pub fn list(&self, name: &str) -> Result<Option<&'a Vec<Json>>> {
        let list = |value: &'a Json| value.as_array().ok_or_else(|| self.expected(name, value, "a list"));
        self.get(name).map(list).transpose()
    }

    /// A whole number. One that is written with a fraction of zero counts too.
    pub fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>> {
        let integer = |value: &Json| {
            whole(value).filter(|number| range.contains(number)).ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                let what = match (*least, *most) {
                    (i64::MIN, i64::MAX) => "a whole number".to_owned(),
                    (least, i64::MAX) => format!("a whole number of at least {least}"),
                    (least, most) => format!("a whole number from {least} to {most}"),
                };
                self.expected(name, value, &what)
            })
        };
        self.get(name).map(integer).transpose()
    }

    /// [`Fields::integer`] for sizes.
    pub fn size(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<usize>> {
        Ok(self.integer(name, range)?.and_then(|number| usize::try_from(number).ok()))
    }

    /// The most tokens of an answer, at least this number. -1 is none: other servers take it for no limit,
    /// and here the server's own counts.
    pub fn most(&self, name: &str, least: i64) -> Result<Option<usize>> {
        if self.get(name).and_then(whole) == Some(-1) {
            return Ok(None);
        }
        self.size(name, least..=i64::from(u32::MAX))
    }

    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let number = |value: &Json| {
            value.as_f64().filter(|number| range.contains(number)).ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                let what = match most.is_finite() {
                    true => format!("a number from {least} to {most}"),
                    false => format!("a number of at least {least}"),
                };
                self.expected(name, value, &what)
            })
        };
        self.get(name).map(number).transpose()
    }

    /// Refuses each of these fields that is given and has another value than the one that changes
    /// nothing.
    pub fn refuse(&self, unsupported: &[(&str, Json, &str)]) -> Result<()> {
        for (name, neutral, why) in unsupported {
            if self.get(name).is_some_and(|value| value != neutral) {
                return Err(self.wrong(name, format!("`{}` is not supported: {why}", self.path(name))));
            }
        }
        Ok(())
    }
}

/// A whole number as an integer.
fn whole(value: &Json) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    let float = || value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() <= EXACT).map(|x| x as i64);
    value.as_i64().or_else(float)
}

/// A value for a message, shortened.
pub fn excerpt(value: &Json) -> String {
    match value {
        Json::Array(list) => format!("a list of {}", list.len()),
        Json::Object(_) => "an object".to_owned(),
        Json::String(text) if text.chars().nth(60).is_some() => {
            format!("{:?}", text.chars().take(60).chain("…".chars()).collect::<String>())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_read_with_their_types_and_ranges() {
        let json = json!({"i": 3, "f": 3.0, "x": 0.5, "t": "a", "b": true, "o": {"k": 1}, "l": [1], "n": null});
        let fields = Fields::of(json.as_object().unwrap());
        assert_eq!(fields.integer("i", 0..=3).unwrap(), Some(3));
        assert_eq!(fields.size("f", 0..=3).unwrap(), Some(3));
        assert_eq!(fields.number("x", 0.0..=1.0).unwrap(), Some(0.5));
        assert_eq!(fields.text("t").unwrap(), Some("a"));
        assert_eq!(fields.flag("b").unwrap(), Some(true));
        assert_eq!((fields.text("n").unwrap(), fields.integer("absent", 0..=1).unwrap()), (None, None));
        assert!(fields.required("n").is_err());
        for (wrong, param) in [
            (fields.integer("i", 0..=2).map(drop), "i"),
            (fields.integer("x", 0..=2).map(drop), "x"),
            (fields.integer("t", 0..=2).map(drop), "t"),
            (fields.number("b", 0.0..=1.0).map(drop), "b"),
            (fields.number("i", 0.0..=1.0).map(drop), "i"),
            (fields.text("i").map(drop), "i"),
            (fields.flag("i").map(drop), "i"),
            (fields.object("l").map(drop), "l"),
            (fields.list("o").map(drop), "o"),
            (fields.refuse(&[("t", json!("b"), "no")]), "t"),
            (Fields::at(json["o"].as_object().unwrap(), "o").text("k").map(drop), "o.k"),
        ] {
            let e = wrong.unwrap_err();
            assert_eq!((e.param.as_deref(), e.status.as_u16()), (Some(param), 400), "{}", e.message);
        }
        assert!(fields.refuse(&[("t", json!("a"), "no"), ("n", json!(1), "no")]).is_ok());
    }

    #[test]
    fn messages_stay_short() {
        let long = json!({"a": "x".repeat(1000)});
        let e = Fields::of(long.as_object().unwrap()).flag("a").unwrap_err();
        assert!(e.message.len() < 200, "{}", e.message);
    }
}
