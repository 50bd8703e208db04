//! `POST /v1/responses/input_tokens`: how long the input of a response is, without a response
//! (<https://platform.openai.com/docs/api-reference/responses/input-tokens>).

use axum::{
    Json,
    extract::{Request, State},
};
use proto::v1::{CountTokensRequest, Message, Role, Usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::{history, request::Asked};
use crate::{app::App, body, failure::Refusal, identity::Caller, openapi, stack::Arrival, turn};

/// How long an input is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InputTokens)]
pub(crate) struct Counted {
    /// `response.input_tokens`.
    object: &'static str,
    /// With what the chat template puts around it.
    input_tokens: u32,
    /// Ours: an engine that cannot count without answering has only estimated it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    estimated: bool,
}

/// Counts the tokens of a response's input, with what `previous_response_id` or `conversation` brings along. Nothing of it is kept.
#[utoipa::path(
    post,
    path = "/v1/responses/input_tokens",
    operation_id = "count_input_tokens",
    tag = openapi::OPENAI,
    request_body = Asked,
    responses((status = OK, description = "How many they are.", body = Counted), openapi::BodyRefused),
)]
pub(crate) async fn input_tokens(
    State(app): State<App>,
    arrival: Arrival,
    caller: Caller,
    request: Request,
) -> Result<Json<Counted>, Refusal> {
    let counted = count(&app, &caller, request).await;
    // What is only counted is not taken.
    let took = counted.as_ref().map(|(model, _)| (model.as_str(), Usage::default()));
    app.request_log().done((&caller, &arrival), "input_tokens", took);
    counted.map(|(_, counted)| Json(counted))
}

/// The model that counted, and the count.
async fn count(app: &App, caller: &Caller, request: Request) -> Result<(String, Counted), Refusal> {
    let mut plan = body::json::<Asked>(request, app.settings()).await?.plan()?;
    super::ask(app, &mut plan, caller.principal()).await?;
    let mut request = plan.request;
    if !request.conversation_id.is_empty() {
        let conversation_id = std::mem::take(&mut request.conversation_id);
        let before = history::of_conversation(app, caller.principal(), conversation_id).await?;
        request.messages.splice(..0, before);
    }
    if !request.instructions.is_empty() {
        let instructions = Message {
            role: Role::System.into(),
            text: std::mem::take(&mut request.instructions),
            ..Message::default()
        };
        request.messages.insert(0, instructions);
    }
    request.principal = Some(caller.principal().clone());
    let counted = turn::count_tokens(app.clients(), CountTokensRequest { request: Some(request) }).await?;
    let shown = Counted {
        object: "response.input_tokens",
        input_tokens: counted.prompt_tokens,
        estimated: counted.estimated,
    };
    Ok((counted.model, shown))
}
