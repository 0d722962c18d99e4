//! Flags of the sampling, shared by `generate` and `chat`.

use clap::Args;

use crate::checkpoint::generation_config::Wished;

/// Sampling flags. Without one, the value of the model's generation_config.json counts.
#[derive(Args, Clone, Debug)]
pub struct SamplingArgs {
    /// Temperature; 0 is greedy and turns off what generation_config.json sets [default: that of
    /// generation_config.json, else 0 for generate and 0.8 for chat]
    #[arg(long, alias = "temperature", value_name = "T", allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Top-k: sample from the K most likely tokens; 0 disables it
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Top-p: sample from the most likely tokens with total probability P; 1 disables it [default: that of
    /// generation_config.json, else 1 for generate and 0.95 for chat]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Min-p: sample from tokens with at least P times the highest probability; 0 disables it
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Repetition penalty: make earlier tokens less likely; 1 disables it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Frequency penalty: subtract X from the logit of a token each time that the answer has it; 0 disables it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Presence penalty: subtract X once from the logit of each token that the answer has; 0 disables it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
}

impl SamplingArgs {
    /// The values of the flags.
    pub fn wished(&self) -> Wished {
        let Self { temp: temperature, top_k, top_p, min_p, .. } = *self;
        let Self { repetition_penalty, frequency_penalty, presence_penalty, .. } = *self;
        Wished { temperature, top_k, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty }
    }
}
