//! Which web pages may open a WebSocket. A browser lets any page open one to anywhere, and says only which page it was (`Origin`), so
//! it is for the server to refuse the others (<https://www.rfc-editor.org/rfc/rfc6455#section-10.2>). What is no browser sends none. Pure.

use http::{HeaderMap, header};

/// Whether the page that these headers name may open one: it is in the list, letter for letter, or is this gateway's own.
///
/// A page's own gateway is the one whose name it was fetched under. Where nobody is asked who they are (`asked` is false), that must be
/// an address or `localhost`: a name could be another site's, made to point here.
pub(crate) fn may_open(headers: &HeaderMap, allowed: &[String], asked: bool) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = match (origins.next(), origins.next()) {
        (None, _) => return true,
        (Some(origin), None) => origin.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => return false,
    };
    let listed = |known: &String| known.trim() == "*" || (known.trim() == origin && !origin.is_empty());
    allowed.iter().any(listed) || is_own(headers, origin, asked)
}

fn is_own(headers: &HeaderMap, origin: &str, asked: bool) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host) && (asked || is_address(host)),
        _ => false,
    }
}

fn is_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn may(origin: &str, host: &str, allowed: &[&str], asked: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        let allowed: Vec<String> = allowed.iter().map(|origin| (*origin).to_owned()).collect();
        may_open(&headers, &allowed, asked)
    }

    #[test]
    fn only_what_is_listed_to_the_letter_may() {
        let allowed = ["https://chat.example.com", " http://localhost:3000"];
        for good in ["https://chat.example.com", "http://localhost:3000"] {
            assert!(may(good, "api.example.com", &allowed, true), "{good}");
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
            assert!(!may(bad, "api.example.com", &allowed, true), "{bad}");
        }
        assert!(may("https://any.example", "api.example.com", &["*"], true));
        assert!(!may("", "api.example.com", &[""], true));
    }

    #[test]
    fn a_gateways_own_page_may_and_a_name_that_was_made_to_point_here_may_not() {
        assert!(may("https://api.example.com", "api.example.com", &[], true));
        assert!(!may("https://api.example.com", "other.example.com", &[], true));
        for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "10.1.2.3"] {
            assert!(may(&format!("http://{host}"), host, &[], false), "{host}");
        }
        assert!(!may("http://evil.example:8080", "evil.example:8080", &[], false));
    }

    #[test]
    fn what_is_no_browser_names_no_page() {
        assert!(may_open(&HeaderMap::new(), &[], true));
        let mut two = HeaderMap::new();
        for origin in ["https://a.example", "https://b.example"] {
            two.append(header::ORIGIN, HeaderValue::from_static(origin));
        }
        assert!(!may_open(&two, &["https://a.example".to_owned()], true));
    }
}
