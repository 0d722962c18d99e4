//! Keep ratios of LRSA over the steps of a run: a fixed one, or one that anneals.

use std::fmt;
use std::str::FromStr;

use rand::RngExt;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::attention::Lrsa;
use crate::data::rng::seeded;
use crate::error::{Error, Result};

/// The keep ratio r of a step. As text and in JSON, `0.25` is fixed, and `0.5..0.125` anneals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// The same r at every step.
    Fixed(f64),
    /// r changes from one value to the other, geometrically: each halving takes equally many steps.
    Anneal { from: f64, to: f64 },
}

impl Keep {
    /// The list of a run whose user gave these ratios. There is none if nothing was given. The list of
    /// one number is empty, and the steps use the attention's own r.
    pub fn drawn(given: Vec<Self>) -> Option<Vec<Self>> {
        match given[..] {
            [] => None,
            [Self::Fixed(_)] => Some(vec![]),
            _ => Some(given),
        }
    }

    /// A list as text: `0.25, 0.5..0.125`.
    pub fn list(keeps: &[Self]) -> String {
        keeps.iter().map(Self::to_string).collect::<Vec<_>>().join(", ")
    }

    /// r at a step of a run of `total` steps; steps count from 1. It is `from` at the first step
    /// and `to` at the last one: r = from · (to / from)^((step - 1) / (total - 1)).
    pub fn at(self, step: u64, total: u64) -> f64 {
        match self {
            Self::Fixed(keep) => keep,
            Self::Anneal { to, .. } if step >= total => to,
            Self::Anneal { from, to } => {
                from * (to / from).powf(step.saturating_sub(1) as f64 / total.saturating_sub(1).max(1) as f64)
            }
        }
    }

    /// r at the end of a run: the one to evaluate with and to record.
    pub fn end(self) -> f64 {
        match self {
            Self::Fixed(keep) | Self::Anneal { to: keep, .. } => keep,
        }
    }

    /// r at the first and at the last step; all others lie between them.
    pub fn ends(self) -> [f64; 2] {
        [self.at(1, 2), self.end()]
    }
}

/// Most tokens of a text that dense steps of [`Draws::usual`] attend over. Beyond it, one dense step
/// costs several compressed ones.
pub(super) const LONGEST_DENSE: usize = 8192;

/// Where the steps of a run take their r from.
#[derive(Clone, Debug, PartialEq)]
pub struct Draws {
    keeps: Vec<Keep>,
    /// Whether each element comes once in as many steps as there are elements, in random order.
    /// Otherwise each step draws one, whatever the others drew.
    is_in_turn: bool,
}

impl Draws {
    /// Each step draws an element of this list.
    pub fn of(keeps: Vec<Keep>) -> Self {
        Self { keeps, is_in_turn: false }
    }

    /// What steps take where nothing is chosen, whose longest text has `longest` tokens: in turn, the
    /// attention's own r, half of it, and the dense cache in half of the steps; docs/study.md compares
    /// such lists. In steps with a text of more than 8,192 tokens, twice the own r replaces the dense
    /// cache, if it is below 1. Empty if the own r is 1.
    pub fn usual(own: Lrsa, longest: usize) -> Self {
        let r = own.keep();
        let mut keeps = Vec::new();
        if r < 1.0 {
            keeps.push(r);
            keeps.extend(Some(r / 2.0).filter(|&half| own.with_keep(half).is_ok()));
            match longest {
                0..=LONGEST_DENSE => keeps.extend(vec![1.0; keeps.len()]),
                _ => keeps.extend(Some(2.0 * r).filter(|&double| double < 1.0)),
            }
        }
        Self { keeps: keeps.into_iter().map(Keep::Fixed).collect(), is_in_turn: true }
    }

    /// The elements; none if every step uses the attention's own r.
    pub fn keeps(&self) -> &[Keep] {
        &self.keeps
    }

    /// r of a step of a run of `total` steps; steps count from 1. Depends only on the seed, the step and
    /// the total. `None` if nothing is drawn.
    pub fn at(&self, seed: u64, step: u64, total: u64) -> Option<f64> {
        let below = |stream, n: usize| seeded(seed, stream).random_range(0..n);
        let n = self.keeps.len();
        let i = match (n, self.is_in_turn) {
            (0, _) => return None,
            (_, false) => below(step, n),
            (_, true) => {
                let (turn, place) = (step.saturating_sub(1) / n as u64, step.saturating_sub(1) % n as u64);
                let mut order: Vec<usize> = (0..n).collect();
                for i in (1..n).rev() {
                    order.swap(i, below(mixed(turn * n as u64 + i as u64), i + 1));
                }
                order[place as usize]
            }
        };
        Some(self.keeps[i].at(step, total))
    }

