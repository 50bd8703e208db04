//! One choice of an answer: what it has made so far, and what of it is said.
//!
//! The scheduler feeds it the tokens that the model chose; [`super::request`] feeds it those that another worker made before. Both
//! go through [`Choice::take`], so its state is a function of its token ids alone, and an answer that goes on elsewhere releases
//! the same text with the same entries.

use std::sync::Arc;

use proto::v1::{ChoiceEnd, FinishReason};

use super::{grammar::Grammar, sample::Counts, stop::Stops, tokens::Vocabulary, utf8::Utf8};

/// A choice in the making.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Which one of the answer's.
    pub(super) index: u32,
    /// The tokens made so far, without the one that ended it.
    pub(super) made: Vec<u32>,
    /// How often each was made.
    pub(super) counts: Counts,
    /// What the text must be like.
    pub(super) grammar: Option<Grammar>,
    /// How it ended.
    pub(super) end: Option<ChoiceEnd>,
    most: usize,
    utf8: Utf8,
    stops: Stops,
    stop_texts: Arc<[String]>,
}

/// What a token brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The token's entry, with this text.
    Token(String),
    /// The model ended the choice; text that was held, if any, is released without a token.
    End(String),
    /// The grammar does not allow it; nothing has changed.
    Refused,
}

impl Choice {
    /// A choice that has nothing yet and makes `most` tokens at most.
    pub(super) fn new(index: u32, most: usize, stops: Arc<[String]>, grammar: Option<Grammar>) -> Self {
        Self {
            index,
            made: Vec::new(),
            counts: Counts::new(),
            grammar,
            end: None,
            most,
            utf8: Utf8::default(),
            stops: Stops::new(Arc::clone(&stops)),
            stop_texts: stops,
        }
    }

    /// Goes on by a token, or ends by it.
    pub(super) fn take(&mut self, vocabulary: &Vocabulary, id: u32) -> Taken {
        if vocabulary.is_eog(id) {
            self.finish(FinishReason::Stop, String::new());
            return Taken::End(self.flush());
        }
        if self.grammar.as_mut().is_some_and(|grammar| !grammar.accept(id)) {
            return Taken::Refused;
        }
        self.made.push(id);
        *self.counts.entry(id).or_default() += 1;
        let mut text = String::new();
        self.utf8.feed(vocabulary.piece(id), &mut text);
        let mut released = String::new();
        if let Some(which) = self.stops.feed(&text, &mut released) {
            self.finish(FinishReason::Stop, self.stop_texts[which].clone());
        } else if self.made.len() >= self.most {
            // The last token: what is held comes with it.
            self.finish(FinishReason::Length, String::new());
            released.push_str(&self.flush());
        }
        Taken::Token(released)
    }

    /// Ends without a token: the grammar leaves none.
    pub(super) fn end(&mut self) -> String {
        self.finish(FinishReason::Stop, String::new());
        self.flush()
    }

    /// The text that is held, as the end of the choice would release it.
    pub(super) fn held(&self) -> String {
        flush(&mut self.utf8.clone(), &mut self.stops.clone()).0
    }

    fn finish(&mut self, reason: FinishReason, stop: String) {
        self.end = Some(ChoiceEnd {
            choice: self.index,
            reason: reason.into(),
            stop,
        });
    }

    fn flush(&mut self) -> String {
        let (text, met) = flush(&mut self.utf8, &mut self.stops);
        if let Some(which) = met {
            self.finish(FinishReason::Stop, self.stop_texts[which].clone());
        }
        text
    }
}

/// Releases what is held, and says whether even that met a stop string.
fn flush(utf8: &mut Utf8, stops: &mut Stops) -> (String, Option<usize>) {
    let (mut text, mut released) = (String::new(), String::new());
    utf8.flush(&mut text);
    let met = stops.feed(&text, &mut released);
    stops.flush(&mut released);
    (released, met)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(most: usize, stops: &[&str]) -> Choice {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        Choice::new(0, most, stops.into(), None)
    }

    fn reason(choice: &Choice) -> FinishReason {
        choice.end.as_ref().unwrap().reason()
    }

    #[test]
    fn a_stop_string_ends_the_choice_and_never_leaks() {
        let vocabulary = Vocabulary::of(&[b"a", b"E", b"ND", b"x"]);
        let mut choice = choice(9, &["END"]);
        let taken: Vec<Taken> = [0, 1, 2].iter().map(|&id| choice.take(&vocabulary, id)).collect();
        assert_eq!(
            taken,
            [Taken::Token("a".into()), Taken::Token(String::new()), Taken::Token(String::new())]
        );
        assert_eq!((reason(&choice), choice.end.unwrap().stop.as_str()), (FinishReason::Stop, "END"));
    }

    #[test]
    fn held_text_is_released_when_the_model_ends() {
        let vocabulary = Vocabulary::of(&[b"a", b"E"]);
        let mut choice = choice(9, &["END"]);
        choice.take(&vocabulary, 0);
        choice.take(&vocabulary, 1);
        assert_eq!(choice.held(), "E");
        assert_eq!(choice.take(&vocabulary, 2), Taken::End("E".into()));
        assert_eq!(reason(&choice), FinishReason::Stop);
        assert_eq!(choice.made, [0, 1], "the token that ends is no part of it");
    }

    #[test]
    fn the_last_token_that_may_be_made_releases_what_is_held() {
        let vocabulary = Vocabulary::of(&[b"E", "é".as_bytes()]);
        let mut choice = choice(2, &["Eé!"]);
        assert_eq!(choice.take(&vocabulary, 0), Taken::Token(String::new()));
        assert_eq!(choice.take(&vocabulary, 1), Taken::Token("Eé".into()));
        assert_eq!(reason(&choice), FinishReason::Length);
    }

    #[test]
    fn a_character_of_two_tokens_comes_with_the_second() {
        let vocabulary = Vocabulary::of(&[&"é".as_bytes()[..1], &"é".as_bytes()[1..]]);
        let mut choice = choice(9, &[]);
        assert_eq!(choice.take(&vocabulary, 0), Taken::Token(String::new()));
        assert_eq!(choice.take(&vocabulary, 1), Taken::Token("é".into()));
    }
}
