//! Model configurations, the Llama family, weight names and chat templates.

pub mod block;
pub mod config;
pub mod llama;
pub mod rope;
