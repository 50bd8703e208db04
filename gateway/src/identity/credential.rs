//! What a request presents to say who sends it: a key or a token in a header, a ticket in a WebSocket's subprotocols, a stream token in the
//! query. Here they are only found; [`super`] judges them. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use super::key;
use crate::failure::Refusal;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The longest credential, in bytes: far more than any identity provider's token.
const LONGEST: usize = 8 * 1024;
/// Names under which people have put keys into addresses.
const QUERY_NAMES: [&str; 8] = [
    "api_key",
    "apikey",
    "api-key",
    "x-api-key",
    "key",
    "token",
    "access_token",
    "authorization",
];
/// The query parameter of a stream token.
pub(crate) const STREAM_TOKEN: &str = "stream_token";
/// The subprotocol that our WebSocket speaks.
pub(crate) const PROTOCOL: &str = "unbroken.v1";
/// How the subprotocol begins that brings a ticket.
pub(crate) const TICKET: &str = "ticket.";

/// The key or token of the headers: `Authorization: Bearer …` as OpenAI's clients send it, or `x-api-key` as Anthropic's.
///
/// # Errors
/// They cannot be read, or there are two that differ.
pub(super) fn of_headers(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let bearer = only(headers, &header::AUTHORIZATION)?.map(bearer).transpose()?;
    let key = only(headers, &API_KEY)?.map(text).transpose()?;
    match (bearer, key) {
        (Some(bearer), Some(key)) if bearer != key => Err(unreadable(
            "the request has two credentials: send Authorization or x-api-key, not both",
        )),
        (bearer, key) => Ok(bearer.or(key)),
    }
}

/// The value of a header that may come once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(unreadable(format!("the request has more than one {name}"))),
        (value, None) => Ok(value),
    }
}

fn bearer(value: &HeaderValue) -> Result<&str, Refusal> {
    let (scheme, credential) = text(value)?.split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !credential.trim().is_empty() {
        return Ok(credential.trim());
    }
    Err(unreadable("Authorization: expected Bearer and an API key or a token"))
}

fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    match value.to_str() {
        Ok(text) if (1..=LONGEST).contains(&text.len()) => Ok(text),
        _ => Err(unreadable(format!(
            "the credential is not one: expected 1 to {LONGEST} characters of printable ASCII"
        ))),
    }
}

fn unreadable(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_credentials", message)
}

/// Addresses end up in logs, histories and screenshots: a key in one is refused, so that nobody gets used to it.
///
/// # Errors
/// There is one.
pub(super) fn none_in_the_query(uri: &Uri) -> Result<(), Refusal> {
    let Some(query) = uri.query() else { return Ok(()) };
    let is_credential =
        |(name, value): (&str, &str)| QUERY_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)) || key::looks_like_one(value);
    if !query
        .split('&')
        .any(|pair| is_credential(pair.split_once('=').unwrap_or((pair, ""))))
    {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "credentials_in_query",
        "an API key or token must not be in the address, where logs and histories keep it (if it was a real one, revoke it): send it as \
         Authorization: Bearer …; for an EventSource get a stream_token from POST /v1/tickets",
    ))
}

/// The ticket among a WebSocket's subprotocols.
pub(super) fn ticket(headers: &HeaderMap) -> Option<&str> {
    subprotocols(headers).find_map(|name| name.strip_prefix(TICKET))
}

/// The subprotocols that a WebSocket's client offers.
pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// The stream token of the query.
pub(super) fn stream_token(uri: &Uri) -> Option<&str> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == STREAM_TOKEN).map(|(_, value)| value).next_back()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn found(pairs: &[(&'static str, &[u8])]) -> Result<Option<String>, &'static str> {
        match of_headers(&headers(pairs)) {
            Ok(found) => Ok(found.map(str::to_owned)),
            Err(refusal) => Err(refusal.code()),
        }
    }

    #[test]
    fn a_key_comes_in_either_header() {
        assert_eq!(found(&[]), Ok(None));
        for pairs in [
            &[("authorization", &b"Bearer k"[..])][..],
            &[("authorization", b"bearer  k ")],
            &[("x-api-key", b"k")],
            &[("x-api-key", b"k"), ("authorization", b"Bearer k")],
        ] {
            assert_eq!(found(pairs), Ok(Some("k".to_owned())), "{pairs:?}");
        }
    }

    #[test]
    fn what_is_not_one_credential_is_refused() {
        let long = vec![b'k'; LONGEST + 1];
        for pairs in [
            &[("authorization", &b"k"[..])][..],
            &[("authorization", b"Bearer ")],
            &[("authorization", b"Basic azpr")],
            &[("authorization", b"Bearer k"), ("authorization", b"Bearer k")],
            &[("authorization", b"Bearer k"), ("x-api-key", b"j")],
            &[("x-api-key", b"")],
            &[("x-api-key", b"caf\xe9")],
            &[("x-api-key", &long)],
        ] {
            assert_eq!(found(pairs), Err("invalid_credentials"), "{pairs:?}");
        }
    }

    #[test]
    fn a_key_in_an_address_is_refused_by_its_name_and_by_its_look() {
        let in_query = |query: &str| none_in_the_query(&format!("/stream?{query}").parse().unwrap()).is_err();
        for bad in [
            "api_key=x",
            "prompt=a&API_KEY=x",
            "x-api-key",
            "q=ub_live_x",
            "access_token=",
            "token=a.b.c",
        ] {
            assert!(in_query(bad), "{bad}");
        }
        for good in ["prompt=api_key", "q=a&stream_token=x", "max_tokens=3", "idempotency_key=k", ""] {
            assert!(!in_query(good), "{good}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_fall_over(bearer: Vec<u8>, key: Vec<u8>, protocols: Vec<u8>) {
            let mut headers = HeaderMap::new();
            for (name, value) in [("authorization", bearer), ("x-api-key", key), ("sec-websocket-protocol", protocols)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    headers.insert(name, value);
                }
            }
            let _ = (of_headers(&headers), ticket(&headers));
        }
    }
}
