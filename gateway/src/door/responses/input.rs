//! Items, as a client sends them: what is said, what was called, what came of it, what was thought. Each becomes an
//! [`Item`]. Used for the input of a response and for the items of a conversation.

use proto::v1::{Role, ToolCall};
use serde::Deserialize;
use utoipa::ToSchema;

use super::item::{Item, Kind};
use crate::{
    door::{
        completions::TextOr,
        said::{self, Said},
    },
    failure::Refusal,
};

/// The most items of one request: as many as the store's history holds.
pub(crate) const ITEMS: usize = 4096;

/// An item: the fields of all kinds that can be read.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseItem)]
pub(crate) struct ItemIn {
    /// `message` (which may be left out), `function_call`, `function_call_output`, `reasoning` or `item_reference`.
    r#type: Option<String>,
    id: Option<String>,
    role: Option<String>,
    content: Option<TextOr<PartIn>>,
    phase: Option<String>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    output: Option<TextOr<PartIn>>,
    summary: Option<Vec<PartIn>>,
}

/// A part of what is said.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseItemPart)]
pub(crate) struct PartIn {
    /// `input_text`, `output_text`, `summary_text`, `reasoning_text`, `refusal`, or a user's `input_image`.
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    /// Of an `input_image`: a `data:` URI with a PNG, JPEG, GIF or WebP in base64. No other address is read.
    image_url: Option<String>,
    /// Of an `input_image`: `low`, `high` or `auto`.
    detail: Option<String>,
}

impl ItemIn {
    /// Reads an item; `at` is its path in the request.
    ///
    /// # Errors
    /// It is of a kind that the mesh does not know, or a field is missing.
    pub(crate) fn read(self, at: &str) -> Result<Item, Refusal> {
        // An item that is nothing but an id only names another one.
        let kind = match self.r#type.as_deref().or(self.is_bare_id().then_some("item_reference")) {
            None | Some("message") => {
                let role = role(at, self.role.as_deref())?;
                let content = self.content.ok_or_else(|| missing(at, "content"))?;
                let (text, images) = said(&format!("{at}.content"), role, content)?.into_parts();
                Kind::Said {
                    role,
                    text,
                    images,
                    phase: self.phase,
                }
            }
            Some("function_call") => Kind::Called(ToolCall {
                id: required(at, "call_id", self.call_id)?,
                name: required(at, "name", self.name)?,
                arguments: self.arguments.ok_or_else(|| missing(at, "arguments"))?,
            }),
            Some("function_call_output") => Kind::Result {
                call_id: required(at, "call_id", self.call_id)?,
                output: joined(&format!("{at}.output"), self.output.ok_or_else(|| missing(at, "output"))?)?,
            },
            Some("reasoning") => thought(at, self.content, self.summary)?,
            Some("item_reference") => Kind::Reference(required(at, "id", self.id.clone())?),
            Some(other) => {
                let param = format!("{at}.type");
                let message =
                    format!("{param}: expected message, function_call, function_call_output, reasoning or item_reference, got {other:?}");
                return Err(Refusal::invalid(param, message));
            }
        };
        let id = self.id.filter(|id| !id.is_empty());
        Ok(Item { id, kind })
    }

    fn is_bare_id(&self) -> bool {
        self.id.is_some() && self.role.is_none() && self.content.is_none()
    }
}

/// What was thought: the text itself, or else what it comes to.
fn thought(at: &str, content: Option<TextOr<PartIn>>, summary: Option<Vec<PartIn>>) -> Result<Kind, Refusal> {
    let text = content
        .map(|content| joined(&format!("{at}.content"), content))
        .transpose()?
        .unwrap_or_default();
    if !text.is_empty() {
        return Ok(Kind::Thought { text, summarised: false });
    }
    let parts = TextOr::List(summary.unwrap_or_default());
    let text = joined(&format!("{at}.summary"), parts)?;
    Ok(Kind::Thought { text, summarised: true })
}

fn role(at: &str, given: Option<&str>) -> Result<Role, Refusal> {
    let param = || format!("{at}.role");
    match given {
        Some("user") => Ok(Role::User),
        Some("system") => Ok(Role::System),
        Some("developer") => Ok(Role::Developer),
        Some("assistant") => Ok(Role::Assistant),
        None => Err(missing(at, "role")),
        Some(other) => {
            let message = format!("{}: expected user, system, developer or assistant, got {other:?}", param());
            Err(Refusal::invalid(param(), message))
        }
    }
}

/// The text of parts that show nothing, one line after the other.
fn joined(at: &str, content: TextOr<PartIn>) -> Result<String, Refusal> {
    let said = said(at, Role::Tool, content)?;
    Ok(said.into_parts().0)
}

