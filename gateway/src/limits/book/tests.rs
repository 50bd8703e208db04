//! What holds of a book, whatever is asked of it.

use proptest::prelude::*;

use super::{super::terms::Bounds, *};

const NOON: u64 = DAY_MS * 20_000 + DAY_MS / 2;

fn ask(name: &str, prompt: u64, output: u64, bounds: Bounds) -> Ask {
    Ask {
        who: "w".into(),
        name: name.to_owned(),
        prompt,
        output,
        least: output,
        bounds,
    }
}

fn end(name: &str, tokens: u64) -> Settlement {
    Settlement {
        who: "w".into(),
        name: name.to_owned(),
        tokens,
        keep_ms: 0,
        owed: None,
    }
}

proptest! {
    #[test]
    fn no_60_seconds_hold_more_requests_than_the_limit(
        limit in 1_u32..8,
        gaps in prop::collection::vec(0_u64..20_000, 1..200),
    ) {
        let mut book = Book::default();
        let bounds = Bounds { requests: limit, ..Bounds::default() };
        let (mut now, mut granted) = (NOON, Vec::new());
        for (id, gap) in gaps.into_iter().enumerate() {
            now += gap;
            match book.admit(&ask(&id.to_string(), 1, 1, bounds), now).outcome {
                Ok(_) => granted.push(now),
                Err(over) => prop_assert!(over.limit == Limit::Requests && (1..=61_000).contains(&over.retry_ms)),
            }
            let within = granted.iter().filter(|at| **at + 60_000 > now).count();
            prop_assert!(within <= limit as usize);
        }
    }

    #[test]
    fn who_comes_back_when_told_to_is_let_in(limit in 1_u32..8, gaps in prop::collection::vec(0_u64..5_000, 1..100)) {
        let mut book = Book::default();
        let bounds = Bounds { requests: limit, ..Bounds::default() };
        let mut now = NOON;
        for (id, gap) in gaps.into_iter().enumerate() {
            now += gap;
            if let Err(over) = book.admit(&ask(&id.to_string(), 1, 1, bounds), now).outcome {
                now += over.retry_ms;
                let again = ask(&format!("{id}b"), 1, 1, bounds);
                prop_assert!(book.admit(&again, now).outcome.is_ok());
            }
        }
    }

    #[test]
    fn a_day_never_takes_more_tokens_than_the_limit(
        limit in 1_u64..2_000,
        steps in prop::collection::vec((0_u64..400, 0_u64..400, 0.0_f64..=1.0, any::<bool>(), 0_u64..7_200_000), 1..100),
    ) {
        let mut book = Book::default();
        let bounds = Bounds { tokens: limit, ..Bounds::default() };
        let mut now = NOON;
        let mut taken = std::collections::HashMap::<u64, u64>::new();
        for (id, (prompt, output, share, elastic, gap)) in steps.into_iter().enumerate() {
            now += gap / 10;
            let asked = ask(&id.to_string(), prompt, output, bounds);
            let asked = Ask { least: if elastic { output.min(3) } else { output }, ..asked };
            let day = now / DAY_MS;
            if let Ok(Granted::Reserved(output)) = book.admit(&asked, now).outcome {
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]
                let took = prompt + (output as f64 * share) as u64;
                if id % 3 > 0 {
                    prop_assert!(book.settle(&end(&id.to_string(), took), now));
                    *taken.entry(day).or_default() += took;
                }
            }
            prop_assert!(taken.values().all(|taken| *taken <= limit));
        }
    }
}

#[test]
fn a_reservation_is_settled_once() {
    let mut book = Book::default();
    let bounds = Bounds {
        tokens: 100,
        ..Bounds::default()
    };
    let left = |book: &mut Book| book.admit(&ask("other", 100, 1, bounds), NOON).standing.tokens;
    book.admit(&ask("a", 10, 50, bounds), NOON);
    assert_eq!(left(&mut book), 40);
    assert!(book.settle(&end("a", 25), NOON));
    assert!(!book.settle(&end("a", 25), NOON));
    assert_eq!(left(&mut book), 75);
}

#[test]
fn what_is_asked_for_again_is_paid_for() {
    let mut book = Book::default();
    let bounds = Bounds {
        tokens: 100,
        streams: 1,
        ..Bounds::default()
    };
    let again = |book: &mut Book, now| book.admit(&ask("a", 60, 40, bounds), now).outcome;
    assert_eq!(again(&mut book, NOON), Ok(Granted::Reserved(40)));
    assert_eq!(again(&mut book, NOON), Ok(Granted::Again));
    let kept = Settlement {
        keep_ms: 1000,
        ..end("a", 100)
    };
    assert!(book.settle(&kept, NOON));
    assert_eq!(again(&mut book, NOON + 999), Ok(Granted::Again));
    assert!(again(&mut book, NOON + 1000).is_err());
}

#[test]
fn a_stream_that_runs_takes_a_place_until_it_has_ended() {
    let mut book = Book::default();
    let bounds = Bounds {
        streams: 1,
        ..Bounds::default()
    };
    assert!(book.admit(&ask("a", 1, 1, bounds), NOON).outcome.is_ok());
    let over = book.admit(&ask("b", 1, 1, bounds), NOON).outcome.unwrap_err();
    assert_eq!(over.limit, Limit::Streams);
    book.settle(&end("a", 0), NOON);
    assert!(book.admit(&ask("b", 1, 1, bounds), NOON).outcome.is_ok());
    assert!(book.admit(&ask("c", 1, 1, bounds), NOON + HOLD_MS).outcome.is_ok());
}

#[test]
fn a_reservation_that_stays_open_is_looked_up_now_and_then() {
    let mut book = Book::default();
    let mut stale = |id: &str, at| book.admit(&ask(id, 1, 1, Bounds::default()), NOON + at).stale;
    assert!(stale("a", 0).is_empty());
    assert!(stale("b", CHECK_MS - 1).is_empty());
    assert_eq!(stale("c", CHECK_MS), ["a"]);
    assert!(stale("d", CHECK_MS + 1).is_empty());
}

#[test]
fn what_is_owed_is_charged_once_and_only_on_its_day() {
    let mut book = Book::default();
    let owed = |stream_id, day| Settlement {
        keep_ms: 1000,
        owed: Some(day),
        ..end(stream_id, 30)
    };
    let day = NOON / DAY_MS;
    assert!(book.settle(&owed("a", day), NOON));
    assert!(!book.settle(&owed("a", day), NOON));
    assert!(book.settle(&owed("b", day - 1), NOON));
    assert_eq!(book.used, 30);
}

#[test]
fn a_share_is_never_nothing_and_no_limit_stays_none() {
    let bounds = Bounds {
        requests: 10,
        tokens: 0,
        streams: 2,
    };
    let share = Bounds {
        requests: 3,
        tokens: 0,
        streams: 1,
    };
    assert_eq!(bounds.share(3), share);
}
