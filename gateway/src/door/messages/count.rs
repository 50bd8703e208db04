//! `POST /v1/messages/count_tokens`: how long an input is, without an answer.

use axum::{
    Json,
    extract::{Request, State},
};
use proto::v1::{CountTokensRequest, Usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error, request::Input, version};
use crate::{app::App, body, failure::Refusal, identity::Caller, openapi, stack::Arrival, turn};

/// How long an input is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TokenCount)]
pub(crate) struct Counted {
    /// With what the chat template puts around it.
    input_tokens: u32,
    /// Ours: an engine that cannot count without answering has only estimated it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    estimated: bool,
}

/// Counts the tokens of an input.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    operation_id = "count_tokens",
    tag = openapi::ANTHROPIC,
    params(("anthropic-version" = Option<String>, Header, description = "A date: every version is answered alike.")),
    request_body = Input,
    responses((status = OK, description = "How many they are.", body = Counted), error::Refused),
)]
pub(crate) async fn count_tokens(
    State(app): State<App>,
    arrival: Arrival,
    caller: Caller,
    request: Request,
) -> Result<Json<Counted>, Refusal> {
    let counted = count(&app, &caller, request).await;
    // What is only counted is not taken.
    let took = counted.as_ref().map(|(model, _)| (model.as_str(), Usage::default()));
    app.request_log().done((&caller, &arrival), "count_tokens", took);
    counted.map(|(_, counted)| Json(counted))
}

/// The model that was named, and the count.
async fn count(app: &App, caller: &Caller, request: Request) -> Result<(String, Counted), Refusal> {
    version(request.headers())?;
    let input: Input = body::json(request, app.settings()).await?;
    let mut request = input.into_chat()?;
    request.principal = Some(caller.principal().clone());
    let model = request.model.clone();
    let counted = turn::count_tokens(app.clients(), CountTokensRequest { request: Some(request) }).await?;
    let counted = Counted {
        input_tokens: counted.prompt_tokens,
        estimated: counted.estimated,
    };
    Ok((model, counted))
}
