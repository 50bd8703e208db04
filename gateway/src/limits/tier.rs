//! Tiers: the limits by name, from a setting.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::terms::Bounds;

/// The tier of callers that name none, or one that is not known.
const LEAST: &str = "free";
/// What the setting says if nobody says anything else.
pub(crate) const DEFAULT: &str = "free=10/50000/4,pro=60/500000/16,enterprise=300/5000000/64";
/// The most tokens of a day: numbers that every ledger can count exactly.
const MAX_TOKENS: u64 = 1 << 50;

/// The tiers.
#[derive(Clone, PartialEq, Eq)]
pub struct Tiers {
    least: Bounds,
    named: BTreeMap<String, Bounds>,
}

impl Tiers {
    /// The limits of a tier; of one that is not known, those of `free`.
    pub(crate) fn bounds(&self, tier: Option<&str>) -> Bounds {
        tier.and_then(|tier| self.named.get(tier)).copied().unwrap_or(self.least)
    }

    /// The tier's own name, if it is known: safe as a label.
    pub(crate) fn name(&self, tier: Option<&str>) -> &str {
        let known = tier.and_then(|tier| self.named.get_key_value(tier));
        known.map_or(LEAST, |(name, _)| name)
    }
}

impl FromStr for Tiers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut named = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || format!("{part:?} is not a tier: write it as name=requests/tokens/streams, for example free=10/50000/4");
            let (name, numbers) = part.split_once('=').ok_or_else(wrong)?;
            let mut numbers = numbers.split('/').map(|number| number.trim().parse::<u64>());
            let (Some(Ok(requests)), Some(Ok(tokens)), Some(Ok(streams)), None) =
                (numbers.next(), numbers.next(), numbers.next(), numbers.next())
            else {
                return Err(wrong());
            };
            let small = |number: u64| u32::try_from(number).map_err(|_| wrong());
            let bounds = Bounds {
                requests: small(requests)?,
                tokens: Some(tokens).filter(|tokens| *tokens <= MAX_TOKENS).ok_or_else(wrong)?,
                streams: small(streams)?,
            };
            if named.insert(name.trim().to_owned(), bounds).is_some() {
                return Err(format!("the tier {:?} stands there twice", name.trim()));
            }
        }
        let least = *named
            .get(LEAST)
            .ok_or_else(|| format!("the tier {LEAST:?} is missing: it is for callers without one"))?;
        Ok(Self { least, named })
    }
}

impl fmt::Debug for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.named).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_the_three_tiers() {
        let tiers: Tiers = DEFAULT.parse().unwrap();
        let limits = |tier| {
            let bounds = tiers.bounds(tier);
            (bounds.requests, bounds.tokens, bounds.streams)
        };
        assert_eq!(limits(Some("free")), (10, 50_000, 4));
        assert_eq!(limits(Some("pro")), (60, 500_000, 16));
        assert_eq!(limits(Some("enterprise")), (300, 5_000_000, 64));
    }

    #[test]
    fn an_unknown_tier_counts_as_free() {
        let tiers: Tiers = DEFAULT.parse().unwrap();
        for unknown in [None, Some(""), Some("gold"), Some("FREE")] {
            assert_eq!(tiers.bounds(unknown), tiers.bounds(Some("free")));
            assert_eq!(tiers.name(unknown), "free");
        }
    }

    #[test]
    fn a_wrong_tier_is_named() {
        for bad in [
            "free=1/2",
            "free=1/2/3/4",
            "free",
            "free=a/2/3",
            "free=-1/2/3",
            "free=1/99999999999999999/3",
        ] {
            assert!(bad.parse::<Tiers>().unwrap_err().contains("free"), "{bad}");
        }
        assert!("pro=1/2/3".parse::<Tiers>().unwrap_err().contains("free"));
        assert!("free=1/2/3,free=1/2/3".parse::<Tiers>().unwrap_err().contains("twice"));
    }
}
