//! The server behind the worker: its address, its key, its models, and calls that are no streams.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use proto::v1::{ChatRequest, EmbedRequest, EmbedResponse, Embedding, Failure, Model, Reason, Usage};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{Continues, Dialect, Error, Settings, failure::of_status, relay};

/// The version of Anthropic's API whose words `messages` knows (<https://platform.claude.com/docs/en/api/versioning>).
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// The most bytes of a list of models.
const MODELS_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of vectors: 2,048 of 4,096 components each, as text.
const VECTORS_BYTES: usize = 192 * 1024 * 1024;
/// The most bytes of an error's body that are read.
const ERROR_BYTES: usize = 16 * 1024;

/// How to reach the server.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    client: Client,
    base: Url,
    key: Option<super::Secret>,
    dialect: Dialect,
    max_tokens: u32,
    patience: Duration,
    continues: Continues,
    images: bool,
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    owned_by: String,
    /// vLLM's and SGLang's.
    max_model_len: Option<u32>,
    /// Anthropic's.
    max_input_tokens: Option<u32>,
    /// Anthropic's `created`.
    created_at: Option<String>,
}

#[derive(Deserialize)]
struct Counted {
    #[serde(alias = "input_tokens")]
    count: u32,
}

#[derive(Deserialize)]
struct Vectors {
    data: Vec<Vector>,
    usage: Option<VectorUsage>,
}

