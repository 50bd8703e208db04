//! How keys keep up with a store that does not answer to everything, in paused time.

use std::{
    convert::Infallible,
    future::{pending, ready},
    io,
    task::{Context, Poll},
};

use chassis::{channel, drain::Drain};
use clap::Parser;
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use tonic::{
    Status,
    body::Body,
    server::NamedService,
    transport::{Error, Server},
};
use tower::Service;

use super::*;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    settings: crate::Settings,
}

/// A store that never notes a use, and refuses all else at once.
#[derive(Clone, Default)]
struct Slow {
    /// When it was asked for revocations.
    asked: Arc<Mutex<Vec<Instant>>>,
    /// How often it was told of uses.
    told: Arc<Mutex<usize>>,
}

impl NamedService for Slow {
    const NAME: &'static str = "chat.v1.ConversationService";
}

impl Service<http::Request<Body>> for Slow {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path().ends_with("/NoteKeyUses") {
            *self.told.lock() += 1;
            return Box::pin(pending());
        }
        self.asked.lock().push(Instant::now());
        Box::pin(ready(Ok(Status::unavailable("not now").into_http())))
    }
}

impl Slow {
    fn serve(&self, drain: &Drain) -> tokio::io::DuplexStream {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let connections = stream::iter([Ok::<_, io::Error>(there)]).chain(stream::pending());
        let serving = Server::builder().add_service(self.clone()).serve_with_incoming(connections);
        drain.spawn(async move {
            let served: Result<(), Error> = serving.await;
            served.unwrap();
        });
        here
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_its_time_to_note_uses_holds_up_no_revocation_and_is_told_again() {
    let (store, drain) = (Slow::default(), Drain::new());
    let (served, serving) = (store.clone(), drain.clone());
    channel::dial_with(Some(Arc::new(move |address| {
        let dialled = if address == "store:1" {
            Ok(served.serve(&serving))
        } else {
            Err(io::ErrorKind::ConnectionRefused.into())
        };
        Box::pin(ready(dialled))
    })));
    let settings = Command::parse_from(["test", "--gateway-store", "store:1"]).settings;
    let keys = Keys::new(
        Secret::random().unwrap(),
        "live".to_owned(),
        Clients::new(&settings, &drain).unwrap(),
    );
    let keys = Arc::new(keys);
    keys.known
        .lock()
        .put("k".to_owned(), None, Instant::now() + Duration::from_hours(1));
    keys.used.lock().note("k", 7);
    let _ = timeout(NOTE * 3, Arc::clone(&keys).keep_up()).await;
    channel::dial_with(None);

    let asked = store.asked.lock();
    assert!(asked.len() > 150, "{}", asked.len());
    let longest = asked.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(longest < revocation::ASK * 3 / 2, "{longest:?}");
    assert_eq!(*store.told.lock(), 2);
    assert_eq!(keys.used.lock().take().len(), 1, "it is not forgotten");
}
