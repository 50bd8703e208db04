//! One trace from the gateway through the router to the worker, as a collector receives it; and no word of what was said.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tonic::{Request, Response, Status};

use crate::{
    processes::AllInOne,
    stream::{Events, eventually},
};

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// One that listens, and its address. It ends with the test.
    pub(crate) async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        (collector, endpoint)
    }

    /// What it got so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request
            .into_inner()
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans);
        self.spans.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_callers_span_to_the_worker_and_tells_no_content() {
    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (collector, endpoint) = Collector::start().await;

    let mut mesh = AllInOne::start(&[("UNBROKEN_ENGINE", "scripted"), ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]).await;
    let request = reqwest::Client::new().get(format!("http://{}/stream", mesh.http));
    let request = request
        .query(&[("prompt", "the canary sings")])
        .header("traceparent", CALLER)
        .header("x-request-id", "canary-request");
    assert!(!Events::new(request.send().await.unwrap()).rest().await.is_empty());
    mesh.process.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(mesh.process.ended(Duration::from_secs(20)).await.unwrap().success());

    let ours = || -> Vec<Span> {
        let trace = u128::from_str_radix(&CALLER[3..35], 16).unwrap().to_be_bytes();
        let mut spans = collector.spans();
        spans.retain(|span| span.trace_id == trace);
        spans
    };
    eventually("the spans have arrived", async || ours().len() >= 3).await;
    let spans = ours();
    let parent = u64::from_str_radix(&CALLER[36..52], 16).unwrap().to_be_bytes().to_vec();
    let mut chain = Vec::new();
    let mut at = parent;
    while let Some(span) = spans.iter().find(|span| span.parent_span_id == at) {
        chain.push(span.name.clone());
        at.clone_from(&span.span_id);
    }
    assert!(
        chain.len() >= 3,
        "gateway → router → worker: {chain:?}; all: {:?}",
        spans.iter().map(|span| &span.name).collect::<Vec<_>>()
    );

    let told = format!("{:?}{}", collector.spans(), mesh.process.output());
    assert!(told.contains("canary-request"), "the request's id is logged");
    assert!(!told.contains("canary sings"), "and what was said is not");
}
