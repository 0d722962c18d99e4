//! The recipes of a study: each one trains a model to compare, on the same data for as many steps.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::train::{Keep, Teacher};

/// Name of the unchanged model, which every study evaluates.
pub const BASE: &str = "base";

/// The attention of a recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainedWith {
    Dense,
    #[default]
    Lrsa,
}

/// The tokens that the cross-entropy counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossOn {
    /// Those of the answers.
    #[default]
    Answers,
    /// All tokens of the text.
    All,
}

/// How one of the models is trained. Settings that it leaves out are those of the plan.
///
/// As text: `NAME` or `NAME:SETTING=VALUE,…`, such as `lrsa-base:distill=0.5,keep=1,0.5..0.125`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Lower case, such as `lrsa-tuned`; the report and file names write LRSA in capitals.
    pub name: String,
    #[serde(default)]
    pub attention: TrainedWith,
    /// Values of r for training with LRSA; each step draws one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keeps: Vec<Keep>,
    /// Weight of distillation from the dense model.
    #[serde(default, skip_serializing_if = "is_default")]
    pub distill: f64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub teacher: Teacher,
    #[serde(default, skip_serializing_if = "is_default")]
    pub loss: LossOn,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A name as the report and file names write it.
pub fn display_name(name: &str) -> String {
    name.replace("lrsa", "LRSA")
}

impl Recipe {
    /// The model fine-tuned with dense attention.
    pub fn dense_tuned() -> Self {
        Self { name: "dense-tuned".into(), attention: TrainedWith::Dense, ..Self::default() }
    }

    /// The model fine-tuned with LRSA.
    pub fn lrsa_tuned() -> Self {
        Self { name: "lrsa-tuned".into(), ..Self::default() }
    }

    /// Rejects a name that cannot be part of a file name or means something else.
    pub(super) fn check_name(&self) -> Result<()> {
        let name = &self.name;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts || !name.chars().all(is_plain) || name == BASE || name.starts_with("data") || name.contains("-seed-")
        {
            return Err(Error::usage(format!(
                "`recipe` '{name}' is no name for a model: use lower-case letters, digits and hyphens, but not '{BASE}', 'data…' or '-seed-'"
            )));
        }
        Ok(())
    }

    /// Whether its training data differs from the plan's.
    pub(super) fn has_own_data(&self) -> bool {
        self.steps.is_some() || self.loss != LossOn::Answers
    }

    fn set(&mut self, setting: &str, value: &str) -> Result<()> {
        fn word<T: for<'de> Deserialize<'de>>(value: &str) -> Option<T> {
            serde_json::from_value(value.into()).ok()
        }
        let is_set = match setting {
            "attention" => word(value).map(|with| self.attention = with),
            "keep" => {
                self.keeps = value.split(',').map(str::parse).collect::<Result<_>>()?;
                Some(())
            }
            "distill" => value.parse().ok().map(|weight| self.distill = weight),
            "teacher" => word(value).map(|teacher| self.teacher = teacher),
            "loss" => word(value).map(|loss| self.loss = loss),
            "steps" => value.parse().ok().map(|steps| self.steps = Some(steps)),
            "lr" => value.parse().ok().map(|lr| self.lr = Some(lr)),
            _ => None,
        };
        is_set.ok_or_else(|| {
            Error::usage(format!(
                "`recipe` {}: '{setting}={value}' is no setting: use attention=dense or lrsa, keep=0.5,0.25, distill=0.5, \
                 teacher=base or self, loss=answers or all, steps=60, lr=5e-4",
                self.name
            ))
        })
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, settings) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let dense = Self::dense_tuned();
        let mut recipe = if name == dense.name { dense } else { Self { name: name.into(), ..Self::default() } };
        recipe.check_name()?;
        // A part without an equals sign goes on with the list before it.
        let mut pairs: Vec<String> = Vec::new();
        for part in settings.into_iter().flat_map(|all| all.split(',')) {
            match pairs.last_mut() {
                Some(last) if !part.contains('=') => *last += &format!(",{part}"),
                _ => pairs.push(part.to_string()),
            }
        }
        for pair in pairs {
            let (setting, value) = pair.split_once('=').unwrap_or((&pair, ""));
            recipe.set(setting, value)?;
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_says_what_differs_from_the_plan() {
        let parse = |text: &str| text.parse::<Recipe>().unwrap();
        assert_eq!(parse("dense-tuned"), Recipe::dense_tuned());
        assert_eq!(parse("lrsa-tuned"), Recipe::lrsa_tuned());
        let all = parse("lrsa-x:keep=1,0.5..0.125,distill=0.5,teacher=self,loss=all,steps=90,lr=1e-3");
        let expected = Recipe {
            name: "lrsa-x".into(),
            attention: TrainedWith::Lrsa,
            keeps: vec![Keep::Fixed(1.0), Keep::Anneal { from: 0.5, to: 0.125 }],
            distill: 0.5,
            teacher: Teacher::Oneself,
            loss: LossOn::All,
            steps: Some(90),
            lr: Some(1e-3),
        };
        assert_eq!(all, expected);
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), all);
        let short = serde_json::to_string(&Recipe::lrsa_tuned()).unwrap();
        assert_eq!(short, r#"{"name":"lrsa-tuned","attention":"lrsa"}"#);
        assert_eq!(parse("dense-long:attention=dense,steps=9").attention, TrainedWith::Dense);
    }

    #[test]
    fn what_is_no_recipe_names_its_part() {
        for (text, why) in [
            ("", "''"),
            ("base", "base"),
            ("data-x", "data"),
            ("LRSA", "LRSA"),
            ("a-seed-1", "-seed-"),
            ("a/b", "a/b"),
            ("x:", "'='"),
            ("x:0.5", "0.5"),
            ("x:keep=2", "0.5..0.125"),
            ("x:distill=much", "distill=much"),
            ("x:teacher=me", "teacher=me"),
            ("x:rank=2", "rank=2"),
            ("x:steps=-1", "steps=-1"),
        ] {
            let e = text.parse::<Recipe>().expect_err(text).to_string();
            assert!(e.contains(why), "{text}: {e}");
        }
    }

    #[test]
    fn names_are_shown_as_before() {
        assert_eq!([display_name("lrsa-tuned"), display_name("dense-tuned")], ["LRSA-tuned", "dense-tuned"]);
    }
}
