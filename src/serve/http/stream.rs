//! Answers as server-sent events: a chunk for each piece, and `[DONE]` at the end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};
use tokio_stream::{Stream, StreamExt};

use super::failure::ApiError;
use crate::serve::openai::answer::{Answers, Step};
use crate::serve::openai::shape::{Envelope, Shape};

/// The stream of a request's answers. Waits for the first step, so that a request that fails at once
/// gets the status code of its failure.
pub async fn respond(
    mut answers: Answers,
    shape: Box<dyn Shape>,
    envelope: Envelope,
    includes_usage: bool,
    keep_alive: Duration,
) -> Result<Response, ApiError> {
    let first = answers.next().await.transpose()?;
    let mut chunks = Chunks { answers, shape, envelope, includes_usage, ready: VecDeque::new(), is_over: false };
    if let Some(step) = first {
        chunks.add(step);
    }
    let mut response = Sse::new(chunks).keep_alive(KeepAlive::new().interval(keep_alive)).into_response();
    let no_buffering = axum::http::HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", no_buffering);
    Ok(response)
}

/// Turns steps into events.
struct Chunks {
    answers: Answers,
    shape: Box<dyn Shape>,
    envelope: Envelope,
    includes_usage: bool,
    /// Texts of events that wait to be sent.
    ready: VecDeque<String>,
    is_over: bool,
}

impl Chunks {
    fn add(&mut self, step: Step) {
        let usage = self.includes_usage.then_some(Json::Null);
        for choice in self.shape.chunks(step) {
            self.ready.push_back(self.envelope.chunk(vec![choice], usage.clone()).to_string());
        }
    }

    fn end(&mut self) {
        self.is_over = true;
        if self.includes_usage {
            let usage = self.answers.usage.object();
            self.ready.push_back(self.envelope.chunk(Vec::new(), Some(usage)).to_string());
        }
        self.ready.push_back("[DONE]".to_owned());
    }

    /// A failure after the headers is an event, and the last one.
    fn fail(&mut self, error: &ApiError) {
        self.is_over = true;
        let mut object = error.object();
        object["error"]["status"] = json!(error.status.as_u16());
        self.ready.push_back(object.to_string());
    }
}

impl Stream for Chunks {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(text) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Event::default().data(text))));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.answers).poll_next(cx)) {
                Some(Ok(step)) => self.add(step),
                Some(Err(error)) => self.fail(&error),
                None => self.end(),
            }
        }
    }
}
