//! What the doors say of themselves: an OpenAPI 3.1 document (<https://spec.openapis.org/oas/v3.1.1>), made of the annotation at each
//! door by [`crate::app::document`] and served by [`crate::door::docs`]. Here is what the annotations share: the groups of doors, the
//! refusals, and what a client may say about coming back.

use std::collections::BTreeMap;

use utoipa::{
    IntoParams, IntoResponses, OpenApi, ToSchema,
    openapi::{
        ContentBuilder, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use crate::{door::messages, failure};

/// OpenAI's API.
pub(crate) const OPENAI: &str = "OpenAI";
/// Anthropic's API.
pub(crate) const ANTHROPIC: &str = "Anthropic";
/// Doors for curl, browsers and small programs.
pub(crate) const SIMPLE: &str = "Simple";
/// What is kept.
pub(crate) const CONVERSATIONS: &str = "Conversations";
/// Who may.
pub(crate) const IDENTITY: &str = "Identity";
/// For who runs it.
pub(crate) const OPERATORS: &str = "Operators";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Unbroken",
        description = "LLM chat. An answer that has begun arrives whole, each token exactly once, whatever single process dies under it."
    ),
    tags(
        (name = OPENAI, description = "As OpenAI's SDKs expect it: set their base URL to `/v1` here."),
        (name = ANTHROPIC, description = "As Anthropic's SDKs expect it: set their base URL to `/` here."),
        (name = SIMPLE, description = "For curl, browsers and programs of three lines."),
        (name = CONVERSATIONS, description = "What was said, and by whom: a chat joins one by its `conversation_id`."),
        (name = IDENTITY, description = "Keys, and tickets for browsers."),
        (name = OPERATORS, description = "How it is."),
    ),
    components(schemas(failure::Body<'_>, messages::ErrorBody<'_>)),
)]
struct Base;

/// The document without a door.
pub(crate) fn base() -> utoipa::openapi::OpenApi {
    let mut document = Base::openapi();
    let components = document.components.get_or_insert_default();
    let bearer = Http::new(HttpAuthScheme::Bearer);
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    components.add_security_scheme(HEADER, SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key"))));
    // Without one, too: where `UNBROKEN_AUTH` is off.
    let none: [&str; 0] = [];
    let one = |name: &str| SecurityRequirement::new(name, none);
    document.security = Some(vec![one(BEARER), one(HEADER), SecurityRequirement::default()]);
    document
}

/// The two ways to send an API key or a token.
const BEARER: &str = "bearer";
const HEADER: &str = "x-api-key";

/// The document of these doors, as it is served.
pub(crate) fn document(mut document: utoipa::openapi::OpenApi) -> Vec<u8> {
    // A parameter that may contain slashes has a star in axum's notation, and none in OpenAPI's.
    let paths = std::mem::take(&mut document.paths.paths);
    let plain = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item));
    document.paths.paths = plain.collect();
    // Writing to memory does not fail, and the document's keys are strings.
    serde_json::to_vec(&document).unwrap_or_default()
}

/// The statuses with which the mesh refuses: those of [`failure::status`], and of [`crate::identity`].
pub(crate) const MESH: [(u16, &str); 11] = [
    (400, "The request is wrong: `param` names the field."),
    (
        401,
        "An API key or a token is needed, or this one is not good: see `WWW-Authenticate`.",
    ),
    (
        403,
        "This key or token may not do this; or this web page, or the name in `Host`, may not.",
    ),
    (404, "There is no such model, answer or conversation, or it is not yours."),
    (409, "It was cancelled, or is in use for something else."),
    (410, "It was there, and its time has passed."),
    (429, "A limit of yours is met: see `Retry-After` and the `x-ratelimit-` headers."),
    (500, "A fault of ours."),
    (502, "What makes the answer was lost."),
    (503, "Too many wait, or nobody can take it now: see `Retry-After`."),
    (504, "It took too long."),
];
/// And those of a body that cannot be read.
pub(crate) const BODY: [(u16, &str); 3] = [
    (408, "The body took too long."),
    (413, "The body is too large."),
    (415, "The body is not said to be JSON."),
];
/// And that of a key that was used before.
pub(crate) const REUSED: [(u16, &str); 1] = [(422, "This `Idempotency-Key` was used for another request.")];

/// How a door that takes no body refuses.
#[derive(Debug)]
pub(crate) struct Refused;

/// How a door that takes a body refuses.
#[derive(Debug)]
pub(crate) struct BodyRefused;

/// What a door answers to what [`Comeback`] says, beside the rest of the answer.
#[derive(Debug)]
pub(crate) struct CameBack;

/// One event of a stream; a stream is any number of them.
#[derive(Debug, ToSchema)]
#[schema(as = ServerSentEvent)]
#[expect(dead_code, reason = "for the document: events are written as they come, by each door")]
pub(crate) struct Sent {
    /// What the door calls it. Streams of chat completions and texts call none.
    event: Option<String>,
    /// JSON, or `[DONE]`.
    data: String,
    /// To come back with: `Last-Event-ID`.
    id: Option<String>,
    /// How soon to, in milliseconds.
    retry: Option<u32>,
}

type Responses = BTreeMap<String, RefOr<Response>>;

/// Responses of these statuses, with a body of this schema.
pub(crate) fn refusals<'a>(statuses: impl IntoIterator<Item = &'a (u16, &'a str)>, schema: &str) -> Responses {
    let response = |why: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        ResponseBuilder::new().description(why).content("application/json", content).build()
    };
    statuses
        .into_iter()
        .map(|(status, why)| (status.to_string(), response(why).into()))
        .collect()
}

