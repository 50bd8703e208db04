//! What a request must look like. Pure: every rule names the field and what was expected. Called by the store before any statement.

use std::{borrow::Cow, collections::HashMap};

use chassis::mask::mask;
use proto::v1::{ApiKey, Failure, KeyRole, KeyUse, Message, Principal, Role};

/// The most bytes of a name: a tenant, a user, an id, a model, an owner.
pub(crate) const NAME_BYTES: usize = 256;
/// The most characters of a title.
pub(crate) const TITLE_CHARS: usize = 200;
/// The most bytes of a document: a gateway's largest body, and what it writes beside it.
const DOCUMENT_BYTES: usize = 4 * 1024 * 1024;
/// The most pairs of metadata, and the most characters of a key and of a value: as at OpenAI.
const METADATA: usize = 16;
const METADATA_KEY: usize = 64;
const METADATA_VALUE: usize = 512;
/// The most messages that one turn brings.
pub(crate) const TURN_MESSAGES: usize = 4_096;
/// The most turns that are closed at once: what a router gathers in one round.
pub(crate) const TURNS: usize = 512;
/// The most items of a page.
pub(crate) const PAGE: u32 = 1_000;
/// The most key uses that are noted at once.
pub(crate) const KEY_USES: usize = 1_000;
/// The bytes of a key's hash: HMAC-SHA256.
const HASH_BYTES: usize = 32;
/// The items of a page where none are asked for.
const DEFAULT_PAGE: u32 = 100;

/// Both names of a principal; either may be empty.
pub(crate) fn principal(principal: Option<&Principal>) -> Result<(), Failure> {
    let Some(principal) = principal else { return Ok(()) };
    text("principal.tenant", &principal.tenant)?;
    text("principal.user_id", &principal.user_id)
}

/// A name that must be there.
pub(crate) fn name(field: &str, value: &str) -> Result<(), Failure> {
    if value.is_empty() {
        return Err(Failure::invalid(field, format!("{field} is missing")));
    }
    text(field, value)
}

/// A name that may be empty.
pub(crate) fn text(field: &str, value: &str) -> Result<(), Failure> {
    if value.len() > NAME_BYTES {
        let is = value.len();
        return Err(Failure::invalid(
            field,
            format!("{field} has {is} bytes; at most {NAME_BYTES} were expected"),
        ));
    }
    no_controls(field, value)
}

/// What a door keeps of a request.
pub(crate) fn document(value: &[u8]) -> Result<(), Failure> {
    if value.len() > DOCUMENT_BYTES {
        let is = value.len();
        return Err(Failure::invalid(
            "document",
            format!("document has {is} bytes; at most {DOCUMENT_BYTES} were expected"),
        ));
    }
    Ok(())
}

/// A conversation's metadata.
pub(crate) fn metadata(given: &HashMap<String, String>) -> Result<(), Failure> {
    let refused = |message: String| Failure::invalid("metadata", message);
    if given.len() > METADATA {
        let is = given.len();
        return Err(refused(format!("metadata has {is} pairs; at most {METADATA} were expected")));
    }
    for (key, value) in given {
        if !(1..=METADATA_KEY).contains(&key.chars().count()) {
            return Err(refused(format!("metadata has a key that is not of 1 to {METADATA_KEY} characters")));
        }
        if value.chars().count() > METADATA_VALUE {
            return Err(refused(format!("metadata has a value of more than {METADATA_VALUE} characters")));
        }
    }
    Ok(())
}

/// A title, which may be empty.
pub(crate) fn title(field: &str, value: &str) -> Result<(), Failure> {
    let is = value.chars().count();
    if is > TITLE_CHARS {
        return Err(Failure::invalid(
            field,
            format!("{field} has {is} characters; at most {TITLE_CHARS} were expected"),
        ));
    }
    no_controls(field, value)
}

/// How many items to send.
pub(crate) fn page(size: u32) -> Result<u32, Failure> {
    match size {
        0 => Ok(DEFAULT_PAGE),
        1..=PAGE => Ok(size),
        _ => Err(Failure::invalid(
            "page_size",
            format!("page_size is {size}; 1 to {PAGE} was expected"),
        )),
    }
}

/// The messages of a turn.
pub(crate) fn messages(messages: &[Message]) -> Result<(), Failure> {
    if messages.len() > TURN_MESSAGES {
        let is = messages.len();
        return Err(Failure::invalid(
            "messages",
            format!("messages has {is} entries; at most {TURN_MESSAGES} were expected"),
        ));
    }
    for (index, message) in messages.iter().enumerate() {
        if Role::try_from(message.role).is_err() {
            let field = format!("messages[{index}].role");
            let is = message.role;
            return Err(Failure::invalid(
                &field,
                format!("{field} is {is}, which is not a role: 0 to 5 was expected"),
            ));
        }
        text(&format!("messages[{index}].name"), &message.name)?;
        text(&format!("messages[{index}].tool_call_id"), &message.tool_call_id)?;
    }
    Ok(())
}

