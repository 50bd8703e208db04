//! The shape that an answer's text must have: JSON, a JSON schema, or a grammar.
//!
//! llama.cpp's grammar sampler holds the state. It throws or aborts on what it did not expect, so everything is asked before it
//! is told: [`Grammar::accept`] takes only a token that [`Grammar::allows`].

use std::sync::Arc;

use llama_cpp_2::{
    json_schema_to_grammar,
    model::LlamaModel,
    sampling::LlamaSampler,
    token::{data::LlamaTokenData, data_array::LlamaTokenDataArray},
};
use proto::v1::{Failure, ResponseFormat, response_format::Format};

use super::tokens::{Vocabulary, native};

/// The longest schema or grammar in bytes, as `chat.proto` says.
const MAX_SOURCE: usize = 64 * 1024;
/// The longest grammar that a schema may become, in bytes: llama.cpp's parser takes about a microsecond a byte.
const MAX_GRAMMAR: usize = 512 * 1024;
/// The deepest nesting of a schema: its converter recurses on the stack.
const MAX_DEPTH: usize = 64;
/// The sum of all repetition counts in a grammar: each is unrolled in memory.
const MAX_REPEATS: u64 = 20_000;

const FIELD: &str = "response_format";

/// Where an answer stands in its grammar. A clone goes its own way.
#[derive(Clone, Debug)]
pub(super) struct Grammar {
    sampler: LlamaSampler,
    vocabulary: Arc<Vocabulary>,
}

impl Grammar {
    /// The grammar that a request asks for, if any, at its start.
    ///
    /// # Errors
    /// It is none, or larger than the bounds.
    pub(super) fn compile(
        model: &LlamaModel,
        vocabulary: &Arc<Vocabulary>,
        format: Option<&ResponseFormat>,
    ) -> Result<Option<Self>, Failure> {
        let source = match format.and_then(|format| format.format.as_ref()) {
            None => return Ok(None),
            Some(Format::JsonObject(_)) => from_schema(r#"{"type":"object"}"#)?,
            Some(Format::JsonSchema(schema)) => from_schema(&schema.schema)?,
            Some(Format::Grammar(grammar)) => {
                bound(grammar.len(), MAX_SOURCE)?;
                grammar.clone()
            }
        };
        let repeats = repeats(&source);
        if repeats > MAX_REPEATS {
            return Err(Failure::invalid(
                FIELD,
                format!("it repeats {repeats} times in all, and at most {MAX_REPEATS} are taken"),
            ));
        }
        let sampler = LlamaSampler::grammar(model, &source, "root").map_err(|error| {
            Failure::invalid(
                FIELD,
                format!("this is no grammar in GBNF with a rule `root` and no left recursion: {error}"),
            )
        })?;
        Ok(Some(Self {
            sampler,
            vocabulary: Arc::clone(vocabulary),
        }))
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
}

fn bound(length: usize, most: usize) -> Result<(), Failure> {
    if length > most {
        return Err(Failure::invalid(
            FIELD,
            format!("it takes {length} bytes, and at most {most} are taken"),
        ));
    }
    Ok(())
}

fn from_schema(schema: &str) -> Result<String, Failure> {
    bound(schema.len(), MAX_SOURCE)?;
    let value: serde_json::Value =
        serde_json::from_str(schema).map_err(|error| Failure::invalid(FIELD, format!("the schema is no JSON: {error}")))?;
    if !(value.is_object() || value.is_boolean()) {
        return Err(Failure::invalid(FIELD, "a JSON schema is an object"));
    }
    let depth = depth(&value);
    if depth > MAX_DEPTH {
        return Err(Failure::invalid(
            FIELD,
            format!("the schema nests {depth} deep, and at most {MAX_DEPTH} are taken"),
        ));
    }
    let grammar = json_schema_to_grammar(schema).map_err(|_| {
        Failure::invalid(
            FIELD,
            "the schema asks for something that cannot be made into a grammar, or refers to what is not in it",
        )
    })?;
    bound(grammar.len(), MAX_GRAMMAR)?;
    Ok(grammar)
}

/// How deep a value nests. `serde_json` takes no deeper one than 128, so this cannot overflow the stack.
fn depth(value: &serde_json::Value) -> usize {
    1 + match value {
        serde_json::Value::Array(items) => items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(fields) => fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
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
        let deep = format!("{}{}", r#"{"items":"#.repeat(100), "1".to_owned() + &"}".repeat(100));
        for schema in ["", "{", "[1]", "7", &deep, &format!("\"{}\"", "x".repeat(MAX_SOURCE))] {
            assert_eq!(from_schema(schema).unwrap_err().param, FIELD, "{schema:.20}");
        }
        assert!(from_schema(r#"{"type":"object"}"#).unwrap().contains("root ::="));
    }
}
