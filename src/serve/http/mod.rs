//! The server's side: connections, routes, limits and errors.
//!
//! `server.rs` accepts connections, `guard.rs` decides who may ask, and `routes.rs` calls what
//! answers. All share a `state.rs`. `failure.rs` holds errors as clients see them.

pub(super) mod failure;
mod guard;
mod options;
mod routes;
mod server;
pub(super) mod state;
pub(super) mod stream;

pub use options::Options;
pub use server::serve;
pub use state::State;
