//! Checks the settings of a job, and resolves them against a model.

use std::time::Duration;

use super::distill::{Distill, Teacher};
use super::job::{DEFAULT_DECAY_RATIO, DEFAULT_RANK, Method, TrainJob};
use super::keep::Draws;
use super::preference::{ObjectiveKind, Preference};
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::adapter_targets::{ModuleSet, Targets};
use crate::checkpoint::record::AttentionRecord;
use crate::checkpoint::weight_names::linears;
use crate::data::long::Long;
use crate::data::sampler::Sampler;
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::optim::{OptimizerSettings, Phases, Schedule, UpdateRule, at_least_zero, below_one, require};

/// The most epochs whose steps are counted one by one.
const MOST_COUNTED: u64 = 100_000;
/// Default strength of the preference, as in TRL.
const DEFAULT_BETA: f64 = 0.1;

impl TrainJob {
    /// Rejects invalid settings. Does not check paths or the model; the run does.
    pub fn validate(&self) -> Result<()> {
        require(!(self.steps.is_some() && self.epochs.is_some()), || {
            "`steps` and `epochs` both set the length of the run: give only one".into()
        })?;
        for (field, value) in [
            ("steps", self.steps.unwrap_or(1)),
            ("epochs", self.epochs.unwrap_or(1)),
            ("batch_size", self.batch_size as u64),
            ("accumulate", self.accumulate as u64),
        ] {
            require(value >= 1, || format!("`{field}` {value} trains nothing: give at least 1"))?;
        }
        require(self.keep_checkpoints >= 1, || "`keep_checkpoints` 0: a run needs at least 1 to resume from".into())?;
        require(self.early_stop.is_none() || self.eval_every > 0, || {
            "`early_stop` needs evaluations: give `eval_every`".into()
        })?;
        require(self.early_stop != Some(0), || "`early_stop` 0 stops nothing: give at least 1".into())?;
        require(!(self.resume && self.overwrite), || "`resume` and `overwrite` exclude each other".into())?;
        self.validate_data()?;
        require(self.max_positions != Some(0), || "`max_positions` 0 allows no tokens".into())?;
        at_least_zero("lr", self.learning_rate())?;
        at_least_zero("clip", self.clip)?;
        at_least_zero("neftune", self.neftune)?;
        at_least_zero("save_minutes", self.save_minutes)?;
        self.validate_schedule()?;
        Distill { weight: self.distill, teacher: self.teacher }.check_weight()?;
        require(self.distill > 0.0 || self.teacher == Teacher::default(), || {
            "`teacher` needs `distill`, its weight in the loss".into()
        })?;
        self.validate_preference()?;
        self.update_rule()?;
        self.validate_adapter()?;
        if let Some(Attention::Dense) = self.attention.as_ref().map(AttentionRecord::attention).transpose()? {
            let has_none = self.keeps.as_ref().is_none_or(Vec::is_empty);
            require(has_none, || "`keep` applies only to `attention` lrsa, not to dense".into())?;
        }
        let attention = self.attention(None)?;
        self.attentions(attention, 0).map(|_| ())
    }

    fn validate_schedule(&self) -> Result<()> {
        if let Some(ratio) = self.warmup_ratio {
            let is_fraction = (0.0..=1.0).contains(&ratio);
            require(is_fraction, || format!("`warmup_ratio` {ratio} is not a fraction of the steps from 0 to 1"))?;
            require(self.warmup == 0, || {
                "`warmup` and `warmup_ratio` both set the length of the warm-up: give only one".into()
            })?;
        }
        if let Some(ratio) = self.decay_ratio {
            let is_fraction = ratio > 0.0 && ratio <= 1.0;
            require(is_fraction, || {
                format!("`decay_ratio` {ratio} is not a fraction of the steps, above 0 and up to 1")
            })?;
            require(self.schedule == Schedule::Wsd, || {
                "`decay_ratio` applies only to `schedule` wsd; the others decay from the warm-up on".into()
            })?;
        }
        Ok(())
    }

    fn validate_data(&self) -> Result<()> {
        if let Some(fraction) = self.valid_fraction {
            require(fraction > 0.0 && fraction < 1.0, || {
                format!("`valid_fraction` {fraction} is no fraction of the examples: give a number between 0 and 1")
            })?;
        }
        require(self.batch_tokens.is_none() || self.batch_size == 1, || {
            "`batch_tokens` and `batch_size` both say how much is in a batch: give only one".into()
        })?;
        let epochs = self.epochs.filter(|&epochs| self.batch_tokens.is_some() && epochs > MOST_COUNTED);
        require(epochs.is_none(), || {
            format!(
                "`epochs` above {MOST_COUNTED} with `batch_tokens`: the steps of every epoch are counted before the first \
                 one; give `steps` instead"
            )
        })?;
        let short = self.max_length.filter(|&n| n < 2);
        require(short.is_none(), || {
            "`max_length`: an example needs at least 2 tokens, one as input and one to predict".into()
        })?;
        let is_window = self.long == Long::Window;
        require(!is_window || self.max_length.is_some(), || {
            "`long` window needs `max_length`, the most tokens of a window".into()
        })?;
        require(is_window || self.overlap.is_none(), || "`overlap` applies only to `long` window".into())?;
        let too_much = self.overlap.zip(self.max_length).filter(|(overlap, max)| *overlap > *max / 2);
        require(too_much.is_none(), || {
            "`overlap` repeats more than half of a window: give at most half of `max_length`".into()
        })
    }

