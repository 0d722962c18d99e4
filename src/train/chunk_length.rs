//! `ChunkLength`: how many tokens of a long sequence a training step takes at once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest chunk that is tried after whole batches, and the shortest.
const LONGEST: usize = 16_384;
const SHORTEST: usize = 128;

/// The length of the chunks of long sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkLength {
    /// Batches at once if they fit into memory, else the longest chunks that do.
    #[default]
    Auto,
    /// About this many tokens: LRSA takes whole partitions.
    Tokens(usize),
}

impl ChunkLength {
    /// What to try, in order, for a batch of `n_tokens` whose sequences are cut into whole
    /// partitions of `lag` tokens; `None` is the batch at once.
    pub(super) fn candidates(self, n_tokens: usize, lag: usize) -> Vec<Option<usize>> {
        let Self::Auto = self else { return vec![self.first()] };
        let halves = std::iter::successors(Some(LONGEST), |n| Some(n / 2)).take_while(|&n| n >= SHORTEST);
        let whole = halves.map(|n| (n / lag).max(1) * lag).filter(|&n| n < n_tokens);
        let mut all: Vec<Option<usize>> = std::iter::once(None).chain(whole.map(Some)).collect();
        all.dedup();
        all
    }

    /// What to try first.
    pub(super) fn first(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Tokens(n) => Some(n),
        }
    }
}

impl fmt::Display for ChunkLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Tokens(n) => n.fmt(f),
        }
    }
}

impl FromStr for ChunkLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            number => match number.parse() {
                Ok(n) if n > 0 => Ok(Self::Tokens(n)),
                _ => Err(format!("'{text}' is no length: give a number of tokens such as 2048, or auto")),
            },
        }
    }
}

impl Serialize for ChunkLength {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Tokens(n) => serializer.serialize_u64(*n as u64),
        }
    }
}

impl<'de> Deserialize<'de> for ChunkLength {
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
    fn lengths_are_read_and_written() {
        for (text, length) in [("auto", ChunkLength::Auto), ("2048", ChunkLength::Tokens(2048))] {
            assert_eq!((text.parse(), length.to_string()), (Ok(length), text.to_string()));
            let json = serde_json::to_string(&length).unwrap();
            assert_eq!(serde_json::from_str::<ChunkLength>(&json).unwrap(), length);
        }
        for bad in ["0", "-1", "long", "1.5", ""] {
            assert!(bad.parse::<ChunkLength>().unwrap_err().contains("2048"), "{bad}");
        }
        assert!(serde_json::from_str::<ChunkLength>("null").is_err());
    }

    #[test]
    fn auto_tries_batches_at_once_then_ever_shorter_chunks() {
        assert_eq!(ChunkLength::Auto.candidates(100, 1), [None]);
        assert_eq!(ChunkLength::Auto.candidates(600, 128), [None, Some(512), Some(256), Some(128)]);
        assert_eq!(ChunkLength::Auto.candidates(3000, 1000), [None, Some(2000), Some(1000)]);
        assert_eq!(ChunkLength::Auto.candidates(1 << 20, 64).len(), 9);
        assert_eq!(ChunkLength::Tokens(40).candidates(600, 64), [Some(40)]);
    }
}
