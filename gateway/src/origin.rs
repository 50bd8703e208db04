//! Which web pages may ask, and under which names a gateway may be asked. A browser lets any page send requests to anywhere, and says only which page
//! it was. Where everybody shows who they are that is enough: a page has nothing to show. Where nobody is asked, the browser on this machine is
//! the key, so two things are looked at that no page can forge:
//!
//! - the name that the gateway was asked under (`Host`). Any page may have its own name point at this machine (DNS rebinding) and then reads
//!   all; an address and `localhost` are nobody's to point elsewhere, and other names the operator allows;
//! - the page that asks (`Origin`, <https://www.rfc-editor.org/rfc/rfc6454#section-7>): what it sends is done even if it may not read the reply.
//!
//! A WebSocket is looked at everywhere (<https://www.rfc-editor.org/rfc/rfc6455#section-10.2>). What is no browser names no page, and goes
//! through. Pure; [`crate::stack`] asks.

use std::{net::IpAddr, str::FromStr};

use http::{HeaderName, StatusCode, header};

use crate::{
    Settings,
    failure::Refusal,
    identity::{Asking, SOCKET},
};

/// Where a browser says how its page stands to the one that it asks (<https://www.w3.org/TR/fetch-metadata/>): also for an image or a link,
/// which bear no `Origin`.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The name of a host under which a gateway may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

/// What is no [`Host`].
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the name of a host: write it without a scheme and a port, as gateway or chat.example.com, or * for any")]
pub struct NoHost(String);

impl FromStr for Host {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        let name = text.trim();
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if name == "*" || name.bytes().all(of_name) {
            return Ok(Self(name.to_owned()));
        }
        Err(NoHost(text.to_owned()))
    }
}

impl Host {
    fn is(&self, name: &str) -> bool {
        self.0 == "*" || (!name.is_empty() && self.0.eq_ignore_ascii_case(name))
    }
}

/// Judges the name and the page of a request. `asked`: callers must show who they are.
///
/// # Errors
/// The gateway may not be asked under that name, or by that page.
pub(crate) fn judge(asking: &Asking<'_>, settings: &Settings, asked: bool) -> Result<(), Refusal> {
    let host = host(asking);
    if !asked && !host.is_some_and(|host| is_ours(host, &settings.hosts)) {
        return Err(refused(
            "host_not_allowed",
            "nobody is asked here who they are, so this gateway answers under an address or localhost only: any web page could make another name point \
             here. The operator allows the names of this gateway with UNBROKEN_HOSTS, or asks for keys with UNBROKEN_AUTH=on",
        ));
    }
    if (!asked || asking.route == SOCKET) && !may(asking, host, &settings.cors_origins) {
        return Err(refused(
            "origin_not_allowed",
            "this web page may not call here; the operator allows its origin with UNBROKEN_CORS_ORIGINS",
        ));
    }
    Ok(())
}

fn refused(code: &'static str, message: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, code, message)
}

/// The host and port that the request is for; nothing if it does not say, or says two.
fn host<'a>(asking: &Asking<'a>) -> Option<&'a str> {
    if let Some(authority) = asking.uri.authority() {
        return Some(authority.as_str()); // what is in the target counts, whatever the header says
    }
    let mut hosts = asking.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    }
}

/// Whether nobody else can make this name point here, or the operator allows it.
fn is_ours(host: &str, allowed: &[Host]) -> bool {
    let (name, _) = split(host);
    is_here(name) || address(name).is_some() || allowed.iter().any(|known| known.is(name))
}

/// Whether the page that asks is in the list, letter for letter, is this gateway's own, or is none.
fn may(asking: &Asking<'_>, host: Option<&str>, allowed: &[String]) -> bool {
    let is_listed = |page: &str| allowed.iter().any(|known| known.trim() == page && !page.is_empty());
    if is_listed("*") {
        return true;
    }
    let mut origins = asking.headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => asking.headers.get(SITE).is_none_or(|site| site != "cross-site"),
        (Some(origin), None) => {
            let origin = origin.to_str().unwrap_or_default();
            is_listed(origin) || host.is_some_and(|host| is_own(origin, host))
        }
        (Some(_), Some(_)) => false,
    }
}

/// Whether a page of this origin came from the gateway that is asked as `host`: from the same host and port, or from the same port of
/// this machine under another of its names.
fn is_own(origin: &str, host: &str) -> bool {
    let Some(page) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    let ((page_name, page_port), (name, port)) = (split(page), split(host));
    let both_here = is_loopback(page_name) && is_loopback(name);
    page.eq_ignore_ascii_case(host) || (both_here && page_port == port)
}

/// The name and the port.
fn split(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (host, None),
    }
}

