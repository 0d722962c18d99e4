//! What all requests share: the catalogue, the engine's door, the options and the counters.

use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use super::failure::ApiError;
use super::options::Options;
use crate::serve::catalogue::Catalogue;
use crate::serve::door::Door;
use crate::serve::metrics::Metrics;
use crate::serve::openai::schema::Constraints;
use crate::serve::openai::token_table::TokenTable;
use crate::serve::openai::tool_forms::Form;

/// A server's state.
pub struct State {
    pub catalogue: Catalogue,
    pub options: Options,
    pub metrics: Arc<Metrics>,
    door: Box<dyn Door>,
    /// How the model writes tool calls, if its template shows it.
    pub form: Option<Form>,
    table: OnceLock<Result<Arc<TokenTable>, String>>,
    constraints: OnceLock<Result<Constraints, String>>,
    /// Turns for reading requests: as many as there are cores.
    pub readers: Arc<Semaphore>,
    /// Bytes for the bodies of requests.
    pub bodies: Arc<Semaphore>,
}

impl State {
    pub fn new(catalogue: Catalogue, door: Box<dyn Door>, metrics: Arc<Metrics>, options: Options) -> Self {
        let form = catalogue.files.template.as_ref().and_then(|template| Form::of(template.tool_source()));
        let body_bytes = options.all_body_bytes.max(options.body_bytes).min(Semaphore::MAX_PERMITS);
        Self {
            catalogue,
            options,
            metrics,
            door,
            form,
            table: OnceLock::new(),
            constraints: OnceLock::new(),
            bodies: Arc::new(Semaphore::new(body_bytes)),
            readers: Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))),
        }
    }

    /// The engine's door.
    pub fn door(&self) -> &dyn Door {
        &*self.door
    }

    /// Closes the door. Jobs that run behind it go on.
    pub fn stop(&self) {
        self.door.close(self.options.grace);
    }

    /// Ends the jobs behind the door.
    pub fn stop_jobs(&self) {
        self.door.stop();
    }

    /// The texts of the tokens. The first call takes a while.
    pub fn table(&self) -> Result<Arc<TokenTable>, ApiError> {
        let make = || {
            let files = &self.catalogue.files;
            let Ok(tokenizer) = files.tokenizer() else { return Ok(Arc::default()) };
            let bytes = tokenizer.token_bytes(files.config().vocab).map_err(|e| e.to_string())?;
            Ok(Arc::new(TokenTable::new(bytes, |id| tokenizer.is_special(id))))
        };
        self.table.get_or_init(make).clone().map_err(ApiError::internal)
    }

    /// What makes constraints. The first call takes a while.
    pub fn constraints(&self) -> Result<&Constraints, ApiError> {
        let table = self.table()?;
        let make = || {
            let files = &self.catalogue.files;
            let tokenizer = files.tokenizer().map_err(|e| e.to_string())?;
            Constraints::new(&table, |id| tokenizer.is_special(id), files.stop.ids()).map_err(|e| e.to_string())
        };
        self.constraints.get_or_init(make).as_ref().map_err(ApiError::internal)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn threads_may_share_it() {
        fn shared<T: Send + Sync>() {}
        shared::<super::State>();
    }
}
