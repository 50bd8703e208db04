//! What every ledger must do: the same tests over books in memory and over a real Redis, which must also agree on everything.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on panics"
)]

#[path = "../../tests/it/redis.rs"]
#[allow(dead_code, reason = "this half of the tests does not kill it")]
mod server;

use std::time::Duration;

use proptest::prelude::*;

use super::{
    Ledger,
    memory::Memory,
    redis::Redis,
    terms::{Ask, Bounds, CHECK_MS, DAY_MS, Granted, HOLD_MS, Limit, Settlement},
};

/// A noon; tests say what time it is.
const NOON: u64 = DAY_MS * 20_000 + DAY_MS / 2;
/// A machine under test may be slow.
const PATIENCE: Duration = Duration::from_secs(20);

fn over(server: &server::Redis) -> Redis {
    Redis::new(&server.address(), PATIENCE).unwrap()
}

/// Runs a test over both ledgers.
macro_rules! contract {
    ($(async fn $name:ident($ledger:ident: &dyn Ledger) $test:block)+) => {
        $(
            mod $name {
                use super::*;

                async fn test($ledger: &dyn Ledger) $test

                #[tokio::test]
                async fn in_memory() {
                    test(&Memory::new()).await;
                }

                #[tokio::test]
                async fn in_redis() {
                    let server = server::Redis::start();
                    test(&over(&server)).await;
                }
            }
        )+
    };
}

fn ask(name: &str, bounds: Bounds) -> Ask {
    Ask {
        who: "caller".into(),
        name: name.to_owned(),
        prompt: 10,
        output: 20,
        least: 20,
        bounds,
    }
}

fn end(name: &str, tokens: u64) -> Settlement {
    Settlement {
        who: "caller".into(),
        name: name.to_owned(),
        tokens,
        keep_ms: 0,
        owed: None,
    }
}

fn requests(requests: u32) -> Bounds {
    Bounds {
        requests,
        ..Bounds::default()
    }
}

fn tokens(tokens: u64) -> Bounds {
    Bounds {
        tokens,
        ..Bounds::default()
    }
}

