//! Small answers that do not stream: what a request costs.

use std::time::Duration;

use super::{Bench, Front, beside::Beside};
use trial::{
    load::{Connection, Script},
    report::Report,
};

/// Connections at once, and requests on each.
const CONNECTIONS: u64 = 8;
const REQUESTS: u64 = 500;
/// All of them.
const ALL: u64 = CONNECTIONS * REQUESTS;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "small: answers of 8 tokens that do not stream, 8 at a time";
    let fronts = bench.fronts();
    let beside = measure(CASE, &fronts, bench.rounds).await?;
    beside.add(report, 0, "mesh, all processes");
    bench.target(report, 150.0);
    beside.add(report, 1, bench.other());
    if bench.nginx().is_none() {
        beside.add_ratio(report, &format!("mesh / {}", fronts[1].name));
    }
    Ok(())
}

/// What two fronts take for a request, in turns.
pub(super) async fn measure<'case>(case: &'case str, fronts: &[Front<'_>; 2], rounds: usize) -> anyhow::Result<Beside<'case>> {
    let one = async |front: &Front<'_>| {
        let before = front.cpu()?;
        ask(front).await?;
        Ok((front.micros_since(&before, ALL)?, String::new()))
    };
    Beside::measure((case, "µs/request"), fronts, rounds, one).await
}

/// Asks for all answers, and waits until what is written of them later is written.
pub(super) async fn ask(front: &Front<'_>) -> anyhow::Result<()> {
    let mut tasks = Vec::new();
    for number in 0..CONNECTIONS {
        let mut connection = Connection::open(front.http).await?;
        let key = front.key.clone();
        tasks.push(tokio::spawn(async move {
            let request = Script {
                id: format!("s{number}"),
                tokens: 8,
                gap: Duration::ZERO,
                aligned: false,
                before: String::new(),
                key,
            }
            .request(false);
            for _ in 0..REQUESTS {
                connection.send(&request).await?;
                connection.read_whole().await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    tokio::time::sleep(Duration::from_millis(300)).await; // what the log of requests costs counts too
    Ok(())
}
