//! What a server streams as Messages, in the words of the journal (<https://platform.claude.com/docs/en/build-with-claude/streaming>). Pure.
//!
//! Blocks that the journal has no word for (citations, signatures, tools that run at the server) are left out, and so are events of kinds
//! that are not known: the API's versioning policy says that more may come.

use proto::v1::{Failure, FinishReason, Usage};
use serde::Deserialize;
use serde_json::Value;

use crate::openai::{
    calls::Piece,
    dialect::{Interpreter, odd},
    failure::of_error,
    told::{Input, Told},
};

#[derive(Deserialize)]
struct Heard {
    r#type: String,
    index: Option<u32>,
    message: Option<Message>,
    content_block: Option<Block>,
    delta: Option<Delta>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Message {
    id: Option<String>,
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Block {
    r#type: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Value>,
}

/// The fields of all kinds: of a block's next piece, and of the message's end.
#[derive(Deserialize)]
struct Delta {
    r#type: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    partial_json: Option<String>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
}

/// What was counted so far: a field that comes again replaces the one before.
#[derive(Clone, Copy, Default, Deserialize)]
struct Counts {
    input_tokens: Option<u32>,
    cache_creation_input_tokens: Option<u32>,
    cache_read_input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Clone, Copy, Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<u32>,
}

/// Understands the events of one stream.
#[derive(Default)]
pub(in crate::openai) struct Events {
    counts: Counts,
    /// What a call's block began with, if that is more than nothing: some servers send the whole input there.
    begun_with: Option<String>,
}

impl Interpreter for Events {
    fn take(&mut self, data: &[u8], told: &mut Told) -> Result<(), Failure> {
        let heard: Heard = serde_json::from_slice(data).map_err(|error| odd(&error))?;
        match heard.r#type.as_str() {
            "message_start" => {
                let (id, counts) = heard.message.map(|message| (message.id, message.usage)).unwrap_or_default();
                told.name = id.unwrap_or_default();
                self.count(counts);
                told.input = Some(self.input());
            }
            "content_block_start" => return self.begin_block(heard.index, heard.content_block, told),
            "content_block_delta" => return more(heard.index, heard.delta, told),
            "content_block_stop" => return self.end_block(heard.index, told),
            "message_delta" => {
                self.count(heard.usage);
                told.usage = Some(self.usage());
                if let Some(delta) = heard.delta
                    && let Some(reason) = delta.stop_reason
                {
                    told.end(0, finish_reason(&reason), delta.stop_sequence.unwrap_or_default());
                }
            }
            "message_stop" => told.done = true,
            "error" => return Err(of_error(&heard.error.unwrap_or_default())),
            _ => {}
        }
        Ok(())
    }
}

impl Events {
    fn begin_block(&mut self, key: Option<u32>, block: Option<Block>, told: &mut Told) -> Result<(), Failure> {
        let Some(block) = block else { return Ok(()) };
        match block.r#type.as_deref() {
            Some("text") => told.text(0, block.text.unwrap_or_default(), Vec::new()),
            Some("thinking") => told.reasoning(0, block.thinking.unwrap_or_default()),
            Some("tool_use") => {
                let input = block.input.filter(|input| input.as_object().is_some_and(|input| !input.is_empty()));
                self.begun_with = input.map(|input| input.to_string());
                let piece = Piece {
                    key,
                    id: block.id.unwrap_or_default(),
                    name: block.name.unwrap_or_default(),
                    ..Piece::default()
                };
                return told.call(0, piece);
            }
            _ => {}
        }
        Ok(())
    }

    /// A call without arguments sends no piece of them; they are an empty object all the same.
    fn end_block(&mut self, key: Option<u32>, told: &mut Told) -> Result<(), Failure> {
        let begun_with = self.begun_with.take();
        if !told.calls().is_some_and(|calls| key.is_some_and(|key| calls.is_bare(key))) {
            return Ok(());
        }
        arguments(key, begun_with.unwrap_or_else(|| "{}".to_owned()), told)
    }

    fn count(&mut self, counts: Option<Counts>) {
        let Some(fresh) = counts else { return };
        let old = &mut self.counts;
        old.input_tokens = fresh.input_tokens.or(old.input_tokens);
        old.cache_creation_input_tokens = fresh.cache_creation_input_tokens.or(old.cache_creation_input_tokens);
        old.cache_read_input_tokens = fresh.cache_read_input_tokens.or(old.cache_read_input_tokens);
        old.output_tokens = fresh.output_tokens.or(old.output_tokens);
        old.output_tokens_details = fresh.output_tokens_details.or(old.output_tokens_details);
    }

    /// The API counts what was found in the cache, and what was written to it, apart from the rest.
    fn input(&self) -> Input {
        let counts = &self.counts;
        let parts = [
            counts.input_tokens,
            counts.cache_creation_input_tokens,
            counts.cache_read_input_tokens,
        ];
        Input {
            prompt_tokens: parts.into_iter().flatten().fold(0, u32::saturating_add),
            cached_tokens: counts.cache_read_input_tokens.unwrap_or(0),
        }
    }

    fn usage(&self) -> Usage {
        let input = self.input();
        Usage {
            prompt_tokens: input.prompt_tokens,
            cached_tokens: input.cached_tokens,
            completion_tokens: self.counts.output_tokens.unwrap_or(0),
            reasoning_tokens: self
                .counts
                .output_tokens_details
                .and_then(|details| details.thinking_tokens)
                .unwrap_or(0),
        }
    }
}

fn more(key: Option<u32>, delta: Option<Delta>, told: &mut Told) -> Result<(), Failure> {
    let Some(delta) = delta else { return Ok(()) };
    match delta.r#type.as_deref() {
        Some("text_delta") => told.text(0, delta.text.unwrap_or_default(), Vec::new()),
        Some("thinking_delta") => told.reasoning(0, delta.thinking.unwrap_or_default()),
        Some("input_json_delta") => return arguments(key, delta.partial_json.unwrap_or_default(), told),
        _ => {}
    }
    Ok(())
}

/// Arguments of a block that is no call of ours belong to a tool at the server.
fn arguments(key: Option<u32>, arguments: String, told: &mut Told) -> Result<(), Failure> {
    if !told.calls().is_some_and(|calls| key.is_some_and(|key| calls.has(key))) {
        return Ok(());
    }
    let piece = Piece {
        key,
        arguments,
        ..Piece::default()
    };
    told.call(0, piece)
}

fn finish_reason(word: &str) -> FinishReason {
    match word {
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Stop, // `end_turn`, `stop_sequence`, `pause_turn`, and whatever else is an end
    }
}
