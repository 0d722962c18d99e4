//! The settings of a training run as the user writes them, and the presets that fill them.
//!
//! A setting is a text under the name of its field in [`TrainJob`]. The flags of the command line
//! give its default, its help and its values, and read the texts.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::OnceLock;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, Parser};
use serde::{Deserialize, Serialize};

use super::labels::{label, with_labels};
use crate::error::{Error, Result};
use crate::train::{Keep, TrainJob};

/// The names of the settings, by section.
pub const SECTIONS: [(&str, &[&str]); 6] = [
    (
        "Data",
        &["objective", "beta", "valid_fraction", "max_length", "long", "overlap", "max_positions", "rope_scaling"],
    ),
    ("Steps and batches", &["steps", "epochs", "batch_size", "batch_tokens", "accumulate", "order", "seed"]),
    (
        "Optimiser",
        &["optimizer", "lr", "schedule", "warmup", "warmup_ratio", "decay_ratio", "weight_decay", "clip", "neftune"],
    ),
    (
        "Adapter",
        &["adapter", "rank", "alpha", "dropout", "targets", "layers", "modules_to_save", "rslora", "dora", "lora_plus"],
    ),
    ("Long context", &["keep", "sink", "lag", "distill", "teacher", "chunk"]),
    ("Evaluation and saves", &["eval_every", "early_stop", "save_every", "save_minutes", "keep_checkpoints"]),
];

/// A set of settings for a purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    Quick,
    #[default]
    Standard,
    Thorough,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 3] = [Self::Quick, Self::Standard, Self::Thorough];

    /// Name and description.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Quick => ("Quick", "20 steps, to see whether the loss falls"),
            Self::Standard => ("Standard", "100 steps with warm-up and decay"),
            Self::Thorough => ("Thorough", "3 epochs with early stopping"),
        }
    }

    fn values(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Quick => &[("steps", "20"), ("warmup", "2"), ("schedule", "linear"), ("save_every", "20")],
            Self::Standard => &[("steps", "100"), ("warmup", "10"), ("schedule", "linear"), ("save_every", "20")],
            Self::Thorough => &[
                ("epochs", "3"),
                ("warmup_ratio", "0.05"),
                ("schedule", "linear"),
                ("save_every", "50"),
                ("early_stop", "3"),
            ],
        }
    }
}

/// The settings that differ from their defaults, and the preset that filled them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Form {
    preset: Preset,
    values: BTreeMap<String, String>,
}

impl Default for Form {
    fn default() -> Self {
        Self::of(Preset::default())
    }
}

impl Form {
    /// The settings of a preset.
    pub fn of(preset: Preset) -> Self {
        let values = preset.values().iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        Self { preset, values }
    }

    /// The form without settings that this version does not have.
    pub fn known(mut self) -> Self {
        self.values.retain(|name, _| SECTIONS.iter().any(|(_, names)| names.contains(&name.as_str())));
        self
    }

    /// The preset that was chosen last.
    pub fn preset(&self) -> Preset {
        self.preset
    }

    /// The text of a setting; empty for its default.
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Changes a setting; an empty text or the default stands for the default.
    pub fn set(&mut self, name: &str, text: &str) {
        let is_default = text.trim().is_empty() || field(name).is_some_and(|f| f.is_closed() && f.default == text);
        if is_default {
            self.values.remove(name);
        } else {
            self.values.insert(name.into(), text.into());
        }
    }

