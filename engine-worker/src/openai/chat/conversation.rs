//! What was said before, as chat completions tell it
//! (<https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages>). Pure.

use proto::{
    Piece,
    v1::{ChatRequest, Message, Role},
};
use serde_json::{Map, Value, json};

/// All messages of a request, its prompt last.
pub(super) fn messages(request: &ChatRequest) -> Value {
    // A model that thinks between its calls goes on from those thoughts (DeepSeek's and Qwen's rule); those of turns before it need not see.
    let now = match request.messages.iter().rposition(|message| message.role() == Role::User) {
        _ if !request.prompt.is_empty() => request.messages.len(),
        last => last.map_or(0, |last| last + 1),
    };
    let told = |(index, said): (usize, &Message)| message(said, index >= now);
    let mut all: Vec<Value> = request.messages.iter().enumerate().map(told).collect();
    if !request.prompt.is_empty() {
        all.push(json!({"role": "user", "content": request.prompt}));
    }
    all.into()
}

fn message(message: &Message, with_thoughts: bool) -> Value {
    let role = match message.role() {
        Role::System => "system",
        Role::Unspecified | Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Developer => "developer",
    };
    let mut body = Map::new();
    body.insert("role".into(), role.into());
    body.insert("content".into(), content(message));
    if !message.tool_calls.is_empty() {
        let call = |call: &proto::v1::ToolCall| json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}});
        body.insert("tool_calls".into(), message.tool_calls.iter().map(call).collect());
    }
    if with_thoughts && !message.reasoning.is_empty() && !message.tool_calls.is_empty() {
        body.insert("reasoning_content".into(), message.reasoning.as_str().into());
    }
    for (key, text) in [("tool_call_id", &message.tool_call_id), ("name", &message.name)] {
        if !text.is_empty() {
            body.insert(key.into(), text.as_str().into());
        }
    }
    Value::Object(body)
}

/// What is said is a text; only with pictures is it a list of parts.
fn content(message: &Message) -> Value {
    if message.text.is_empty() && !message.tool_calls.is_empty() {
        return Value::Null;
    }
    if message.images.is_empty() {
        return message.text.as_str().into();
    }
    let part = |piece| match piece {
        Piece::Text(text) => json!({"type": "text", "text": text}),
        Piece::Image(image) if image.detail.is_empty() => json!({"type": "image_url", "image_url": {"url": image.data_uri()}}),
        Piece::Image(image) => json!({"type": "image_url", "image_url": {"url": image.data_uri(), "detail": image.detail}}),
    };
    message.pieces().into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use proto::v1::Image;

    use super::*;

    #[test]
    fn thoughts_are_told_where_the_model_goes_on_from_them() {
        let called = Message {
            role: Role::Assistant.into(),
            reasoning: "hm".to_owned(),
            tool_calls: vec![proto::v1::ToolCall::default()],
            ..Message::default()
        };
        let user = Message {
            role: Role::User.into(),
            text: "look".to_owned(),
            ..Message::default()
        };
        let mut request = ChatRequest {
            messages: vec![user.clone(), called.clone(), user, called],
            ..ChatRequest::default()
        };
        let thoughts = |request: &ChatRequest| -> Vec<bool> {
            let all = messages(request);
            all.as_array()
                .unwrap()
                .iter()
                .map(|message| message["reasoning_content"] == "hm")
                .collect()
        };
        assert_eq!(thoughts(&request), [false, false, false, true]);
        request.prompt = "and now?".to_owned();
        assert_eq!(thoughts(&request), [false; 5]);
    }

    #[test]
    fn what_a_user_shows_stands_where_it_was_shown() {
        let image = |detail: &str, at| Image {
            media_type: "image/png".to_owned(),
            data: vec![255, 254],
            detail: detail.to_owned(),
            at,
        };
        let request = ChatRequest {
            messages: vec![Message {
                text: "this\nor that?".to_owned(),
                images: vec![image("", 4), image("low", 13)],
                ..Message::default()
            }],
            ..ChatRequest::default()
        };
        let url = "data:image/png;base64,//4=";
        assert_eq!(
            messages(&request)[0]["content"],
            json!([
                {"type": "text", "text": "this"},
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": "or that?"},
                {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
            ])
        );
    }
}
