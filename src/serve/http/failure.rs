//! Failures of a request: OpenAI's error objects, with their status codes.

use axum::Json as JsonBody;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use crate::serve::door::Refused;
use crate::serve::job::Failure;

/// What OpenAI calls an error that the request causes.
const INVALID: &str = "invalid_request_error";
/// What OpenAI calls an error that the server causes.
const SERVER: &str = "server_error";

/// Most characters of a message, and of the path of a field.
const MAX_MESSAGE: usize = 1000;
const MAX_PARAM: usize = 200;

/// A failed request: a status code and an error object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    kind: &'static str,
    /// The field that is wrong, as a path: `messages[0].content`.
    pub param: Option<String>,
    pub code: Option<&'static str>,
    retry_after_s: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: shortened(message.into(), MAX_MESSAGE), kind, param: None, code, retry_after_s: None }
    }

    /// 400 because of one field.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = Some(shortened(param.into(), MAX_PARAM));
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, INVALID, None, message) }
    }

    /// A request that is wrong as a whole, with a status code of the 4xx.
    pub fn request(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, INVALID, Some(code), message)
    }

    /// A failure of the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, None, message)
    }

    /// 404 for a model that is not served.
    pub fn no_such_model(name: &str) -> Self {
        let message = format!("the model {name:?} is not served here; GET /v1/models lists those that are");
        Self { param: Some("model".into()), ..Self::request(StatusCode::NOT_FOUND, "model_not_found", message) }
    }

    /// 400 for a request that the model has no positions for.
    pub fn too_long(message: impl Into<String>, param: &str) -> Self {
        Self { param: Some(param.into()), ..Self::request(StatusCode::BAD_REQUEST, "context_length_exceeded", message) }
    }

    /// The error object, as a body has it.
    pub fn object(&self) -> Json {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full { retry_after_s } => Self {
                retry_after_s: Some(retry_after_s),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limit_error",
                    Some("queue_full"),
                    format!("too many requests wait for the model; try again in {retry_after_s} s"),
                )
            },
            Refused::Loading => Self {
                retry_after_s: Some(1),
                ..Self::unavailable("loading", "the model is still being loaded; try again soon")
            },
            Refused::Stopping => Self::unavailable("stopping", "the server is stopping"),
            Refused::Dead(why) => Self::unavailable("engine_failed", format!("the engine has failed: {why}")),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TooLarge(why) => Self::request(StatusCode::BAD_REQUEST, "cache_too_large", why),
            Failure::Deadline => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                SERVER,
                Some("timeout"),
                "the request took longer than the server allows",
            ),
            Failure::Stopping => Refused::Stopping.into(),
            Failure::Engine(why) => Self::internal(why),
        }
    }
}

impl ApiError {
    /// 503 for what may succeed later, or elsewhere.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some(code), message)
    }
}

/// A text of at most so many characters: a request may put long names into its errors.
fn shortened(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, JsonBody(self.object())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
