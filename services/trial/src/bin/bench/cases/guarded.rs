//! What it costs to know who asks, whether they may, and to write it down: small answers of a mesh that asks for a key and holds its owner
//! to limits, beside the same of one that serves everybody, in turns.

use trial::{fleet::Fleet, report::Report};

use super::{Bench, Front, small};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "guarded: answers of 8 tokens that do not stream, 8 at a time, with keys and limits and without";
    let meshes = [Fleet::start(&bench.layout(true)).await?, Fleet::start(&bench.layout(false)).await?];
    let fronts = [Front::of(&meshes[0]), Front::of(&meshes[1])];
    for front in &fronts {
        small::ask(front).await?; // warms up
    }
    let beside = small::measure(CASE, &fronts, bench.rounds).await?;
    beside.add(report, 0, "with a key and limits");
    beside.add(report, 1, "without");
    beside.add_difference(report, "added");
    report.at_most(50.0);
    Ok(())
}
