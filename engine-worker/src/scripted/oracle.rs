//! What the script says: token `i` of a choice as a pure function. Tests and checkers anywhere may call it to know what an answer
//! must have been; the engine itself says nothing else.
//!
//! Without a directive, a token is a word that hangs on the seed, the conversation, the choice and its index. With
//! `[[script id=r1 …]]` it is `r1.0 `, `r1.1 `, … (choice `c` past the first: `r1/c.0 `), so that a lost, doubled, reordered or
//! misrouted token shows in the text alone.

use compact_str::{CompactString, ToCompactString as _};
use proto::v1::Message;

/// The words that an answer without a directive is made of.
const WORDS: [&str; 32] = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch", "marsh", "north", "ocean",
    "pearl", "quill", "ridge", "slate", "thorn", "umber", "vale", "willow", "yarrow", "zephyr", "birch", "cliff", "dune", "fern", "glade",
    "harbor", "island",
];

/// What one answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oracle {
    /// Words that hang on this key.
    Words(u64),
    /// `name.i `.
    Named(CompactString),
}

impl Oracle {
    /// What is said to this conversation with this seed, without a directive. A `prompt` counts as a last message of the user.
    pub fn words(seed: u64, messages: &[Message]) -> Self {
        let spoken = messages.iter().flat_map(|message| [message.text.as_bytes(), &[0xff]]);
        Self::Words(mix(seed ^ hash(spoken)))
    }

    /// What is said under the directive `id=name`.
    pub fn named(name: impl AsRef<str>) -> Self {
        Self::Named(CompactString::new(name))
    }

    /// The id of a token: of 32 bits, so that a wrong prefix is recognised.
    pub fn id(&self, choice: u32, index: u32) -> u32 {
        let key = match self {
            Self::Words(key) => *key,
            Self::Named(name) => hash([name.as_bytes()]),
        };
        (mix(key ^ (u64::from(choice) << 32 | u64::from(index))) >> 32) as u32
    }

    /// The text of a token.
    pub fn text(&self, choice: u32, index: u32) -> CompactString {
        let mut text = match self {
            Self::Words(_) => CompactString::const_new(WORDS[self.id(choice, index) as usize % WORDS.len()]),
            Self::Named(name) => {
                let mut text = name.clone();
                if choice > 0 {
                    text.push('/');
                    text.push_str(&choice.to_compact_string());
                }
                text.push('.');
                text.push_str(&index.to_compact_string());
                text
            }
        };
        text.push(' ');
        text
    }

    /// The text of the first `tokens` tokens.
    pub fn whole(&self, choice: u32, tokens: u32) -> String {
        (0..tokens).map(|index| self.text(choice, index)).collect()
    }
}

/// FNV-1a (<https://www.rfc-editor.org/rfc/rfc9923>).
pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finaliser of splitmix64 (<https://prng.di.unimi.it/splitmix64.c>): every bit hangs on every other.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn said(text: &str) -> Vec<Message> {
        vec![Message {
            text: text.to_owned(),
            ..Message::default()
        }]
    }

    #[test]
    fn a_token_hangs_on_seed_conversation_choice_and_index_and_on_nothing_else() {
        let oracle = Oracle::words(7, &said("hello"));
        assert_eq!(oracle, Oracle::words(7, &said("hello")));
        let ids: HashSet<u32> = [
            oracle.id(0, 0),
            oracle.id(0, 1),
            oracle.id(1, 0),
            Oracle::words(8, &said("hello")).id(0, 0),
            Oracle::words(7, &said("hello!")).id(0, 0),
        ]
        .into();
        assert_eq!(ids.len(), 5);
    }

    #[test]
    fn the_words_never_change_because_checkers_elsewhere_know_them() {
        assert_eq!(Oracle::words(1, &said("hi")).whole(0, 4), "larch inlet ocean ridge ");
    }

    #[test]
    fn a_named_script_counts() {
        assert_eq!(Oracle::named("r1").whole(0, 3), "r1.0 r1.1 r1.2 ");
        assert_eq!(Oracle::named("r1").text(2, 9), "r1/2.9 ");
    }
}
