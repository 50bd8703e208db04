//! How an [`Entry`] lies on the wire: as `chat.proto` says, and as prost writes it. Only what prost has no field type for is done here:
//! text and ids that lie in the entry.

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut},
    encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, merge_loop, message, string, uint32},
};

use super::{Entry, Event, TokenIds};

const TOKEN: u32 = 1;
const TOKEN_IDS: u32 = 2;
const TOKENS: u32 = 3;
const CHOICE: u32 = 4;
const LATENCY_MS: u32 = 5;
const LOGPROBS: u32 = 6;
const REASONING: u32 = 7;
const CANCELLED: u32 = 11;
const END: u32 = 12;

/// What is written in one piece: text and ids that lie in the entry.
const SMALL_TEXT: usize = 24;
const SMALL_IDS: usize = 4;
/// The most that it takes: two keys and lengths, and three numbers with their keys, each of which may be five bytes long.
const SMALL: usize = 2 + SMALL_TEXT + 2 + 5 * SMALL_IDS + 3 * (1 + 5);

impl Message for Entry {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.token.len() <= SMALL_TEXT && self.token_ids.len() <= SMALL_IDS {
            // A buffer looks for room whenever something is put into it: once for all of this.
            let mut room = [0; SMALL];
            let mut rest = &mut room[..];
            self.encode_common(&mut rest);
            let left = rest.len();
            buf.put_slice(&room[..SMALL - left]);
        } else {
            self.encode_common(buf);
        }
        message::encode_repeated(LOGPROBS, &self.logprobs, buf);
        if let Some(event) = &self.event {
            event.encode(buf);
        }
        if let Some(end) = &self.end {
            message::encode(END, end, buf);
        }
    }

    fn merge_field(&mut self, tag: u32, wire_type: WireType, buf: &mut impl Buf, context: DecodeContext) -> Result<(), DecodeError> {
        let (field, merged) = match tag {
            TOKEN => ("token", self.merge_token(wire_type, buf, context)),
            TOKEN_IDS => ("token_ids", merge_ids(wire_type, &mut self.token_ids, buf, context)),
            TOKENS => ("tokens", uint32::merge(wire_type, &mut self.tokens, buf, context)),
            CHOICE => ("choice", uint32::merge(wire_type, &mut self.choice, buf, context)),
            LATENCY_MS => ("latency_ms", uint32::merge(wire_type, &mut self.latency_ms, buf, context)),
            LOGPROBS => ("logprobs", message::merge_repeated(wire_type, &mut self.logprobs, buf, context)),
            REASONING..=CANCELLED => ("event", Event::merge(&mut self.event, tag, wire_type, buf, context)),
            END => ("end", message::merge(wire_type, self.end.get_or_insert_default(), buf, context)),
            _ => return prost::encoding::skip_field(wire_type, tag, buf, context),
        };
        merged.map_err(|mut error| {
            error.push("Entry", field);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let token = match self.token.len() {
            0 => 0,
            len => key_len(TOKEN) + encoded_len_varint(len as u64) + len,
        };
        let number = |(tag, number)| if number == 0 { 0 } else { uint32::encoded_len(tag, &number) };
        token
            + uint32::encoded_len_packed(TOKEN_IDS, &self.token_ids)
            + self.numbers().into_iter().map(number).sum::<usize>()
            + message::encoded_len_repeated(LOGPROBS, &self.logprobs)
            + self.event.as_ref().map_or(0, Event::encoded_len)
            + self.end.as_ref().map_or(0, |end| message::encoded_len(END, end))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Entry {
    /// Writes what most entries have.
    fn encode_common(&self, buf: &mut impl BufMut) {
        if !self.token.is_empty() {
            encode_key(TOKEN, WireType::LengthDelimited, buf);
            encode_varint(self.token.len() as u64, buf);
            buf.put_slice(self.token.as_bytes());
        }
        uint32::encode_packed(TOKEN_IDS, &self.token_ids, buf);
        for (tag, number) in self.numbers() {
            if number != 0 {
                uint32::encode(tag, &number, buf);
            }
        }
    }

    fn numbers(&self) -> [(u32, u32); 3] {
        [(TOKENS, self.tokens), (CHOICE, self.choice), (LATENCY_MS, self.latency_ms)]
    }

    fn merge_token(&mut self, wire_type: WireType, buf: &mut impl Buf, context: DecodeContext) -> Result<(), DecodeError> {
        // A length below 128 is one byte (<https://protobuf.dev/programming-guides/encoding/#varints>): a token's nearly always is.
        if wire_type == WireType::LengthDelimited
            && let [len @ 0..128, rest @ ..] = buf.chunk()
            && let Some(text) = rest.get(..usize::from(*len))
            && let Ok(text) = str::from_utf8(text)
        {
            self.token = text.into();
            buf.advance(1 + self.token.len());
            return Ok(());
        }
        let mut text = String::new();
        string::merge(wire_type, &mut text, buf, context)?;
        self.token = text.into();
        Ok(())
    }
}

/// Ids come packed into one field from us, and may come one by one from others.
fn merge_ids(wire_type: WireType, ids: &mut TokenIds, buf: &mut impl Buf, context: DecodeContext) -> Result<(), DecodeError> {
    let one = |wire_type, ids: &mut TokenIds, buf: &mut _, context| {
        let mut id = 0;
        uint32::merge(wire_type, &mut id, buf, context)?;
        ids.push(id);
        Ok(())
    };
    if wire_type != WireType::LengthDelimited {
        return one(wire_type, ids, buf, context);
    }
    merge_loop(ids, buf, context, |ids, buf, context| one(WireType::Varint, ids, buf, context))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use prost_reflect::{DescriptorPool, DynamicMessage, Value};

    use super::*;
    use crate::v1::{Cancelled, ChoiceEnd, Failure, Finished, TokenLogprob, ToolCallDelta, Usage};

    fn event() -> impl Strategy<Value = Event> {
        let call = |(index, arguments)| {
            Event::ToolCall(Box::new(ToolCallDelta {
                index,
                arguments,
                ..ToolCallDelta::default()
            }))
        };
        let usage = |completion_tokens| {
            Some(Usage {
                completion_tokens,
                ..Usage::default()
            })
        };
        prop_oneof![
            any::<String>().prop_map(Event::Reasoning),
            any::<(u32, String)>().prop_map(call),
            any::<u32>().prop_map(move |tokens| Event::Finished(Box::new(Finished {
                usage: usage(tokens),
                ..Finished::default()
            }))),
            any::<String>().prop_map(|message| Event::Failed(Box::new(Failure {
                message,
                ..Failure::default()
            }))),
            any::<u32>().prop_map(move |tokens| Event::Cancelled(Box::new(Cancelled { usage: usage(tokens) }))),
        ]
    }

    prop_compose! {
        fn entry()(
            token in any::<String>(),
            ids in vec(any::<u32>(), 0..9),
            (tokens, choice, latency_ms) in any::<(u32, u32, u32)>(),
            likely in vec(any::<(String, f32)>(), 0..3),
            event in option::of(event()),
            stop in option::of(any::<String>()),
        ) -> Entry {
            Entry {
                token: token.into(),
                token_ids: ids.into(),
                tokens,
                choice,
                latency_ms,
                logprobs: likely.into_iter().map(|(token, logprob)| TokenLogprob { token, logprob, ..TokenLogprob::default() }).collect(),
                event,
                end: stop.map(|stop| Box::new(ChoiceEnd { stop, ..ChoiceEnd::default() })),
            }
        }
    }

    /// An entry as a library that only knows `chat.proto` reads it.
    fn plain(bytes: &[u8]) -> Result<DynamicMessage, DecodeError> {
        let pool = DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        DynamicMessage::decode(pool.get_message_by_name("chat.v1.Entry").unwrap(), bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_written_is_what_the_contract_says_and_what_is_read(entry in entry()) {
            let bytes = entry.encode_to_vec();
            prop_assert_eq!(bytes.len(), entry.encoded_len());
            let plain = plain(&bytes).unwrap();
            prop_assert_eq!(plain.unknown_fields().count(), 0);
            prop_assert_eq!(plain.get_field_by_name("token").unwrap().into_owned(), Value::String(entry.token.to_string()));
            prop_assert_eq!(plain.get_field_by_name("latency_ms").unwrap().into_owned(), Value::U32(entry.latency_ms));
            prop_assert_eq!(plain.has_field_by_name("end"), entry.end.is_some());
            let again = plain.encode_to_vec();
            prop_assert_eq!(Entry::decode(&again[..]).unwrap(), entry.clone());
            // The same from a buffer of many pieces.
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            prop_assert_eq!(Entry::decode(head.chain(tail)).unwrap(), entry);
        }

        #[test]
        fn nothing_that_comes_does_harm(bytes in vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Entry::decode(&bytes[..]).is_ok(), plain(&bytes).is_ok());
        }
    }

    #[test]
    fn ids_may_come_one_by_one_and_fields_twice() {
        let bytes = [0x10, 7, 0x0a, 1, b'a', 0x12, 2, 8, 9, 0x0a, 1, b'b'];
        let entry = Entry::decode(&bytes[..]).unwrap();
        assert_eq!((&*entry.token, &entry.token_ids[..]), ("b", &[7, 8, 9][..]));
        let ids = [7, 8, 9].map(Value::U32).to_vec();
        assert_eq!(*plain(&bytes).unwrap().get_field_by_name("token_ids").unwrap(), Value::List(ids));
    }

    #[test]
    fn text_that_is_none_and_lengths_that_lie_are_named() {
        for wrong in [&[0x0a, 1, 0xff][..], &[0x0a, 9, b'a'], &[0x08, 1]] {
            assert!(Entry::decode(wrong).unwrap_err().to_string().contains("Entry.token"), "{wrong:?}");
        }
    }

    #[test]
    fn the_largest_small_entry_has_room() {
        let entry = Entry {
            token: "x".repeat(SMALL_TEXT).into(),
            token_ids: TokenIds::from_slice(&[u32::MAX; SMALL_IDS]),
            tokens: u32::MAX,
            choice: u32::MAX,
            latency_ms: u32::MAX,
            ..Entry::default()
        };
        assert_eq!(entry.encoded_len(), SMALL);
        assert_eq!(Entry::decode(&entry.encode_to_vec()[..]).unwrap(), entry);
    }

    #[test]
    fn a_token_lies_in_its_entry() {
        let entry = Entry::text("understanding", 4);
        assert_eq!(entry.weight(), size_of::<Entry>());
        assert!(size_of::<Entry>() <= 120, "{}", size_of::<Entry>());
    }
}