    /// Whether a setting differs from the preset.
    pub fn is_changed(&self, name: &str) -> bool {
        let preset = self.preset.values().iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text);
        self.text(name).trim() != preset
    }

    /// The settings that differ from the preset.
    pub fn changed(&self) -> impl Iterator<Item = &'static str> {
        SECTIONS.iter().flat_map(|(_, names)| *names).copied().filter(|name| self.is_changed(name))
    }

    /// A job with these settings, and the values of `keep`. It has no model, no data and no folder
    /// yet. An empty `eval_every` is 0, and a `valid_fraction` of 0 is none.
    pub fn read(&self) -> Result<Read> {
        let mut words = vec!["--model=".to_string(), "--data=.".to_string(), "--out=.".to_string()];
        for (name, text) in &self.values {
            let (flag, text) = (name.replace('_', "-"), text.trim());
            match (name.as_str(), text) {
                ("valid_fraction", "0") => {}
                (_, "true") if field(name).is_some_and(|f| f.is_switch) => words.push(format!("--{flag}")),
                _ => words.push(format!("--{flag}={text}")),
            }
        }
        if self.text("eval_every").is_empty() {
            words.push("--eval-every=0".into()); // `early_stop` asks for one
        }
        let Flags { mut job, sink, lag, keep } = Flags::try_parse_from(words).map_err(|e| in_words(&e))?;
        job.targets = job.targets.filter(|set| !set.is_all_linear());
        Ok(Read { job, sink, lag, keeps: keep })
    }
}

/// What the texts of a form say.
#[derive(Debug)]
pub struct Read {
    pub job: TrainJob,
    pub sink: Option<usize>,
    pub lag: Option<usize>,
    pub keeps: Vec<Keep>,
}

/// The flags of a run.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    job: TrainJob,
    /// S: sink tokens, visible to every query [default: that of the chat]
    #[arg(long)]
    sink: Option<usize>,
    /// L: tokens per partition [default: that of the chat]
    #[arg(long)]
    lag: Option<usize>,
    /// r: fraction of each partition to keep, instead of the cache chosen above. Of a list such as
    /// 1,0.5,0.25 each step draws one value, and the first is recorded. A range such as 0.5..0.125
    /// changes r over the steps. If empty, the steps take the chosen cache, one half as large, and
    /// the dense one, in random order
    #[arg(long, value_delimiter = ',')]
    keep: Vec<Keep>,
}

/// What a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub label: String,
    pub help: String,
    /// Its value where its text is empty; empty if that is another one for each run.
    pub default: String,
    /// Its values, with the help of each, if there are only some.
    pub choices: Vec<(String, String)>,
    /// Whether it is either on or off.
    pub is_switch: bool,
}

impl Field {
    /// Whether it has no value but the ones on offer.
    fn is_closed(&self) -> bool {
        self.is_switch || !self.choices.is_empty()
    }
}

/// A setting by its name.
pub fn field(name: &str) -> Option<&'static Field> {
    static FIELDS: OnceLock<BTreeMap<String, Field>> = OnceLock::new();
    let all = || Flags::command().get_arguments().map(|arg| (arg.get_id().to_string(), described(arg))).collect();
    FIELDS.get_or_init(all).get(name)
}

fn described(arg: &clap::Arg) -> Field {
    let help = arg.get_help().map(|help| help.to_string()).unwrap_or_default();
    let given = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let in_help = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']')).map(|(text, _)| text.into());
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let choice = |value: &clap::builder::PossibleValue| {
        (value.get_name().to_string(), value.get_help().map(|help| help.to_string()).unwrap_or_default())
    };
    let values = if is_switch { vec![] } else { arg.get_possible_values() };
    let name = arg.get_id().as_str();
    let (help, default) = match name {
        // The command line lists them elsewhere, and the app chooses these two by itself.
        "optimizer" => ("Optimiser".into(), given),
        "valid_fraction" => (
            "Without validation data, hold out this fraction of the training examples for it: by default a tenth, \
             but about 50 examples at most; 0 for none"
                .into(),
            None,
        ),
        "eval_every" => {
            ("Evaluate on the validation data every N steps and at the end; 0 for the end only".into(), None)
        }
        _ => (help, given.or(in_help)),
    };
    Field {
        label: label(name),
        help: with_labels(&help),
        default: if is_switch { "false".into() } else { with_labels(&default.unwrap_or_default()) },
        choices: values.iter().map(choice).collect(),
        is_switch,
    }
}

