//! Floor 7: what a folder or file of a model holds, and how it becomes a model on a device and back.

pub mod adapter_config;
pub mod adapter_file;
pub mod bundled;
pub mod config_gguf;
pub mod config_hf;
pub mod hub;
pub mod json_fields;
pub mod load;
pub mod model_files;
pub(crate) mod random_weights;
pub mod record;
pub mod weight_names;
pub mod weights;
