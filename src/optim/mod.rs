//! Floor 7: optimisers and learning-rate schedules.
//!
//! `rule.rs` defines an update rule, `slots.rs` its state, and `optimizer.rs` takes steps; each
//! rule has a file. The list of rules is below.

mod optimizer;
mod rule;
mod schedule;
mod slots;
#[cfg(test)]
mod test_steps;

pub use optimizer::{Optimizer, OptimizerState};
pub use rule::{OptimizerInfo, OptimizerSettings, PartUpdate, Update, UpdateRule, at_least_zero, below_one, require};
pub use schedule::{Phases, Schedule};
pub use slots::{Layout, Slots, Stored, matching, read_stored, write_stored};

/// Declares the update rules, the default first: their modules, types, and the enum of their names.
macro_rules! optimizers {
    ($($(#[$doc:meta])* $module:ident: $rule:ident),* $(,)?) => {
        $(mod $module;)*
        $(pub use $module::$rule;)*

        /// The name of an update rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
        #[serde(rename_all = "lowercase")]
        #[value(rename_all = "lower")]
        pub enum OptimizerKind {
            $($(#[$doc])* $rule),*
        }

        impl Default for OptimizerKind {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl OptimizerKind {
            /// All update rules, the default first.
            pub const ALL: &[Self] = &[$(Self::$rule),*];

            /// Name, default learning rates and settings.
            pub fn info(self) -> &'static OptimizerInfo {
                match self {
                    $(Self::$rule => &$module::INFO),*
                }
            }
        }
    };
}

optimizers! {
    /// AdamW with decoupled weight decay (lr 2e-4 for lora and 2e-5 for full, betas 0.9,0.999, eps
    /// 1e-8)
    adamw: AdamW,
    /// AdamW with its two slots in 8 bits (lr 2e-4 for lora and 2e-5 for full, betas 0.9,0.999, eps
    /// 1e-8)
    adamw8bit: AdamW8bit,
    /// Adafactor with factored second moments and no momentum; lr times the RMS of a tensor bounds
    /// its step (lr 5e-2 for lora and 1e-3 for full)
    adafactor: Adafactor,
    /// Lion with decoupled weight decay and one slot (lr 4e-5 for lora and 4e-6 for full, betas
    /// 0.9,0.99)
    lion: Lion,
    /// SGD with momentum; weight decay is added to the gradient (lr 1e-2 for lora and 1e-3 for
    /// full, momentum 0.9)
    sgd: Sgd,
}