/// What parts say and show.
fn said(at: &str, role: Role, content: TextOr<PartIn>) -> Result<Said, Refusal> {
    let mut said = Said::default();
    let parts = match content {
        TextOr::Text(text) => {
            said.say(&text);
            return Ok(said);
        }
        TextOr::List(parts) => parts,
    };
    for (index, part) in parts.into_iter().enumerate() {
        let at = format!("{at}[{index}]");
        match (part.r#type.as_str(), part.text, part.refusal) {
            ("input_text" | "output_text" | "text" | "summary_text" | "reasoning_text", Some(text), _) | ("refusal", _, Some(text)) => {
                said.say(&text);
            }
            ("input_text" | "output_text" | "text" | "summary_text" | "reasoning_text", ..) => return Err(missing(&at, "text")),
            ("refusal", ..) => return Err(missing(&at, "refusal")),
            ("input_image", ..) => {
                said::shown_by_user(&at, role == Role::User)?;
                let detail = said::detail(&format!("{at}.detail"), part.detail)?;
                let url = part.image_url.ok_or_else(|| missing(&at, "image_url"))?;
                said.show(&format!("{at}.image_url"), &url, detail)?;
            }
            (other, ..) => {
                let param = format!("{at}.type");
                let message = format!("{param}: expected input_text or input_image, got {other:?}");
                return Err(Refusal::invalid(param, message));
            }
        }
    }
    Ok(said)
}

fn missing(at: &str, name: &str) -> Refusal {
    Refusal::invalid(format!("{at}.{name}"), format!("{at}.{name} is missing"))
}

fn required(at: &str, name: &str, value: Option<String>) -> Result<String, Refusal> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| missing(at, name))
}

/// Reads a list of items.
///
/// # Errors
/// There are too many, or one of them cannot be read.
pub(crate) fn read(param: &str, given: Vec<ItemIn>, most: usize) -> Result<Vec<Item>, Refusal> {
    if given.len() > most {
        let message = format!("{param}: expected at most {most} items, got {}", given.len());
        return Err(Refusal::invalid(param, message));
    }
    let numbered = given.into_iter().enumerate();
    numbered.map(|(index, item)| item.read(&format!("{param}[{index}]"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn items(value: Value) -> Result<Vec<Item>, Value> {
        let given: Vec<ItemIn> = serde_json::from_value(value).unwrap();
        read("input", given, 10).map_err(|refusal| refusal.object()["param"].clone())
    }

    #[test]
    fn what_a_model_did_in_one_go_is_one_message() {
        let given = json!([
            {"role": "user", "content": "How warm?"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "listen", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "21"}]},
            {"type": "message", "role": "assistant", "content": "Warm."},
            {"type": "message", "role": "assistant", "content": "Very."},
        ]);
        let mut messages = Vec::new();
        for item in items(given).unwrap() {
            item.say(&mut messages);
        }
        let said: Vec<_> = messages
            .iter()
            .map(|message| {
                (
                    message.role(),
                    message.text.as_str(),
                    message.reasoning.as_str(),
                    message.tool_calls.len(),
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                (Role::User, "How warm?", "", 0),
                (Role::Assistant, "Let me look.", "hm", 2),
                (Role::Tool, "21", "", 0),
                (Role::Assistant, "Warm.", "", 0),
                (Role::Assistant, "Very.", "", 0),
            ]
        );
    }

    #[test]
    fn what_is_shown_again_can_be_read_again() {
        let given = json!([
            {"role": "developer", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "message", "role": "assistant", "phase": "commentary", "content": [{"type": "refusal", "refusal": "No."}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
            {"type": "function_call", "id": "fc_mine", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "21"},
            {"role": "user", "content": [{"type": "input_text", "text": "this"}, {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                {"type": "input_text", "text": "or that?"}, {"type": "input_image", "image_url": "data:image/gif;base64,BBBB", "detail": "low"}]},
        ]);
        let named = |item: Item, number| item.named("x", number).object();
        let shown: Vec<Value> = items(given)
            .unwrap()
            .into_iter()
            .enumerate()
            .map(|(n, item)| named(item, n))
            .collect();
        let ids: Vec<_> = shown.iter().map(|item| item["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["msg_x_0", "msg_x_1", "rs_x_2", "fc_mine", "fco_x_4", "msg_x_5"]);
        let parts: Vec<_> = shown[5]["content"].as_array().unwrap().iter().map(|part| &part["type"]).collect();
        assert_eq!(parts, ["input_text", "input_image", "input_text", "input_image"]);
        assert_eq!(shown[5]["content"][3]["detail"], "low");
        let again: Vec<Value> = items(shown.clone().into())
            .unwrap()
            .into_iter()
            .map(|item| named(item, 9))
            .collect();
        assert_eq!(again, shown);
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let param = |item: Value| items(json!([item])).unwrap_err();
        assert_eq!(param(json!({"type": "web_search_call", "id": "x"})), "input[0].type");
        assert_eq!(param(json!({"content": "x"})), "input[0].role");
        assert_eq!(param(json!({"role": "tool", "content": "x"})), "input[0].role");
        assert_eq!(param(json!({"role": "user"})), "input[0].content");
        let image = |role: &str, part: Value| param(json!({"role": role, "content": [part]}));
        let address = json!({"type": "input_image", "image_url": "https://example.org/a.png"});
        assert_eq!(image("user", address), "input[0].content[0].image_url");
        assert_eq!(
            image("user", json!({"type": "input_image", "file_id": "f"})),
            "input[0].content[0].image_url"
        );
        let shown = json!({"type": "input_image", "image_url": "data:image/png;base64,AAAA"});
        assert_eq!(image("assistant", shown), "input[0].content[0]");
        assert_eq!(
            param(json!({"type": "function_call", "call_id": "c", "arguments": ""})),
            "input[0].name"
        );
        assert_eq!(param(json!({"type": "function_call_output", "output": ""})), "input[0].call_id");
        assert_eq!(items(vec![json!({}); 11].into()).unwrap_err(), "input");
    }
}