/// What is wrong with the settings, under their labels.
fn in_words(e: &clap::Error) -> Error {
    let said = |kind| match e.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let flag = |kind| said(kind).map(|text| with_labels(text.split(' ').next().unwrap_or_default()));
    let text = match (e.kind(), flag(ContextKind::InvalidArg), flag(ContextKind::PriorArg)) {
        (ErrorKind::ArgumentConflict, Some(one), Some(other)) => {
            format!("{one} and {other} exclude each other: empty one of the two fields")
        }
        (_, Some(name), _) => {
            let value = said(ContextKind::InvalidValue).unwrap_or_default();
            let why = e.source().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{name} cannot be '{value}'{why}")
        }
        _ => with_labels(e.to_string().lines().next().unwrap_or_default()),
    };
    Error::usage(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Schedule;
    use crate::train::{ChunkLength, Teacher};

    #[test]
    fn every_preset_makes_a_valid_run_and_every_setting_has_a_help() {
        for preset in Preset::ALL {
            let read = Form::of(preset).read().unwrap();
            let job = TrainJob { eval_every: 1, ..read.job };
            job.validate().unwrap();
            assert_eq!((job.schedule, job.steps.is_some()), (Schedule::Linear, preset != Preset::Thorough));
            assert_eq!(Form::of(preset).changed().count(), 0);
        }
        for name in SECTIONS.iter().flat_map(|(_, names)| *names) {
            let field = field(name).unwrap_or_else(|| panic!("no field {name}"));
            assert!(field.help.len() > 6 && !field.help.contains("--"), "{name}: {field:?}");
            assert!(!field.label.contains('_') && !field.default.contains("--"), "{field:?}");
        }
        assert_eq!(field("rank").map(|f| f.default.as_str()), Some("16"));
        assert_eq!(field("batch_size").map(|f| f.default.as_str()), Some("1"));
        let schedules: Vec<&str> =
            field("schedule").map(|f| f.choices.iter().map(|c| c.0.as_str()).collect()).unwrap_or_default();
        assert_eq!(schedules, ["constant", "cosine", "linear", "wsd"]);
        assert!(field("dora").is_some_and(|f| f.is_switch));
    }

    #[test]
    fn a_changed_setting_is_told_from_the_preset() {
        let mut form = Form::default();
        for (name, text) in [("rank", "8"), ("teacher", "base"), ("dora", "true"), ("chunk", "2048"), ("seed", " ")] {
            form.set(name, text);
        }
        assert_eq!(form.changed().collect::<Vec<_>>(), ["rank", "dora", "chunk"], "base and blanks are the defaults");
        form.set("steps", "");
        assert!(form.is_changed("steps"), "the preset has another number");
        let job = form.read().unwrap().job;
        assert_eq!((job.rank, job.dora, job.steps), (Some(8), true, None));
        assert_eq!((job.chunk, job.teacher), (ChunkLength::Tokens(2048), Teacher::Base));
        form.set("dora", "false");
        assert!(!form.is_changed("dora"));
        assert_eq!(Form::of(form.preset()), Form::default());
    }

    #[test]
    fn keep_takes_lists_and_ranges() {
        let mut form = Form::default();
        form.set("keep", "1, 0.5..0.125");
        let read = form.read().unwrap();
        assert_eq!(read.keeps, [Keep::Fixed(1.0), Keep::Anneal { from: 0.5, to: 0.125 }]);
    }

    #[test]
    fn errors_name_the_field_as_the_page_does() {
        let said = |changes: &[(&str, &str)]| {
            let mut form = Form::default();
            changes.iter().for_each(|(name, text)| form.set(name, text));
            form.read().unwrap_err().to_string()
        };
        for (changes, parts) in [
            (&[("batch_size", "two")][..], &["batch size cannot be 'two'", "digit"][..]),
            (&[("lr", "fast")], &["learning rate cannot be 'fast'"]),
            (&[("keep", "0.5..")], &["keep cannot be", "0.5..0.125"]),
            (&[("epochs", "2")], &["steps", "epochs", "exclude each other"]),
            (&[("warmup_ratio", "0.1")], &["warmup", "exclude each other"]),
        ] {
            let text = said(changes);
            for part in parts {
                assert!(text.contains(part), "no '{part}' in {text}");
            }
            assert!(!text.contains("--"), "{text}");
        }
    }
}
