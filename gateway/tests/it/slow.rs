//! A client that does not read costs bounded memory and delays nobody; one that reads again has every entry once.

use std::cell::Cell;

use proto::v1::{Entry, FinishReason, chat_command::Command};

use crate::{
    client,
    gateway::Gateway,
    router::{Received, Router, finished},
};

/// More than all buffers between here and there hold.
const ENTRIES: u32 = 12_000;

fn text(position: u32) -> String {
    format!("{position:1000} ")
}

fn word(position: u32) -> Entry {
    Entry::text(text(position), position)
}

/// Answers everybody: who asks for `long` gets as much as the gateway takes, the others one word.
struct Play<'a> {
    router: &'a Router,
    /// Who reads the long answer, and the next position.
    reader: Cell<Option<u32>>,
}

impl Play<'_> {
    async fn run(&self) {
        let mut long = None;
        loop {
            tokio::select! {
                biased;
                received = self.router.next() => long = self.hear(received, long).await,
                () = Self::tell(long.as_ref()), if long.is_some() => {
                    let position = self.reader.get().map_or(0, |position| position + 1);
                    self.reader.set(Some(position));
                    if position > ENTRIES {
                        long = None;
                    } else if let Some((_, next)) = &mut long {
                        *next = position;
                    }
                }
            }
        }
    }

    async fn hear(&self, received: Received, long: Option<(Received, u32)>) -> Option<(Received, u32)> {
        let next = match &received.command {
            Command::Start(request) if request.prompt == "long" => {
                received.admit(&request.stream_id).await;
                0
            }
            Command::Start(request) => {
                received.admit(&request.stream_id).await;
                received.entries(0, vec![word(0), finished(FinishReason::Stop, 1)]).await;
                return long;
            }
            Command::Attach(asked) => {
                received.admit(&asked.stream_id).await;
                asked.position
            }
            Command::Detach(detach) => {
                assert!(detach.lagging);
                let stays = long.as_ref().is_some_and(|(reader, _)| reader.call != received.call);
                self.reader.set(None);
                return long.filter(|_| stays);
            }
            Command::Cancel(_) => panic!("nobody cancelled"),
        };
        self.reader.set(Some(next));
        Some((received, next))
    }

    async fn tell(long: Option<&(Received, u32)>) {
        let Some((reader, next)) = long else { return };
        let entry = if *next == ENTRIES {
            finished(FinishReason::Stop, ENTRIES)
        } else {
            word(*next)
        };
        reader.entries(*next, vec![entry]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_delays_nobody_and_goes_on_where_it_was() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = Play {
        router: &router,
        reader: Cell::new(None),
    };
    let read = async {
        let mut slow = client::open_narrow(gateway.address, "/stream?prompt=long").await;
        // It does not read. Others are served, and after a while the router is asked for no more of it.
        let mut quiet = 0;
        while quiet < 20 {
            let response = client::get(gateway.address, "/stream?prompt=short").await;
            assert!(response.body.ends_with("data: [DONE]\n\n"));
            quiet = if play.reader.get().is_none() { quiet + 1 } else { 0 };
        }
        slow.rest().await
    };
    let body = tokio::select! {
        body = read => body,
        () = play.run() => unreachable!(),
    };
    let mut events = body.split_terminator("\n\n");
    for position in 0..ENTRIES {
        let expected = format!("data: {{\"token\":\"{}\"}}", text(position));
        assert_eq!(events.next(), Some(expected.as_str()));
    }
    assert_eq!(events.next(), Some("data: [DONE]"));
    assert_eq!(events.next(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_lagged_and_goes_is_told_to_the_router() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = Play {
        router: &router,
        reader: Cell::new(None),
    };
    let stalled = async {
        let slow = client::open_narrow(gateway.address, "/stream?prompt=long").await;
        let mut quiet = 0;
        while quiet < 20 {
            client::get(gateway.address, "/stream?prompt=short").await;
            quiet = if play.reader.get().is_none() { quiet + 1 } else { 0 };
        }
        slow
    };
    let slow = tokio::select! {
        slow = stalled => slow,
        () = play.run() => unreachable!(),
    };
    drop(slow);
    let (again, _) = router.attached().await;
    let gone = router.next().await;
    assert!(gone.is_detach(false) && gone.call == again.call);
}
