//! What one answer of the script will be, decided before it begins: every entry at every place, its pace and its faults.
//!
//! Pure. The choices step together: token `i` of each that has so many, in their order, then token `i + 1`. Going on at a position is
//! therefore the same as having come there.

mod prefix;

use std::time::Duration;

use compact_str::CompactString;
use proto::v1::{
    ChatRequest, ChoiceEnd, Entry, Failure, FinishReason, GenerateRequest, Reason, TokenLogprob, ToolCallDelta,
    entry::{Event, TokenIds},
};

use super::{
    Settings,
    cut::Cut,
    directive::Directive,
    oracle::Oracle,
    prompt::{last_said, messages, must_call, prompt_tokens},
};

/// An answer, as it will be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    oracle: Oracle,
    pub(super) choices: u32,
    /// Tokens of each choice.
    tokens: u32,
    reason: FinishReason,
    /// For each choice, where a stop string cuts its text.
    cuts: Vec<Option<Cut>>,
    /// The writer's epoch, where tokens tell it: a reader sees then whether one was written by a worker that had been replaced.
    epoch: Option<u32>,
    reasoning: u32,
    tool: Option<String>,
    logprobs: Option<u32>,
    pub(super) prompt_tokens: u32,
    /// Before the first token.
    pub(super) prefill: Duration,
    /// Between two tokens of a choice.
    pub(super) gap: Duration,
    /// Whether tokens come on the common grid of decode steps.
    pub(super) step: bool,
    pub(super) faults: Faults,
    /// The journal's position at which this worker goes on.
    pub(super) position: u32,
}

/// At which token of a choice something goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) die: Option<u32>,
    pub(super) stall: Option<u32>,
    pub(super) fail: Option<u32>,
}

impl Plan {
    pub(super) fn new(request: &GenerateRequest, settings: &Settings) -> Result<Self, Failure> {
        let chat = request
            .request
            .as_ref()
            .ok_or_else(|| Failure::invalid("request", "request is missing"))?;
        if !chat.model.is_empty() && chat.model != settings.script_model {
            let message = format!(
                "the model {:?} is not here; this worker serves {:?}",
                chat.model, settings.script_model
            );
            return Err(Failure {
                param: "model".to_owned(),
                ..Failure::new(Reason::ModelNotFound, message)
            });
        }
        let messages = messages(chat);
        let mut directive = Directive::find(last_said(&messages))?;
        directive.tool = directive.tool.or_else(|| must_call(chat));
        if directive.has_faults() && !settings.script_faults {
            return Err(Failure::invalid(
                "messages",
                "the script asks for a fault, and UNBROKEN_SCRIPT_FAULTS is not set",
            ));
        }
        let prompt_tokens = prompt_tokens(&messages);
        let (tokens, reason) = length(chat, &directive, prompt_tokens, settings)?;
        let sampling = chat.sampling.clone().unwrap_or_default();
        let oracle = match directive.id {
            Some(id) => Oracle::named(id),
            None => Oracle::words(sampling.seed.unwrap_or(0), &messages),
        };
        let mut plan = Self {
            oracle,
            choices: chat.n.max(1),
            tokens,
            reason,
            cuts: Vec::new(),
            epoch: directive.epochs.then_some(request.epoch),
            reasoning: directive.reasoning,
            tool: directive.tool,
            logprobs: sampling.logprobs.then_some(sampling.top_logprobs),
            prompt_tokens,
            prefill: directive.ttft.unwrap_or(settings.script_prefill * prompt_tokens),
            gap: directive.gap.unwrap_or(settings.script_gap),
            step: directive.step,
            faults: Faults {
                die: directive.die_at.or(settings.script_die_at),
                stall: directive.stall_at.or(settings.script_stall_at),
                fail: directive.fail_at.or(settings.script_fail_at),
            },
            position: request.position,
        };
        plan.cuts = (0..plan.choices)
            .map(|choice| Cut::find(&plan.oracle, choice, plan.tokens, &sampling.stop))
            .collect();
        plan.check_resume(&request.resume)?;
        Ok(plan)
    }

