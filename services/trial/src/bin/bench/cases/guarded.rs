//! What it costs to know who asks, whether they may, and to write it down: small answers of a mesh that asks for a key and holds its owner
//! to limits, beside the same of one that serves everybody, in turns.

use trial::{
    fleet::Fleet,
    report::{Report, median},
};

use super::{Bench, Front, small};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    const CASE: &str = "guarded: answers of 8 tokens that do not stream, 8 at a time, with keys and limits and without";
    let meshes = [Fleet::start(&bench.layout(true)).await?, Fleet::start(&bench.layout(false)).await?];
    let fronts = [Front::of(&meshes[0]), Front::of(&meshes[1])];
    for front in &fronts {
        small::ask(front).await?; // warms up
    }
    let mut sums = [Vec::new(), Vec::new()];
    let mut notes = [String::new(), String::new()];
    for round in 0..bench.rounds {
        // Each of them begins every other time.
        for index in [round % 2, 1 - round % 2] {
            let front = &fronts[index];
            let before = front.cpu()?;
            small::ask(front).await?;
            let micros = front.micros_since(&before, small::ALL)?;
            notes[index] = front.by_process(&micros);
            sums[index].push(micros.iter().sum::<f64>());
        }
    }
    // Of each round by itself: what blurs one blurs its neighbour.
    let added = sums[0].iter().zip(&sums[1]).map(|(guarded, open)| guarded - open).collect();
    let [guarded, open] = sums.map(median);
    let [guarded_note, open_note] = notes;
    report.add(CASE, "with a key and limits", guarded, "µs/request");
    report.note(guarded_note);
    report.add(CASE, "without", open, "µs/request");
    report.note(open_note);
    report.add(CASE, "added", median(added), "µs/request");
    report.at_most(50.0);
    Ok(())
}
