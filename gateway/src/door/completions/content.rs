//! Values that OpenAI's API takes in more than one form: a text or a list of it, a word or an object. Written out as visitors, so
//! that an error names the field inside them, which serde's untagged enums cannot. (`serde(untagged)` is for the document only.)

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer},
};
use utoipa::ToSchema;

/// A text, or a list.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub(crate) enum TextOr<T> {
    Text(String),
    List(Vec<T>),
}

impl TextOr<String> {
    /// All texts.
    pub(crate) fn to_list(&self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text.clone()],
            Self::List(list) => list.clone(),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(TextOr::List)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// A word, or an object.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub(crate) enum WordOr<T> {
    Word(String),
    Object(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = WordOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(WordOr::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(WordOr::Object)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// A text, a text as the ids of its tokens, or one of such ids.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string, a number, or an array of numbers")]
pub(crate) enum Piece {
    Token(u32),
    Text(String),
    Tokens(Vec<u32>),
}
