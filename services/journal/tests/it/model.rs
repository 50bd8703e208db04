//! Random histories of one journal and its readers, run on the real thing and on a model of it.

use std::task::{Context, Poll, Waker};

use journal::{Entry, Error, Journal, Limits, Reader, Writer};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) u32, pub(crate) bool);

impl Entry for Token {
    fn is_terminal(&self) -> bool {
        self.1
    }
    fn weight(&self) -> usize {
        1
    }
}

const LIMITS: Limits = Limits { entries: 20, bytes: 1000 };

/// The model: a list, who may write, and where the readers are.
#[derive(Default)]
struct Model {
    entries: Vec<Token>,
    epoch: u32,
    readers: Vec<usize>,
}

impl Model {
    fn closed(&self) -> bool {
        self.entries.last().is_some_and(|last| last.1)
    }

    fn claim(&mut self, epoch: u32) -> Result<(), Error> {
        match () {
            () if self.closed() => Err(Error::Closed),
            () if epoch <= self.epoch => Err(Error::Fenced(self.epoch)),
            () => {
                self.epoch = epoch;
                Ok(())
            }
        }
    }

    fn append(&mut self, epoch: u32, position: u32, tokens: &[Token]) -> Result<u32, Error> {
        let len = self.entries.len() as u32;
        match () {
            () if epoch != self.epoch => return Err(Error::Fenced(self.epoch)),
            () if self.closed() => return Err(Error::Closed),
            () if position > len => {
                return Err(Error::Gap {
                    expected: len,
                    found: position,
                });
            }
            () => {}
        }
        for token in tokens.iter().skip((len - position) as usize) {
            match () {
                () if self.closed() => return Err(Error::Closed),
                () if !token.1 && self.entries.len() as u32 >= LIMITS.entries => return Err(Error::Full),
                () => self.entries.push(token.clone()),
            }
        }
        Ok(self.entries.len() as u32 - len)
    }

    fn read(&mut self, reader: usize, most: usize) -> Poll<Option<Vec<Token>>> {
        let next = &mut self.readers[reader];
        let ready: Vec<_> = self.entries.iter().skip(*next).take(most).cloned().collect();
        *next += ready.len();
        match () {
            () if !ready.is_empty() => Poll::Ready(Some(ready)),
            () if self.closed() => Poll::Ready(None),
            () => Poll::Pending,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Claim(u32),
    Append { writer: usize, tokens: Vec<Token> },
    AppendFrom { writer: usize, position: u32, tokens: Vec<Token> },
    Enter(u32),
    Read { reader: usize, most: usize },
}

fn tokens() -> impl Strategy<Value = Vec<Token>> {
    prop::collection::vec(
        (any::<u32>(), prop::bool::weighted(0.05)).prop_map(|(value, last)| Token(value, last)),
        1..6,
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..6_u32).prop_map(Step::Claim),
        4 => (0..4_usize, tokens()).prop_map(|(writer, tokens)| Step::Append { writer, tokens }),
        4 => (0..4_usize, 0..25_u32, tokens()).prop_map(|(writer, position, tokens)| Step::AppendFrom { writer, position, tokens }),
        2 => (0..25_u32).prop_map(Step::Enter),
        6 => (0..8_usize, 1..5_usize).prop_map(|(reader, most)| Step::Read { reader, most }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_journal_does_what_its_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let journal = Journal::new(LIMITS);
        let mut model = Model::default();
        let mut writers: Vec<Writer<Token>> = Vec::new();
        let mut readers: Vec<Reader<Token>> = Vec::new();
        let context = Context::from_waker(Waker::noop());
        for step in steps {
            match step {
                Step::Claim(epoch) => {
                    let claimed = journal.claim(epoch);
                    prop_assert_eq!(claimed.as_ref().map(|_| ()).map_err(|error| *error), model.claim(epoch));
                    writers.extend(claimed);
                }
                Step::Append { writer, tokens } => if let Some(writer) = writers.get(writer) {
                    for token in tokens {
                        let position = journal.len();
                        let expected = model.append(writer.epoch(), position, std::slice::from_ref(&token));
                        prop_assert_eq!(writer.append(token), expected.map(|_| position));
                    }
                },
                Step::AppendFrom { writer, position, tokens } => if let Some(writer) = writers.get(writer) {
                    let expected = model.append(writer.epoch(), position, &tokens);
                    prop_assert_eq!(writer.append_from(position, tokens), expected);
                },
                Step::Enter(next) => {
                    readers.push(journal.reader(next));
                    model.readers.push(next as usize);
                }
                Step::Read { reader, most } => if reader < readers.len() {
                    let read = readers[reader].poll_read(&context, most, |_, entries| entries.to_vec());
                    prop_assert_eq!(read, model.read(reader, most));
                },
            }
            prop_assert_eq!(journal.len() as usize, model.entries.len());
            prop_assert_eq!(journal.is_closed(), model.closed());
            prop_assert_eq!(journal.readers(), readers.len());
        }
        journal.with_entries(|entries| {
            assert!(entries.iter().eq(&model.entries), "{entries:?} is not {:?}", model.entries);
            assert!(entries.iter().rev().skip(1).all(|entry| !entry.1), "a terminal entry is the last");
        });
    }
}
