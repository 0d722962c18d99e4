//! Floor 7: model folders and files: read them, load them to a device, and save them.

pub mod adapter_config;
pub mod adapter_file;
pub mod adapter_targets;
pub mod bundled;
pub mod config_gguf;
pub mod config_hf;
mod config_hf_write;
pub mod families;
mod folder;
pub mod generation_config;
pub mod hub;
mod hub_cache;
mod hub_client;
mod hub_download;
mod hub_env;
pub mod json_fields;
mod layers_hf;
pub mod load;
pub mod model_files;
pub(crate) mod random_weights;
pub mod record;
mod rope_hf;
mod text_config;
pub mod weight_names;
pub mod weights;
