//! What a client sends: a JSON body or a query, read within bounds, or a refusal that names what is wrong with it.

use std::time::Duration;

use axum::{body::Body, extract::Request};
use bytes::BytesMut;
use http::{StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::{Settings, failure::Refusal};

/// How deep arrays and objects may lie in one another: far more than any request of the API has, far less than a stack holds.
const DEPTH: usize = 64;

/// Reads a JSON body, as [`read`] and [`parse`] do.
///
/// # Errors
/// As theirs.
pub(crate) async fn json<T: DeserializeOwned>(request: Request, settings: &Settings) -> Result<T, Refusal> {
    parse(&read(request, settings).await?)
}

/// Reads a body that is said to be JSON.
///
/// # Errors
/// 408 if it took too long, 413 if it is too large, 415 for another type.
pub(crate) async fn read(request: Request, settings: &Settings) -> Result<BytesMut, Refusal> {
    if let Some(kind) = request.headers().get(header::CONTENT_TYPE)
        && !is_json(kind.as_bytes())
    {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the body must be JSON: send it with Content-Type: application/json",
        ));
    }
    collect(request.into_body(), settings.body_limit, settings.body_timeout).await
}

fn is_json(kind: &[u8]) -> bool {
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/json") || essence.to_ascii_lowercase().ends_with(b"+json")
}

async fn collect(body: Body, limit: usize, time: Duration) -> Result<BytesMut, Refusal> {
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than {limit} bytes"),
        )
    };
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large());
    }
    let read = async {
        let mut body = body;
        let mut bytes = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "incomplete_body", "the body broke off"))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    timeout(time, read).await.unwrap_or_else(|_| {
        let message = format!("the body took longer than {}", humantime(time));
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
    })
}

fn humantime(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// Parses a JSON text, with the path of the field in every error about one.
///
/// # Errors
/// 400 for what is not JSON or not of the right shape.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let not_json = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", message);
    let text = std::str::from_utf8(bytes).map_err(|error| not_json(format!("the body is not UTF-8: {error}")))?;
    if depth(bytes) > DEPTH {
        return Err(not_json(format!("the body is nested deeper than {DEPTH} levels")));
    }
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    // Again, and slower: only this knows where the fault is.
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => wrong_field(&path, &inner.to_string()),
            // An array where an object belongs is read as the object's fields in their order, and found too long.
            _ if serde_json::from_str::<Value>(text).is_ok() => wrong_field(&path, "expected an object, got an array"),
            _ => not_json(format!("the body is not JSON: {inner}")),
        }
    })?;
    reader.end().map_err(|error| not_json(format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// All that a body says that [`parse`] has taken.
pub(crate) fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// A refusal that names the field at `path`, or the one that is missing there.
fn wrong_field(path: &str, message: &str) -> Refusal {
    let within = if path == "." { "" } else { path };
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let param = match (within, missing) {
        ("", None) => return Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", message),
        ("", Some(name)) => name.to_owned(),
        (within, Some(name)) => format!("{within}.{name}"),
        (within, None) => within.to_owned(),
    };
    Refusal::invalid(param.clone(), format!("{param}: {message}"))
}

/// The deepest nesting of a JSON text, whether or not it is well-formed.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The query of a request. The last of several equal names counts.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The query of `uri`; what is not UTF-8 in it was replaced.
    pub(crate) fn of(uri: &Uri) -> Self {
        Self(axum::extract::Query::try_from_uri(uri).map_or_else(|_| Vec::new(), |query| query.0))
    }

    /// All of it, without these.
    pub(crate) fn without(&self, names: &[&str]) -> Value {
        let others = self.0.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        others.map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
    }

    /// A text. `None` if it is missing or empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().rev().find(|(key, _)| key == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// It is missing or empty.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name)
            .ok_or_else(|| Refusal::invalid(name, format!("{name} is missing or empty: add ?{name}=… to the address")))
    }

    /// Anything that is written as `T`.
    ///
    /// # Errors
    /// It is not; `expected` says what would be.
    pub(crate) fn value<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Refusal> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| Refusal::invalid(name, format!("{name}: expected {expected}, got {text:?}")))
        };
        self.text(name).map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(rename = "list")]
        _list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[serde(rename = "number")]
        _number: u32,
    }

    fn refusal(body: &[u8]) -> serde_json::Value {
        parse::<Outer>(body).unwrap_err().object()
    }

    #[test]
    fn the_field_at_fault_is_named_with_its_path() {
        let error = refusal(br#"{"list":[{"number":1},{"number":"two"}]}"#);
        assert_eq!(error["param"], "list[1].number");
        assert!(
            error["message"].as_str().is_some_and(|message| message.contains("expected u32")),
            "{error}"
        );
    }

    #[test]
    fn an_array_in_the_place_of_an_object_is_named_and_still_json() {
        let error = refusal(br#"{"list":[[1,2]]}"#);
        assert_eq!((&error["code"], &error["param"]), (&"invalid_request".into(), &"list[0]".into()));
    }

    #[test]
    fn what_is_not_json_is_said_to_be_so() {
        for body in [&b"{"[..], b"", b"\xff\xfe", br#"{"list":[]} x"#, "[".repeat(65).as_bytes()] {
            assert_eq!(refusal(body)["code"], "invalid_json", "{body:?}");
        }
    }

    #[test]
    fn brackets_inside_texts_are_not_nesting() {
        assert_eq!(depth(br#"{"a":"[[[[{{\"[[","b":[1,[2]]}"#), 3);
    }

    #[test]
    fn a_type_may_carry_parameters() {
        assert!(is_json(b"application/json; charset=utf-8") && is_json(b"application/vnd.x+json"));
        assert!(!is_json(b"text/plain") && !is_json(b"application/x-www-form-urlencoded"));
    }
}
