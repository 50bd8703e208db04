//! Answers as fast as possible.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Bench, Front, beside::Beside};
use trial::{
    load::{Crowd, Script},
    report::Report,
};

const STREAMS: usize = 64;
const TOKENS: u64 = 200;
/// Times in one measurement.
const REPEATS: usize = 4;
/// Measurements in a round of the bench: each is over within a part of a second.
const ROUNDS: usize = 4;
/// What is written of the answers later is written within this time, and counts too.
const LATER: Duration = Duration::from_millis(200);

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "burst: 64 streams of 200 tokens as fast as possible";
    let fronts = bench.fronts();
    let beside = Beside::measure((CASE, "µs/token"), &fronts, bench.rounds * ROUNDS, async |front| {
        Ok((measure(front).await?, String::new()))
    });
    let beside = beside.await?;
    beside.add(report, 0, "mesh, all processes");
    beside.add(report, 1, bench.other());
    beside.add_ratio(report, &format!("mesh / {}", fronts[1].name));
    bench.target(report, 0.6);
    Ok(())
}

async fn measure(front: &Front<'_>) -> anyhow::Result<Vec<f64>> {
    let before = front.cpu()?;
    for _ in 0..REPEATS {
        let script = Script {
            id: String::new(),
            tokens: TOKENS,
            gap: Duration::ZERO,
            aligned: false,
            before: String::new(),
            key: front.key.clone(),
        };
        let crowd = Crowd::start(front.http, STREAMS, script, Duration::ZERO).await?;
        let events = Arc::clone(&crowd.events);
        crowd.finish().await?;
        anyhow::ensure!(events.load(Ordering::Relaxed) >= STREAMS as u64 * TOKENS, "tokens are missing");
    }
    tokio::time::sleep(LATER).await;
    front.micros_since(&before, (REPEATS * STREAMS) as u64 * TOKENS)
}
