//! Nobody polls, and nobody sleeps through an entry.

use std::future::poll_fn;

use futures_util::future::join_all;
use journal::{Journal, Limits, Readers};

use crate::model::Token;

const ENTRIES: u32 = 500;

async fn write(journal: Journal<Token>, seed: u32) {
    let writer = journal.claim(1).unwrap();
    for value in 0..ENTRIES {
        writer.append(Token(value, value == ENTRIES - 1)).unwrap();
        if (value ^ seed).is_multiple_of(7) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_at_any_position_get_each_entry_once_while_it_is_written() {
    let journal: Journal<Token> = Journal::new(Limits::default());
    let readers = (0..32).map(|start| {
        let mut reader: journal::Reader<Token> = journal.reader(start * 10);
        tokio::spawn(async move {
            let mut got = Vec::new();
            while let Some(batch) = reader.read(3).await {
                got.extend(batch.into_iter().map(|token| token.0));
            }
            assert!(got.iter().copied().eq(start * 10..ENTRIES), "reader from {}: {got:?}", start * 10);
        })
    });
    let readers: Vec<_> = readers.collect();
    write(journal.clone(), 0).await;
    for reader in join_all(readers).await {
        reader.unwrap();
    }
    assert_eq!(journal.readers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_set_of_readers_delivers_every_call_in_order_and_whole() {
    const CALLS: u32 = 100;
    let mut readers = Readers::default();
    let mut writers = Vec::new();
    for call in 0..CALLS {
        let journal: Journal<Token> = Journal::new(Limits::default());
        readers.insert(call, journal.reader(0), ENTRIES);
        writers.push(tokio::spawn(write(journal, call)));
    }
    let mut next = vec![0; CALLS as usize];
    while !readers.is_empty() {
        let delivered = poll_fn(|context| {
            readers.poll_read(context, 4, |call, first, entries, _| {
                assert_eq!(first, next[call as usize]);
                assert!(entries.iter().map(|entry| entry.0).eq(first..first + entries.len() as u32));
                next[call as usize] += entries.len() as u32;
            })
        })
        .await;
        let ended = next[delivered.call as usize] == ENTRIES;
        assert_eq!(delivered.done, ended.then_some(ENTRIES));
    }
    assert!(next.iter().all(|next| *next == ENTRIES));
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_is_taken_out_stops_and_can_go_on_later() {
    let journal: Journal<Token> = Journal::new(Limits::default());
    let writer = journal.claim(1).unwrap();
    let mut readers = Readers::default();
    readers.insert(7, journal.reader(0), "seven");
    writer.append(Token(0, false)).unwrap();
    let delivered = poll_fn(|context| readers.poll_read(context, 10, |_, _, entries, _| entries.len())).await;
    assert_eq!((delivered.call, delivered.taken, delivered.done), (7, Some(1), None));
    assert_eq!(readers.get(7), Some(&"seven"));
    let (reader, with) = readers.remove(7).unwrap();
    assert!(readers.is_empty());
    writer.append(Token(1, true)).unwrap();
    readers.insert(8, reader, with);
    let delivered = poll_fn(|context| readers.poll_read(context, 10, |_, first, _, _| first)).await;
    assert_eq!((delivered.call, delivered.taken, delivered.done), (8, Some(1), Some("seven")));
}
