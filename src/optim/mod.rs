//! Floor 7: the optimiser's host side: step counts, bias corrections and learning-rate schedules.

mod adamw;
mod schedule;

pub use adamw::{AdamW, AdamWConfig};
pub use schedule::Schedule;
