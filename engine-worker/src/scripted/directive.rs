//! `[[script id=r1 tokens=200 gap_us=20000 ttft_us=0 step=1]]`: how a message tells the script what to do. A pure parser.

use std::{str::FromStr, time::Duration};

use proto::v1::Failure;

const OPEN: &str = "[[script";
const CLOSE: &str = "]]";
/// The longest pause that a message can ask for: seats are held meanwhile.
const PAUSE_MOST: Duration = Duration::from_hours(1);
/// The most tokens that a message can ask for; a journal takes fewer.
const TOKENS_MOST: u32 = 1_000_000;
/// The longest `id`.
const ID_BYTES: usize = 64;

/// What a message asks of the script. Absent fields leave the engine's setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directive {
    /// Token `i` is `id.i `.
    pub(super) id: Option<String>,
    pub(super) tokens: Option<u32>,
    /// Between two tokens.
    pub(super) gap: Option<Duration>,
    /// Before the first.
    pub(super) ttft: Option<Duration>,
    /// On the common grid of decode steps.
    pub(super) step: bool,
    /// Each token tells the epoch of its writer: `id.i@e `.
    pub(super) epochs: bool,
    /// The first so many tokens are reasoning.
    pub(super) reasoning: u32,
    /// The rest is the arguments of a call of this function.
    pub(super) tool: Option<String>,
    pub(super) die_at: Option<u32>,
    pub(super) stall_at: Option<u32>,
    pub(super) fail_at: Option<u32>,
}

impl Directive {
    /// The directive in `text`: none is fine, a wrong one is not.
    pub(super) fn find(text: &str) -> Result<Self, Failure> {
        let mut directive = Self::default();
        let Some(at) = text.find(OPEN) else { return Ok(directive) };
        let rest = &text[at + OPEN.len()..];
        let Some(end) = rest.find(CLOSE) else {
            return Err(wrong(format!("{OPEN} is not closed with {CLOSE}")));
        };
        for pair in rest[..end].split_whitespace() {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(wrong(format!("{pair:?} in {OPEN}{CLOSE} is not key=value")));
            };
            directive.set(key, value)?;
        }
        Ok(directive)
    }

    pub(super) fn has_faults(&self) -> bool {
        self.die_at.is_some() || self.stall_at.is_some() || self.fail_at.is_some()
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        match key {
            "id" => self.id = Some(word(key, value)?),
            "tokens" => self.tokens = Some(number(key, value, TOKENS_MOST)?),
            "gap_us" => self.gap = Some(pause(key, value)?),
            "ttft_us" => self.ttft = Some(pause(key, value)?),
            "step" => self.step = number(key, value, 1u8)? == 1,
            "epochs" => self.epochs = number(key, value, 1u8)? == 1,
            "reasoning" => self.reasoning = number(key, value, TOKENS_MOST)?,
            "tool" => self.tool = Some(word(key, value)?),
            "die_at" => self.die_at = Some(number(key, value, TOKENS_MOST)?),
            "stall_at" => self.stall_at = Some(number(key, value, TOKENS_MOST)?),
            "fail_at" => self.fail_at = Some(number(key, value, TOKENS_MOST)?),
            _ => return Err(wrong(format!("{OPEN} knows no key {key:?}"))),
        }
        Ok(())
    }
}

fn wrong(message: String) -> Failure {
    Failure::invalid("messages", message)
}

fn number<N: Copy + FromStr + PartialOrd + std::fmt::Display>(key: &str, value: &str, most: N) -> Result<N, Failure> {
    match value.parse() {
        Ok(number) if number <= most => Ok(number),
        _ => Err(wrong(format!("{OPEN} {key}={value}: expected a number from 0 to {most}"))),
    }
}

fn pause(key: &str, value: &str) -> Result<Duration, Failure> {
    let most = u64::try_from(PAUSE_MOST.as_micros()).unwrap_or(u64::MAX);
    number(key, value, most).map(Duration::from_micros)
}

fn word(key: &str, value: &str) -> Result<String, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if value.is_empty() || value.len() > ID_BYTES || !value.bytes().all(plain) {
        return Err(wrong(format!(
            "{OPEN} {key}={value}: expected 1 to {ID_BYTES} letters, digits, - or _"
        )));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_stands_anywhere_in_the_message() {
        let directive = Directive::find("please [[script id=r1 tokens=200 gap_us=20000 ttft_us=0 step=1]] now").unwrap();
        assert_eq!(
            directive,
            Directive {
                id: Some("r1".to_owned()),
                tokens: Some(200),
                gap: Some(Duration::from_millis(20)),
                ttft: Some(Duration::ZERO),
                step: true,
                ..Directive::default()
            }
        );
        assert_eq!(Directive::find("no directive").unwrap(), Directive::default());
    }

    #[test]
    fn a_wrong_directive_is_refused_with_what_was_expected() {
        for (text, says) in [
            ("[[script id=r1", "not closed"),
            ("[[script tokens=-1]]", "number from 0"),
            ("[[script tokens=9999999999]]", "number from 0"),
            ("[[script colour=red]]", "no key"),
            ("[[script id]]", "key=value"),
            ("[[script id=a.b]]", "letters"),
            ("[[script step=2]]", "0 to 1"),
        ] {
            let failure = Directive::find(text).unwrap_err();
            assert!(failure.message.contains(says), "{text}: {failure}");
        }
    }
}
