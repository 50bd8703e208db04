//! Small answers that do not stream: what a request costs.

use std::time::Duration;

use super::{Bench, Front};
use trial::{
    load::{Connection, Script},
    report::{Report, median},
};

/// Connections at once, and requests on each.
const CONNECTIONS: u64 = 8;
const REQUESTS: u64 = 500;
/// All of them.
pub(super) const ALL: u64 = CONNECTIONS * REQUESTS;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "small: answers of 8 tokens that do not stream, 8 at a time";
    let mut sums = [Vec::new(), Vec::new()];
    let mut notes = [String::new(), String::new()];
    for _ in 0..bench.rounds {
        for (index, front) in bench.fronts().into_iter().enumerate() {
            let before = front.cpu()?;
            ask(&front).await?;
            let micros = front.micros_since(&before, ALL)?;
            notes[index] = front.by_process(&micros);
            sums[index].push(micros.iter().sum());
        }
    }
    let [mesh, nginx] = sums.map(median);
    let [mesh_note, nginx_note] = notes;
    report.add(CASE, "mesh, all processes", mesh, "µs/request");
    report.note(mesh_note);
    report.at_most(150.0);
    report.add(CASE, "nginx alone", nginx, "µs/request");
    report.note(nginx_note);
    Ok(())
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