#[derive(Deserialize)]
struct Vector {
    #[serde(default)]
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct VectorUsage {
    #[serde(default)]
    prompt_tokens: u32,
}

impl Upstream {
    /// Reads the settings. Nothing is sent yet.
    ///
    /// # Errors
    /// One of them is wrong.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let address = settings
            .upstream
            .as_deref()
            .filter(|address| !address.is_empty())
            .ok_or(Error::NoUpstream)?;
        let base = base(address).ok_or_else(|| Error::Address(address.to_owned()))?;
        let key = match &settings.upstream_key_file {
            None => settings.upstream_key.clone(),
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|source| Error::KeyFile(file.clone(), source))?;
                Some(super::Secret::from(text.trim().to_owned()))
            }
        };
        let key = key.filter(|key| !key.reveal().is_empty());
        if settings.upstream_continues == Continues::Vllm && !settings.upstream_dialect.continues() {
            return Err(Error::Continues);
        }
        // One provider for the process; somebody else may have chosen it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(settings.upstream_connect)
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(settings.upstream_seats as usize)
            .user_agent(concat!("unbroken/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::Client)?;
        Ok(Self {
            client,
            base,
            key,
            dialect: settings.upstream_dialect,
            max_tokens: settings.upstream_max_tokens,
            patience: settings.upstream_first_token,
            continues: settings.upstream_continues,
            images: settings.upstream_images,
        })
    }

    /// The body that asks the server for this answer.
    ///
    /// # Errors
    /// Its dialect has no words for something that was asked.
    pub(super) fn body(&self, request: &ChatRequest, model: &str) -> Result<serde_json::Value, Failure> {
        self.dialect.body(request, model, self.max_tokens)
    }

    /// A request for a streamed answer, or for what follows a raw input.
    pub(super) fn ask(&self, raw: bool, body: &serde_json::Value) -> RequestBuilder {
        self.with_key(self.client.post(self.at(self.dialect.path(raw))).json(body))
    }

    /// How the server is spoken to.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The length of an input in tokens, where the server counts. `None` if it does not.
    pub(super) async fn count(&self, request: &ChatRequest, model: &Model) -> Option<u32> {
        if request.raw && !request.prompt_tokens.is_empty() {
            return u32::try_from(request.prompt_tokens.len()).ok();
        }
        let url = match self.dialect {
            Dialect::Chat if !model.continuation => return None, // not vLLM, whose `/tokenize` stands beside its `/v1`
            Dialect::Chat => self.base.join("..").ok()?.join("tokenize").ok()?,
            Dialect::Responses => self.at("responses/input_tokens"),
            Dialect::Messages => self.at("messages/count_tokens"),
        };
        let mut body = self.body(request, &model.id).ok()?;
        body.as_object_mut()?.retain(|field, _| self.dialect.is_counted(field));
        let counted: Counted = self.fetch(self.client.post(url).json(&body), MODELS_BYTES).await.ok()?;
        Some(counted.count)
    }

    /// The models that it serves.
    ///
    /// # Errors
    /// It does not answer, or not with models.
    pub(super) async fn models(&self) -> Result<Vec<Model>, Failure> {
        let request = self.client.get(self.at("models")).query(self.dialect.models());
        let list: ModelList = self.fetch(request, MODELS_BYTES).await?;
        let model = |listed: ListedModel| Model {
            context_length: listed.max_model_len.or(listed.max_input_tokens).unwrap_or(0),
            created: listed.created_at.as_deref().map_or(listed.created, seconds),
            id: listed.id,
            chat: true,
            embeddings: self.dialect.embeds(), // no server says; one that cannot refuses
            continuation: self.dialect.continues() && self.continues.means(&listed.owned_by),
            engine: "openai".to_owned(),
            images: self.images,
        };
        Ok(list.data.into_iter().map(model).collect())
    }

    /// Vectors of length 1.
    ///
    /// # Errors
    /// It refuses, or answers with something else.
    pub(super) async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse, Failure> {
        let ids: Vec<&[u32]> = request.token_inputs.iter().map(|tokens| tokens.ids.as_slice()).collect();
        let input = if ids.is_empty() { json!(request.inputs) } else { json!(ids) };
        let mut body = json!({"model": request.model, "input": input, "encoding_format": "float"});
        if request.dimensions > 0 {
            body["dimensions"] = request.dimensions.into();
        }
        let vectors: Vectors = self
            .fetch(self.client.post(self.at("embeddings")).json(&body), VECTORS_BYTES)
            .await?;
        let mut embeddings = vec![Embedding::default(); request.inputs.len() + ids.len()];
        for vector in vectors.data {
            if let Some(place) = embeddings.get_mut(vector.index) {
                place.values = unit(vector.embedding);
            }
        }
        if embeddings.iter().any(|embedding| embedding.values.is_empty()) {
            return Err(Failure::new(Reason::Upstream, "the server behind this worker left vectors out"));
        }
        Ok(EmbedResponse {
            model: request.model,
            embeddings,
            usage: Some(Usage {
                prompt_tokens: vectors.usage.map_or(0, |usage| usage.prompt_tokens),
                ..Usage::default()
            }),
        })
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }

    fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        let key = self.key.as_ref().map(super::Secret::reveal);
        match self.dialect {
            Dialect::Chat | Dialect::Responses => match key {
                Some(key) => request.bearer_auth(key),
                None => request,
            },
            Dialect::Messages => {
                let request = request.header("anthropic-version", ANTHROPIC_VERSION);
                match key {
                    Some(key) => request.header("x-api-key", key),
                    None => request,
                }
            }
        }
    }

    async fn fetch<T: DeserializeOwned>(&self, request: RequestBuilder, most: usize) -> Result<T, Failure> {
        let response = self.with_key(request).timeout(self.patience).send().await;
        let response = response.map_err(|error| relay::unreachable(&error))?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = relay::bounded(response, ERROR_BYTES).await;
            return Err(of_status(status.as_u16(), &body, None));
        }
        let odd = |what: String| Failure::new(Reason::Upstream, format!("the server behind this worker sent {what}"));
        let body = whole(response, most)
            .await
            .ok_or_else(|| odd("a body that broke off or is too long".to_owned()))?;
        serde_json::from_slice(&body).map_err(|error| odd(format!("an answer that cannot be read: {error}")))
    }
}

async fn whole(response: Response, most: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut pieces = std::pin::pin!(response.bytes_stream());
    while let Some(piece) = pieces.next().await {
        let piece = piece.ok()?;
        if body.len() + piece.len() > most {
            return None;
        }
        body.extend_from_slice(&piece);
    }
    Some(body)
}

/// The base with a slash at its end, so that paths can follow.
fn base(address: &str) -> Option<Url> {
    let url = Url::parse(&format!("{}/", address.trim_end_matches('/'))).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// A date of RFC 3339 in seconds since 1970; 0 if it is none.
fn seconds(date: &str) -> i64 {
    let since = humantime::parse_rfc3339(date)
        .ok()
        .and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

fn unit(values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        values.into_iter().map(|value| value / length).collect()
    } else {
        values
    }
}
