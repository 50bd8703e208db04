//! What a request may take, in tokens, before anybody has counted: rather too much than too little, since it is only reserved.

use proto::v1::{ChatRequest, EmbedRequest, Message};

/// Bytes of a token, at least on the average: English has more than four, Chinese three, code about three.
const BYTES: u64 = 3;
/// What a chat template puts around a message.
const AROUND: u64 = 8;
/// A picture: rather more than the largest that models look at whole
/// (<https://platform.claude.com/docs/en/build-with-claude/vision>).
const IMAGE: u64 = 1600;
/// What it puts around the whole.
const FRAME: u64 = 24;

/// What the input may take. The history of a conversation is not in the request; it is charged when the answer has ended.
pub(crate) fn prompt(request: &ChatRequest) -> u64 {
    let messages: u64 = request.messages.iter().map(message).sum();
    let tools: usize = request
        .tools
        .iter()
        .map(|tool| tool.name.len() + tool.description.len() + tool.parameters.len())
        .sum();
    FRAME + text(request.prompt.len() + request.instructions.len()) + request.prompt_tokens.len() as u64 + messages + text(tools)
}

/// What the texts of a request for vectors may take.
pub(crate) fn texts(request: &EmbedRequest) -> u64 {
    let texts: u64 = request.inputs.iter().map(|one| text(one.len()) + AROUND).sum();
    let ids: usize = request.token_inputs.iter().map(|tokens| tokens.ids.len()).sum();
    texts + ids as u64
}

/// What the output may take, and the least of it that will do: the client's bound for each choice or, where it gave none, `usual` of them
/// within the model's context (0: not known), or if need be a single one.
pub(crate) fn output(request: &ChatRequest, prompt: u64, usual: u32, context: u32) -> (u64, u64) {
    let choices = choices(request);
    if let Some(most) = request.max_tokens {
        let all = choices * u64::from(most);
        return (all, all);
    }
    let room = match context {
        0 => u64::from(usual),
        context => u64::from(context).saturating_sub(prompt).clamp(1, usual.into()),
    };
    (choices * room, choices)
}

/// How many choices a request asks for.
pub(crate) fn choices(request: &ChatRequest) -> u64 {
    request.n.max(1).into()
}

fn message(message: &Message) -> u64 {
    let calls: usize = message
        .tool_calls
        .iter()
        .map(|call| call.id.len() + call.name.len() + call.arguments.len())
        .sum();
    let images = IMAGE * message.images.len() as u64;
    AROUND + text(message.text.len() + message.reasoning.len() + message.name.len() + calls) + images
}

fn text(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(max_tokens: Option<u32>, n: u32) -> ChatRequest {
        ChatRequest {
            prompt: "Hello, how are you today?".to_owned(),
            max_tokens,
            n,
            ..ChatRequest::default()
        }
    }

    #[test]
    fn english_is_estimated_as_more_than_it_is() {
        assert!((6..40).contains(&prompt(&asked(None, 0))));
    }

    #[test]
    fn every_choice_may_take_its_own() {
        assert_eq!(output(&asked(Some(20), 3), 10, 100, 0), (60, 60));
        assert_eq!(output(&asked(None, 2), 10, 100, 0), (200, 2));
    }

    #[test]
    fn an_answer_without_a_bound_stays_within_the_context() {
        assert_eq!(output(&asked(None, 1), 30, 4096, 2048), (2018, 1));
        assert_eq!(output(&asked(None, 1), 3000, 4096, 2048), (1, 1));
        assert_eq!(output(&asked(None, 1), 30, 4096, 131_072), (4096, 1));
    }
}
