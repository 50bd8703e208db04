//! The function calls of one choice, numbered as the journal wants them: from 0, dense, id and name in the first piece only. Pure.
//!
//! Servers number them otherwise: from 1, by the place among all parts of the answer, all as 0, or not at all; some repeat id and name with
//! every piece, and some give no id.

use proto::v1::ToolCallDelta;

/// The most function calls of one choice. Models make a handful; a server that makes this many has lost its way.
const CALLS: usize = 1024;

/// A piece of a call, as a server tells it.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The server's number for the call, if it gives one.
    pub(super) key: Option<u32>,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
}

/// There are more calls than [`CALLS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// The calls so far.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Known>);

#[derive(Debug)]
struct Known {
    key: Option<u32>,
    id: String,
    has_arguments: bool,
}

impl Calls {
    /// Finds the call that a piece belongs to, or begins one; `made_up` is its id if the server gives none. Nothing comes of a piece that
    /// says nothing new.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(super) fn take(&mut self, piece: Piece, made_up: impl FnOnce(usize) -> String) -> Result<Option<ToolCallDelta>, TooMany> {
        let has_arguments = !piece.arguments.is_empty();
        if let Some(index) = self.find(&piece) {
            self.0[index].has_arguments |= has_arguments;
            return Ok(has_arguments.then(|| ToolCallDelta {
                index: number(index),
                arguments: piece.arguments,
                ..ToolCallDelta::default()
            }));
        }
        let index = self.0.len();
        if index == CALLS {
            return Err(TooMany);
        }
        self.0.push(Known {
            key: piece.key,
            id: piece.id.clone(),
            has_arguments,
        });
        Ok(Some(ToolCallDelta {
            index: number(index),
            id: if piece.id.is_empty() { made_up(index) } else { piece.id },
            name: piece.name,
            arguments: piece.arguments,
        }))
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the call that the server numbers so has begun.
    pub(super) fn has(&self, key: u32) -> bool {
        self.0.iter().any(|known| known.key == Some(key))
    }

    /// Whether it has begun, and has no arguments yet.
    pub(super) fn is_bare(&self, key: u32) -> bool {
        let known = self.0.iter().rfind(|known| known.key == Some(key));
        known.is_some_and(|known| !known.has_arguments)
    }

    /// A number that comes again with another id is another call. Without a number, a piece goes on with the call of its id, or with the
    /// last if it says neither id nor name.
    fn find(&self, piece: &Piece) -> Option<usize> {
        let index = match piece.key {
            Some(_) => self.0.iter().rposition(|known| known.key == piece.key),
            None if !piece.id.is_empty() => self.0.iter().rposition(|known| known.id == piece.id),
            None if !piece.name.is_empty() => None,
            None => self.0.len().checked_sub(1),
        }?;
        let same = piece.id.is_empty() || self.0[index].id.is_empty() || self.0[index].id == piece.id;
        same.then_some(index)
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(key: Option<u32>, id: &str, name: &str, arguments: &str) -> Piece {
        Piece {
            key,
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }
    }

    /// What comes of pieces, as `index id name arguments`.
    fn told(pieces: Vec<Piece>) -> Vec<String> {
        let mut calls = Calls::default();
        let taken = pieces
            .into_iter()
            .filter_map(|piece| calls.take(piece, |index| format!("made{index}")).unwrap());
        taken
            .map(|call| format!("{} {} {} {}", call.index, call.id, call.name, call.arguments))
            .collect()
    }

    #[test]
    fn numbers_that_begin_at_one_begin_at_zero() {
        let pieces = vec![
            piece(Some(1), "a", "look", ""),
            piece(Some(1), "", "", "{}"),
            piece(Some(2), "b", "see", "{}"),
        ];
        assert_eq!(told(pieces), ["0 a look ", "0   {}", "1 b see {}"]);
    }

    #[test]
    fn calls_that_share_a_number_are_told_apart_by_their_ids() {
        let pieces = vec![piece(Some(0), "a", "look", "{}"), piece(Some(0), "b", "see", "{}")];
        assert_eq!(told(pieces), ["0 a look {}", "1 b see {}"]);
    }

    #[test]
    fn pieces_without_a_number_go_on_with_the_call_of_their_id_or_the_last() {
        let pieces = vec![
            piece(None, "a", "look", "{"),
            piece(None, "b", "see", "{"),
            piece(None, "a", "look", "}"),
            piece(None, "", "", "}"),
        ];
        assert_eq!(told(pieces), ["0 a look {", "1 b see {", "0   }", "1   }"]);
    }

    #[test]
    fn ids_and_names_that_are_repeated_are_told_once_and_missing_ids_are_made() {
        let pieces = vec![
            piece(Some(0), "a", "look", "{"),
            piece(Some(0), "a", "look", "}"),
            piece(Some(0), "a", "look", ""),
            piece(Some(1), "", "see", "{}"),
        ];
        assert_eq!(told(pieces), ["0 a look {", "0   }", "1 made1 see {}"]);
    }

    #[test]
    fn a_server_that_makes_calls_without_end_is_stopped() {
        let mut calls = Calls::default();
        let mut take = |key: usize| calls.take(piece(Some(number(key)), "", "f", ""), |_| String::new());
        for key in 0..CALLS {
            take(key).unwrap();
        }
        assert_eq!(take(CALLS), Err(TooMany));
    }
}
