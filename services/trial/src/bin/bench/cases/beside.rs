//! Two fronts under the same load, in turns.

use trial::report::{Report, median};

use super::Front;

/// What each took in each round: CPU-µs for each of what was asked.
pub(super) struct Beside<'case> {
    case: &'case str,
    unit: &'static str,
    rounds: Vec<[f64; 2]>,
    /// What there is to say of each front's last round.
    notes: [String; 2],
}

impl<'case> Beside<'case> {
    /// Measures so many rounds. `measure` puts one front under load, and says what each of its processes took, and what else there is
    /// to say. Who comes first changes from round to round.
    pub(super) async fn measure(
        (case, unit): (&'case str, &'static str),
        fronts: &[Front<'_>; 2],
        rounds: usize,
        mut measure: impl AsyncFnMut(&Front<'_>) -> anyhow::Result<(Vec<f64>, String)>,
    ) -> anyhow::Result<Self> {
        let (mut all, mut notes) = (Vec::new(), [String::new(), String::new()]);
        for round in 0..rounds {
            let mut sums = [0.0; 2];
            for index in [round % 2, 1 - round % 2] {
                let (micros, more) = measure(&fronts[index]).await?;
                sums[index] = micros.iter().sum();
                notes[index] = fronts[index].by_process(&micros) + &more;
            }
            all.push(sums);
        }
        Ok(Self {
            case,
            unit,
            rounds: all,
            notes,
        })
    }

    /// Adds what a front took: the median.
    pub(super) fn add(&self, report: &mut Report, front: usize, name: &str) {
        report.add(self.case, name, self.median(|sums| sums[front]), self.unit);
        report.note(&self.notes[front]);
    }

    /// Adds how often the first took what the second did. Of each round by itself: what blurs one blurs its neighbour.
    pub(super) fn add_ratio(&self, report: &mut Report, name: &str) {
        report.add(self.case, name, self.median(|[first, second]| first / second), "×");
    }

    /// Adds what the first took more, of each round by itself.
    pub(super) fn add_difference(&self, report: &mut Report, name: &str) {
        report.add(self.case, name, self.median(|[first, second]| first - second), self.unit);
    }

    fn median(&self, of: impl Fn([f64; 2]) -> f64) -> f64 {
        median(self.rounds.iter().map(|sums| of(*sums)).collect())
    }
}
