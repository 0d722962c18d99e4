//! The routes of the server: from a request to the module that answers it.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use axum::body::{Body, HttpBody};
use axum::extract::{Path, Request, State as Shared};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json as JsonBody, Router};
use serde_json::{Map, Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::failure::ApiError;
use super::state::State;
use super::{guard, stream};
use crate::error::Result;
use crate::plain_json::Plain;
use crate::serve::openai::answer::{Answers, Wholes};
use crate::serve::openai::asked::{Asked, Channelled};
use crate::serve::openai::shape::Envelope;
use crate::serve::openai::{chat, completions};

type Answer = std::result::Result<Response, ApiError>;
/// Reads the fields of a request.
type Read = fn(&State, &Map<String, Json>) -> std::result::Result<Asked, ApiError>;

/// Parts of OpenAI's interface that the server does not have.
const UNSUPPORTED: [&str; 18] = [
    "assistants",
    "audio",
    "batches",
    "chat/completions/",
    "containers",
    "conversations",
    "edits",
    "embeddings",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "moderations",
    "realtime",
    "responses",
    "threads",
    "vector_stores",
    "videos",
];

/// The routes with all that is around them. `checks_host` is for loopback addresses.
pub fn router(state: &Arc<State>, checks_host: bool) -> Result<Router> {
    let mut router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/completions", post(text_completions))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state.clone(), guard::check_key));
    if let Some(cors) = guard::cors(&state.options.origins)? {
        router = router.layer(cors);
    }
    if checks_host {
        router = router.layer(from_fn_with_state(state.clone(), guard::check_host));
    }
    let router = router.layer(from_fn(without_panics)).layer(from_fn_with_state(state.clone(), counted));
    Ok(router.with_state(state.clone()))
}

async fn health(Shared(state): Shared<Arc<State>>) -> Answer {
    state.door().ready()?;
    Ok(JsonBody(json!({"status": "ok"})).into_response())
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.text()).into_response()
}

async fn models(Shared(state): Shared<Arc<State>>) -> JsonBody<Json> {
    JsonBody(state.catalogue.list())
}

async fn model(Shared(state): Shared<Arc<State>>, Path(id): Path<String>) -> Answer {
    let model = state.catalogue.find(Some(&id))?;
    Ok(JsonBody(state.catalogue.describe(model)).into_response())
}

async fn chat_completions(Shared(state): Shared<Arc<State>>, request: Request) -> Answer {
    answer(state, request, chat::read).await
}

async fn text_completions(Shared(state): Shared<Arc<State>>, request: Request) -> Answer {
    answer(state, request, completions::read).await
}

async fn no_route(uri: Uri) -> ApiError {
    let path = uri.path();
    let name = path.strip_prefix("/v1/").unwrap_or_default();
    let is_known = UNSUPPORTED.iter().any(|part| name.starts_with(part));
    let shown: String = path.chars().take(80).collect();
    match is_known {
        true => ApiError::request(
            StatusCode::NOT_FOUND,
            "not_supported",
            format!("{shown} is not supported: the server has /v1/chat/completions, /v1/completions and /v1/models"),
        ),
        false => ApiError::request(StatusCode::NOT_FOUND, "not_found", format!("there is no {shown:?} here")),
    }
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::request(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Reads a request, hands its jobs to the engine and sends the answers.
async fn answer(state: Arc<State>, request: Request, read: Read) -> Answer {
    state.door().ready()?;
    let body = body(&state, request).await?;
    let (asked, jobs) = read_apart(&state, body, read).await?;
    let prompt_tokens = asked.prompts.iter().map(Vec::len).sum();
    let mut channels = Vec::new();
    for (job, events) in jobs {
        state.door().submit(job)?;
        channels.push(events);
    }
    let Asked { settings, shape, splitter, .. } = asked;
    let answers = Answers::new(channels, settings.n, splitter, prompt_tokens);
    let envelope = Envelope::new(shape.names(), &state.catalogue.models[settings.model].name);
    if settings.is_stream {
        return stream::respond(answers, shape, envelope, settings.includes_usage, state.options.keep_alive).await;
    }
    let wholes = Wholes::collect(answers).await?;
    // On a thread of its own: the probabilities of a long prompt take a while to write.
    let writing = tokio::task::spawn_blocking(move || {
        let prompt = |choice: usize| wholes.prompts[choice / settings.n].as_slice();
        let choice = |(i, whole)| shape.whole(i, whole, prompt(i));
        let choices = wholes.answers.iter().enumerate().map(choice).collect();
        JsonBody(envelope.whole(choices, wholes.usage.object())).into_response()
    });
    writing.await.map_err(|_| ApiError::internal("writing the answer failed: this is a bug of the server"))
}

/// Reads a request on a thread of its own: templates and tokenizers take a while for a long text. As
/// many are read at once as there are cores. A client that leaves does not end its turn: the thread
/// goes on.
async fn read_apart(
    state: &Arc<State>,
    body: Held,
    read: Read,
) -> std::result::Result<(Asked, Vec<Channelled>), ApiError> {
    let turn = state.readers.clone().acquire_owned().await;
    let state = state.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let map = object(&body.bytes)?;
        drop(body);
        let asked = read(&state, &map)?;
        let jobs = asked.jobs(&state)?;
        Ok((asked, jobs))
    });
    let panicked = |_| ApiError::internal("reading the request failed: this is a bug of the server");
    reading.await.map_err(panicked)?
}

