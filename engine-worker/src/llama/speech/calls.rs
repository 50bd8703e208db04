//! Where calls are: between their marks, in the heading of one, in its JSON. What looked like a call and is none goes back to the words.

use super::{
    Piece, Speech, State,
    call::{Call, Read},
    say,
};

/// The longest heading of a call, in bytes: its name and some marks.
const MAX_HEADING: usize = 512;

impl Speech {
    pub(super) fn between(&mut self, any: bool, last: bool, out: &mut Vec<Piece>) -> bool {
        let Some(family) = self.family() else { return false };
        let word = self.held.trim_start();
        let Some(first) = word.chars().next() else { return false };
        let blank = self.held.len() - word.len();
        let close = family.close();
        if !close.is_empty() && word.starts_with(close) && any {
            self.held.drain(..blank + close.len());
            self.state = State::Begin { after: true };
            return true;
        }
        let unclear = |mark: &&str| mark.len() > word.len() && mark.starts_with(word);
        if [close].iter().chain(family.noise()).any(unclear) && (any || !last) {
            if last {
                self.held.clear(); // the mark that ends a call, cut short with the answer
            }
            return false;
        }
        let noise = family.noise().iter().find(|noise| word.starts_with(**noise));
        if let Some(noise) = noise {
            self.doubt(blank + noise.len(), any);
            return true;
        }
        if first == '{' {
            self.doubt(blank, any);
            self.state = State::Call {
                call: Box::new(Call::new()),
                announced: false,
            };
        } else if family.has_heading() && (first.is_alphanumeric() || first == '_') {
            self.doubt(blank, any);
            self.state = State::Heading;
        } else if any {
            self.state = State::Begin { after: true };
        } else {
            self.give_up(out);
        }
        true
    }

    pub(super) fn head(&mut self, last: bool, out: &mut Vec<Piece>) -> bool {
        let Some(calls) = &self.manner.calls else { return false };
        let Some(at) = self.held.find('{') else {
            if last || self.held.len() > MAX_HEADING {
                self.give_up(out);
                return true;
            }
            return false;
        };
        let name = calls.family.named_in(&self.held[..at]).to_owned();
        if !calls.names.contains(&name) {
            self.give_up(out);
            return true;
        }
        let call = Call::named(&name);
        self.doubt(at, false);
        self.state = State::Call {
            call: Box::new(call),
            announced: false,
        };
        true
    }

    /// Reads on in a call. Says whether it has ended.
    pub(super) fn call(&mut self, out: &mut Vec<Piece>) -> bool {
        let State::Call { call, announced } = &mut self.state else {
            return false;
        };
        let names = self.manner.calls.as_ref().map_or(&[][..], |calls| &calls.names);
        let (mut read, mut arguments, mut taken) = (Read::More, String::new(), 0);
        for c in self.held.chars() {
            taken += c.len_utf8();
            read = call.feed(c, &mut arguments);
            if !*announced && let Some(name) = call.name() {
                *announced = names.iter().any(|one| one == name);
                if *announced {
                    out.push(Piece::Call {
                        index: self.calls,
                        name: name.to_owned(),
                        arguments: std::mem::take(&mut arguments),
                    });
                    self.calls += 1;
                    self.doubtful.clear();
                } else {
                    read = Read::Wrong;
                }
            }
            if read != Read::More {
                break;
            }
        }
        let announced = *announced;
        if !announced && read == Read::Wrong {
            self.give_up(out);
            return true;
        }
        let text = self.held.drain(..taken);
        if announced {
            drop(text);
            go_on(out, self.calls - 1, arguments);
        } else {
            self.doubtful.extend(text);
        }
        if read == Read::More {
            return false;
        }
        self.over = self.manner.calls.as_ref().is_some_and(|calls| calls.single);
        self.state = State::Between { any: true };
        true
    }

    /// So much of what is held belongs to a call, if it becomes one.
    fn doubt(&mut self, length: usize, any: bool) {
        let taken = self.held.drain(..length);
        if !any {
            self.doubtful.extend(taken);
        }
    }

    /// What looked like a call is none: its first character is a word, and the rest is looked at again.
    fn give_up(&mut self, out: &mut Vec<Piece>) {
        let text = std::mem::take(&mut self.doubtful) + &self.held;
        let blank = text.len() - text.trim_start().len();
        let first = text[blank..].chars().next().map_or(0, char::len_utf8);
        say(out, &text[..blank + first]);
        text[blank + first..].clone_into(&mut self.held);
        self.state = State::Words;
    }
}

/// Adds to the arguments of a call.
fn go_on(out: &mut Vec<Piece>, which: u32, more: String) {
    match out.last_mut() {
        _ if more.is_empty() => {}
        Some(Piece::Call { index, arguments, .. } | Piece::Arguments { index, arguments }) if *index == which => arguments.push_str(&more),
        _ => out.push(Piece::Arguments {
            index: which,
            arguments: more,
        }),
    }
}
