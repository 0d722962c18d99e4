//! Which modules an adapter changes: PEFT's rules for names, patterns and layers.
//!
//! A module is named by its path, such as `model.layers.0.self_attn.q_proj`. Source:
//! `check_target_module_exists`, `get_pattern_key` and `_set_trainable` of PEFT 0.21.

use std::collections::HashSet;

use fancy_regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::weight_names::{Weight, expected_names, linears, weights};
use crate::error::{Context, Error, Result};
use crate::model::config::ModelConfig;

/// The value of `target_modules` that stands for every linear layer of the blocks.
pub const ALL_LINEAR: &str = "all-linear";

/// Backtracking steps that a pattern may take on one module.
const BACKTRACK_LIMIT: usize = 100_000;
/// Most characters of a pattern, and most patterns times modules.
const MAX_PATTERN: usize = 1 << 14;
const MAX_MATCHES: usize = 1 << 22;

/// A choice of modules, as in `adapter_config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModuleSet {
    /// Paths of modules, or ends of paths such as `q_proj`.
    Names(Vec<String>),
    /// A regular expression in Python's syntax for whole paths, or [`ALL_LINEAR`].
    Pattern(String),
}

impl ModuleSet {
    /// Names separated by commas, `all`, or a regular expression.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let text = text.trim();
        if text == "all" || text.eq_ignore_ascii_case(ALL_LINEAR) {
            return Ok(Self::Pattern(ALL_LINEAR.into()));
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,".contains(c) || c.is_whitespace()) {
            return Ok(Self::Pattern(text.into()));
        }
        let names: Vec<String> =
            text.split(|c: char| c == ',' || c.is_whitespace()).filter(|n| !n.is_empty()).map(str::to_owned).collect();
        if names.is_empty() { Err("expected module names separated by commas".into()) } else { Ok(Self::Names(names)) }
    }

    /// Whether the set is every linear layer.
    pub fn is_all_linear(&self) -> bool {
        matches!(self, Self::Pattern(text) if text.eq_ignore_ascii_case(ALL_LINEAR))
    }
}

/// Numbers of layers, such as `0,4-7` on the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerList(pub Vec<usize>);

impl LayerList {
    /// Layers and ranges of layers, separated by commas.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let number = |part: &str| part.trim().parse::<usize>().map_err(|_| format!("'{part}' is not a layer number"));
        let mut layers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last - first > MAX_PATTERN {
                return Err(format!("'{part}' is not a range of layers, such as 4-7"));
            }
            layers.extend(first..=last);
        }
        Ok(Self(layers))
    }
}

/// The settings that choose the modules of an adapter, under PEFT's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Targets {
    /// `target_modules`: the adapted linear layers.
    pub modules: ModuleSet,
    /// `exclude_modules`: exceptions.
    pub exclude: Option<ModuleSet>,
    /// `layers_to_transform`: the only layers whose modules are adapted, if `modules` are names.
    pub layers: Option<Vec<usize>>,
    /// `layers_pattern`: names of the module list that the layer numbers count in.
    pub layers_pattern: Vec<String>,
    /// `modules_to_save`: modules that are trained and saved whole.
    pub to_save: Vec<String>,
    /// `ensure_weight_tying`: embedding and head stay one weight if `to_save` names one of them.
    pub ensure_weight_tying: bool,
}

impl Targets {
    /// Adapters on the given modules and nothing else.
    pub fn of(modules: ModuleSet) -> Self {
        Self {
            modules,
            exclude: None,
            layers: None,
            layers_pattern: vec![],
            to_save: vec![],
            ensure_weight_tying: false,
        }
    }

    /// The paths of the adapted linear layers, in forward order.
    ///
    /// Fails if there is none, if a module is not a linear layer of a block, and for a pattern that
    /// is invalid or takes too long.
    pub fn paths(&self, model: &ModelConfig) -> Result<Vec<String>> {
        let wanted = Matcher::of(&self.modules, "target_modules")?;
        let excluded = self.exclude.as_ref().map(|set| Matcher::of(set, "exclude_modules")).transpose()?;
        for (name, n) in [("modules_to_save", self.to_save.len()), ("layers_pattern", self.layers_pattern.len())] {
            crate::ensure!(n <= MAX_NAMES, "{name} has {n} entries; at most {MAX_NAMES} are supported");
        }
        let layer_patterns = self.layer_patterns()?;
        let saved = self.to_save.iter().map(|name| saved_pattern(name)).collect::<Result<Vec<_>>>()?;
        let mut found = Vec::new();
        let mut n_excluded = 0;
        for (path, is_linear) in modules(model) {
            if self.modules.is_all_linear() && !is_linear {
                continue;
            }
            let is_target = match wanted.matched(&path)? {
                Match::None => false,
                Match::Whole => true,
                Match::End => self.is_in_layers(&path, &layer_patterns)?,
            };
            if !is_target {
                continue;
            }
            let is_excluded = match &excluded {
                Some(excluded) => excluded.matched(&path)? != Match::None,
                None => false,
            };
            if is_excluded || any_match(&saved, &path, "modules_to_save")? {
                n_excluded += 1;
                continue;
            }
            crate::ensure!(
                is_linear,
                "target_modules includes '{path}', which is none of the linear layers of a block ({}); embedding and head can \
                 be trained whole as modules_to_save",
                linear_names(model)
            );
            found.push(path);
        }
        if found.is_empty() {
            let wanted = serde_json::to_string(&self.modules).unwrap_or_default();
            let names = linear_names(model);
            let why = match (n_excluded, &self.layers) {
                (1.., _) => " (exclude_modules and modules_to_save take out all that match)".to_string(),
                (_, Some(layers)) => format!(" in layers_to_transform {layers:?}"),
                _ => String::new(),
            };
            crate::bail!("target_modules {wanted} match no module of the model{why}; its linear layers are {names}");
        }
        Ok(found)
    }

