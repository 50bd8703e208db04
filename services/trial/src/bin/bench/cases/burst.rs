//! Answers as fast as possible.

use std::{sync::atomic::Ordering, time::Duration};

use super::Bench;
use trial::{
    load::{Crowd, Script},
    report::{Report, median},
};

const STREAMS: usize = 64;
const TOKENS: u64 = 200;
const REPEATS: usize = 10;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "burst: 64 streams of 200 tokens as fast as possible";
    let mut sums = [Vec::new(), Vec::new()];
    let mut notes = [String::new(), String::new()];
    for _ in 0..bench.rounds {
        for (index, front) in bench.fronts().into_iter().enumerate() {
            let (before, mut tokens) = (front.cpu()?, 0);
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
                let events = std::sync::Arc::clone(&crowd.events);
                crowd.finish().await?;
                anyhow::ensure!(events.load(Ordering::Relaxed) >= STREAMS as u64 * TOKENS, "tokens are missing");
                tokens += STREAMS as u64 * TOKENS;
            }
            let micros = front.micros_since(&before, tokens)?;
            notes[index] = front.by_process(&micros);
            sums[index].push(micros.iter().sum());
        }
    }
    let [mesh, nginx] = sums.map(median);
    let [mesh_note, nginx_note] = notes;
    report.add(CASE, "mesh, all processes", mesh, "µs/token");
    report.note(mesh_note);
    report.add(CASE, "nginx alone", nginx, "µs/token");
    report.note(nginx_note);
    report.add(CASE, "mesh / nginx", mesh / nginx, "×");
    report.at_most(0.6);
    Ok(())
}
