//! Floor 7: model folders and files: read them, load them to a device, and save them.

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
