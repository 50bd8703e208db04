//! From the client's hanging up to the engine's letting go.

use std::time::Duration;

use anyhow::Context as _;
use proto::v1::{AttachRequest, engine_service_client::EngineServiceClient};
use tokio::time::{Instant, sleep, timeout};

use super::Bench;
use trial::{
    load::{Connection, Script},
    report::{Report, percentile},
};

const ANSWERS: usize = 200;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "cancel: the client hangs up → the engine's slot is free";
    let mut client = EngineServiceClient::connect(format!("http://{}", bench.mesh.engine[0])).await?;
    let mut times = Vec::new();
    for number in 0..ANSWERS {
        let script = Script {
            id: format!("c{number}"),
            tokens: 100_000,
            gap: Duration::from_millis(20),
            aligned: false,
            before: String::new(),
            key: bench.mesh.key.clone(),
        };
        let mut connection = Connection::open(bench.mesh.http[0]).await?;
        connection.send(&script.simple_request()).await?;
        let head = connection.read_until(format!("c{number}.1 ").as_bytes()).await?;
        let head = String::from_utf8_lossy(head).into_owned();
        let stream_id = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().starts_with("x-stream-id:").then(|| line[12..].trim()))
            .context("no X-Stream-ID")?;
        let mut answer = client
            .attach(AttachRequest {
                stream_id: stream_id.to_owned(),
                position: 0,
                ..AttachRequest::default()
            })
            .await?
            .into_inner();
        answer.message().await?;
        sleep(Duration::from_millis(7)).await;
        let hung_up = Instant::now();
        drop(connection);
        let ended = async {
            while let Some(message) = answer.message().await? {
                if message.entries.last().is_some_and(proto::v1::Entry::is_terminal) {
                    break;
                }
            }
            anyhow::Ok(())
        };
        timeout(Duration::from_secs(10), ended).await.context("the engine went on")??;
        times.push(hung_up.elapsed().as_secs_f64() * 1e3);
    }
    report.add(CASE, "mesh, p50", percentile(times.clone(), 0.5), "ms");
    report.add(CASE, "mesh, p99", percentile(times, 0.99), "ms");
    report.at_most(5.0);
    Ok(())
}