contract! {
    async fn the_window_slides(ledger: &dyn Ledger) {
        for (number, second) in [0, 10, 30].into_iter().enumerate() {
            let verdict = ledger.admit(&ask(&number.to_string(), requests(3)), NOON + second * 1000).await.unwrap();
            assert_eq!(verdict.outcome, Ok(Granted::Reserved(20)));
            assert_eq!(verdict.standing.requests, 2 - u32::try_from(number).unwrap());
        }
        let refused = ledger.admit(&ask("4", requests(3)), NOON + 40_000).await.unwrap().outcome.unwrap_err();
        assert_eq!((refused.limit, refused.retry_ms), (Limit::Requests, 21_000));
        let retried = ledger.admit(&ask("5", requests(3)), NOON + 61_000).await.unwrap();
        assert_eq!(retried.outcome, Ok(Granted::Reserved(20)));
        assert_eq!(retried.standing.requests_reset_ms, 61_000);
    }

    async fn a_reservation_is_charged_once_with_what_was_taken(ledger: &dyn Ledger) {
        ledger.admit(&ask("a", tokens(50)), NOON).await.unwrap();
        let refused = ledger.admit(&ask("b", tokens(50)), NOON).await.unwrap();
        assert_eq!(refused.outcome.unwrap_err().limit, Limit::Tokens);
        assert_eq!(refused.standing.tokens, 20);
        assert!(ledger.settle(&end("a", 12), NOON).await.unwrap());
        assert!(!ledger.settle(&end("a", 12), NOON).await.unwrap());
        let admitted = ledger.admit(&ask("b", tokens(50)), NOON).await.unwrap();
        assert_eq!(admitted.standing.tokens, 50 - 12 - 30);
    }

    async fn less_output_is_granted_where_less_will_do(ledger: &dyn Ledger) {
        let elastic = Ask { least: 1, output: 1000, ..ask("a", tokens(50)) };
        assert_eq!(ledger.admit(&elastic, NOON).await.unwrap().outcome, Ok(Granted::Reserved(40)));
        let none_left = Ask { name: "b".to_owned(), ..elastic.clone() };
        assert_eq!(ledger.admit(&none_left, NOON).await.unwrap().outcome.unwrap_err().limit, Limit::Tokens);
        // A token for each of three choices, or none.
        let choices = |name: &str, left| Ask { who: name.into(), least: 3, ..Ask { bounds: tokens(left), ..elastic.clone() } };
        assert_eq!(ledger.admit(&choices("three", 13), NOON).await.unwrap().outcome, Ok(Granted::Reserved(3)));
        assert_eq!(ledger.admit(&choices("two", 12), NOON).await.unwrap().outcome.unwrap_err().limit, Limit::Tokens);
    }

    async fn a_day_begins_with_all_its_tokens(ledger: &dyn Ledger) {
        let late = NOON + DAY_MS / 2 - 1000;
        ledger.admit(&ask("a", tokens(30)), late).await.unwrap();
        let refused = ledger.admit(&ask("b", tokens(30)), late).await.unwrap();
        assert_eq!(refused.standing.tokens_reset_ms, 1000);
        assert!(ledger.admit(&ask("b", tokens(30)), late + 1000).await.unwrap().outcome.is_ok());
        assert!(ledger.settle(&end("a", 30), late + 1000).await.unwrap());
        assert!(ledger.settle(&end("b", 1), late + 1000).await.unwrap());
        assert_eq!(ledger.admit(&ask("c", tokens(60)), late + 2000).await.unwrap().standing.tokens, 29);
    }

    async fn streams_at_once_are_those_that_have_not_ended(ledger: &dyn Ledger) {
        let bounds = Bounds { streams: 1, ..Bounds::default() };
        assert!(ledger.admit(&ask("a", bounds), NOON).await.unwrap().outcome.is_ok());
        let refused = ledger.admit(&ask("b", bounds), NOON).await.unwrap().outcome.unwrap_err();
        assert_eq!(refused.limit, Limit::Streams);
        assert!(ledger.settle(&end("a", 0), NOON).await.unwrap());
        assert!(ledger.admit(&ask("b", bounds), NOON).await.unwrap().outcome.is_ok());
        // Nobody closed it, and it cannot run any more.
        assert!(ledger.admit(&ask("c", bounds), NOON + HOLD_MS).await.unwrap().outcome.is_ok());
    }

    async fn what_is_asked_for_again_is_paid_for(ledger: &dyn Ledger) {
        let again = ask("a", tokens(30));
        assert_eq!(ledger.admit(&again, NOON).await.unwrap().outcome, Ok(Granted::Reserved(20)));
        assert_eq!(ledger.admit(&again, NOON).await.unwrap().outcome, Ok(Granted::Again));
        assert!(ledger.settle(&Settlement { keep_ms: 60_000, ..end("a", 30) }, NOON).await.unwrap());
        assert_eq!(ledger.admit(&again, NOON).await.unwrap().outcome, Ok(Granted::Again));
        assert!(!ledger.settle(&end("a", 30), NOON).await.unwrap());
    }

    async fn what_is_owed_is_charged_once(ledger: &dyn Ledger) {
        let owed = Settlement { keep_ms: 60_000, owed: Some(NOON / DAY_MS), ..end("a", 12) };
        assert!(ledger.settle(&owed, NOON).await.unwrap());
        assert!(!ledger.settle(&owed, NOON).await.unwrap());
        assert_eq!(ledger.admit(&ask("b", tokens(100)), NOON).await.unwrap().standing.tokens, 100 - 12 - 30);
    }

    async fn reservations_that_stay_open_are_named_now_and_then(ledger: &dyn Ledger) {
        ledger.admit(&ask("a", Bounds::default()), NOON).await.unwrap();
        assert!(ledger.admit(&ask("b", Bounds::default()), NOON + 1).await.unwrap().stale.is_empty());
        assert_eq!(ledger.admit(&ask("c", Bounds::default()), NOON + CHECK_MS).await.unwrap().stale, ["a"]);
        assert_eq!(ledger.admit(&ask("d", Bounds::default()), NOON + CHECK_MS + 1).await.unwrap().stale, ["b"]);
    }

    async fn each_caller_has_a_book_of_their_own(ledger: &dyn Ledger) {
        assert!(ledger.admit(&ask("a", requests(1)), NOON).await.unwrap().outcome.is_ok());
        assert!(ledger.admit(&ask("b", requests(1)), NOON).await.unwrap().outcome.is_err());
        let other = Ask { who: "other".into(), ..ask("a", requests(1)) };
        assert!(ledger.admit(&other, NOON).await.unwrap().outcome.is_ok());
    }
}

/// Something that happens to a ledger.
#[derive(Clone, Debug)]
enum Step {
    Admit { id: u8, prompt: u64, output: u64, least: u64 },
    Settle { id: u8, tokens: u64, keep: bool, owed: bool },
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let admit = (0_u8..12, 0_u64..50, 0_u64..50, 0_u64..50).prop_map(|(id, prompt, output, least)| Step::Admit {
        id,
        prompt,
        output,
        least: least.min(output),
    });
    let settle =
        (0_u8..12, 0_u64..60, any::<bool>(), any::<bool>()).prop_map(|(id, tokens, keep, owed)| Step::Settle { id, tokens, keep, owed });
    let gap = prop_oneof![6 => 0_u64..3000, 2 => 0_u64..70_000, 1 => 0_u64..DAY_MS];
    (gap, prop_oneof![2 => admit, 1 => settle])
}

