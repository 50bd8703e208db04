//! What was said before, as Anthropic's Messages tell it (<https://platform.claude.com/docs/en/api/messages>). Pure.
//!
//! Turns alternate there: neighbours of one role become one turn, and results of tools are the user's. All instructions go into `system`.
//! Past thoughts are left out, since only their maker's signature makes them acceptable.

use proto::{
    Piece,
    v1::{ChatRequest, Failure, Message, Role},
};
use serde_json::{Value, json};

use crate::openai::dialect::json_text;

/// The instructions, and the turns.
pub(super) fn conversation(request: &ChatRequest) -> Result<(String, Value), Failure> {
    let (mut system, mut turns) = (Vec::new(), Vec::new());
    for message in &request.messages {
        match message.role() {
            Role::System | Role::Developer => system.push(message.text.as_str()),
            Role::Tool => add(
                &mut turns,
                "user",
                vec![json!({"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text})],
            ),
            Role::Unspecified | Role::User => add(&mut turns, "user", blocks(message)),
            Role::Assistant => add(&mut turns, "assistant", assistant(message)?),
        }
    }
    add(&mut turns, "user", text(&request.prompt));
    let turns = turns.into_iter().map(|(role, blocks)| json!({"role": role, "content": blocks}));
    Ok((system.join("\n\n"), turns.collect()))
}

fn add(turns: &mut Vec<(&'static str, Vec<Value>)>, role: &'static str, blocks: Vec<Value>) {
    match turns.last_mut() {
        _ if blocks.is_empty() => {}
        Some((last, before)) if *last == role => before.extend(blocks),
        _ => turns.push((role, blocks)),
    }
}

/// An empty text is no block: the API refuses it.
fn text(text: &str) -> Vec<Value> {
    let block = (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
    block.into_iter().collect()
}

/// What a user says and shows. How closely to look cannot be told there.
fn blocks(message: &Message) -> Vec<Value> {
    let block = |piece| match piece {
        Piece::Text(text) => json!({"type": "text", "text": text}),
        Piece::Image(image) => {
            let source = json!({"type": "base64", "media_type": image.media_type, "data": image.base64()});
            json!({"type": "image", "source": source})
        }
    };
    message.pieces().into_iter().map(block).collect()
}

fn assistant(message: &Message) -> Result<Vec<Value>, Failure> {
    let mut blocks = text(&message.text);
    for call in &message.tool_calls {
        let input = if call.arguments.trim().is_empty() {
            json!({})
        } else {
            json_text("messages", &call.arguments)?
        };
        blocks.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
    }
    Ok(blocks)
}
