//! Closing turns: many in one transaction and a handful of statements, each turn once.
//!
//! The request log is what makes it once: a turn that stands there is over. But a failure gives way to the whole answer: a router that could
//! not find an answer any more, or lost it, cannot know that another one has all of it and only could not say so yet. For the same reason
//! an answer that ended before it began, and took nothing, gives way to one that did begin. A turn that cannot be stored (its conversation
//! was deleted meanwhile, its epoch has ended, its fields are wrong) never keeps the others from it.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, hash_map::Entry},
};

use proto::v1::{Failure, FinishTurnsRequest, FinishedTurn, Message};
use serde::Serialize;

use super::{
    Store, calls_to_text, now_ms,
    turns::{self, Turn},
};
use crate::{
    check,
    database::{Session, batch::Batch},
    error::Fault,
    scope::{Params, Scope},
};

/// The state of a request that a gateway turned away.
const REFUSED: &str = "refused";
/// How often a transaction that lost to another one is tried.
const ATTEMPTS: usize = 3;

/// What the request log keeps of a turn.
#[derive(Serialize)]
struct LogRow<'a> {
    i: usize,
    tenant_id: &'a str,
    user_id: &'a str,
    stream_id: &'a str,
    request_id: Cow<'a, str>,
    conversation_id: &'a str,
    model: Cow<'a, str>,
    state: &'a str,
    finish_reason: Cow<'a, str>,
    prompt_tokens: u32,
    completion_tokens: u32,
    reasoning_tokens: u32,
    cached_tokens: u32,
    started_ms: i64,
    ttft_ms: u32,
    duration_ms: u32,
    worker: Cow<'a, str>,
    epoch: u32,
    door: Cow<'a, str>,
    key_id: Cow<'a, str>,
    status: u32,
}

/// What an answer becomes at its end.
#[derive(Serialize)]
struct AnswerRow<'a> {
    i: usize,
    tenant_id: &'a str,
    user_id: &'a str,
    stream_id: &'a str,
    conversation_id: &'a str,
    model: Cow<'a, str>,
    state: &'a str,
    epoch: u32,
    said: u8,
    text: Cow<'a, str>,
    reasoning: Cow<'a, str>,
    tool_calls: String,
    finish_reason: Cow<'a, str>,
    prompt_tokens: u32,
    completion_tokens: u32,
    reasoning_tokens: u32,
    cached_tokens: u32,
}

