//! Trusted fronts: proxies of the operator that have checked who their users are, and say so in `X-User-ID` and `X-User-Tier`. Whoever
//! sends these headers from any other address is not believed; a front must set or remove them on every request that it passes on.
//! Called by [`crate::stack`]; off unless the operator names the fronts' addresses.

use std::{net::IpAddr, str::FromStr};

use http::{HeaderMap, HeaderName};

use crate::failure::Refusal;

const USER: HeaderName = HeaderName::from_static("x-user-id");
const TIER: HeaderName = HeaderName::from_static("x-user-tier");
/// The longest user and tier, in bytes: as long as names are in the store.
const NAME: usize = 256;

/// A range of addresses: those that agree with `base` in their first `bits` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    bits: u32,
}

/// For whom a front speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vouched<'a> {
    /// The user.
    pub(crate) user: &'a str,
    /// Their tier, if it was said.
    pub(crate) tier: Option<&'a str>,
}

impl Range {
    fn holds(&self, address: IpAddr) -> bool {
        let differ = match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => (u32::from(base) ^ u32::from(address)).leading_zeros(),
            (IpAddr::V6(base), IpAddr::V6(address)) => (u128::from(base) ^ u128::from(address)).leading_zeros(),
            _ => return false,
        };
        differ >= self.bits
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address or a range of them, such as 10.0.0.7 or 10.0.0.0/8");
        let (base, bits) = match text.trim().split_once('/') {
            Some((base, bits)) => (base, Some(bits)),
            None => (text.trim(), None),
        };
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { base, bits })
    }
}

/// For whom the front at `peer` speaks; nobody, if `peer` is none of them or says nothing.
///
/// # Errors
/// A front says what cannot be a name.
pub(crate) fn vouched<'a>(fronts: &[Range], peer: Option<IpAddr>, headers: &'a HeaderMap) -> Result<Option<Vouched<'a>>, Refusal> {
    if !peer.is_some_and(|peer| fronts.iter().any(|front| front.holds(peer))) {
        return Ok(None);
    }
    let Some(user) = name(headers, &USER, "X-User-ID")? else {
        return Ok(None);
    };
    let tier = name(headers, &TIER, "X-User-Tier")?;
    Ok(Some(Vouched { user, tier }))
}

fn name<'a>(headers: &'a HeaderMap, header: &HeaderName, said: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(header).iter();
    let (Some(value), second) = (values.next(), values.next()) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if second.is_none() && text.len() <= NAME => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        _ => Err(Refusal::invalid(
            said,
            format!("{said}: expected one, of at most {NAME} characters of printable ASCII"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_a_front_is_believed() {
        let fronts = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let said = headers(&[("x-user-id", "ann"), ("x-user-tier", "pro")]);
        let believed = Some(Vouched {
            user: "ann",
            tier: Some("pro"),
        });
        for front in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1"] {
            assert_eq!(vouched(&fronts, front.parse().ok(), &said).unwrap(), believed, "{front}");
        }
        for other in ["11.1.2.3", "127.0.0.1", "fe80::1", "::1"] {
            assert_eq!(vouched(&fronts, other.parse().ok(), &said).unwrap(), None, "{other}");
        }
        assert_eq!(vouched(&fronts, None, &said).unwrap(), None);
        assert_eq!(vouched(&[], "10.1.2.3".parse().ok(), &said).unwrap(), None);
    }

    #[test]
    fn a_front_that_names_two_users_names_none() {
        let fronts = ["127.0.0.1".parse().unwrap()];
        let peer = "127.0.0.1".parse().ok();
        let two = headers(&[("x-user-id", "ann"), ("x-user-id", "bob")]);
        assert!(vouched(&fronts, peer, &two).is_err());
        assert_eq!(vouched(&fronts, peer, &headers(&[("x-user-id", " ")])).unwrap(), None);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/8/8", "localhost"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_range_holds_what_begins_as_it_does(base: u32, other: u32, bits in 0_u32..=32) {
            let range: Range = format!("{}/{bits}", std::net::Ipv4Addr::from(base)).parse().unwrap();
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            prop_assert_eq!(range.holds(std::net::Ipv4Addr::from(other).into()), base & mask == other & mask);
        }
    }
}
