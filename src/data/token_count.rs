//! `TokenCount`: a number of tokens or `auto`, as a flag and in JSON.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of tokens, or what the program chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenCount {
    /// The program chooses.
    #[default]
    Auto,
    /// At least 1.
    Tokens(usize),
}

impl TokenCount {
    /// The number, unless the program chooses it.
    pub fn given(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Tokens(n) => Some(n),
        }
    }
}

impl fmt::Display for TokenCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Tokens(n) => n.fmt(f),
        }
    }
}

impl FromStr for TokenCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            number => match number.parse() {
                Ok(n) if n > 0 => Ok(Self::Tokens(n)),
                _ => Err(format!("'{text}' is no number of tokens: give one such as 2048, or auto")),
            },
        }
    }
}

impl Serialize for TokenCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Tokens(n) => serializer.serialize_u64(*n as u64),
        }
    }
}

impl<'de> Deserialize<'de> for TokenCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_written() {
        for (text, count) in [("auto", TokenCount::Auto), ("2048", TokenCount::Tokens(2048))] {
            assert_eq!((text.parse(), count.to_string()), (Ok(count), text.to_string()));
            let json = serde_json::to_string(&count).unwrap();
            assert_eq!(serde_json::from_str::<TokenCount>(&json).unwrap(), count);
        }
        for bad in ["0", "-1", "long", "1.5", ""] {
            assert!(bad.parse::<TokenCount>().unwrap_err().contains("2048"), "{bad}");
        }
        assert!(serde_json::from_str::<TokenCount>("null").is_err());
    }
}
