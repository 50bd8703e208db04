//! The time to the first token that a front adds: through it, and straight at the engine behind it.

use std::{net::SocketAddr, time::Duration};

use proto::v1::{ChatRequest, GenerateRequest, engine_service_client::EngineServiceClient};
use tokio::time::Instant;

use super::Bench;
use trial::{
    load::{Connection, Script},
    nginx::Nginx,
    report::{Report, median, percentile},
};

const ANSWERS: u32 = 400;
const TOKENS: u64 = 20;

pub(super) async fn run(bench: &Bench, nginx: &Nginx, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "first: added time to first token, one answer at a time";
    const SHARES: [(f64, &str, f64); 2] = [(0.5, "p50", 0.25), (0.99, "p99", 1.0)];
    let key = bench.mesh.key.as_deref();
    // Of each share: what each round took through the mesh, at the worker, through nginx, at its upstream.
    let mut rounds = SHARES.map(|_| [Vec::new(), Vec::new(), Vec::new(), Vec::new()]);
    for round in 0..bench.rounds {
        let times = [
            by_http(bench.mesh.http[0], key).await?,
            by_grpc(bench.mesh.engine[0], round).await?,
            by_http(nginx.http, None).await?,
            by_http(nginx.upstream, None).await?,
        ];
        for ((share, ..), sums) in SHARES.iter().zip(&mut rounds) {
            for (times, sums) in times.iter().zip(sums) {
                sums.push(percentile(times.clone(), *share));
            }
        }
    }
    for ((_, word, target), sums) in SHARES.iter().zip(rounds) {
        let [mesh, worker, nginx, upstream] = sums.map(median);
        report.add(CASE, &format!("mesh, {word}"), mesh - worker, "ms");
        report.note(format!("through {mesh:.2}, at the worker {worker:.2}"));
        report.at_most(*target);
        report.add(CASE, &format!("nginx, {word}"), nginx - upstream, "ms");
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

async fn by_grpc(address: SocketAddr, round: usize) -> anyhow::Result<Vec<f64>> {
    let mut client = EngineServiceClient::connect(format!("http://{address}")).await?;
    let mut times = Vec::new();
    for number in 0..ANSWERS {
        let prompt = format!("[[script id=f{number} tokens={TOKENS} gap_us=0 ttft_us=0]]");
        let request = ChatRequest {
            prompt,
            ..ChatRequest::default()
        };
        let stream_id = format!("first-{round}-{number}");
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