/// How an answer ended.
pub(crate) fn ended(field: &str, state: &str) -> Result<(), Failure> {
    if matches!(state, "finished" | "failed" | "cancelled") {
        return Ok(());
    }
    Err(Failure::invalid(
        field,
        format!("{field} must be `finished`, `failed` or `cancelled`"),
    ))
}

/// A key to keep.
pub(crate) fn key(key: &ApiKey) -> Result<(), Failure> {
    name("key.id", &key.id)?;
    if key.hash.len() != HASH_BYTES {
        let is = key.hash.len();
        return Err(Failure::invalid(
            "key.hash",
            format!("key.hash has {is} bytes; {HASH_BYTES} were expected"),
        ));
    }
    name("key.secret_id", &key.secret_id)?;
    principal(key.principal.as_ref())?;
    if KeyRole::try_from(key.role).is_err() {
        let is = key.role;
        return Err(Failure::invalid(
            "key.role",
            format!("key.role is {is}, which is not a role: 0 to 2 was expected"),
        ));
    }
    text("key.tier", &key.tier)?;
    if key.expires_ms < 0 {
        return Err(Failure::invalid("key.expires_ms", "key.expires_ms is before 1970"));
    }
    title("key.name", &key.name)
}

/// The uses of keys.
pub(crate) fn key_uses(uses: &[KeyUse]) -> Result<(), Failure> {
    if uses.len() > KEY_USES {
        let is = uses.len();
        return Err(Failure::invalid(
            "uses",
            format!("uses has {is} entries; at most {KEY_USES} were expected"),
        ));
    }
    uses.iter().try_for_each(|used| name("uses.id", &used.id))
}

fn no_controls(field: &str, value: &str) -> Result<(), Failure> {
    if value.chars().any(char::is_control) {
        return Err(Failure::invalid(field, format!("{field} holds a control character")));
    }
    Ok(())
}

/// A name that only describes, cut to what a name may have: a long one must not cost the row that bears it.
pub(crate) fn clipped(value: &str) -> Cow<'_, str> {
    storable(&value[..value.floor_char_boundary(NAME_BYTES)])
}

/// Such a name for the request log: its callers chose it, so what may not stand in a log is masked.
pub(crate) fn logged(value: &str) -> Cow<'_, str> {
    match mask(value) {
        Cow::Borrowed(value) => clipped(value),
        Cow::Owned(value) => clipped(&value).into_owned().into(),
    }
}

/// Text as both databases can keep it: PostgreSQL has no place for U+0000.
pub(crate) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        let failure = result.unwrap_err();
        assert!(failure.message.contains(&failure.param), "{}", failure.message);
        failure.param
    }

    #[test]
    fn every_refusal_names_its_field() {
        let long = "x".repeat(NAME_BYTES + 1);
        let who = |tenant: &str, user: &str| {
            principal(Some(&Principal {
                tenant: tenant.to_owned(),
                user_id: user.to_owned(),
            }))
        };
        assert_eq!(field(who(&long, "")), "principal.tenant");
        assert_eq!(field(who("", "a\0b")), "principal.user_id");
        assert_eq!(field(name("stream_id", "")), "stream_id");
        assert_eq!(field(title("title", &"ü".repeat(TITLE_CHARS + 1))), "title");
        assert_eq!(field(page(PAGE + 1)), "page_size");
        assert_eq!(field(document(&vec![0; DOCUMENT_BYTES + 1])), "document");
        let many = (0..=METADATA).map(|number| (number.to_string(), String::new()));
        let wrong = [
            (String::new(), String::new()),
            ("k".repeat(METADATA_KEY + 1), String::new()),
            ("k".to_owned(), "v".repeat(METADATA_VALUE + 1)),
        ];
        for given in wrong.into_iter().map(|pair| HashMap::from([pair])).chain([many.collect()]) {
            assert_eq!(field(metadata(&given)), "metadata");
        }
        assert_eq!(field(ended("turns[3].state", "running")), "turns[3].state");
        let odd = Message {
            role: 99,
            ..Message::default()
        };
        assert_eq!(field(messages(&[Message::default(), odd])), "messages[1].role");
        assert_eq!(field(messages(&vec![Message::default(); TURN_MESSAGES + 1])), "messages");
    }

    #[test]
    fn what_may_not_stand_in_a_log_is_masked() {
        assert_eq!(logged("for ann@example.com"), "for [email]");
        assert_eq!(
            logged("0f0e0d0c-0b0a-4908-8706-050403020100"),
            "0f0e0d0c-0b0a-4908-8706-050403020100"
        );
    }

    #[test]
    fn what_is_within_the_bounds_passes() {
        assert!(principal(None).is_ok());
        assert!(title("title", &"ü".repeat(TITLE_CHARS)).is_ok());
        assert_eq!(page(0).unwrap(), DEFAULT_PAGE);
        assert_eq!(page(PAGE).unwrap(), PAGE);
    }
}
