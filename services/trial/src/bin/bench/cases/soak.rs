//! Many distinct prompts, one after the other: memory stays flat once it is warm.

use std::time::Duration;

use super::{Bench, Front};
use trial::{
    fleet::Fleet,
    load::{Connection, Script},
    report::Report,
};

const CONNECTIONS: u64 = 8;
/// More than a router keeps: 16 Ki answers, and the names of 32 Ki more.
const WARM_UP: u64 = 50_000;
/// And then, when nothing may grow any more.
const REQUESTS: u64 = 20_000;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "soak: distinct prompts; growth of memory once it is warm";
    // A mesh of its own: what other cases have left to the allocators comes and goes by megabytes.
    let mesh = Fleet::start(&bench.layout(bench.mesh.key.is_some())).await?;
    let front = Front::of(&mesh);
    let mut memory = Vec::new();
    for (part, requests) in ["w", "s"].into_iter().zip([WARM_UP, REQUESTS]) {
        let mut tasks = Vec::new();
        for number in 0..CONNECTIONS {
            let mut connection = Connection::open(front.http).await?;
            let key = front.key.clone();
            tasks.push(tokio::spawn(async move {
                for request in 0..requests / CONNECTIONS {
                    let id = format!("{part}{number}r{request}");
                    let before = format!("{id} {} ", "x".repeat(200));
                    connection
                        .send(
                            &Script {
                                id,
                                tokens: 4,
                                gap: Duration::ZERO,
                                aligned: false,
                                before,
                                key: key.clone(),
                            }
                            .request(false),
                        )
                        .await?;
                    connection.read_whole().await?;
                }
                anyhow::Ok(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        memory.push(front.memory()?);
    }
    #[allow(clippy::cast_precision_loss)]
    let grown: Vec<f64> = memory[1]
        .iter()
        .zip(&memory[0])
        .map(|(last, first)| (*last as f64 - *first as f64) / REQUESTS as f64)
        .collect();
    report.add(CASE, "mesh, all processes", grown.iter().sum(), "bytes/prompt");
    report.note(front.by_process(&grown));
    report.at_most(100.0);
    Ok(())
}