    /// The journal's length without the terminal entry.
    pub(super) fn entries(&self) -> u32 {
        (0..self.choices).map(|choice| self.length(choice)).fold(0, u32::saturating_add)
    }

    /// The token of a choice, and the choice, that stand at a position of the journal; past its end, the token after the last.
    pub(super) fn place(&self, position: u32) -> (u32, u32) {
        if self.choices == 1 {
            return (position, 0);
        }
        let mut left = position as usize;
        for index in 0..self.tokens {
            let mut choices = (0..self.choices).filter(|&choice| index < self.length(choice));
            let stepping = choices.clone().count();
            if stepping == 0 {
                return (index, 0);
            }
            if let Some(choice) = choices.nth(left) {
                return (index, choice);
            }
            left -= stepping;
        }
        (self.tokens, 0)
    }

    /// How many tokens a choice has.
    pub(super) fn length(&self, choice: u32) -> u32 {
        let cut = self.cuts.get(choice as usize).and_then(Option::as_ref);
        cut.map_or(self.tokens, |cut| cut.tokens)
    }

    /// The entry of token `index` of `choice`.
    pub(super) fn entry(&self, index: u32, choice: u32) -> Entry {
        let text = self.text(index, choice);
        let id = self.oracle.id(choice, index);
        let mut entry = Entry {
            token_ids: TokenIds::from_slice(&[id]),
            tokens: 1,
            choice,
            ..Entry::default()
        };
        if self.choices > 1 && index + 1 == self.length(choice) {
            entry.end = Some(Box::new(self.end(choice)));
        }
        if index < self.reasoning {
            entry.event = Some(Event::Reasoning(text.into()));
        } else if let Some(tool) = &self.tool {
            entry.event = Some(Event::ToolCall(Box::new(self.tool_piece(index, choice, tool))));
        } else {
            entry.token = text;
            entry.logprobs.extend(self.logprobs.map(|top| self.logprob(index, choice, top)));
        }
        entry
    }

    /// How the choices end.
    pub(super) fn ends(&self) -> Vec<ChoiceEnd> {
        (0..self.choices).map(|choice| self.end(choice)).collect()
    }

    fn end(&self, choice: u32) -> ChoiceEnd {
        let cut = self.cuts.get(choice as usize).and_then(Option::as_ref);
        ChoiceEnd {
            choice,
            reason: if cut.is_some() { FinishReason::Stop } else { self.reason }.into(),
            stop: cut.map(|cut| cut.stop.clone()).unwrap_or_default(),
        }
    }

    fn text(&self, index: u32, choice: u32) -> CompactString {
        let mut text = self.oracle.text(choice, index);
        if let Some(cut) = self.cuts.get(choice as usize).and_then(Option::as_ref) {
            cut.apply(index, &mut text);
        } else if let Some(epoch) = self.epoch {
            text.insert_str(text.trim_end().len(), &format!("@{epoch}"));
        }
        text
    }