    fn validate_preference(&self) -> Result<()> {
        let Some(preference) = self.preference() else {
            return require(self.beta.is_none(), || {
                "`beta` applies only to `objective` dpo or orpo, not to sft".into()
            });
        };
        let Preference { beta, with_reference } = preference;
        let name = self.objective.name();
        require(beta.is_finite() && beta > 0.0, || format!("`beta` {beta} is no strength: give a number above 0"))?;
        require(self.distill == 0.0, || {
            format!("`distill` applies only to `objective` sft, not to {name}: leave one of them out")
        })?;

        require(self.long != Long::Window, || {
            format!(
                "`long` window applies only to `objective` sft: the windows of a pair would have nothing to compare, so {name} \
                 takes `long` cut or whole"
            )
        })?;
        if with_reference && self.method == Method::Full {
            return preference.check(None);
        }
        require(!with_reference || self.modules_to_save.is_empty(), || {
            "the reference model of `objective` dpo is the model as it was, but `modules_to_save` replaces parts of it: \
             leave them out, or use `objective` orpo"
                .into()
        })
    }

    fn validate_adapter(&self) -> Result<()> {
        if let Some(rank) = self.rank {
            require(rank >= 1, || "`rank` 0: an adapter needs at least 1".into())?;
        }
        if let Some(alpha) = self.alpha {
            let usable = alpha.is_finite() && alpha != 0.0;
            require(usable, || format!("`alpha` {alpha} is not a usable scale for an adapter"))?;
        }
        if let Some(dropout) = self.dropout {
            below_one("dropout", dropout)?;
        }
        if let Some(ratio) = self.lora_plus {
            let usable = ratio.is_finite() && ratio > 0.0;
            require(usable, || format!("`lora_plus` {ratio} is not a ratio above 0"))?;
        }
        let shape = [
            ("rank", self.rank.is_some()),
            ("alpha", self.alpha.is_some()),
            ("rank_pattern", !self.rank_pattern.is_empty()),
            ("alpha_pattern", !self.alpha_pattern.is_empty()),
            ("targets", self.targets.is_some()),
            ("layers", self.layers.is_some()),
            ("modules_to_save", !self.modules_to_save.is_empty()),
            ("rslora", self.rslora),
            ("dora", self.dora),
        ];
        let given = shape.iter().find(|(_, given)| *given).map(|(field, _)| *field);
        if self.method == Method::Full {
            let given = given
                .or(self.dropout.map(|_| "dropout"))
                .or(self.lora_plus.map(|_| "lora_plus"))
                .or(self.adapter.as_ref().map(|_| "adapter"));
            require(self.distillation().is_none() || self.teacher != Teacher::Base, || {
                "`teacher` base needs the untouched model, but `method` full trains it: use `teacher` self".into()
            })?;
            return require(given.is_none(), || {
                format!(
                    "`{}` applies only to `method` lora; `method` full trains every weight of the model itself",
                    given.unwrap_or_default()
                )
            });
        }
        if self.distillation().is_some() && self.teacher == Teacher::Base {
            require(self.modules_to_save.is_empty(), || {
                "`teacher` base is the untouched model, but `modules_to_save` replaces parts of it: use `teacher` self"
                    .into()
            })?;
        }
        let is_pattern = matches!(&self.targets, Some(set @ ModuleSet::Pattern(_)) if !set.is_all_linear());
        require(self.layers.is_none() || !is_pattern, || {
            "`layers` needs names in `targets`: name the layers in the regular expression instead".into()
        })?;
        require(self.adapter.is_none() || given.is_none(), || {
            format!("`{}` cannot change the adapter that `adapter` continues: leave it out", given.unwrap_or_default())
        })
    }

    /// Distillation, if its weight is above 0.
    pub fn distillation(&self) -> Option<Distill> {
        (self.distill > 0.0).then_some(Distill { weight: self.distill, teacher: self.teacher })
    }

    /// The loss of preference pairs, if the objective learns from them.
    pub fn preference(&self) -> Option<Preference> {
        let with_reference = self.objective == ObjectiveKind::Dpo;
        let beta = self.beta.unwrap_or(DEFAULT_BETA);
        self.objective.takes_pairs().then_some(Preference { with_reference, beta })
    }

    /// The dropout of steps that train an adapter with the dropout `own`. Preferences are learnt
    /// without, as in TRL: the reference has none, and rewards would measure the dropout too.
    pub fn dropout_of_steps(&self, own: f64) -> f64 {
        self.dropout.unwrap_or(if self.objective.takes_pairs() { 0.0 } else { own })
    }

