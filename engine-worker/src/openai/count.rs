//! How long an input is, where the server that would know does not say. Pure.

use proto::v1::ChatRequest;

/// Bytes of English text that make a token, nearly, with the usual vocabularies
/// (<https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them>).
const BYTES: usize = 4;
/// Tokens that a template puts around a message, nearly.
const AROUND: usize = 4;

/// Tokens of a picture, nearly: what a megapixel takes
/// (<https://platform.claude.com/docs/en/build-with-claude/vision>).
const IMAGE: usize = 1300;

/// The input's length in tokens, nearly.
pub(super) fn estimate(request: &ChatRequest) -> u32 {
    let tokens = |text: &str| text.len().div_ceil(BYTES);
    let messages = request.messages.iter().map(|message| {
        let calls = message.tool_calls.iter().map(|call| tokens(&call.name) + tokens(&call.arguments));
        let images = IMAGE * message.images.len();
        AROUND + tokens(&message.text) + tokens(&message.reasoning) + calls.sum::<usize>() + images
    });
    let tools = request
        .tools
        .iter()
        .map(|tool| AROUND + tokens(&tool.name) + tokens(&tool.description) + tokens(&tool.parameters));
    let prompt = match (request.raw, request.prompt.is_empty()) {
        (true, _) => tokens(&request.prompt) + request.prompt_tokens.len(),
        (false, true) => 0,
        (false, false) => AROUND + tokens(&request.prompt),
    };
    u32::try_from(messages.chain(tools).sum::<usize>() + prompt).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proto::v1::{Message, Tool};

    use super::*;

    #[test]
    fn everything_that_the_model_sees_is_estimated() {
        let text = "a".repeat(40);
        let mut request = ChatRequest {
            prompt: text.clone(),
            ..ChatRequest::default()
        };
        assert_eq!(estimate(&request), 14);
        request.messages.push(Message {
            text: text.clone(),
            reasoning: text.clone(),
            ..Message::default()
        });
        assert_eq!(estimate(&request), 38);
        request.tools.push(Tool {
            parameters: text,
            ..Tool::default()
        });
        assert_eq!(estimate(&request), 52);
    }

    #[test]
    fn the_tokens_of_a_raw_input_are_known() {
        let request = ChatRequest {
            raw: true,
            prompt_tokens: vec![1, 2, 3],
            ..ChatRequest::default()
        };
        assert_eq!(estimate(&request), 3);
    }
}
