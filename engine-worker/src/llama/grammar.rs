//! The shape that an answer's text must have, as llama.cpp's grammar sampler holds it: compiled from GBNF or a JSON schema, and asked
//! token by token.
//!
//! The sampler throws or aborts on what it did not expect, so everything is asked before it is told: [`Grammar::accept`] takes only a
//! token that [`Grammar::allows`]. [`super::schema`] keeps away from the converter what it does not survive, [`super::watch`] bounds the
//! time that compiling takes.

use std::sync::Arc;

use llama_cpp_2::{
    json_schema_to_grammar,
    sampling::LlamaSampler,
    token::{data::LlamaTokenData, data_array::LlamaTokenDataArray},
};
use proto::v1::Failure;

use super::{
    Loaded, schema,
    tokens::{Vocabulary, native},
};

/// The longest schema or grammar in bytes, as `chat.proto` says.
const MAX_SOURCE: usize = 64 * 1024;
/// The longest grammar that schemas may become, in bytes: llama.cpp's parser takes about a microsecond a byte.
const MAX_GRAMMAR: usize = 512 * 1024;
/// The sum of all repetition counts in a grammar: each is unrolled in memory.
const MAX_REPEATS: u64 = 20_000;

/// Where an answer stands in its grammar. A clone goes its own way.
#[derive(Clone, Debug)]
pub(super) struct Grammar {
    sampler: LlamaSampler,
    vocabulary: Arc<Vocabulary>,
}

impl Grammar {
    /// A grammar in GBNF at its start, the rule `root`.
    ///
    /// # Errors
    /// It is none, or larger than the bounds; `field` is named.
    pub(super) fn compile(loaded: &Loaded, field: &str, source: &str) -> Result<Self, Failure> {
        bound(field, source.len(), MAX_GRAMMAR)?;
        let repeats = repeats(source);
        if repeats > MAX_REPEATS {
            return Err(Failure::invalid(
                field,
                format!("it repeats {repeats} times in all, and at most {MAX_REPEATS} are taken"),
            ));
        }
        let sampler = LlamaSampler::grammar(&loaded.model, source, "root").map_err(|error| {
            Failure::invalid(
                field,
                format!("this is no grammar in GBNF with a rule `root` and no left recursion: {error}"),
            )
        })?;
        Ok(Self {
            sampler,
            vocabulary: Arc::clone(&loaded.vocabulary),
        })
    }

    /// Which of these tokens may come next.
    pub(super) fn allows(&mut self, ids: &[u32]) -> Vec<bool> {
        let known = |id: u32| (id as usize) < self.vocabulary.len();
        let data = ids
            .iter()
            .filter(|id| known(**id))
            .map(|&id| LlamaTokenData::new(native(id), 0.0, 0.0))
            .collect();
        let mut asked = LlamaTokenDataArray::new(data, false);
        asked.apply_sampler(&mut self.sampler);
        let mut answers = asked.data.iter().map(|one| one.logit() > f32::NEG_INFINITY);
        ids.iter().map(|&id| known(id) && answers.next() == Some(true)).collect()
    }

    /// Goes on by a token, if it may come next and ends nothing. Says whether it did.
    pub(super) fn accept(&mut self, id: u32) -> bool {
        self.allows(&[id]) == [true] && !self.vocabulary.is_eog(id) && self.sampler.try_accept(native(id)).is_ok()
    }

    /// Goes on by a text that came within a token, if it may. Says whether it did.
    pub(super) fn accept_text(&mut self, text: &str) -> bool {
        let vocabulary = Arc::clone(&self.vocabulary);
        text.bytes().all(|byte| vocabulary.single(byte).is_some_and(|id| self.accept(id)))
    }
}

/// A grammar that a user wrote, within its bounds.
///
/// # Errors
/// It is too long.
pub(super) fn written<'a>(field: &str, grammar: &'a str) -> Result<&'a str, Failure> {
    bound(field, grammar.len(), MAX_SOURCE)?;
    Ok(grammar)
}

/// A JSON schema as a grammar in GBNF.
///
/// # Errors
/// It is none, or larger than the bounds; `field` is named.
pub(super) fn from_schema(field: &str, schema: &str) -> Result<String, Failure> {
    bound(field, schema.len(), MAX_SOURCE)?;
    schema::check(schema).map_err(|wrong| Failure::invalid(field, wrong))?;
    let grammar = json_schema_to_grammar(schema).map_err(|_| {
        Failure::invalid(
            field,
            "the schema asks for something that cannot be made into a grammar, or refers to what is not in it",
        )
    })?;
    bound(field, grammar.len(), MAX_GRAMMAR)?;
    Ok(grammar)
}

fn bound(field: &str, length: usize, most: usize) -> Result<(), Failure> {
    if length > most {
        return Err(Failure::invalid(
            field,
            format!("it takes {length} bytes, and at most {most} are taken"),
        ));
    }
    Ok(())
}

/// A text as a literal of a grammar.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A grammar whose rules bear this before their names, so that it can stand beside another.
pub(super) fn prefixed(grammar: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(grammar.len() * 2);
    let mut rest = grammar.chars().peekable();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    while let Some(c) = rest.next() {
        if c.is_ascii_alphabetic() {
            out.push_str(prefix);
        }
        out.push(c);
        let close = match c {
            '"' => '"',
            '[' => ']',
            '<' => '>',
            '#' => '\n',
            '{' => '}',
            _ => {
                while c.is_ascii_alphanumeric()
                    && let Some(next) = rest.next_if(|&c| is_name(c))
                {
                    out.push(next);
                }
                continue;
            }
        };
        while let Some(c) = rest.next() {
            out.push(c);
            if c == close {
                break;
            }
            if c == '\\' && c != close {
                out.extend(rest.next());
            }
        }
    }
    out
}

/// The sum of the counts in `{m}`, `{m,}` and `{m,n}`. Counts within literals are summed too, which errs on the safe side.
fn repeats(grammar: &str) -> u64 {
    grammar
        .split('{')
        .skip(1)
        .filter_map(|after| after.split_once('}'))
        .flat_map(|(counts, _)| counts.split(','))
        .filter_map(|count| count.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_summed() {
        assert_eq!(repeats("root ::= [a]{3} b{2,40} c{1,}"), 46);
        assert_eq!(repeats("root ::= \"{\" [0-9]+ \"}\""), 0);
        assert_eq!(repeats("{18446744073709551615}{2}"), u64::MAX);
    }

    #[test]
    fn bad_schemas_are_refused_with_their_field() {
        for schema in ["", "{", "[1]", "7", &format!("\"{}\"", "x".repeat(MAX_SOURCE))] {
            assert_eq!(from_schema("f", schema).unwrap_err().param, "f", "{schema:.20}");
        }
        assert!(from_schema("f", r#"{"type":"object"}"#).unwrap().contains("root ::="));
    }

    #[test]
    fn names_of_rules_are_prefixed_and_nothing_else() {
        let grammar = "root ::= a-b \"a \\\" b\" [a\\]b] (c | d)* e{1,20} # a b\na-b ::= <think> x\n";
        let expected = "p-root ::= p-a-b \"a \\\" b\" [a\\]b] (p-c | p-d)* p-e{1,20} # a b\np-a-b ::= <think> p-x\n";
        assert_eq!(prefixed(grammar, "p-"), expected);
    }

    #[test]
    fn a_literal_says_what_it_stands_for() {
        assert_eq!(literal("a\"b\\c\nd"), r#""a\"b\\c\nd""#);
    }
}
