//! A database that is away, locked or killed: a typed failure, nothing half written, and on it goes when it is back.

use chassis::process::Fault as _;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use conversation_store::Error;
use nix::sys::signal::Signal;
use proto::v1::{Reason, Role};
use sqlx::{Connection as _, Executor as _, SqliteConnection};
use tempfile::TempDir;

use crate::{
    postgres::Server,
    stage::{Running, ann, begin, conversation, failure, finish, finished, messages, says, settings, texts, turn},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_file_is_a_typed_failure_and_leaves_nothing_half_written() {
    let folder = TempDir::new().unwrap();
    let database = format!("sqlite://{}/chat.db", folder.path().display());
    let mut limited = settings(&database);
    limited.store_timeout = Duration::from_millis(300);
    let store = Running::start(limited).await;
    let mut client = store.client.clone();
    let id = conversation(&mut client, ann()).await.id;

    let mut other = SqliteConnection::connect(&database).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let refused = failure(&client.begin_turn(turn(&id, "a", "hello")).await.unwrap_err());
    assert_eq!(refused.reason(), Reason::StoreUnavailable);
    assert!(refused.retry_after_ms > 0);
    // Whoever reads does not wait.
    assert!(messages(&mut client, &id).await.is_empty());
    other.execute("ROLLBACK").await.unwrap();

    // The call that was given up may still have its turn at the file: it has no effect, or its whole effect.
    let mut again = client.begin_turn(turn(&id, "a", "hello")).await;
    for _ in 0..20 {
        if again.is_ok() {
            break;
        }
        again = client.begin_turn(turn(&id, "a", "hello")).await;
    }
    assert!(again.unwrap().into_inner().history.is_empty());
    assert_eq!(texts(&mut client, &id).await, ["hello", ""]);
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_database_is_a_clear_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chat.db");
    std::fs::write(&path, "x".repeat(8192)).unwrap();
    let store = Running::start(settings(&format!("sqlite://{}", path.display()))).await;
    let error = store.stop_by_itself().await.unwrap_err();
    assert!(error.is_of_setting() && error.to_string().contains("chat.db"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_postgres_is_a_typed_failure_in_time() {
    let server = Server::make();
    server.ready().await;
    let mut limited = settings(&server.database().await);
    limited.store_timeout = Duration::from_millis(500);
    let store = Running::start(limited).await;
    let mut client = store.client.clone();
    let id = conversation(&mut client, ann()).await.id;
    server.signal_all(Signal::SIGSTOP);
    let asked = Instant::now();
    let refused = failure(&client.begin_turn(turn(&id, "a", "hello")).await.unwrap_err());
    assert_eq!(refused.reason(), Reason::StoreUnavailable);
    assert!(asked.elapsed() < Duration::from_secs(5));
    server.signal_all(Signal::SIGCONT);
    while client.begin_turn(turn(&id, "a", "hello")).await.is_err() {}
    assert_eq!(texts(&mut client, &id).await, ["hello", ""]);
    store.stop().await.unwrap();
}

/// Turns go on being opened and closed while PostgreSQL is killed and started again: what was confirmed is there, once and whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_postgres_leaves_no_turn_half_done() {
    const WRITERS: usize = 4;
    const TURNS: usize = 60;
    let mut server = Server::make();
    server.ready().await;
    let store = Running::start(settings(&server.database().await)).await;
    let done = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (mut client, done, failed) = (store.client.clone(), Arc::clone(&done), Arc::clone(&failed));
            tokio::spawn(async move {
                let id = conversation(&mut client, ann()).await.id;
                for n in 0..TURNS {
                    let mut opened = turn(&id, &format!("w{writer}.{n}"), &n.to_string());
                    opened.messages.push(says(Role::User, "and"));
                    while let Err(status) = client.begin_turn(opened.clone()).await {
                        assert_eq!(failure(&status).reason(), Reason::StoreUnavailable, "{status}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    let closed = finished(&id, &opened.stream_id, "yes");
                    let request = proto::v1::FinishTurnsRequest { turns: vec![closed] };
                    while let Err(status) = client.finish_turns(request.clone()).await {
                        assert_eq!(failure(&status).reason(), Reason::StoreUnavailable, "{status}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                id
            })
        })
        .collect();
    for kill_at in [40, 120, 200] {
        while done.load(Ordering::Relaxed) < kill_at {
            tokio::task::yield_now().await;
        }
        server.kill();
        server.start_again();
        server.ready().await;
    }
    let mut client = store.client.clone();
    for writer in writers {
        let id = writer.await.unwrap();
        let said = texts(&mut client, &id).await;
        let expected: Vec<String> = (0..TURNS)
            .flat_map(|n| [n.to_string(), "and".to_owned(), "yes".to_owned()])
            .collect();
        assert_eq!(said, expected);
        let ids: HashSet<String> = messages(&mut client, &id).await.into_iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), expected.len());
    }
    assert!(failed.load(Ordering::Relaxed) > 0, "no call met the fault");
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_starts_before_its_postgres_waits_for_it() {
    let mut server = Server::make();
    server.ready().await;
    let database = server.database().await;
    server.kill();
    let store = Running::start(settings(&database)).await;
    server.start_again();
    let mut client = store.client.clone();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    assert_eq!(finish(&mut client, vec![finished(&id, "a", "hi")]).await, 1);
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_postgres_never_comes_gives_up_in_time() {
    let mut hopeless = settings("postgres://u:hunter2@127.0.0.1:1/chat");
    hopeless.database_wait = Duration::from_millis(300);
    let error = Running::start(hopeless).await.stop_by_itself().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && !error.is_of_setting(), "{error}");
    assert!(error.to_string().contains("UNBROKEN_DATABASE_WAIT") && !error.to_string().contains("hunter2"));
}
