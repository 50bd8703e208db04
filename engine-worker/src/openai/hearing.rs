//! Bytes of a server's stream in, entries of a journal out: cut into events, and understood in the server's dialect. Pure, and the same
//! however the bytes are cut into reads.

use proto::v1::{ChoiceEnd, Entry, Failure, Reason};

use super::{
    dialect::{Dialect, Interpreter},
    events::Events,
    told::Told,
};

/// One stream.
pub(super) struct Hearing {
    events: Events,
    interpreter: Box<dyn Interpreter>,
    /// What it has told so far.
    pub(super) told: Told,
}

impl Hearing {
    /// A stream of an answer of so many choices.
    pub(super) fn new(dialect: Dialect, choices: u32) -> Self {
        Self {
            events: Events::default(),
            interpreter: dialect.interpreter(),
            told: Told::new(choices),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The server says that it failed, or what it says makes no sense. What it told before that stands.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let (interpreter, told) = (&mut self.interpreter, &mut self.told);
        let mut outcome = Ok(());
        let fed = self.events.feed(piece, |data| {
            // What follows the end is not heard. Some servers keep a silent connection alive with events that are empty.
            if outcome.is_ok() && !told.done && !data.trim_ascii().is_empty() {
                outcome = interpreter.take(&data, told);
            }
        });
        outcome?;
        fed.map_err(|_| Failure::new(Reason::Upstream, "the server behind this worker sent an event without an end"))
    }
}

/// What a whole stream says: its entries, and how its choices end. For who has the bytes of one, as the fuzzing does.
pub fn understand<'a>(
    dialect: Dialect,
    choices: u32,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Entry>, Result<Vec<ChoiceEnd>, Failure>) {
    let mut hearing = Hearing::new(dialect, choices);
    let heard = pieces.into_iter().try_for_each(|piece| hearing.feed(piece));
    let ends = heard.and_then(|()| hearing.told.ends());
    (hearing.told.entries, ends)
}

#[cfg(test)]
mod tests;
