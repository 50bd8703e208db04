//! What is known of answers whose end was not seen.

use super::*;
use crate::idempotency::Key;

fn pending(unseen: &[(&str, Option<u64>)]) -> Pending {
    let unseen = unseen.iter().map(|(name, seen)| Unseen {
        stream_id: (*name).to_owned(),
        seen: *seen,
    });
    Pending {
        principal: Principal::default(),
        request_id: "mine".to_owned(),
        end: Settlement {
            who: "caller".into(),
            name: "a".to_owned(),
            tokens: 0,
            keep_ms: 1000,
            owed: None,
        },
        own: true,
        unseen: unseen.collect(),
        until: Instant::now(),
        wait: Duration::ZERO,
    }
}

fn log(name: &str, request_id: &str, tokens: u64) -> HashMap<String, Logged> {
    let request_id = request_id.to_owned();
    HashMap::from([(name.to_owned(), Logged { request_id, tokens })])
}

#[test]
fn several_answers_are_settled_together_when_all_are_known_of() {
    let mut pending = pending(&[("a", None), ("a-1", None), ("a-2", Some(3))]);
    for (logged, known) in [
        (log("a", "mine", 7), false),
        (log("a", "mine", 7), false),
        (log("a-1", "mine", 5), false),
    ] {
        pending.learn(&logged);
        assert_eq!(pending.ended().is_some(), known);
    }
    pending.believe_what_was_seen();
    let end = pending.ended().unwrap();
    assert_eq!((end.tokens, end.keep_ms), (7 + 5 + 3, 1000));
}

#[test]
fn what_never_began_is_closed_at_once_and_may_be_asked_for_anew() {
    let key = Key::parse("k", b"k").unwrap().stream_id(&Principal::default());
    let mut pending = pending(&[(&key, None)]);
    pending.learn(&log(&key, "an earlier one, with the same key", 0));
    assert!(pending.ended().is_none(), "this one's may be running");
    pending.learn(&log(&key, "mine", 0));
    let end = pending.ended().unwrap();
    assert_eq!((end.tokens, end.keep_ms), (0, 0));
}

#[tokio::test]
async fn a_reservation_that_somebody_else_left_open_is_paid_for_once() {
    let (settler, Receiver(mut left)) = Settler::new(&Arc::new(Metrics::new()));
    let end = Settlement {
        name: names::of("a", 2),
        ..pending(&[]).end
    };
    settler.look_up(&Principal::default(), end, true);
    let mut pending = left.recv().await.unwrap();
    for name in ["a", "a-1"] {
        assert!(pending.ended().is_none());
        pending.learn(&log(name, "whosever", 7));
    }
    let end = pending.ended().unwrap();
    assert_eq!(
        (end.name.as_str(), end.tokens, end.keep_ms),
        ("a/2", 14, 1000),
        "with the mark that it is"
    );
}