    /// Whether each name of `modules` fits some module. Fails for the first that does not; PEFT
    /// ignores it.
    pub fn check_every_name(&self, model: &ModelConfig) -> Result<()> {
        let paths: Vec<String> = modules(model).into_iter().map(|(path, _)| path).collect();
        let ends: HashSet<&str> = paths.iter().flat_map(|path| ends(path)).collect();
        if let ModuleSet::Names(names) = &self.modules
            && let Some(name) = names.iter().find(|name| !ends.contains(name.as_str()))
        {
            let known = linear_names(model);
            crate::bail!("target module '{name}' is not in the model; its linear layers are {known}");
        }
        let saved = |name: &&String| !paths.iter().any(|path| path.ends_with(name.as_str()));
        if let Some(name) = self.to_save.iter().find(saved) {
            crate::bail!("module '{name}' of modules_to_save is not in the model");
        }
        let above = self.layers.iter().flatten().find(|&&layer| layer >= model.n_layers());
        match above {
            Some(layer) => {
                crate::bail!("layer {layer} is not in the model, which has layers 0 to {}", model.n_layers() - 1)
            }
            None => Ok(()),
        }
    }

    /// Whether embedding and head are one weight in the model, and two with this adapter.
    pub fn unties(&self, model: &ModelConfig) -> bool {
        model.tied && !self.ensure_weight_tying && [EMBEDDING, HEAD].iter().any(|module| self.saves_within(module))
    }

    /// Whether embedding and head are saved as the one weight that they are in the model.
    pub fn keeps_tie(&self, model: &ModelConfig) -> bool {
        model.tied && self.ensure_weight_tying && [EMBEDDING, HEAD].iter().any(|module| self.saves_within(module))
    }

    /// The weights that are trained and saved whole, in the model's order.
    pub fn saved_weights(&self, model: &ModelConfig) -> Vec<Weight> {
        if self.to_save.is_empty() {
            return vec![];
        }
        // Without a tie in the adapter, the head is a weight of its own.
        let is_tied = model.tied && self.ensure_weight_tying;
        let mut all = weights(&ModelConfig { tied: is_tied, ..model.clone() });
        let keeps_tie = self.keeps_tie(model);
        all.retain(|weight| {
            let module = weight.name.rsplit_once('.').map_or(weight.name.as_str(), |(module, _)| module);
            self.saves_within(module) || (keeps_tie && module == EMBEDDING)
        });
        all
    }

    /// Whether a module is to be saved. PEFT compares the ends of paths, and not only at dots.
    fn saves(&self, path: &str) -> bool {
        self.to_save.iter().any(|name| path.ends_with(name.as_str()))
    }

    /// Whether a module or one that contains it is to be saved.
    fn saves_within(&self, path: &str) -> bool {
        let prefixes = path.match_indices('.').map(|(at, _)| &path[..at]);
        self.saves(path) || prefixes.into_iter().any(|outer| self.saves(outer))
    }

    fn layer_patterns(&self) -> Result<Vec<Regex>> {
        let one = |pattern: &String| compile(&format!(r"\A(?:^|.*?\.){pattern}\.(?P<idx>\d+)\."), "layers_pattern");
        match (&self.layers, self.layers_pattern.as_slice()) {
            (None, _) => Ok(vec![]),
            (Some(_), []) => Ok(vec![compile(r"\A.*?\.[^.]*\.(?P<idx>\d+)\.", "layers_pattern")?]),
            (Some(_), patterns) => patterns.iter().map(one).collect(),
        }
    }

    fn is_in_layers(&self, path: &str, patterns: &[Regex]) -> Result<bool> {
        let Some(layers) = &self.layers else { return Ok(true) };
        for pattern in patterns {
            let found = pattern.captures(path).map_err(|e| too_long("layers_pattern", pattern.as_str(), path, &e))?;
            if let Some(index) = found.and_then(|c| c.name("idx").map(|m| m.as_str().to_string())) {
                return Ok(index.parse().is_ok_and(|index: usize| layers.contains(&index)));
            }
        }
        Ok(false)
    }
}

/// Most entries of a list of patterns.
const MAX_NAMES: usize = 10_000;
const EMBEDDING: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";

