//! Ids for the events of a stream that can be resumed ([`crate::event_id`]): each event that a door has written gets its line, and
//! those that the client has are left out. Doors know nothing of it.

use bytes::BytesMut;
use memchr::memmem;

use crate::json;

/// How an event ends. No event has it inside: what doors write is JSON on one line.
const END: &[u8] = b"\n\n";

/// Gives events their ids.
#[derive(Debug)]
pub(crate) struct Ids {
    /// The beginning of every id line.
    prefix: Box<[u8]>,
    /// What a door has written, without ids.
    pub(super) scratch: BytesMut,
    position: u32,
    /// How many events of this position there were.
    count: u32,
    /// How many events of this position the client has.
    had: u32,
}

impl Ids {
    /// For the answer of that name, whose reader begins at `position`, of which the client has `had` events.
    pub(crate) fn new(stream_id: &str, position: u32, had: u32) -> Self {
        Self {
            prefix: format!("id: {stream_id}.").into_bytes().into(),
            scratch: BytesMut::new(),
            position,
            count: 0,
            had,
        }
    }

    /// Moves the events from the scratch to `out`, with their ids. `whole` says that there are no more of this position.
    pub(super) fn write(&mut self, position: u32, whole: bool, out: &mut BytesMut) {
        if position != self.position {
            self.position = position;
            self.count = 0;
            self.had = 0;
        }
        let mut rest: &[u8] = &self.scratch;
        while let Some(end) = memmem::find(rest, END) {
            let (event, after) = rest.split_at(end + END.len());
            rest = after;
            self.count += 1;
            if self.count <= self.had {
                continue;
            }
            out.extend_from_slice(&self.prefix);
            json::number(out, position);
            if !(whole && rest.is_empty()) {
                out.extend_from_slice(b".");
                json::number(out, self.count);
            }
            out.extend_from_slice(b"\n");
            out.extend_from_slice(event);
        }
        self.scratch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client gets that has had this many events of position 0, where an opening of one event stands before two of an entry.
    fn from(had: u32) -> String {
        let (mut ids, mut out) = (Ids::new("s", 0, had), BytesMut::new());
        ids.scratch.extend_from_slice(b"data: open\n\n");
        ids.write(0, false, &mut out);
        ids.scratch.extend_from_slice(b"data: a\n\nevent: x\ndata: b\n\n");
        ids.write(0, true, &mut out);
        ids.write(1, true, &mut out);
        ids.scratch.extend_from_slice(b"data: c\n\n");
        ids.write(2, true, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_last_event_of_a_position_bears_it_and_the_others_their_number_too() {
        let whole = "id: s.0.1\ndata: open\n\nid: s.0.2\ndata: a\n\nid: s.0\nevent: x\ndata: b\n\nid: s.2\ndata: c\n\n";
        assert_eq!(from(0), whole);
        assert_eq!(from(1), whole[whole.find("id: s.0.2").unwrap()..]);
        assert_eq!(from(2), whole[whole.find("id: s.0\n").unwrap()..]);
    }
}