#[test]
fn memory_and_redis_agree_on_everything() {
    let server = server::Redis::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = runtime.block_on(async { over(&server) });
    let cases = std::cell::Cell::new(0_u32);
    proptest!(ProptestConfig::with_cases(64), |(
        limits in (0_u32..6, 0_u64..300, 0_u32..5),
        steps in prop::collection::vec(step(), 1..80),
    )| {
        cases.set(cases.get() + 1);
        let memory = Memory::new();
        let bounds = Bounds { requests: limits.0, tokens: limits.1, streams: limits.2 };
        let who = std::sync::Arc::<str>::from(format!("caller-{}", cases.get()));
        let mut now = NOON;
        for (gap, step) in steps {
            now += gap;
            match step {
                Step::Admit { id, prompt, output, least } => {
                    let asked = Ask { who: who.clone(), prompt, output, least, ..ask(&id.to_string(), bounds) };
                    let (mut one, mut two) = runtime.block_on(async {
                        (memory.admit(&asked, now).await.unwrap(), redis.admit(&asked, now).await.unwrap())
                    });
                    one.stale.sort();
                    two.stale.sort();
                    prop_assert_eq!(one, two);
                }
                Step::Settle { id, tokens, keep, owed } => {
                    // A mark in Redis ends by its own clock, so here it never does.
                    let closed = Settlement {
                        who: who.clone(),
                        keep_ms: if keep { DAY_MS * 1000 } else { 0 },
                        owed: owed.then_some(now / DAY_MS),
                        ..end(&id.to_string(), tokens)
                    };
                    let (one, two) = runtime.block_on(async {
                        (memory.settle(&closed, now).await.unwrap(), redis.settle(&closed, now).await.unwrap())
                    });
                    prop_assert_eq!(one, two);
                }
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_at_once_never_grant_more_than_there_is() {
    let server = server::Redis::start();
    let gateways = [over(&server), over(&server)];
    let bounds = Bounds {
        requests: 50,
        tokens: 30 * 40,
        streams: 45,
    };
    let asks = (0..100).map(|number| {
        let gateway = &gateways[number % 2];
        let asked = ask(&number.to_string(), bounds);
        async move { gateway.admit(&asked, 0).await.unwrap().outcome.is_ok() }
    });
    let granted = futures_util::future::join_all(asks).await;
    assert_eq!(granted.into_iter().filter(|granted| *granted).count(), 40);
}

#[tokio::test]
async fn an_admission_is_one_call() {
    let server = server::Redis::start();
    let ledger = over(&server);
    ledger.admit(&ask("warm", Bounds::default()), 0).await.unwrap();
    let calls = async || {
        let mut connection = redis::Client::open(server.address())
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let evals = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
        evals.split(',').next().unwrap().parse::<u32>().unwrap()
    };
    let before = calls().await;
    ledger.admit(&ask("a", Bounds::default()), 0).await.unwrap();
    assert_eq!(calls().await - before, 1);
}

#[tokio::test]
async fn a_wrong_address_is_told_without_its_password() {
    for address in [
        "redis://u:hunter2@[",
        "http://u:hunter2@host",
        "hunter2",
        "rediss://u:hunter2@host",
        "redis://u:hunter2@host:port",
    ] {
        let error = Redis::new(address, PATIENCE).err().unwrap().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn judging_and_settling_in_memory_takes_less_than_50_microseconds_of_cpu() {
    use nix::sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    };
    const ROUNDS: u64 = 20_000;
    let memory = Memory::new();
    let bounds = Bounds {
        requests: 300,
        tokens: 5_000_000,
        streams: 64,
    };
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
    };
    let before = cpu();
    for round in 0..ROUNDS {
        let principal = proto::v1::Principal {
            tenant: "acme".to_owned(),
            user_id: (round % 100).to_string(),
        };
        let asked = Ask {
            who: super::who(&principal),
            ..ask(&round.to_string(), bounds)
        };
        let verdict = memory.judge(&asked, NOON + round * 3);
        let mut headers = http::HeaderMap::new();
        let quota = super::Quota {
            tier: "enterprise".to_owned(),
            bounds,
            standing: verdict.standing,
        };
        quota.write(&mut headers);
        let closed = Settlement {
            who: asked.who,
            ..end(&round.to_string(), 20)
        };
        memory.close(&closed, NOON + round * 3);
    }
    let each = (cpu() - before) / i64::try_from(ROUNDS).unwrap();
    assert!(each < 50, "{each} µs of CPU for each request, in a build that is not optimised");
}
