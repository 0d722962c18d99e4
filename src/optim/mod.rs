//! Floor 7: optimisers. `rule.rs` says what an update rule is, `optimizer.rs` keeps its slots, and each rule has a file; the
//! list of rules is here. Learning-rate schedules are in `schedule.rs`.

mod optimizer;
mod rule;
mod schedule;
#[cfg(test)]
mod test_steps;

pub use optimizer::{Optimizer, OptimizerState, matching_values};
pub use rule::{OptimizerInfo, OptimizerSettings, SliceUpdate, UpdateRule};
pub use schedule::Schedule;

/// Declares the update rules, the default first: their modules, their types, and the enum that names them.
macro_rules! optimizers {
    ($($(#[$doc:meta])* $module:ident: $rule:ident),* $(,)?) => {
        $(mod $module;)*
        $(pub use $module::$rule;)*

        /// An update rule by name.
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
            /// All of them, the default first.
            pub const ALL: &[Self] = &[$(Self::$rule),*];

            /// Name, learning rates and settings.
            pub fn info(self) -> &'static OptimizerInfo {
                match self {
                    $(Self::$rule => &$module::INFO),*
                }
            }
        }
    };
}

optimizers! {
    /// AdamW: running means of gradients and of their squares, decoupled weight decay
    adamw: AdamW,
    /// Lion: the sign of a running mean, decoupled weight decay; half of AdamW's memory
    lion: Lion,
    /// Stochastic gradient descent with momentum; weight decay is added to the gradient
    sgd: Sgd,
}