/// Whether this name is this machine's, for every browser (<https://www.rfc-editor.org/rfc/rfc6761#section-6.3>).
fn is_here(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

fn is_loopback(name: &str) -> bool {
    is_here(name) || address(name).is_some_and(|address| address.is_loopback())
}

fn address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Uri};
    use proptest::prelude::*;

    use super::*;

    fn named(headers: &[(HeaderName, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_str(value).unwrap();
        let mut map = HeaderMap::new();
        for (name, text) in headers {
            map.append(name.clone(), value(text));
        }
        map
    }

    fn with<T>(target: &str, headers: &HeaderMap, then: impl FnOnce(&Asking<'_>) -> T) -> T {
        then(&Asking {
            method: &Method::GET,
            route: "",
            uri: &target.parse::<Uri>().unwrap(),
            headers,
        })
    }

    fn may(origin: &str, host: &str, allowed: &[&str]) -> bool {
        let headers = named(&[(header::ORIGIN, origin), (header::HOST, host)]);
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        with("/", &headers, |asking| super::may(asking, super::host(asking), &allowed))
    }

    #[test]
    fn only_a_page_that_is_listed_to_the_letter_may() {
        let allowed = ["https://chat.example.com", " http://localhost:3000"];
        for good in ["https://chat.example.com", "http://localhost:3000"] {
            assert!(may(good, "api.example.com", &allowed), "{good}");
        }
        for bad in [
            "http://chat.example.com",
            "https://chat.example.com:8443",
            "https://chat.example.com.evil.com",
            "https://evilchat.example.com",
            "https://CHAT.example.com",
            "https://chat.example.com/",
            "null",
            "",
        ] {
            assert!(!may(bad, "api.example.com", &allowed), "{bad}");
        }
        assert!(may("https://any.example", "api.example.com", &["*"]));
        assert!(!may("", "api.example.com", &[""]));
    }

    #[test]
    fn a_gateways_own_page_may_under_any_name_of_this_machine() {
        for (origin, host) in [
            ("https://api.example.com", "api.example.com"),
            ("http://10.1.2.3:8080", "10.1.2.3:8080"),
            ("http://localhost:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080", "[::1]:8080"),
            ("http://chat.localhost:8080", "localhost:8080"),
        ] {
            assert!(may(origin, host, &[]), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://api.example.com", "other.example.com"),
            ("http://localhost:3000", "127.0.0.1:8080"),
            ("http://localhost", "127.0.0.1:8080"),
            ("http://10.1.2.3:8080", "127.0.0.1:8080"),
            ("http://localhost:8080", "10.1.2.3:8080"),
            ("http://evil.example:8080", "localhost:8080"),
            ("ftp://localhost:8080", "localhost:8080"),
        ] {
            assert!(!may(origin, host, &[]), "{origin} {host}");
        }
    }

    #[test]
    fn what_is_no_browser_names_no_page_and_what_is_one_says_whether_it_comes_from_elsewhere() {
        let may =
            |headers: &[(HeaderName, &str)], allowed: &[String]| with("/", &named(headers), |asking| super::may(asking, None, allowed));
        assert!(may(&[], &[]));
        for (site, goes) in [("none", true), ("same-origin", true), ("cross-site", false)] {
            assert_eq!(may(&[(SITE, site)], &[]), goes, "{site}");
        }
        assert!(may(&[(SITE, "cross-site")], &["*".to_owned()]));
        let page = "https://a.example".to_owned();
        assert!(!may(
            &[(header::ORIGIN, &page), (header::ORIGIN, "https://b.example")],
            std::slice::from_ref(&page)
        ));
    }

    #[test]
    fn a_gateway_is_asked_under_an_address_localhost_or_a_name_that_is_allowed() {
        let allowed: Vec<Host> = ["gateway", " Chat.example.com", ""]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        for good in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "10.1.2.3:80",
            "[::1]:8080",
            "[fd00::1]",
            "localhost",
            "LocalHost:8080",
            "chat.localhost:8080",
            "gateway:8080",
            "chat.EXAMPLE.com",
        ] {
            assert!(is_ours(good, &allowed), "{good}");
        }
        for bad in [
            "",
            ":8080",
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "gateway.evil.example",
            "127.0.0.1:8080@evil.example",
            "0x7f.1",
            "::1",
            "[127.0.0.1]",
        ] {
            assert!(!is_ours(bad, &allowed), "{bad}");
        }
        assert!(is_ours("evil.example", &["*".parse().unwrap()]));
        for bad in ["http://gateway", "gateway:8080", "*.example.com", "a b"] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_target_names_the_host_before_the_header_and_two_headers_name_none() {
        let of = |target: &str, hosts: &[&str]| {
            let headers: Vec<_> = hosts.iter().map(|host| (header::HOST, *host)).collect();
            with(target, &named(&headers), |asking| super::host(asking).map(str::to_owned))
        };
        assert_eq!(of("/", &["a:1"]).as_deref(), Some("a:1"));
        assert_eq!(of("http://b:2/", &["a:1"]).as_deref(), Some("b:2"));
        assert_eq!(of("/", &["localhost", "evil.example"]), None);
        assert_eq!(of("/", &[]), None);
    }

    proptest! {
        #[test]
        fn no_name_that_somebody_can_register_is_ours(name in "[a-z0-9.:@-]{0,20}\\.(com|example|org)", port: u16) {
            let with_port = format!("{name}:{port}");
            prop_assert!(!is_ours(&name, &[]) && !is_ours(&with_port, &[]));
        }
    }
}
