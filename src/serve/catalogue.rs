//! What a server serves: the files of the base model, and the models by their names.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::attention::Attention;
use crate::checkpoint::model_files::ModelFiles;
use crate::serve::http::failure::ApiError;

/// A model that requests can name.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// The name, as requests give it.
    pub name: String,
    /// The attention that the model's files record, else dense.
    pub attention: Attention,
}

/// The models of a server. They share the tokenizer, the chat template and the stop tokens.
pub struct Catalogue {
    /// The files of the base.
    pub files: Arc<ModelFiles>,
    /// The served models in the numbers of `Job::model`: the base, then its adapters.
    pub models: Vec<Served>,
    /// Most tokens of a prompt and its answer together.
    pub max_positions: usize,
    /// When the server opened them, in seconds since 1970.
    pub created: u64,
}

impl Catalogue {
    /// The number of the model of this name. Without a name it is the base.
    pub fn find(&self, name: Option<&str>) -> Result<usize, ApiError> {
        let Some(name) = name else { return Ok(0) };
        self.models.iter().position(|model| model.name == name).ok_or_else(|| ApiError::no_such_model(name))
    }

    /// The list of `GET /v1/models`.
    pub fn list(&self) -> Json {
        let data: Vec<Json> = (0..self.models.len()).map(|i| self.describe(i)).collect();
        json!({"object": "list", "data": data})
    }

    /// The object of one model.
    pub fn describe(&self, model: usize) -> Json {
        let Served { name, attention } = &self.models[model];
        json!({
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "longreach",
            "root": self.models[0].name,
            "max_model_len": self.max_positions,
            "attention": attention.to_string(),
        })
    }
}
