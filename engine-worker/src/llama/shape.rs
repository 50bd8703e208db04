//! What shape a request asks for, and how its answer is to be read: its format, its functions and how far the model is free to call them.
//!
//! [`super::request`] asks. The grammars are compiled under [`super::watch`].

use std::sync::Arc;

use proto::v1::{ChatRequest, Failure, ResponseFormat, Tool, ToolMode, response_format::Format};

use super::{
    Loaded,
    choice::Shape,
    grammar::{Grammar, from_schema, prefixed, written},
    speech::{Calls, Manner},
    tools::{self, Extent},
};

const FORMAT: &str = "response_format";

/// What the text must be like.
///
/// # Errors
/// A schema or grammar is none, or larger than the bounds, or takes too long to compile.
pub(super) fn of(loaded: &Arc<Loaded>, chat: &ChatRequest) -> Result<Shape, Failure> {
    let asked = ChatRequest {
        tools: chat.tools.clone(),
        tool_choice: chat.tool_choice.clone(),
        parallel_tool_calls: chat.parallel_tool_calls,
        response_format: chat.response_format.clone(),
        ..ChatRequest::default()
    };
    let field = if tools::mode(chat) == ToolMode::None {
        FORMAT
    } else {
        tools::FIELD
    };
    if tools::mode(chat) == ToolMode::None && chat.response_format.is_none() {
        return Ok(Shape::Free);
    }
    let model = Arc::clone(loaded);
    let mut shape = loaded.watch.within(field, move || make(&model, &asked))?;
    let begun = chat.messages.last().filter(|_| chat.continue_final_message && field == FORMAT);
    if let (Shape::Whole(grammar), Some(begun)) = (&mut shape, begun)
        && !grammar.accept_text(begun.text.trim_start())
    {
        let message = "the assistant's last message, from which the answer is to go on, does not begin what response_format asks for";
        return Err(Failure::invalid("messages", message));
    }
    Ok(shape)
}

fn make(loaded: &Loaded, asked: &ChatRequest) -> Result<Shape, Failure> {
    let functions = tools::callable(asked)?;
    let single = is_single(asked);
    let must = matches!(tools::mode(asked), ToolMode::Required | ToolMode::Named);
    let family = loaded.dialect.family;
    let whole = Extent { begun: false, single };
    if must {
        let source = format!("{}root ::= calls\n", tools::rules(family, &functions, whole)?);
        return compile(loaded, tools::FIELD, &source).map(Shape::Whole);
    }
    let format = asked.response_format.as_ref().map(format).transpose()?.flatten();
    match format {
        None if functions.is_empty() => Ok(Shape::Free),
        None => calls(loaded, &functions, single),
        Some(source) if functions.is_empty() => compile(loaded, FORMAT, &source).map(Shape::Whole),
        Some(source) => {
            // Either the format, or calls.
            let calls = tools::rules(family, &functions, whole)?;
            let source = format!("{}{calls}root ::= f-root | calls\n", prefixed(&source, "f-"));
            compile(loaded, FORMAT, &source).map(Shape::Whole)
        }
    }
}

/// Calls that the model may make have the shape of their functions' schemas from their mark on. Where a schema cannot be made into a grammar,
/// they are as the model writes them, unless they must be right.
fn calls(loaded: &Loaded, functions: &[&Tool], single: bool) -> Result<Shape, Failure> {
    let extent = Extent { begun: true, single };
    let rules = tools::rules(loaded.dialect.family, functions, extent);
    let compiled = rules.and_then(|rules| compile(loaded, tools::FIELD, &format!("{rules}root ::= ws calls\n")));
    match compiled {
        Ok(fresh) => Ok(Shape::Calls { fresh, now: None }),
        Err(failure) if functions.iter().any(|tool| tool.strict) => Err(failure),
        Err(_) => Ok(Shape::Free),
    }
}

/// How the answer is to be read.
///
/// # Errors
/// The function that must be called is none of the tools.
pub(super) fn manner(loaded: &Loaded, chat: &ChatRequest, thinking: bool) -> Result<Manner, Failure> {
    if chat.raw {
        return Ok(Manner::default());
    }
    let names: Arc<[String]> = tools::callable(chat)?.iter().map(|tool| tool.name.clone()).collect();
    Ok(Manner {
        thoughts: loaded.thoughts,
        thinking,
        calls: (!names.is_empty()).then(|| Calls {
            family: loaded.dialect.family,
            names,
            single: is_single(chat),
        }),
    })
}

/// Whether one call is all: a named function is called once.
fn is_single(chat: &ChatRequest) -> bool {
    chat.parallel_tool_calls == Some(false) || tools::mode(chat) == ToolMode::Named
}

/// The grammar of a format; nothing for free text.
fn format(format: &ResponseFormat) -> Result<Option<String>, Failure> {
    Ok(match format.format.as_ref() {
        None => None,
        Some(Format::JsonObject(_)) => Some(from_schema(FORMAT, r#"{"type":"object"}"#)?),
        Some(Format::JsonSchema(schema)) => Some(from_schema(FORMAT, &schema.schema)?),
        Some(Format::Grammar(grammar)) => Some(written(FORMAT, grammar)?.to_owned()),
    })
}

/// Compiles, and asks once about the whole vocabulary: a grammar that takes too long to ask shows it here, and not where others wait for it.
fn compile(loaded: &Loaded, field: &str, source: &str) -> Result<Grammar, Failure> {
    let mut grammar = Grammar::compile(loaded, field, source)?;
    let all: Vec<u32> = (0..u32::try_from(loaded.vocabulary.len()).unwrap_or(u32::MAX)).collect();
    grammar.allows(&all);
    Ok(grammar)
}
