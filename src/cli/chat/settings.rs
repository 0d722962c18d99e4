//! Settings of a conversation: sampling, seed and attention, and how commands name them.

use serde::{Deserialize, Serialize};

use crate::attention::{Attention, Lrsa};
use crate::checkpoint::generation_config::Wished;
use crate::error::{Error, Result};
use crate::eval::Policy;
use crate::kernels::sample::Sampling;

/// Most tokens of an answer without `--max-tokens`.
pub const DEFAULT_MAX_TOKENS: usize = 2048;

/// How answers are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub wished: Wished,
    pub seed: u64,
    /// Answers since the seed was set. Each has random numbers of its own, so that a conversation that
    /// continues draws as one that was never interrupted.
    pub n_answers: u64,
    pub max_tokens: Option<usize>,
}

impl Settings {
    /// The defaults with a seed.
    pub fn new(seed: u64) -> Self {
        Self { wished: Wished::default(), seed, n_answers: 0, max_tokens: None }
    }

    /// The seed of the next answer.
    pub fn next_seed(&self) -> u64 {
        self.seed.wrapping_add(self.n_answers)
    }
}

/// Reads an attention: `dense`, `lrsa`, a factor such as `8x`, or `SINK,LAG,KEEP`. What the name leaves
/// open is that of `base`.
pub fn attention(name: &str, base: Lrsa) -> Result<Attention> {
    let unknown = || {
        Error::usage(format!(
            "'{name}' is no attention: use dense, lrsa, a factor such as 8x, or sink, lag and keep such as 16,128,0.25"
        ))
    };
    if name == "lrsa" {
        return Ok(Attention::Lrsa(base));
    }
    if let [sink, lag, keep] = name.split(',').map(str::trim).collect::<Vec<_>>()[..] {
        let whole = |text: &str| text.parse::<usize>().map_err(|_| unknown());
        let lrsa = Lrsa::new(whole(sink)?, whole(lag)?, keep.parse().map_err(|_| unknown())?)?;
        return Ok(Attention::Lrsa(lrsa));
    }
    if name != "dense" && Policy::factor(name).is_none() {
        return Err(unknown());
    }
    Policy::parse(name, base.sink(), base.lag(), 0)?.attention(0)
}

/// Changes sampling values: `NAME=VALUE` each, or `default` alone.
pub fn wished(words: &[String], before: Wished) -> Result<Wished> {
    if let [word] = words
        && word == "default"
    {
        return Ok(Wished::default());
    }
    let mut wished = before;
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            Error::usage(format!("/sampling takes NAME=VALUE such as temp=0.7, or default, and '{word}' is neither"))
        })?;
        let real = || value.parse::<f32>().map_err(|_| Error::usage(format!("'{value}' is no number for {name}")));
        match name.trim_start_matches('-').replace('-', "_").as_str() {
            "temp" | "temperature" => wished.temperature = Some(real()?),
            "top_p" => wished.top_p = Some(real()?),
            "min_p" => wished.min_p = Some(real()?),
            "repetition_penalty" => wished.repetition_penalty = Some(real()?),
            "frequency_penalty" => wished.frequency_penalty = Some(real()?),
            "presence_penalty" => wished.presence_penalty = Some(real()?),
            "top_k" => {
                let k = value.parse().map_err(|_| Error::usage(format!("'{value}' is no whole number for {name}")))?;
                wished.top_k = Some(k);
            }
            _ => {
                return Err(Error::usage(format!(
                    "/sampling has no {name}: it has temp, top_p, top_k, min_p, repetition_penalty, frequency_penalty \
                     and presence_penalty"
                )));
            }
        }
    }
    Ok(wished)
}

/// The sampling in the words of [`wished`].
pub fn described(sampling: &Sampling) -> String {
    let Sampling { temperature, top_k, top_p, min_p, repetition_penalty, .. } = sampling;
    let drawn = match *temperature == 0.0 {
        true => "temp=0 (greedy)".to_string(),
        false => format!("temp={temperature} top_p={top_p} top_k={top_k} min_p={min_p}"),
    };
    let penalties = [("frequency", sampling.frequency_penalty), ("presence", sampling.presence_penalty)];
    let penalties = penalties.into_iter().filter(|(_, penalty)| *penalty != 0.0);
    let penalties: String = penalties.map(|(name, penalty)| format!(" {name}_penalty={penalty}")).collect();
    format!("{drawn} repetition_penalty={repetition_penalty}{penalties}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attentions_are_named_as_in_evaluations() {
        let base = Lrsa::new(4, 32, 0.5).unwrap();
        let of = |name: &str| attention(name, base);
        assert_eq!(of("dense").unwrap(), Attention::Dense);
        assert_eq!(of("lrsa").unwrap(), Attention::Lrsa(base));
        assert_eq!(of("8x").unwrap(), Attention::Lrsa(Lrsa::new(4, 32, 0.125).unwrap()));
        assert_eq!(of("16,128,0.25").unwrap(), Attention::Lrsa(Lrsa::new(16, 128, 0.25).unwrap()));
        for wrong in ["", "random-4x", "window-4x", "x", "0x", "nanx", "1,2", "a,b,c", "1,2,3,4", "16,128,0", "64x"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sampling_values_add_up_and_default_drops_them() {
        let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let first = wished(&words("temp=0.7 top_k=5"), Wished::default()).unwrap();
        let both = wished(&words("--top-p=0.5"), first).unwrap();
        assert_eq!((both.temperature, both.top_k, both.top_p), (Some(0.7), Some(5), Some(0.5)));
        let all = wished(&words("presence-penalty=-0.5 frequency_penalty=1"), both).unwrap();
        assert_eq!((all.presence_penalty, all.frequency_penalty, all.top_k), (Some(-0.5), Some(1.0), Some(5)));
        let sampling = Sampling { presence_penalty: -0.5, ..Sampling::default() };
        assert_eq!(described(&sampling), "temp=0 (greedy) repetition_penalty=1 presence_penalty=-0.5");
        assert_eq!(wished(&words("default"), both).unwrap(), Wished::default());
        assert_eq!(wished(&[], both).unwrap(), both);
        for wrong in ["temp", "temp=x", "top_k=1.5", "heat=1", "=", "default temp"] {
            assert!(wished(&words(wrong), both).is_err(), "{wrong}");
        }
    }
}
