//! What the journal costs on the way of a token: the same entries over two hops of gRPC, from a source through a relay to a sink, once with a
//! journal for each answer in the relay, as a router has them, and once without: what comes in goes out. In turns, by CPU time of all three.

mod hop;

use std::{process, time::Duration};

use self::hop::{Hop, Kind, drain};
use crate::{
    report::{Report, median},
    usage,
};

/// What the table calls it.
pub const CASE: &str = "journal: 500 answers relayed as fast as possible, source and sink included";
/// Runs of each kind in a round.
const REPEATS: usize = 6;
/// Tokens a run.
const TOKENS: u32 = hop::CALLS * hop::TOKENS;

/// Measures it in this process, in which nothing else must work meanwhile.
///
/// # Errors
/// A hop could not be started, or lost something.
pub async fn measure(rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let source = Hop::start(Kind::Source)?;
    let plain = Hop::start(Kind::Plain(source.channel()?))?;
    let journaled = Hop::start(Kind::Journaled(source.channel()?))?;
    let mut micros = [Vec::new(), Vec::new()];
    for _ in 0..rounds * REPEATS {
        for (hop, micros) in [&plain, &journaled].into_iter().zip(&mut micros) {
            let before = usage::cpu(process::id())?;
            let read = drain(hop.channel()?).await?;
            anyhow::ensure!(read == TOKENS + hop::CALLS, "{read} entries came");
            micros.push(per_token(usage::cpu(process::id())?.saturating_sub(before)));
        }
    }
    let [plain, journaled] = micros.map(median);
    report.add(CASE, "without a journal", plain, "µs/token");
    report.add(CASE, "with a journal for each answer", journaled, "µs/token");
    report.add(CASE, "throughput with it, where without it is 1", plain / journaled, "×");
    report.at_least(0.9);
    Ok(())
}

fn per_token(spent: Duration) -> f64 {
    spent.as_secs_f64() * 1e6 / f64::from(TOKENS)
}
