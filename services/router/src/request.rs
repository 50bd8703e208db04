//! What a request must be before it costs anybody anything. Every door, and gRPC itself, comes through here.
//!
//! [`check()`] judges and changes nothing; [`complete`] fills in what the caller left to the router. What only the engine can know
//! (the length of the context, a grammar's syntax) the engine judges.

mod check;

use proto::v1::{ChatRequest, Message, Role};

pub(crate) use self::check::check;

/// Choices for one input: each takes a slot.
pub(crate) const MAX_CHOICES: u32 = 8;
/// Bytes of all texts and images together: half of what a message of the mesh may take.
pub(crate) const MAX_TEXT_BYTES: usize = proto::MAX_DECODED_MESSAGE / 2;

/// Fills in what the caller left open: the prompt becomes the last message unless it is raw, one choice is one choice, and the seed is fixed, so
/// that a worker that goes on with the answer draws as the first one would have.
pub(crate) fn complete(request: &mut ChatRequest, seed: u64) {
    if !request.prompt.is_empty() && !request.raw {
        let text = std::mem::take(&mut request.prompt);
        request.messages.push(Message {
            role: Role::User.into(),
            text,
            ..Message::default()
        });
    }
    if request.conversation_id.is_empty() {
        instruct(request); // else they go before the history
    }
    request.n = request.n.max(1);
    request.sampling.get_or_insert_default().seed.get_or_insert(seed);
}

/// Puts the instructions before all messages.
pub(crate) fn instruct(request: &mut ChatRequest) {
    if request.instructions.is_empty() {
        return;
    }
    let instructions = Message {
        role: Role::System.into(),
        text: std::mem::take(&mut request.instructions),
        ..Message::default()
    };
    request.messages.insert(0, instructions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_prompt_stays_as_it_is() {
        let mut request = ChatRequest {
            prompt: "hi".to_owned(),
            raw: true,
            ..ChatRequest::default()
        };
        check(&request).unwrap();
        complete(&mut request, 7);
        assert_eq!((request.messages.len(), request.prompt.as_str()), (0, "hi"));
    }

    #[test]
    fn a_prompt_becomes_the_last_message_and_a_given_seed_stays() {
        let mut request = ChatRequest {
            prompt: "hi".to_owned(),
            ..ChatRequest::default()
        };
        complete(&mut request, 7);
        complete(&mut request, 8);
        assert_eq!((request.messages.len(), request.messages[0].text.as_str()), (1, "hi"));
        assert_eq!((request.n, request.sampling.unwrap().seed), (1, Some(7)));
    }
}