/// The body of a request, with its share of the memory for bodies.
struct Held {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

/// The body of a request, within the limits of size and time.
async fn body(state: &State, request: Request) -> std::result::Result<Held, ApiError> {
    let most = state.options.body_bytes;
    let too_large = || {
        let message = format!("the body of a request may have at most {most} bytes");
        ApiError::request(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    };
    let announced = request.body().size_hint().upper().map_or(most, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced > most {
        return Err(too_large());
    }
    let share = share(state, announced).await?;
    let mut chunks = request.into_body().into_data_stream();
    let read = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|e| {
                let message = format!("the body of the request cannot be read: {e}");
                ApiError::request(StatusCode::BAD_REQUEST, "unreadable_body", message)
            })?;
            if bytes.len() + chunk.len() > most {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Held { bytes, _share: share })
    };
    let time = state.options.body_time;
    timeout(time, read).await.unwrap_or_else(|_| {
        let message = format!("the body of the request took longer than {} s", time.as_secs_f64());
        Err(ApiError::request(StatusCode::REQUEST_TIMEOUT, "request_timeout", message))
    })
}

/// Waits until so many bytes are free for bodies.
async fn share(state: &State, bytes: usize) -> std::result::Result<OwnedSemaphorePermit, ApiError> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let time = state.options.body_time;
    match timeout(time, state.bodies.clone().acquire_many_owned(bytes)).await {
        Ok(Ok(share)) => Ok(share),
        _ => {
            let message = "other requests have taken the memory for bodies";
            let message = format!("{message} for more than {} s; try again later", time.as_secs_f64());
            Err(ApiError::unavailable("too_many_bodies", message))
        }
    }
}

/// The object of a body.
fn object(bytes: &[u8]) -> std::result::Result<Map<String, Json>, ApiError> {
    let wrong = |message: String| ApiError::request(StatusCode::BAD_REQUEST, "invalid_json", message);
    match serde_json::from_slice(bytes) {
        Ok(Plain(Json::Object(map))) => Ok(map),
        Ok(_) => Err(wrong("the body of the request is JSON, but not an object".into())),
        Err(e) => Err(wrong(format!("the body of the request is not JSON: {e}"))),
    }
}

/// Turns a panic into a failed request.
async fn without_panics(request: Request, next: Next) -> Response {
    let mut answer = Box::pin(next.run(request));
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            Poll::Ready(ApiError::internal("the request failed: this is a bug of the server").into_response())
        })
    })
    .await
}

/// Counts requests by route and status code.
async fn counted(Shared(state): Shared<Arc<State>>, request: Request<Body>, next: Next) -> Response {
    const ROUTES: [&str; 5] = ["/health", "/metrics", "/v1/chat/completions", "/v1/completions", "/v1/models"];
    let path = request.uri().path();
    let route = ROUTES.iter().find(|route| path == **route).copied().unwrap_or("other");
    let response = next.run(request).await;
    state.metrics.count(route, response.status().as_u16());
    response
}
