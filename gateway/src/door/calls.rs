//! Calls of functions, one after the other. A server may write several at the same time, piece by piece; the streams of Anthropic's Messages and
//! of the Responses API tell of each as of a thing that is opened, filled and closed. Pure, and a function of the pieces alone, so that a
//! stream that is read again is the same.

use proto::v1::ToolCallDelta;
use serde::de::IgnoredAny;

/// Puts pieces of calls into an order in which those of each call follow each other.
#[derive(Debug, Default)]
pub(crate) struct InTurn {
    open: Option<Open>,
    /// Calls that began while another one was written, as far as they are known.
    held: Vec<ToolCallDelta>,
    /// Calls whose turn is over.
    over: Vec<u32>,
}

/// The call whose turn it is.
#[derive(Debug)]
struct Open {
    index: u32,
    arguments: String,
}

impl Open {
    /// Whether its arguments are whole: then it is over as soon as another one begins.
    fn is_whole(&self) -> bool {
        serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok()
    }
}

impl InTurn {
    /// Whether this call's turn is over: what still comes of it can be told no more.
    pub(crate) fn is_over(&self, call: u32) -> bool {
        self.over.contains(&call)
    }

    /// Takes the next piece, and tells `say` those whose turn it is. A piece of a call whose turn is over is not told any more.
    pub(crate) fn take(&mut self, piece: &ToolCallDelta, mut say: impl FnMut(&ToolCallDelta)) {
        if self.is_over(piece.index) {
            return;
        }
        match &mut self.open {
            Some(open) if open.index == piece.index => {
                open.arguments.push_str(&piece.arguments);
                say(piece);
            }
            _ => match self.held.iter_mut().find(|held| held.index == piece.index) {
                Some(held) => held.arguments.push_str(&piece.arguments),
                None => self.held.push(piece.clone()),
            },
        }
        while !self.held.is_empty() && self.open.as_ref().is_none_or(Open::is_whole) {
            self.next(&mut say);
        }
    }

    /// Whether no call is open or held.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_none() && self.held.is_empty()
    }

    /// Something else comes than calls, or nothing: tells all that was held.
    pub(crate) fn flush(&mut self, mut say: impl FnMut(&ToolCallDelta)) {
        while !self.held.is_empty() {
            self.next(&mut say);
        }
        self.over.extend(self.open.take().map(|open| open.index));
    }

    fn next(&mut self, say: &mut impl FnMut(&ToolCallDelta)) {
        let call = self.held.remove(0);
        say(&call);
        let open = Open {
            index: call.index,
            arguments: call.arguments,
        };
        self.over.extend(self.open.replace(open).map(|open| open.index));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(index: u32, name: &str, arguments: &str) -> ToolCallDelta {
        ToolCallDelta {
            index,
            id: name.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }
    }

    fn told(pieces: &[ToolCallDelta]) -> Vec<ToolCallDelta> {
        let (mut turn, mut told) = (InTurn::default(), Vec::new());
        for piece in pieces {
            turn.take(piece, |piece| told.push(piece.clone()));
        }
        turn.flush(|piece| told.push(piece.clone()));
        told
    }

    #[test]
    fn calls_that_follow_each_other_are_told_as_they_come() {
        let pieces = [
            piece(0, "a", ""),
            piece(0, "", "{\"x\":1}"),
            piece(1, "b", "{}"),
            piece(2, "c", "{"),
        ];
        let mut turn = InTurn::default();
        for piece in &pieces {
            let mut now = Vec::new();
            turn.take(piece, |piece| now.push(piece.clone()));
            assert_eq!(now, std::slice::from_ref(piece));
        }
    }

    #[test]
    fn a_call_waits_for_the_one_that_is_being_written() {
        let pieces = [piece(0, "a", "{\"x\""), piece(1, "b", "{"), piece(0, "", ":1}"), piece(1, "", "}")];
        assert_eq!(
            told(&pieces),
            [piece(0, "a", "{\"x\""), piece(0, "", ":1}"), piece(1, "b", "{"), piece(1, "", "}")]
        );
    }

    proptest! {
        #[test]
        fn every_call_is_told_whole_and_by_itself(order in prop::collection::vec(0_u32..4, 0..60)) {
            // Each call writes a list, a piece at a time; the last ones close what is open.
            let mut written = [0_usize; 4];
            let mut pieces = Vec::new();
            for call in order.into_iter().chain(0..4) {
                let at = &mut written[call as usize];
                pieces.push(match *at { 0 => piece(call, "f", "["), 1 => piece(call, "", "0"), _ => piece(call, "", ",0") });
                *at += 1;
            }
            pieces.extend((0..4).map(|call| piece(call, "", if written[call as usize] == 1 { "0]" } else { "]" })));
            let told = told(&pieces);
            let text = |pieces: &[ToolCallDelta], call: u32| {
                let of_call = pieces.iter().filter(|piece| piece.index == call);
                of_call.fold(String::new(), |text, piece| text + &piece.name + &piece.arguments)
            };
            for call in 0..4 {
                prop_assert_eq!(text(&told, call), text(&pieces, call));
            }
            let mut turns: Vec<u32> = told.iter().map(|piece| piece.index).collect();
            turns.dedup();
            prop_assert_eq!(turns.len(), 4, "each has one turn");
        }
    }
}
