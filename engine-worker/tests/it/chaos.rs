//! Routers that start, attach, detach, cancel and break off as they like. Whatever they do, each reader sees its answer's own
//! entries, dense and once (the harness checks that on every response), at most one end, and at last every seat is back.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use engine_worker::{scripted::oracle::Oracle, service::Bounds};
use proto::v1::entry::Event;

use crate::harness::{Exchange, Got, Worker, ask, bounds, load_until, seats};

const STEPS: u32 = 400;

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ mixed >> 31) % u64::from(bound)).unwrap()
    }
}

/// A router: its exchange, and which answer each of its calls reads.
struct Router {
    exchange: Exchange,
    reads: HashMap<u32, u32>,
}

impl Router {
    async fn new(worker: &Worker) -> Self {
        Self {
            exchange: worker.exchange().await,
            reads: HashMap::new(),
        }
    }

    /// A call at random, if there is one.
    fn some_call(&self, dice: &mut Dice) -> Option<u32> {
        let calls = u32::try_from(self.reads.len()).unwrap();
        (calls > 0)
            .then(|| dice.below(calls))
            .and_then(|at| self.reads.keys().copied().nth(at as usize))
    }

    fn check(&self) {
        for (call, answer) in &self.reads {
            if let Some(got) = self.exchange.got.get(call) {
                check(got, *answer);
            }
        }
    }
}

/// All that was read is what the script says at those positions.
fn check(got: &Got, answer: u32) {
    let oracle = Oracle::named(format!("r{answer}"));
    for (index, entry) in (got.first..).zip(&got.entries) {
        if !entry.is_terminal() {
            assert_eq!(entry.token, oracle.text(0, index));
        }
    }
    if let Some(Event::Finished(finished)) = got.entries.last().and_then(|entry| entry.event.as_ref()) {
        let made = got.first + u32::try_from(got.tokens()).unwrap();
        assert_eq!(
            finished.usage.unwrap().completion_tokens,
            made,
            "a whole answer was read to its end"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_routers_do_no_entry_is_lost_or_doubled_and_no_seat_leaks() {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let seed = std::env::var("SEED").map_or(u64::try_from(seed).unwrap(), |seed| seed.parse().unwrap());
    eprintln!("SEED={seed}");
    let mut dice = Dice(seed);
    let short = Bounds {
        queue: 6,
        unattended_grace: Duration::from_millis(40),
        ..bounds()
    };
    let worker = Worker::scripted(&seats(12), short);
    let mut routers = [Router::new(&worker).await, Router::new(&worker).await];
    let mut answers = 0;
    for call in 0..STEPS {
        let who = dice.below(2) as usize;
        let router = &mut routers[who];
        match dice.below(12) {
            0..4 => {
                let script = format!(
                    "id=r{answers} tokens={} gap_us={}",
                    1 + dice.below(40),
                    [0, 300, 2000][dice.below(3) as usize]
                );
                router.reads.insert(call, answers);
                router.exchange.start(call, ask(&format!("s{answers}"), &script)).await;
                answers += 1;
            }
            4..7 if answers > 0 => {
                let answer = dice.below(answers);
                router.reads.insert(call, answer);
                router.exchange.attach(call, &format!("s{answer}"), dice.below(20)).await;
            }
            7 => {
                if let Some(call) = router.some_call(&mut dice) {
                    router.exchange.cancel(call).await;
                }
            }
            8 => {
                if let Some(call) = router.some_call(&mut dice) {
                    router.exchange.detach(call).await;
                }
            }
            9 if dice.below(8) == 0 => {
                router.check();
                *router = Router::new(&worker).await;
            }
            // A command's answer is ready when it comes, so there is something to read.
            _ => {
                router.exchange.start(call, ask("", "")).await;
                router.exchange.end(call).await;
            }
        }
    }
    for router in routers {
        let Router { exchange, reads, .. } = router;
        for (call, got) in exchange.close().await {
            if let Some(answer) = reads.get(&call) {
                check(&got, *answer);
            }
        }
    }
    load_until(&mut worker.client().await, |load| load.busy == 0 && load.queued == 0).await;
    worker.drain.begin();
    worker.serving.await.unwrap().unwrap();
    assert!(worker.drain.finish(Duration::from_secs(5)).await, "no task is left");
}
