//! Model configurations, the Llama family, weight names and chat templates.

mod chat_environment;
pub mod chat_template;
pub mod hub;
