//! Answers that can begin, and how they are given to the scheduler.

use std::sync::mpsc::{SyncSender, TrySendError};

use futures_util::future::BoxFuture;
use journal::{Journal, Limits};
use proto::v1::{Failure, Reason, entry::Event};
use tokio_util::sync::CancellationToken;

use super::{
    request::Work,
    scheduler::{Command, Start},
};
use crate::{answer::Answer, engine::Prepared};

/// Why the scheduler did not take a command.
pub(super) fn refusal(error: &TrySendError<Command>) -> Failure {
    match error {
        TrySendError::Full(_) => Failure::new(Reason::QueueFull, "the engine has too much to do"),
        TrySendError::Disconnected(_) => Failure::new(Reason::Unavailable, "the engine has stopped"),
    }
}

fn start(commands: &SyncSender<Command>, work: Work, answer: Answer) {
    if let Err(error) = commands.try_send(Command::Start(Box::new(Start { work, answer }))) {
        let failure = refusal(&error);
        if let TrySendError::Full(Command::Start(start)) | TrySendError::Disconnected(Command::Start(start)) = error {
            start.answer.fail(failure);
        }
    }
}

/// An answer that can begin.
pub(super) struct Ready {
    pub(super) work: Work,
    pub(super) model: String,
    pub(super) commands: SyncSender<Command>,
}

impl Prepared for Ready {
    fn model(&self) -> String {
        self.model.clone()
    }

    fn prompt_tokens(&self) -> u32 {
        u32::try_from(self.work.prompt.len()).unwrap_or(u32::MAX)
    }

    fn seats(&self) -> u32 {
        u32::try_from(self.work.choices.len()).unwrap_or(u32::MAX)
    }

    fn begin(self: Box<Self>, answer: Answer) {
        start(&self.commands, self.work, answer);
    }

    fn warm(self: Box<Self>) -> BoxFuture<'static, Result<(), Failure>> {
        let work = Work { warms: true, ..self.work };
        let commands = self.commands;
        Box::pin(async move {
            let journal = Journal::new(Limits::default());
            let writer = journal
                .claim(1)
                .map_err(|error| Failure::new(Reason::Internal, format!("an empty journal refused its writer: {error}")))?;
            let mut reader = journal.reader(0);
            let cancel = CancellationToken::new();
            let _cancels = cancel.clone().drop_guard(); // nobody waits any more
            start(&commands, work, Answer::new(writer, cancel, 0, &[], None));
            let ended = reader.read(1).await.and_then(|mut entries| entries.pop());
            match ended.and_then(|entry| entry.event) {
                Some(Event::Failed(failure)) => Err(*failure),
                _ => Ok(()),
            }
        })
    }
}
