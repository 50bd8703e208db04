//! Answers that are open and silent: what each costs in memory.

use std::time::Duration;

use tokio::time::sleep;

use super::Bench;
use trial::{
    load::{Crowd, Script},
    report::Report,
};

const STREAMS: u32 = 2000;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "idle: 2,000 open streams that are silent";
    for front in bench.fronts() {
        let script = Script {
            id: String::new(),
            tokens: 2,
            gap: Duration::from_secs(500),
            aligned: false,
            before: String::new(),
            key: front.key.clone(),
        };
        // Once for the allocators' own growth, once for the figure.
        let mut kib = Vec::new();
        for _ in 0..2 {
            let before = front.memory()?;
            let crowd = Crowd::start(front.http, STREAMS as usize, script.clone(), Duration::ZERO).await?;
            sleep(Duration::from_secs(2)).await;
            #[allow(clippy::cast_precision_loss)]
            let grown = front
                .memory()?
                .into_iter()
                .zip(before)
                .map(|(now, before)| now.saturating_sub(before) as f64 / 1024.0 / f64::from(STREAMS));
            kib.push(grown.collect::<Vec<f64>>());
            drop(crowd);
            sleep(Duration::from_secs(1)).await;
        }
        let first = &kib[0];
        report.add(CASE, front.name, first.iter().sum(), "KiB/stream");
        report.note(format!(
            "{}; a second time {:.1}",
            front.by_process(first),
            kib[1].iter().sum::<f64>()
        ));
        if front.name == "mesh" {
            report.at_most(24.0);
        }
    }
    Ok(())
}