impl IntoResponses for Refused {
    fn responses() -> Responses {
        refusals(&MESH, failure::SCHEMA)
    }
}

impl IntoResponses for BodyRefused {
    fn responses() -> Responses {
        refusals(MESH.iter().chain(&BODY), failure::SCHEMA)
    }
}

impl IntoResponses for CameBack {
    fn responses() -> Responses {
        let mut responses = refusals(&REUSED, failure::SCHEMA);
        let nothing = ResponseBuilder::new().description("To a client that comes back: it has had all of the answer.");
        responses.insert("204".to_owned(), nothing.build().into());
        responses
    }
}

/// What a client says about coming back, as [`crate::comeback`] reads it.
#[derive(Debug)]
pub(crate) struct Comeback;

impl IntoParams for Comeback {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let event = || text().examples(["0192f0c1a2b3c4d5.41"]);
        let yes = || text().enum_values(Some(["1", "0", "true", "false"]));
        let last = "The id of the last event that the client has: the rest of that answer comes.";
        let ids = "The events shall bear ids to come back with.";
        let mut parameters = Key::into_params(place);
        parameters.extend([
            parameter(ParameterIn::Header, "Last-Event-ID", last, event()),
            parameter(ParameterIn::Query, "last_event_id", last, event()),
            parameter(ParameterIn::Header, "X-Unbroken-Resume", ids, yes()),
            parameter(ParameterIn::Query, "resumable", ids, yes()),
        ]);
        parameters
    }
}

/// Of these, what a door reads whose streams have no ids.
#[derive(Debug)]
pub(crate) struct Key;

impl IntoParams for Key {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let key = || text().min_length(Some(1)).max_length(Some(255));
        let twice = "The request may come twice with this key, and is answered once.";
        vec![
            parameter(ParameterIn::Header, "Idempotency-Key", twice, key()),
            parameter(ParameterIn::Query, "idempotency_key", twice, key()),
        ]
    }
}

/// What may be asked in a query, as [`crate::door`] reads it.
#[derive(Debug)]
pub(crate) struct Asked;

impl IntoParams for Asked {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let number = |low, high| {
            let number = ObjectBuilder::new().schema_type(Type::Integer);
            number.minimum(Some(low)).maximum(high)
        };
        let query = |name, what, schema| parameter(ParameterIn::Query, name, what, schema);
        let temperature = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(2));
        let policy = text().enum_values(Some(["cancel", "detach", "background"]));
        vec![
            query("model", "Empty or missing: the first model.", text()),
            query("max_tokens", "The most tokens to generate.", number(1, Some(1 << 20))),
            query("temperature", "0 takes the most likely token.", temperature),
            query("seed", "For the draws.", number(0, None)),
            query(
                "conversation_id",
                "The conversation whose history goes before, and in which the turn is kept.",
                text(),
            ),
            query("disconnect", "What becomes of the answer when its client has gone.", policy),
            query(
                "detach_grace_ms",
                "With `detach`, how many milliseconds it goes on.",
                number(1, Some(1_800_000)),
            ),
        ]
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn parameter(place: ParameterIn, name: &str, what: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .parameter_in(place)
        .name(name)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(schema))
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::StatusCode;
    use proto::v1::{Failure, Reason};
    use serde_json::Value;

    use super::*;
    use crate::failure::Refusal;

    fn operations() -> Vec<(String, Value)> {
        let document: Value = serde_json::from_slice(&document(crate::app::document())).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let operation = |path: &String, (method, operation): (&String, &Value)| (format!("{method} {path}"), operation.clone());
        paths
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |entry| operation(path, entry)))
            .collect()
    }

    #[test]
    fn each_operation_says_what_it_is_and_how_it_answers() {
        let operations = operations();
        let names: BTreeSet<_> = operations
            .iter()
            .map(|(_, operation)| operation["operationId"].to_string())
            .collect();
        assert_eq!(names.len(), operations.len(), "two operations have one id: {names:?}");
        for (at, operation) in operations {
            assert!(
                operation["summary"].as_str().is_some_and(|text| !text.is_empty()),
                "{at} says nothing"
            );
            assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{at} is in no group");
            let statuses = operation["responses"].as_object().unwrap();
            assert!(statuses.keys().any(|status| status < &"300".to_owned()), "{at} never succeeds");
        }
    }

    #[test]
    fn no_door_stands_beside_the_document() {
        let source = include_str!("app.rs");
        assert!(
            !source.contains(".route("),
            "a door is added by .routes(routes!(…)), so that it is in the document"
        );
        let doors = source.matches("routes!(").count();
        let paths: BTreeSet<_> = operations()
            .into_iter()
            .map(|(at, _)| at.split_once(' ').unwrap().1.to_owned())
            .collect();
        assert_eq!(paths.len(), doors);
    }

    #[test]
    fn every_reason_of_the_mesh_has_its_status_here() {
        for number in 0..=18 {
            let refusal = Refusal::from(Failure::new(Reason::try_from(number).unwrap(), "no"));
            let status = refusal.status();
            assert!(MESH.iter().any(|(known, _)| *known == status.as_u16()), "{status}");
        }
        assert!(MESH.iter().chain(&BODY).all(|(status, _)| StatusCode::from_u16(*status).is_ok()));
    }
}