    /// The pieces of a function call whose arguments are `{"text":"…"}`.
    fn tool_piece(&self, index: u32, choice: u32, tool: &str) -> ToolCallDelta {
        let (first, last) = (index == self.reasoning, index + 1 == self.tokens);
        let mut piece = ToolCallDelta::default();
        if first {
            piece.id = format!("call_{:08x}", self.oracle.id(choice, index));
            tool.clone_into(&mut piece.name);
            piece.arguments.push_str(r#"{"text":""#);
        }
        if !first && !last {
            piece.arguments.push_str(&self.oracle.text(choice, index));
        }
        if last && self.reason != FinishReason::Length {
            piece.arguments.push_str(r#""}"#);
        }
        piece
    }

    fn logprob(&self, index: u32, choice: u32, top: u32) -> TokenLogprob {
        let one = |index: u32, logprob: f32| {
            let token = self.oracle.text(choice, index);
            TokenLogprob {
                bytes: token.as_bytes().to_vec(),
                token: token.into(),
                logprob,
                top: Vec::new(),
            }
        };
        let chosen = -f32::from((self.oracle.id(choice, index) % 1000) as u16) / 1000.0;
        let top = (0..top).scan(chosen, |logprob, worse| {
            let likely = one(index.wrapping_add(worse), *logprob);
            *logprob -= 1.0;
            Some(likely)
        });
        TokenLogprob {
            top: top.collect(),
            ..one(index, chosen)
        }
    }
}

fn length(chat: &ChatRequest, directive: &Directive, prompt_tokens: u32, settings: &Settings) -> Result<(u32, FinishReason), Failure> {
    let room = settings.script_context.saturating_sub(prompt_tokens);
    if room == 0 {
        let message = format!(
            "the prompt has {prompt_tokens} tokens; the context takes {}",
            settings.script_context
        );
        return Err(Failure {
            param: "messages".to_owned(),
            ..Failure::new(Reason::ContextLengthExceeded, message)
        });
    }
    let wanted = directive.tokens.unwrap_or(settings.script_tokens);
    let most = chat.max_tokens.unwrap_or(u32::MAX).min(room);
    Ok(if wanted > most {
        (most, FinishReason::Length)
    } else if directive.tool.is_some() {
        (wanted, FinishReason::ToolCalls)
    } else {
        (wanted, FinishReason::Stop)
    })
}

#[cfg(test)]
mod tests {
    use proto::v1::ResumePoint;

    use super::*;

    fn request(text: &str) -> GenerateRequest {
        GenerateRequest {
            request: Some(ChatRequest {
                prompt: text.to_owned(),
                ..ChatRequest::default()
            }),
            ..GenerateRequest::default()
        }
    }

    #[test]
    fn a_call_of_a_function_has_whole_json_as_its_arguments() {
        for tokens in [1, 2, 5] {
            let plan = Plan::new(
                &request(&format!("[[script id=r tokens={tokens} tool=look]]")),
                &Settings::default(),
            )
            .unwrap();
            let pieces = (0..plan.entries()).map(|index| match plan.entry(index, 0).event {
                Some(Event::ToolCall(piece)) => *piece,
                other => panic!("{other:?}"),
            });
            let pieces: Vec<ToolCallDelta> = pieces.collect();
            assert_eq!(pieces.iter().filter(|piece| piece.name == "look").count(), 1);
            let arguments: String = pieces.iter().map(|piece| piece.arguments.as_str()).collect();
            let _: serde_json::Value = serde_json::from_str(&arguments).unwrap();
            assert_eq!(plan.ends()[0].reason(), FinishReason::ToolCalls);
        }
    }

    #[test]
    fn a_prefix_is_taken_only_if_the_script_said_it() {
        let mut request = request("[[script id=r tokens=8]]");
        request.request.as_mut().unwrap().n = 2;
        let oracle = Oracle::named("r");
        let point = |choice: u32, tokens: u32| ResumePoint {
            choice,
            token_ids: (0..tokens).map(|index| oracle.id(choice, index)).collect(),
            text: oracle.whole(choice, tokens),
            end: None,
        };
        request.position = 5;
        request.resume = vec![point(0, 3), point(1, 2)];
        Plan::new(&request, &Settings::default()).unwrap();
        let wrong = [
            vec![point(0, 2), point(1, 3)],
            vec![point(0, 3)],
            vec![],
            vec![
                ResumePoint {
                    text: "r.0 ".to_owned(),
                    ..point(0, 3)
                },
                point(1, 2),
            ],
            vec![
                ResumePoint {
                    token_ids: vec![1, 2, 3],
                    ..point(0, 3)
                },
                point(1, 2),
            ],
        ];
        for resume in wrong {
            let request = GenerateRequest {
                resume: resume.clone(),
                ..request.clone()
            };
            let failure = Plan::new(&request, &Settings::default()).unwrap_err();
            assert_eq!(failure.param, "resume", "{resume:?}");
        }
    }
}
