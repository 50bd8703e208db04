//! Responses in the store: what was asked, in a document of this door's own, beside the answer. Here they are opened, found, read as far as
//! they have come, and deleted; [`super::history`] reads what came before.
//!
//! The store knows an ended answer with all its entries; a running one is read where it runs, at any router. In between there is a moment
//! (it has ended, and its turn is on the way to the store), which is why a look at a running answer waits a little for its end.

mod retold;

use std::time::Duration;

use http::StatusCode;
use proto::v1::{
    ChatRequest, DeleteRecordRequest, Entry, Failure, GetRecordRequest, OpenRecordRequest, Principal, Reason, Record, StoredAnswer,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    output::Output,
    resource::{Outline, Standing},
};
use crate::{
    app::App,
    door::conversations,
    failure::Refusal,
    turn::{self, Place},
};

/// How long the store may take when an answer waits for it.
const STORE: Duration = Duration::from_secs(2);
/// How long a look at a running answer may take. It sees all that is there, and the end if that is near.
const LOOK: Duration = Duration::from_millis(150);
/// How long an answer may be unknown to store and routers before it counts as lost: its router asks the store to open its turn first.
const UNKNOWN_MS: i64 = 30_000;

/// What this door keeps of a request.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Document {
    pub(super) outline: Outline,
    /// The items, as they are shown.
    pub(super) input: Vec<Value>,
}

/// A response that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) document: Document,
    pub(super) answer: Option<StoredAnswer>,
    created_ms: i64,
}

/// The name of the answer that a response's id stands for.
///
/// # Errors
/// It is none.
pub(super) fn stream_id(id: &str) -> Result<&str, Refusal> {
    id.strip_prefix("resp_")
        .filter(|stream_id| crate::event_id::is_stream_id(stream_id))
        .ok_or_else(|| unknown(id))
}

/// There is no such response, or it is somebody else's.
pub(super) fn unknown(id: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("there is no response with the id {id:?}"),
    )
}

/// Opens the record of the answer that `request` is about to ask for. Says whether it was not open yet.
///
/// # Errors
/// The store cannot be reached, or the name was used for something else.
pub(super) async fn open(app: &App, request: &ChatRequest, previous: &str, document: &Document) -> Result<bool, Failure> {
    let record = Record {
        stream_id: request.stream_id.clone(),
        previous_id: previous.to_owned(),
        conversation_id: request.conversation_id.clone(),
        document: serde_json::to_vec(document).map_err(|error| Failure::new(Reason::Internal, error.to_string()))?,
        fingerprint: request.fingerprint.clone(),
        ..Record::default()
    };
    let open = OpenRecordRequest {
        principal: request.principal.clone(),
        record: Some(record),
        model: request.model.clone(),
    };
    let away = |_| Failure::new(Reason::StoreUnavailable, "the conversation store does not answer in time");
    let mut store = app.clients().store();
    let opened = timeout(STORE, store.open_record(open)).await.map_err(away)?;
    opened
        .map(|response| response.into_inner().opened)
        .map_err(|status| conversations::failure(&status))
}

/// Finds a response.
///
/// # Errors
/// There is none of that name, or the store cannot be reached.
pub(super) async fn find(app: &App, principal: &Principal, stream_id: &str) -> Result<Kept, Refusal> {
    let request = GetRecordRequest {
        principal: Some(principal.clone()),
        stream_id: stream_id.to_owned(),
    };
    let record = app
        .clients()
        .store()
        .get_record(request)
        .await
        .map_err(|status| refusal(&status, stream_id))?;
    Kept::of(record.into_inner())
}

/// Deletes a response.
///
/// # Errors
/// There is none of that name, or the store cannot be reached.
pub(super) async fn delete(app: &App, principal: &Principal, stream_id: &str) -> Result<(), Refusal> {
    let request = DeleteRecordRequest {
        principal: Some(principal.clone()),
        stream_id: stream_id.to_owned(),
    };
    let deleted = app.clients().store().delete_record(request).await;
    deleted.map(|_| ()).map_err(|status| refusal(&status, stream_id))
}

