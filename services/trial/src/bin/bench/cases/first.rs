//! The time to the first token that a front adds: through it, and straight at the engine behind it.

use std::{net::SocketAddr, time::Duration};

use proto::v1::{ChatRequest, GenerateRequest, engine_service_client::EngineServiceClient};
use tokio::time::Instant;

use super::Bench;
use trial::{
    load::{Connection, Script},
    report::{Report, percentile},
};

const ANSWERS: u32 = 400;
const TOKENS: u64 = 20;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "first: added time to first token, one answer at a time";
    let key = bench.mesh.key.as_deref();
    let through_mesh = by_http(bench.mesh.http[0], key).await?;
    let at_worker = by_grpc(bench.mesh.engine[0]).await?;
    let through_nginx = by_http(bench.nginx.http, None).await?;
    let at_upstream = by_http(bench.nginx.upstream, None).await?;
    for (share, word, target) in [(0.5, "p50", 0.25), (0.99, "p99", 1.0)] {
        let added = |through: &[f64], at: &[f64]| percentile(through.to_vec(), share) - percentile(at.to_vec(), share);
        report.add(CASE, &format!("mesh, {word}"), added(&through_mesh, &at_worker), "ms");
        report.note(format!(
            "through {:.2}, at the worker {:.2}",
            percentile(through_mesh.clone(), share),
            percentile(at_worker.clone(), share)
        ));
        report.at_most(target);
        report.add(CASE, &format!("nginx, {word}"), added(&through_nginx, &at_upstream), "ms");
    }
    Ok(())
}

fn script(number: u32, key: Option<&str>) -> Script {
    Script {
        id: format!("f{number}"),
        tokens: TOKENS,
        gap: Duration::ZERO,
        aligned: false,
        before: String::new(),
        key: key.map(str::to_owned),
    }
}

async fn by_http(address: SocketAddr, key: Option<&str>) -> anyhow::Result<Vec<f64>> {
    let mut connection = Connection::open(address).await?;
    let mut times = Vec::new();
    for number in 0..ANSWERS {
        let start = Instant::now();
        connection.send(&script(number, key).request(true)).await?;
        connection.read_until(format!("f{number}.0 ").as_bytes()).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        connection.read_until(b"\r\n0\r\n\r\n").await?;
    }
    Ok(times.split_off(20)) // the first ones warm up
}

async fn by_grpc(address: SocketAddr) -> anyhow::Result<Vec<f64>> {
    let mut client = EngineServiceClient::connect(format!("http://{address}")).await?;
    let mut times = Vec::new();
    for number in 0..ANSWERS {
        let prompt = format!("[[script id=f{number} tokens={TOKENS} gap_us=0 ttft_us=0]]");
        let request = ChatRequest {
            prompt,
            ..ChatRequest::default()
        };
        let stream_id = format!("first-{number}");
        let start = Instant::now();
        let request = GenerateRequest {
            stream_id,
            epoch: 1,
            request: Some(request),
            ..GenerateRequest::default()
        };
        let mut answer = client.generate(request).await?.into_inner();
        while answer.message().await?.is_some_and(|message| message.entries.is_empty()) {}
        times.push(start.elapsed().as_secs_f64() * 1e3);
        while answer.message().await?.is_some() {}
    }
    Ok(times.split_off(20))
}