    /// Each r with the share of the steps that have it; of a range the two ends.
    pub fn shares(&self) -> Vec<(f64, f64)> {
        let mut shares: Vec<(f64, f64)> = Vec::new();
        for end in self.keeps.iter().flat_map(|keep| keep.ends()) {
            let share = 0.5 / self.keeps.len() as f64;
            match shares.iter_mut().find(|(keep, _)| *keep == end) {
                Some((_, sum)) => *sum += share,
                None => shares.push((end, share)),
            }
        }
        shares.sort_by(|a, b| a.0.total_cmp(&b.0));
        shares
    }
}

/// The finaliser of SplitMix64. Generators of neighbouring streams begin alike; those of these numbers
/// do not.
fn mixed(stream: u64) -> u64 {
    let mut x = stream.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl FromStr for Keep {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| {
            part.trim().parse::<f64>().ok().filter(|r| *r > 0.0 && *r <= 1.0).ok_or_else(|| {
                Error::usage(format!(
                    "'{text}' is no keep ratio: give a number above 0 and up to 1, such as 0.25, or two of them as \
                     0.5..0.125 to change it over the steps"
                ))
            })
        };
        match text.split_once("..") {
            None => Ok(Self::Fixed(number(text)?)),
            Some((from, to)) => Ok(Self::Anneal { from: number(from)?, to: number(to)? }),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(keep) => write!(f, "{keep}"),
            Self::Anneal { from, to } => write!(f, "{from}..{to}"),
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(keep) => serializer.serialize_f64(*keep),
            Self::Anneal { .. } => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a keep ratio: a number such as 0.25, or a text such as \"0.5..0.125\"")]
        enum Json {
            Number(f64),
            Text(String),
        }
        match Json::deserialize(deserializer)? {
            Json::Number(keep) => Ok(Self::Fixed(keep)),
            Json::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_read_what_they_write() {
        for (text, json, keep) in [
            ("0.25", "0.25", Keep::Fixed(0.25)),
            ("1", "1.0", Keep::Fixed(1.0)),
            ("0.5..0.125", "\"0.5..0.125\"", Keep::Anneal { from: 0.5, to: 0.125 }),
            (" 1 .. 0.29", "\"1..0.29\"", Keep::Anneal { from: 1.0, to: 0.29 }),
        ] {
            assert_eq!(text.parse::<Keep>().unwrap(), keep);
            assert_eq!(serde_json::to_string(&keep).unwrap(), json);
            assert_eq!(serde_json::from_str::<Keep>(json).unwrap(), keep);
            assert_eq!(keep.to_string().parse::<Keep>().unwrap(), keep);
        }
        for bad in ["", "..", "0.5..", "..0.5", "0.5..0", "1.5..0.5", "0.5...0.25", "NaN", "a..b", "0", "-0.5..0.25"] {
            let e = bad.parse::<Keep>().expect_err(bad).to_string();
            assert!(e.contains("0.5..0.125"), "{bad}: {e}");
        }
        for bad in ["true", "[0.5, 0.25]", "\"much\""] {
            let e = serde_json::from_str::<Keep>(bad).expect_err(bad).to_string();
            assert!(e.contains("0.5..0.125"), "{bad}: {e}");
        }
    }

    #[test]
    fn a_range_ends_exactly_at_both_values_and_halves_in_equal_times() {
        let keep = Keep::Anneal { from: 0.35, to: 0.07 };
        for total in [2, 3, 7, 60] {
            let all: Vec<f64> = (1..=total).map(|step| keep.at(step, total)).collect();
            assert_eq!((all[0], all[all.len() - 1]), (0.35, 0.07));
            assert!(all.windows(2).all(|pair| pair[1] < pair[0]), "{all:?}");
        }
        assert_eq!((keep.at(1, 1), keep.ends()), (0.07, [0.35, 0.07]));
        let halves: Vec<f64> = (1..=5).map(|step| Keep::Anneal { from: 1.0, to: 0.0625 }.at(step, 5)).collect();
        assert_eq!(halves, [1.0, 0.5, 0.25, 0.125, 0.0625]);
        let rising: Vec<f64> = (1..=9).map(|step| Keep::Anneal { from: 0.1, to: 0.9 }.at(step, 9)).collect();
        assert!(rising.windows(2).all(|pair| pair[1] > pair[0]) && rising[8] == 0.9, "{rising:?}");
        assert_eq!((Keep::Fixed(0.3).at(1, 9), Keep::Fixed(0.3).at(9, 9), Keep::Fixed(0.3).end()), (0.3, 0.3, 0.3));
    }
}