/// What the store has said, in the words of who asked for a response.
pub(super) fn refusal(status: &tonic::Status, stream_id: &str) -> Refusal {
    let failure = conversations::failure(status);
    if failure.reason() == Reason::NotFound {
        return unknown(&super::id(stream_id));
    }
    failure.into()
}

impl Kept {
    /// A record of the store.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn of(record: Record) -> Result<Self, Refusal> {
        let mut document: Document = serde_json::from_slice(&record.document)
            .map_err(|error| Failure::new(Reason::Internal, format!("the record of {}: {error}", record.stream_id)))?;
        if let Some(answer) = record.answer.as_ref().filter(|answer| answer.state != "running") {
            document.outline.model.clone_from(&answer.model);
        }
        Ok(Self {
            document,
            answer: record.answer,
            created_ms: record.created_ms,
        })
    }

    /// All entries of an answer that has ended, as the store knows it.
    pub(super) fn entries(&self) -> Option<Vec<Entry>> {
        let answer = self.answer.as_ref().filter(|answer| answer.state != "running")?;
        if answer.entries.last().is_some_and(Entry::is_terminal) {
            return Some(answer.entries.clone());
        }
        Some(retold::entries(answer))
    }

    /// How it stands now, and what has been said. Looks where it runs, if it does.
    pub(super) async fn look(&mut self, app: &App, principal: &Principal) -> Result<(Standing, Output), Refusal> {
        if let Some(entries) = self.entries() {
            return Ok((Standing::Ended, self.output(&entries)));
        }
        let answer = self.answer.clone().unwrap_or_default();
        let mut entries = answer.entries;
        let seen = timeout(LOOK, self.follow(app, principal, &mut entries)).await;
        let lost = match seen {
            Ok(Err(failure)) => failure,
            _ if entries.last().is_some_and(Entry::is_terminal) => return Ok((Standing::Ended, self.output(&entries))),
            _ if entries.is_empty() => return Ok((Standing::Queued, self.output(&entries))),
            _ => return Ok((Standing::Running, self.output(&entries))),
        };
        // It may have ended meanwhile; or nobody has it.
        *self = find(app, principal, &self.document.outline.stream_id).await?;
        match (self.entries(), lost.reason()) {
            (Some(entries), _) => Ok((Standing::Ended, self.output(&entries))),
            (None, Reason::NotFound | Reason::Interrupted | Reason::Expired) if self.is_lost() => {
                Ok((Standing::Ended, self.output(&[interrupted()])))
            }
            (None, _) => Ok((Standing::Running, self.output(&entries))),
        }
    }

    /// Reads on after these entries, to the end.
    async fn follow(&mut self, app: &App, principal: &Principal, entries: &mut Vec<Entry>) -> Result<(), Failure> {
        let place = Place {
            stream_id: self.document.outline.stream_id.clone(),
            principal: Some(principal.clone()),
            next: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        };
        let Some(mut answer) = turn::attach(app.clients(), place, LOOK).await? else {
            return Ok(());
        };
        self.document.outline.model.clone_from(&answer.head().model);
        let mut batch = Vec::new();
        while answer.read(&mut batch).await.is_some() {
            if answer.is_lost() {
                return Ok(()); // where it runs now is not known yet
            }
            entries.append(&mut batch);
        }
        Ok(())
    }

    /// Whether it was asked for so long ago that somebody would know of it if it ran.
    pub(super) fn is_lost(&self) -> bool {
        self.answer.is_none() && super::now_ms() > self.created_ms.saturating_add(UNKNOWN_MS)
    }

    fn output(&self, entries: &[Entry]) -> Output {
        Output::of(&self.document.outline.stream_id, entries)
    }
}

/// The end of an answer that nobody has any more.
pub(super) fn interrupted() -> Entry {
    Entry::failed(Failure::new(
        Reason::Interrupted,
        "the answer was lost before anything of it was saved",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_be_a_response_is_looked_for() {
        assert_eq!(stream_id("resp_abc").unwrap(), "abc");
        for wrong in ["abc", "resp_", "resp_a b", "resp_\u{e9}"] {
            assert_eq!(stream_id(wrong).unwrap_err().status(), StatusCode::NOT_FOUND, "{wrong}");
        }
    }
}
