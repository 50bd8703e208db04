//! What a client says on a WebSocket.

use proto::v1::ChatRequest;
use serde::Deserialize;

use crate::{
    body,
    door::{
        completions::{MessageIn, messages},
        disconnect, max_tokens, within,
    },
    failure::Refusal,
};

/// One message of a client.
#[derive(Debug)]
pub(in crate::door) enum Incoming {
    /// Answer this.
    Chat(Box<ChatRequest>),
    /// End the answer that runs.
    Cancel,
    /// Go on with this answer, from this position.
    Resume(String, u32),
}

#[derive(Debug, Deserialize)]
struct Raw {
    r#type: Option<String>,
    #[serde(alias = "message")]
    prompt: Option<String>,
    messages: Option<Vec<MessageIn>>,
    model: Option<String>,
    max_tokens: Option<i64>,
    temperature: Option<f64>,
    conversation_id: Option<String>,
    stream_id: Option<String>,
    after: Option<i64>,
    disconnect: Option<String>,
    detach_grace_ms: Option<i64>,
}

/// Parses a message.
///
/// # Errors
/// It is not JSON, or a field is wrong.
pub(in crate::door) fn parse(text: &[u8]) -> Result<Incoming, Refusal> {
    let raw: Raw = body::parse(text)?;
    match raw.r#type.as_deref() {
        None | Some("prompt" | "chat" | "message") => raw.into_chat().map(Incoming::Chat),
        Some("cancel") => Ok(Incoming::Cancel),
        Some("resume") => {
            let stream_id = raw
                .stream_id
                .ok_or_else(|| Refusal::invalid("stream_id", "stream_id is missing: which answer is to go on?"))?;
            let next = raw.after.map_or(Some(0), |after| u32::try_from(after.checked_add(1)?).ok());
            let next = next.ok_or_else(|| Refusal::invalid("after", "after: expected the last position received, or -1"))?;
            Ok(Incoming::Resume(stream_id, next))
        }
        Some(other) => {
            let message = format!("type: expected prompt, cancel or resume, got {other:?}");
            Err(Refusal::invalid("type", message))
        }
    }
}

impl Raw {
    fn into_chat(self) -> Result<Box<ChatRequest>, Refusal> {
        let mut request = ChatRequest {
            prompt: self.prompt.unwrap_or_default(),
            messages: self.messages.map(messages).transpose()?.unwrap_or_default(),
            model: self.model.unwrap_or_default(),
            max_tokens: max_tokens("max_tokens", self.max_tokens)?,
            conversation_id: self.conversation_id.unwrap_or_default(),
            ..ChatRequest::default()
        };
        if request.prompt.is_empty() && request.messages.is_empty() {
            return Err(Refusal::invalid("prompt", "prompt is missing or empty"));
        }
        disconnect(&mut request, self.disconnect.as_deref(), self.detach_grace_ms)?;
        let temperature = within("temperature", self.temperature, 0.0..=2.0)?;
        if temperature.is_some() {
            request.sampling.get_or_insert_default().temperature = temperature;
        }
        Ok(Box::new(request))
    }
}
