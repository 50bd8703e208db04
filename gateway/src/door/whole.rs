//! A whole answer, read to its end: what the doors that do not stream build their one response from.

use std::pin::pin;

use proto::v1::{Entry, FinishReason, TokenLogprob, Usage, entry::Event};
use tokio::time::Instant;

use crate::{account::Account, app::App, failure::Refusal, turn::Answer};

/// What was said, by choice, and what it took.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Usage,
}

/// One choice.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) tool_calls: Vec<Call>,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) finish: FinishReason,
    /// The stop string that was met.
    pub(crate) stop: String,
}

/// One function call.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// The most calls in one choice: the index comes from a model's output.
const CALLS: usize = 128;

/// Reads `answer` to its end.
///
/// # Errors
/// It broke off or was cancelled, or the gateway stops before its end.
pub(crate) async fn read(app: &App, mut answer: Answer, account: &mut Account) -> Result<Whole, Refusal> {
    let mut whole = Whole::default();
    let mut batch = Vec::new();
    while super::in_time(app, pin!(async { Ok(answer.read(&mut batch).await) }))
        .await?
        .is_some()
    {
        account.note(&batch, Instant::now());
        for entry in batch.drain(..) {
            whole.add(entry)?;
        }
    }
    Ok(whole)
}

impl Whole {
    fn add(&mut self, entry: Entry) -> Result<(), Refusal> {
        match entry.event {
            Some(Event::Finished(finished)) => {
                self.usage = finished.usage.unwrap_or_default();
                for end in &finished.choices {
                    let choice = self.choice(end.choice);
                    choice.finish = end.reason();
                    choice.stop.clone_from(&end.stop);
                }
                self.choice(0);
                return Ok(());
            }
            Some(Event::Failed(failure)) => return Err((*failure).into()),
            Some(Event::Cancelled(_)) => {
                return Err(Refusal::new(http::StatusCode::CONFLICT, "cancelled", "the answer was cancelled"));
            }
            Some(Event::Reasoning(text)) => self.choice(entry.choice).reasoning.push_str(&text),
            Some(Event::ToolCall(delta)) => {
                let calls = &mut self.choice(entry.choice).tool_calls;
                let index = (delta.index as usize).min(CALLS - 1);
                if calls.len() <= index {
                    calls.resize_with(index + 1, Call::default);
                }
                let call = &mut calls[index];
                call.id.push_str(&delta.id);
                call.name.push_str(&delta.name);
                call.arguments.push_str(&delta.arguments);
            }
            None => {}
        }
        let choice = self.choice(entry.choice);
        choice.text.push_str(&entry.token);
        choice.logprobs.extend(entry.logprobs);
        Ok(())
    }

    fn choice(&mut self, index: u32) -> &mut Choice {
        let index = (index as usize).min(super::completions::MAX_CHOICES - 1);
        if self.choices.len() <= index {
            self.choices.resize_with(index + 1, Choice::default);
        }
        &mut self.choices[index]
    }
}
