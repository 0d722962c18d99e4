//! Who may use the server: API keys, host names, and the origins of web pages.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::failure::ApiError;
use super::state::State;
use crate::error::{Error, Result};

/// The path that needs no key.
pub const OPEN_PATH: &str = "/health";

/// Refuses requests without one of the keys.
pub async fn check_key(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let keys = &state.options.keys;
    if keys.is_empty() || request.uri().path() == OPEN_PATH || is_known(keys, bearer(request.headers())) {
        return next.run(request).await;
    }
    let message = "this server needs an API key: send the header Authorization: Bearer KEY with a key that it knows";
    ApiError::request(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response()
}

/// The key of a request, empty if it has none.
fn bearer(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    match value.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"Bearer ") => key.trim_ascii(),
        _ => b"",
    }
}

/// Whether a key is one of these, in a time that tells nothing about them: digests have equal
/// lengths, and all are compared. An empty key opens nothing.
fn is_known(keys: &[String], given: &[u8]) -> bool {
    let is_empty = given.is_empty();
    let given = digest(&SHA256, given);
    let equal = |key: &String| digest(&SHA256, key.as_bytes()).as_ref().ct_eq(given.as_ref());
    let is_equal: bool = keys.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into();
    is_equal && !is_empty
}

/// Refuses requests that a web page may have sent by a name that it made point here: on a loopback
/// address the host is a loopback one or the name by which containers know their machine, and the origin
/// is a loopback one unless it is allowed.
pub async fn check_host(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = request.uri().authority().map(Authority::as_str).or_else(|| text(header::HOST));
    if !host.is_some_and(|host| is_loopback(host) || is_container_host(host)) {
        return foreign("Host", host.unwrap_or_default());
    }
    let allowed = &state.options.origins;
    let is_allowed = |origin: &str| {
        let is_local = origin.split_once("://").is_some_and(|(_, host)| is_loopback(host));
        is_local || allowed.iter().any(|known| known == "*" || known == origin)
    };
    match text(header::ORIGIN) {
        Some(origin) if !is_allowed(origin) => foreign("Origin", origin),
        _ => next.run(request).await,
    }
}

fn foreign(header: &str, value: &str) -> Response {
    let value: String = value.chars().take(80).collect();
    let message = format!("the server listens on a loopback address and does not answer to the {header} {value:?}");
    ApiError::request(StatusCode::FORBIDDEN, "host_not_allowed", message).into_response()
}

/// Whether a host, with or without a port, is this machine's loopback.
fn is_loopback(host: &str) -> bool {
    let Some(name) = name_of(host) else { return false };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    let is_name = name == "localhost" || name.ends_with(".localhost"); // reserved by RFC 6761
    is_name || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The name of a host without its port, in lower case. `None` if it has a user or is no host.
fn name_of(host: &str) -> Option<String> {
    let authority = host.parse::<Authority>().ok().filter(|_| !host.contains('@'))?;
    Some(authority.host().to_ascii_lowercase())
}

/// Whether a host is the name by which a container knows its machine. Nobody can own a name in
/// `.internal`, so no web page comes from one.
fn is_container_host(host: &str) -> bool {
    name_of(host).is_some_and(|name| ["host.docker.internal", "host.containers.internal"].contains(&name.as_str()))
}

/// The layer that lets web pages of these origins use the server. `None` without origins.
pub fn cors(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let value = |origin: &String| {
            let value = HeaderValue::from_str(origin);
            value.map_err(|_| {
                Error::usage(format!("{origin:?} is no origin of a web page, such as http://localhost:3000"))
            })
        };
        AllowOrigin::list(origins.iter().map(value).collect::<Result<Vec<_>>>()?)
    };
    let layer = CorsLayer::new().allow_origin(allowed).allow_methods([Method::GET, Method::POST]);
    Ok(Some(layer.allow_headers(tower_http::cors::AllowHeaders::mirror_request())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_recognised_with_any_port() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3:80", "[::1]", "[::1]:8000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "notlocalhost",
            "host.docker.internal",
            "example.com:127",
            "a@localhost",
            "10.0.0.1",
            "[::2]",
            "127.0.0.1.nip.io",
            "localhost/a",
            " localhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
        assert!(is_loopback("chat.localhost:8080"));
        assert!(is_container_host("host.docker.internal:8080") && is_container_host("Host.containers.internal"));
        for host in ["internal", "docker.internal", "host.docker.internal.example.com", "a@host.docker.internal"] {
            assert!(!is_container_host(host), "{host}");
        }
    }

    #[test]
    fn a_key_is_known_only_as_a_whole() {
        let keys = ["secret".to_owned(), "other".to_owned()];
        assert!(is_known(&keys, b"secret") && is_known(&keys, b"other"));
        for wrong in [&b""[..], b"secre", b"secret ", b"SECRET", b"secretother"] {
            assert!(!is_known(&keys, wrong));
        }
        let header =
            |text: &'static str| HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(text))]);
        assert_eq!(bearer(&header("Bearer  secret")), b"secret");
        assert_eq!(bearer(&header("bearer secret")), b"secret");
        for none in ["secret", "Basic secret", "Bearer", ""] {
            assert_eq!(bearer(&header(none)), b"", "{none}");
        }
    }
}
