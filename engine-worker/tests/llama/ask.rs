//! Asking an engine for answers, as the service would.

use std::sync::Arc;

use engine_worker::{
    answer::Answer,
    engine::Engine,
    llama::{Llama, Settings},
};
use journal::{Journal, Limits, Reader};
use proto::v1::{ChatRequest, ChoiceEnd, Entry, Failure, GenerateRequest, Message, ResumePoint, Role, Sampling, entry::Event};
use tokio_util::sync::CancellationToken;

pub(crate) async fn engine(seats: u32) -> Arc<Llama> {
    load(Settings {
        llama_seats: seats,
        llama_context: 2048,
        llama_threads: Some(1), // threads that wait for each other starve where other tests run beside
        ..Settings::default()
    })
    .await
}

pub(crate) async fn load(settings: Settings) -> Arc<Llama> {
    Llama::load(settings).await.unwrap()
}

/// A greedy request. Its system message is shorter than the one that the model's template puts in otherwise.
pub(crate) fn greedy(prompt: &str, max_tokens: u32) -> ChatRequest {
    ChatRequest {
        messages: vec![Message {
            role: Role::System.into(),
            text: "Be brief.".into(),
            ..Message::default()
        }],
        prompt: prompt.into(),
        max_tokens: Some(max_tokens),
        sampling: Some(Sampling {
            temperature: Some(0.0),
            ..Sampling::default()
        }),
        ..ChatRequest::default()
    }
}

/// A sampled one.
pub(crate) fn seeded(prompt: &str, max_tokens: u32, seed: u64) -> ChatRequest {
    ChatRequest {
        sampling: Some(Sampling {
            temperature: Some(1.0),
            seed: Some(seed),
            ..Sampling::default()
        }),
        ..greedy(prompt, max_tokens)
    }
}

pub(crate) fn with_sampling(mut request: ChatRequest, change: impl FnOnce(&mut Sampling)) -> ChatRequest {
    change(request.sampling.get_or_insert_default());
    request
}

/// An answer that runs.
pub(crate) struct Running {
    pub(crate) reader: Reader<Entry>,
    pub(crate) cancel: CancellationToken,
}

impl Running {
    /// The next entry, or `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Entry> {
        self.reader.read(1).await.map(|mut entries| entries.remove(0))
    }

    pub(crate) async fn rest(mut self) -> Vec<Entry> {
        let mut all = Vec::new();
        while let Some(entries) = self.reader.read(1000).await {
            all.extend(entries);
        }
        all
    }
}

pub(crate) async fn begin(engine: &Llama, request: GenerateRequest) -> Result<Running, Failure> {
    let (resume, entries) = (request.resume.clone(), request.entries.clone());
    let prepared = engine.prepare(request).await?;
    let journal = Journal::new(Limits::default());
    let reader = journal.reader(u32::try_from(entries.len()).unwrap());
    let cancel = CancellationToken::new();
    let writer = journal.claim(1).unwrap();
    writer.append_from(0, entries).unwrap();
    let answer = Answer::new(writer, cancel.clone(), prepared.prompt_tokens(), &resume, None);
    prepared.begin(answer);
    Ok(Running { reader, cancel })
}

pub(crate) fn whole(request: &ChatRequest) -> GenerateRequest {
    GenerateRequest {
        stream_id: "test".into(),
        request: Some(request.clone()),
        ..GenerateRequest::default()
    }
}

/// All entries of an answer.
pub(crate) async fn ask(engine: &Llama, request: &ChatRequest) -> Vec<Entry> {
    begin(engine, whole(request)).await.unwrap().rest().await
}

pub(crate) async fn refused(engine: &Llama, request: &ChatRequest) -> Failure {
    begin(engine, whole(request))
        .await
        .err()
        .unwrap_or_else(|| panic!("not refused: {request:?}"))
}

pub(crate) fn text(entries: &[Entry], choice: u32) -> String {
    entries
        .iter()
        .filter(|entry| entry.choice == choice)
        .map(|entry| entry.token.as_str())
        .collect()
}

pub(crate) fn ends(entries: &[Entry]) -> Vec<ChoiceEnd> {
    match &entries.last().unwrap().event {
        Some(Event::Finished(finished)) => finished.choices.clone(),
        other => panic!("not finished: {other:?}"),
    }
}

/// What a router would know of an answer whose first entries these are.
pub(crate) fn resume(request: &ChatRequest, made: &[Entry]) -> GenerateRequest {
    let points = (0..request.n.max(1)).map(|choice| ResumePoint {
        choice,
        token_ids: made
            .iter()
            .filter(|entry| entry.choice == choice)
            .flat_map(|entry| entry.token_ids.clone())
            .collect(),
        text: text(made, choice),
        end: made
            .iter()
            .filter(|entry| entry.choice == choice)
            .find_map(|entry| entry.end.as_deref().cloned()),
    });
    GenerateRequest {
        epoch: 2,
        resume: points.collect(),
        position: u32::try_from(made.len()).unwrap(),
        entries: made.to_vec(),
        ..whole(request)
    }
}

/// Entries without what may differ: how much of the prompt was in the cache, and when the answer ended.
pub(crate) fn comparable(mut entries: Vec<Entry>) -> Vec<Entry> {
    if let Some(Event::Finished(finished)) = &mut entries.last_mut().unwrap().event {
        finished.ended_ms = 0;
        if let Some(usage) = &mut finished.usage {
            usage.cached_tokens = 0;
        }
    }
    entries
}
