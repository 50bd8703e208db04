//! One sweep over all answers, instead of a timer for each token: the three clocks of a stream, the grace times, and the end of
//! draining.

use std::{sync::Arc, time::Duration};

use proto::v1::{Failure, Reason};
use tokio::time::{Instant, sleep};

use super::Router;
use crate::answer::{
    Answer,
    end::{Clocks, Due},
};

/// How often: a tenth of the shortest time that is worth waiting for.
const EVERY: Duration = Duration::from_millis(100);

impl Router {
    /// Sweeps until draining has begun and no answer runs.
    pub(super) async fn watch_clocks(self: Arc<Self>) {
        let clocks = Clocks {
            first_token: self.settings.first_token_limit,
            between_tokens: self.settings.token_limit,
            failover: self.settings.failover_limit,
        };
        let mut draining = false;
        loop {
            sleep(EVERY).await;
            if self.drain.is_draining() {
                if !std::mem::replace(&mut draining, true) {
                    self.pulse.status_changed();
                }
                if self.answers.lock().running() == 0 {
                    self.over.cancel();
                    return;
                }
            }
            self.sweep(&clocks);
        }
    }

    fn sweep(self: &Arc<Self>, clocks: &Clocks) {
        let now = Instant::now();
        let expired = self.answers.lock().sweep(std::time::Instant::now());
        self.expire(expired);
        let due: Vec<_> = {
            let answers = self.answers.lock();
            let running = answers.iter().filter(|(_, _, running)| *running);
            running
                .map(|(_, shelved, _)| (shelved.0.due(now, clocks), &shelved.0))
                .filter(|(due, _)| *due != Due::Nothing)
                .map(|(due, answer)| (due, Arc::clone(answer)))
                .collect()
        };
        for (due, answer) in due {
            self.act(due, &answer);
        }
        self.empty_the_draining(now);
        if !self.queue.lock().is_empty() {
            self.dispatch(); // a worker that was set aside may be back
        }
    }

    fn act(self: &Arc<Self>, due: Due, answer: &Arc<Answer>) {
        match due {
            Due::Nothing => {}
            Due::GiveUp => self.give_up(answer),
            Due::TooLong => self.fail(answer, Failure::new(Reason::Timeout, "the answer took longer than it may")),
            Due::NoToken => {
                if let Some(leg) = answer.unrun(answer.epoch()) {
                    leg.call.blame();
                }
                self.fail(answer, Failure::new(Reason::Timeout, "no token came in time"));
            }
            Due::Silent => {
                let failure = Failure::new(Reason::Timeout, "no further token came in time");
                self.blame(answer, answer.epoch(), failure);
            }
            Due::Lost if self.workers.serves(answer.model(), !answer.journal.is_empty()) => {} // its turn comes before all others
            Due::Lost => {
                let failure = Failure::new(Reason::WorkerLost, "the worker was lost, and no other could go on in time");
                self.fail(answer, failure);
            }
        }
    }
}
