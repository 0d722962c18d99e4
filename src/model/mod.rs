//! Model configurations, the Llama family, weight names and chat templates.

pub mod adapter_config;
pub mod adapter_file;
pub mod block;
mod chat_environment;
mod chat_filters;
pub mod chat_template;
pub mod config;
pub mod config_gguf;
pub mod config_hf;
pub mod hub;
pub mod json_fields;
pub mod llama;
pub mod load;
mod random_weights;
pub mod record;
pub mod rope;
pub mod weight_names;
pub mod weights;