impl Store {
    /// Closes the turns that are not closed yet, and says how many those were.
    pub(crate) async fn finish_turns(&self, request: &FinishTurnsRequest) -> Result<u32, Fault> {
        let is = request.turns.len();
        if is > check::TURNS {
            let bound = check::TURNS;
            return Err(Failure::invalid("turns", format!("turns has {is} entries; at most {bound} were expected")).into());
        }
        let turns = well_formed(&request.turns);
        if turns.is_empty() {
            return Ok(0);
        }
        let mut attempt = 1;
        loop {
            match self.try_finish(&turns).await {
                Err(fault) if fault.lost() && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_finish(&self, turns: &[(usize, &FinishedTurn)]) -> Result<u32, Fault> {
        let now = now_ms();
        let batch = self.database.batch();
        let mut session = self.database.write().await?;

        let mut log = log_rows(turns.iter().copied())?;
        let (mut over, mut giving_way, mut outside) = (HashSet::new(), HashSet::new(), HashSet::new());
        for row in session.rows(batch.known, Params::of_the_mesh([(&log).into()])).await? {
            let index = usize::try_from(row.int(0)?).unwrap_or_default();
            match row.int(1)? {
                1 => drop(over.insert(index)),
                2 => drop(giving_way.insert(index)),
                _ => drop(outside.insert(index)),
            }
        }
        if !giving_way.is_empty() {
            let better = log_rows(turns.iter().copied().filter(|(index, _)| giving_way.contains(index)))?;
            session.run(batch.unlog, Params::of_the_mesh([(&better).into()])).await?;
            session.run(batch.reopen, Params::of_the_mesh([(&better).into()])).await?;
            outside.extend(giving_way); // with a conversation or without
        }
        let fresh = || turns.iter().copied().filter(|(index, _)| !over.contains(index));
        if !over.is_empty() {
            log = log_rows(fresh())?;
        }
        let closed = session.run(batch.log, Params::of_the_mesh([(&log).into(), now.into()])).await?;

        let answers: Vec<_> = fresh()
            .filter(|(index, turn)| !turn.conversation_id.is_empty() || outside.contains(index))
            .collect();
        if !answers.is_empty() {
            close_answers(&mut *session, batch, &answers, now).await?;
            keep_journals(&mut *session, &answers).await?;
        }
        session.commit().await?;
        Ok(u32::try_from(closed).unwrap_or(u32::MAX))
    }
}

/// Closes the answers of turns that were opened, and gives those that were not (the store was away) a place in their conversation.
async fn close_answers(session: &mut dyn Session, batch: &Batch, turns: &[(usize, &FinishedTurn)], now: i64) -> Result<(), Fault> {
    let rows = answer_rows(turns.iter().copied())?;
    session.run(batch.touch, Params::of_the_mesh([(&rows).into(), now.into()])).await?;
    let closed = session.run(batch.close, Params::of_the_mesh([(&rows).into(), now.into()])).await?;
    session.run(batch.drop_entries, Params::of_the_mesh([(&rows).into()])).await?;
    if usize::try_from(closed).is_ok_and(|closed| closed == turns.len()) {
        return Ok(());
    }
    let mut opened = HashSet::new();
    for row in session.rows(batch.unopened, Params::of_the_mesh([(&rows).into()])).await? {
        let index = usize::try_from(row.int(0)?).unwrap_or_default();
        let Some((_, finished)) = turns.iter().find(|(other, _)| *other == index) else {
            continue;
        };
        let scope = Scope::of(finished.principal.as_ref());
        let turn = Turn {
            conversation: &finished.conversation_id,
            stream_id: &finished.stream_id,
            model: "",
            messages: &[],
            now,
            lease_until: now, // it is closed in a moment
        };
        turns::open(session, &scope, turn).await?;
        opened.insert(index);
    }
    if !opened.is_empty() {
        let rows = answer_rows(turns.iter().copied().filter(|(index, _)| opened.contains(index)))?;
        session.run(batch.close, Params::of_the_mesh([(&rows).into(), now.into()])).await?;
    }
    Ok(())
}

/// Keeps all entries of the answers that are to be kept, in place of those that were saved while they ran.
async fn keep_journals(session: &mut dyn Session, turns: &[(usize, &FinishedTurn)]) -> Result<(), Fault> {
    for (_, turn) in turns.iter().filter(|(_, turn)| !turn.journal.is_empty()) {
        let scope = Scope::of(turn.principal.as_ref());
        session
            .run(
                "INSERT INTO answer_entries (tenant_id, user_id, stream_id, position, entries)
                SELECT tenant_id, user_id, stream_id, 0, $5 FROM answers
                WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3 AND state <> 'running' AND epoch = $4
                ON CONFLICT DO NOTHING",
                scope.params([(&turn.stream_id).into(), turn.epoch.max(1).into(), turn.journal.as_slice().into()]),
            )
            .await?;
    }
    Ok(())
}

/// The turns that can be stored, each answer once, with their numbers in the request. What is wrong with the others is logged.
///
/// A router that learns of a later epoch just after an answer's end tells of that end again: both may come in one batch, and the later
/// epoch is the one that counts.
fn well_formed(turns: &[FinishedTurn]) -> Vec<(usize, &FinishedTurn)> {
    let mut places = HashMap::with_capacity(turns.len());
    let mut kept: Vec<(usize, &FinishedTurn)> = Vec::with_capacity(turns.len());
    for (index, turn) in turns.iter().enumerate() {
        if let Err(failure) = check_turn(turn) {
            tracing::error!(%failure, turn = index, "a finished turn cannot be stored and is left out");
            continue;
        }
        let (tenant, user) = principal(turn);
        match places.entry((tenant, user, &turn.stream_id)) {
            Entry::Vacant(free) => {
                free.insert(kept.len());
                kept.push((index, turn));
            }
            Entry::Occupied(taken) => {
                let first = &mut kept[*taken.get()];
                if rank(turn) > rank(first.1) {
                    *first = (index, turn);
                }
            }
        }
    }
    kept
}

/// Which of two ends of one answer counts: that of the later epoch, and in one epoch a whole answer rather than a failure, and one that began
/// rather than one that did not.
fn rank(turn: &FinishedTurn) -> (u32, bool, bool) {
    let took = turn
        .usage
        .is_some_and(|usage| usage.prompt_tokens > 0 || usage.completion_tokens > 0);
    (turn.epoch.max(1), turn.state == "finished", took)
}

fn check_turn(turn: &FinishedTurn) -> Result<(), Failure> {
    check::principal(turn.principal.as_ref())?;
    check::name("turns.stream_id", &turn.stream_id)?;
    check::text("turns.conversation_id", &turn.conversation_id)?;
    if turn.state == REFUSED && turn.conversation_id.is_empty() {
        return Ok(()); // nothing of it is stored but its line in the log
    }
    check::ended("turns.state", &turn.state)
}

fn principal(turn: &FinishedTurn) -> (&str, &str) {
    turn.principal.as_ref().map_or(("", ""), |who| (&who.tenant, &who.user_id))
}

fn log_rows<'a>(turns: impl Iterator<Item = (usize, &'a FinishedTurn)>) -> Result<String, Fault> {
    let rows = turns.map(|(i, turn)| {
        let (tenant_id, user_id) = principal(turn);
        let usage = turn.usage.unwrap_or_default();
        LogRow {
            i,
            tenant_id,
            user_id,
            stream_id: &turn.stream_id,
            request_id: check::logged(&turn.request_id),
            conversation_id: &turn.conversation_id,
            model: check::logged(&turn.model),
            state: &turn.state,
            finish_reason: check::clipped(&turn.finish_reason),
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            cached_tokens: usage.cached_tokens,
            started_ms: turn.started_ms,
            ttft_ms: turn.ttft_ms,
            duration_ms: turn.duration_ms,
            worker: check::clipped(&turn.worker),
            epoch: turn.epoch.max(1),
            door: check::clipped(&turn.door),
            key_id: check::clipped(&turn.key_id),
            status: turn.status,
        }
    });
    to_json(&rows.collect::<Vec<_>>())
}

fn answer_rows<'a>(turns: impl Iterator<Item = (usize, &'a FinishedTurn)>) -> Result<String, Fault> {
    let silent = Message::default();
    let rows = turns.map(|(i, turn)| {
        let (tenant_id, user_id) = principal(turn);
        let usage = turn.usage.unwrap_or_default();
        let message = turn.message.as_ref().unwrap_or(&silent);
        Ok(AnswerRow {
            i,
            tenant_id,
            user_id,
            stream_id: &turn.stream_id,
            conversation_id: &turn.conversation_id,
            model: check::clipped(&turn.model),
            state: &turn.state,
            epoch: turn.epoch.max(1),
            said: turn.message.is_some().into(),
            text: check::storable(&message.text),
            reasoning: check::storable(&message.reasoning),
            tool_calls: calls_to_text(&message.tool_calls)?,
            finish_reason: check::clipped(&turn.finish_reason),
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            cached_tokens: usage.cached_tokens,
        })
    });
    to_json(&rows.collect::<Result<Vec<_>, Fault>>()?)
}

fn to_json(rows: &impl Serialize) -> Result<String, Fault> {
    serde_json::to_string(rows).map_err(|error| Fault::Unreadable(error.to_string()))
}