    /// The peak learning rate: the given one, or the optimiser's default for the method.
    pub fn learning_rate(&self) -> f64 {
        let [lora, full] = self.optimizer.info().default_lr;
        self.lr.unwrap_or(match self.method {
            Method::Lora => lora,
            Method::Full => full,
        })
    }

    /// The optimiser's update rule. Fails for settings that are invalid or that the optimiser
    /// lacks.
    pub fn update_rule(&self) -> Result<Box<dyn UpdateRule>> {
        let Self { weight_decay, betas, eps, momentum, .. } = *self;
        self.optimizer.info().rule(&OptimizerSettings { weight_decay, betas, eps, momentum })
    }

    /// The attention to train with; `recorded` comes from the model or adapter.
    pub fn attention(&self, recorded: Option<Attention>) -> Result<Attention> {
        match &self.attention {
            Some(record) => record.attention(),
            None => Ok(recorded.unwrap_or(Attention::Lrsa(Lrsa::default()))),
        }
    }

    /// Where steps take their r from whose longest text has `longest` tokens.
    pub fn draws(&self, own: Lrsa, longest: usize) -> Draws {
        self.keeps.clone().map_or_else(|| Draws::usual(own, longest), Draws::of)
    }

    /// The attention of a step of a run of `total` steps: `attention` with the r of the step, whose longest
    /// text has `longest` tokens. Depends only on these, the seed, the step and the total.
    pub fn attention_of(&self, attention: Attention, longest: usize, step: u64, total: u64) -> Result<Attention> {
        let Attention::Lrsa(own) = attention else { return Ok(attention) };
        let keep = self.draws(own, longest).at(self.seed, step, total).unwrap_or(own.keep());
        own.with_keep(keep).map(Attention::Lrsa)
    }

    /// r of a step that attends so ([`TrainJob::attention_of`]). `None` if all steps of the run attend
    /// alike: with one r, or on texts of up to `longest` tokens of which nothing is dropped. `attention`
    /// is that of the run.
    pub fn keep_of(&self, attention: Attention, longest: usize, step: Attention) -> Option<f64> {
        let (Attention::Lrsa(own), Attention::Lrsa(step)) = (attention, step) else { return None };
        let differs = self.draws(own, longest).shares().len() > 1 && longest > own.longest_whole();
        differs.then_some(step.keep())
    }

    /// The time after which a run saves, whatever steps it has done since the last save.
    pub(super) fn saves_after(&self) -> Option<Duration> {
        let seconds = 60.0 * self.save_minutes;
        (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }

    /// The attentions of steps with the share of each; of a range the two ends, between which the steps
    /// lie. By ascending r.
    pub fn attentions(&self, attention: Attention, longest: usize) -> Result<Vec<(Attention, f64)>> {
        let Attention::Lrsa(own) = attention else { return Ok(vec![(attention, 1.0)]) };
        let shares = self.draws(own, longest).shares();
        if shares.is_empty() {
            return Ok(vec![(attention, 1.0)]);
        }
        shares.into_iter().map(|(keep, share)| Ok((Attention::Lrsa(own.with_keep(keep)?), share))).collect()
    }

    /// Total optimiser steps on the examples of a sampler.
    pub fn total_steps(&self, sampler: &Sampler) -> u64 {
        self.steps.unwrap_or_else(|| sampler.steps_of(self.epochs.unwrap_or(1)))
    }

    /// The phases of the learning rate in a run of `total` steps. Fractions of the steps are rounded
    /// up, as in transformers.
    pub fn phases(&self, total: u64) -> Phases {
        let part = |ratio: f64| (ratio * total as f64).ceil() as u64;
        let warmup = self.warmup_ratio.map_or(self.warmup, part);
        Phases { warmup, decay: part(self.decay_ratio.unwrap_or(DEFAULT_DECAY_RATIO)), total }
    }

    /// The configuration of a new adapter. Fails for target modules that the model does not have.
    pub fn new_adapter(&self, model: &ModelConfig) -> Result<AdapterConfig> {
        let r = self.rank.unwrap_or(DEFAULT_RANK);
        let all = || ModuleSet::Names(linears(model).iter().map(|l| l.target().to_string()).collect());
        let modules = self.targets.clone().filter(|set| !set.is_all_linear()).unwrap_or_else(all);
        let targets = Targets {
            layers: self.layers.clone().map(|layers| layers.0),
            to_save: self.modules_to_save.clone(),
            // One weight of the model stays one.
            ensure_weight_tying: model.tied && !self.modules_to_save.is_empty(),
            ..Targets::of(modules)
        };
        let config = AdapterConfig {
            dropout: self.dropout.unwrap_or(0.0),
            use_rslora: self.rslora,
            use_dora: self.dora,
            base_model: Some(self.model.clone()),
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            ..AdapterConfig::new(r, self.alpha.unwrap_or(2.0 * r as f64), targets)
        };
        let checked = config.targets.check_every_name(model).and_then(|()| config.validate(model));
        checked.map_err(|e| {
            let settings =
                "`rank`, `alpha`, `rank_pattern`, `alpha_pattern`, `dropout`, `targets`, `layers`, `modules_to_save`";
            Error::usage(e.to_string()).context(settings)
        })?;
        Ok(config)
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
