//! Many answers at the pace of a model: CPU time a token, and how many are held without falling behind.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Bench, Front, beside::Beside};
use trial::{
    load::{Crowd, Script},
    report::Report,
};

const STREAMS: usize = 500;
const GAP: Duration = Duration::from_millis(20);
const WINDOW: Duration = Duration::from_secs(4);

/// One measurement: CPU-µs a token by process, and tokens delivered as a share of those due.
async fn measure(front: &Front<'_>, streams: usize, aligned: bool) -> anyhow::Result<(Vec<f64>, f64)> {
    let script = Script {
        id: String::new(),
        tokens: 100_000,
        gap: GAP,
        aligned,
        before: String::new(),
        key: front.key.clone(),
    };
    let spread = if aligned { Duration::ZERO } else { GAP * 10 };
    let crowd = Crowd::start(front.http, streams, script, spread).await?;
    sleep(Duration::from_millis(1500)).await;
    let (before, events, start) = (front.cpu()?, crowd.events.load(Ordering::Relaxed), Instant::now());
    sleep(WINDOW).await;
    let tokens = crowd.events.load(Ordering::Relaxed) - events;
    let took = start.elapsed();
    let micros = front.micros_since(&before, tokens)?;
    #[allow(clippy::cast_precision_loss)]
    let due = streams as f64 * took.as_secs_f64() / GAP.as_secs_f64();
    drop(crowd);
    sleep(Duration::from_millis(500)).await; // its cancels are not the next one's load
    #[allow(clippy::cast_precision_loss)]
    Ok((micros, tokens as f64 / due))
}

/// 500 answers at 20 ms a token.
pub(super) async fn run(bench: &Bench, report: &mut Report, aligned: bool) -> anyhow::Result<()> {
    let case = format!(
        "pace: {STREAMS} streams at 20 ms a token, steps {}",
        if aligned { "aligned" } else { "not aligned" }
    );
    let fronts = bench.fronts();
    let beside = Beside::measure((&case, "µs/token"), &fronts, bench.rounds, async |front| {
        let (micros, share) = measure(front, STREAMS, aligned).await?;
        Ok((micros, format!("; {:.1} % of the tokens due", share * 100.0)))
    });
    let beside = beside.await?;
    beside.add(report, 0, "mesh, all processes");
    beside.add(report, 1, bench.other());
    beside.add_ratio(report, &format!("mesh / {}", fronts[1].name));
    bench.target(report, 1.0);
    Ok(())
}

/// How many answers at 20 ms a token are held without falling behind.
pub(super) async fn hold(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    for front in bench.fronts() {
        let (mut held, mut streams) = (0_u32, 500_u32);
        while streams <= 6000 {
            let (_, share) = measure(&front, streams as usize, true).await?;
            if share < 0.98 {
                break;
            }
            held = streams;
            streams += 500;
        }
        report.add(
            "hold: streams at 20 ms a token, ≥ 98 % of the tokens in time",
            front.name,
            f64::from(held),
            "streams",
        );
        report.note("the load generator shares the cores");
    }
    Ok(())
}