/// Values for modules by regular expressions of their paths; the first match counts.
#[derive(Debug)]
pub struct PathPatterns<'a, T> {
    patterns: Vec<(Regex, &'a T)>,
    key: &'static str,
}

impl<'a, T> PathPatterns<'a, T> {
    /// The patterns of a setting `key`, for a model with `n_modules` adapted modules. Fails for an
    /// invalid pattern, and if there are far more patterns than modules.
    pub fn new(pairs: &'a [(String, T)], key: &'static str, n_modules: usize) -> Result<Self> {
        crate::ensure!(
            pairs.len().saturating_mul(n_modules) <= MAX_MATCHES,
            "{key}: {} patterns are too many for {n_modules} modules",
            pairs.len()
        );
        let one = |(pattern, value): &'a (String, T)| Ok((compile(&format!(r"\A(.*\.)?({pattern})$"), key)?, value));
        Ok(Self { patterns: pairs.iter().map(one).collect::<Result<_>>()?, key })
    }

    /// The value for a module.
    pub fn of(&self, path: &str) -> Result<Option<&'a T>> {
        for (pattern, value) in &self.patterns {
            if is_match(pattern, path, self.key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// The modules that settings can name, and whether each is a linear layer of a block: linear
/// layers, norms, embedding, head and what contains them.
fn modules(model: &ModelConfig) -> Vec<(String, bool)> {
    let mut linear: HashSet<String> = HashSet::new();
    for layer in 0..model.n_layers() {
        linear.extend(linears(model).iter().map(|l| format!("model.layers.{layer}.{}", l.path)));
    }
    let (mut seen, mut out) = (HashSet::new(), Vec::new());
    let mut add = |path: &str| {
        if seen.insert(path.to_string()) {
            out.push((path.to_string(), linear.contains(path)));
        }
    };
    let weights = expected_names(model);
    let head = format!("{HEAD}.weight");
    for name in weights.iter().map(|(name, _)| name).chain([&head]) {
        name.match_indices('.').for_each(|(at, _)| add(&name[..at]));
    }
    out
}

/// How a path fits a set of modules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    None,
    /// Its end is a name of a list.
    End,
    /// The whole path is named, or fits the pattern.
    Whole,
}

enum Matcher<'a> {
    All,
    Names(HashSet<&'a str>),
    Pattern(Regex, &'static str),
}

impl<'a> Matcher<'a> {
    fn of(set: &'a ModuleSet, key: &'static str) -> Result<Self> {
        Ok(match set {
            _ if set.is_all_linear() => Self::All,
            ModuleSet::Names(names) => Self::Names(names.iter().map(String::as_str).collect()),
            ModuleSet::Pattern(pattern) => Self::Pattern(compile(&format!(r"\A(?:{pattern})\z"), key)?, key),
        })
    }

    fn matched(&self, path: &str) -> Result<Match> {
        Ok(match self {
            Self::All => Match::End,
            Self::Names(names) if names.contains(path) => Match::Whole,
            Self::Names(names) if ends(path).any(|end| names.contains(end)) => Match::End,
            Self::Pattern(pattern, key) if is_match(pattern, path, key)? => Match::Whole,
            _ => Match::None,
        })
    }
}

/// A path and its ends at dots.
fn ends(path: &str) -> impl Iterator<Item = &str> {
    std::iter::once(path).chain(path.match_indices('.').map(|(at, _)| &path[at + 1..]))
}

/// What PEFT leaves to `modules_to_save`: the module and all within it.
fn saved_pattern(name: &str) -> Result<Regex> {
    compile(&format!(r"\A(^|.*\.){name}($|\..*)"), "modules_to_save")
}

fn any_match(patterns: &[Regex], path: &str, key: &str) -> Result<bool> {
    for pattern in patterns {
        if is_match(pattern, path, key)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn compile(pattern: &str, key: &str) -> Result<Regex> {
    crate::ensure!(pattern.len() <= MAX_PATTERN, "{key}: a regular expression of {} bytes is too long", pattern.len());
    let mut builder = RegexBuilder::new(pattern);
    let built = builder.backtrack_limit(BACKTRACK_LIMIT).delegate_size_limit(1 << 20).build();
    built.map_err(|e| Error::new(e.to_string())).with_context(|| format!("{key}: the regular expression {pattern}"))
}

fn is_match(pattern: &Regex, path: &str, key: &str) -> Result<bool> {
    pattern.is_match(path).map_err(|e| too_long(key, pattern.as_str(), path, &e))
}

fn too_long(key: &str, pattern: &str, path: &str, e: &fancy_regex::Error) -> Error {
    Error::new(format!(
        "{key}: the regular expression {pattern} takes more than {BACKTRACK_LIMIT} steps on '{path}' ({e}); simplify it"
    ))
}

/// The linear layers of a block, as a list to read.
fn linear_names(model: &ModelConfig) -> String {
    linears(model).iter().map(|l| l.target()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "adapter_targets_tests.rs"]
mod tests;
