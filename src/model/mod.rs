//! Model configurations, the Llama family, weight names and chat templates.
