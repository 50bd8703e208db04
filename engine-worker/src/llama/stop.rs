//! Stop strings: they end an answer and are no part of it, also when they span tokens.
//!
//! [`Choice`](super::choice) uses it. A pure function of the text fed, however it is cut: text that may begin a stop string is
//! held, and released when it turns out not to be one.

use std::sync::Arc;

/// Text on its way out, less what may belong to a stop string.
#[derive(Clone, Debug)]
pub(super) struct Stops {
    stops: Arc<[String]>,
    held: String,
}

impl Stops {
    /// Stops at any of these, none of them empty.
    pub(super) fn new(stops: Arc<[String]>) -> Self {
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Appends to `out` what of the text is certainly part of the answer. `Some(i)` once stop string `i` was met: the answer
    /// has ended, and what came after is dropped. Of several the one that ends first counts, and of those the longest.
    pub(super) fn feed(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.stops.is_empty() {
            out.push_str(text);
            return None;
        }
        self.held.push_str(text);
        let met = self
            .stops
            .iter()
            .enumerate()
            .filter_map(|(which, stop)| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, which)))
            .min();
        if let Some((_, start, which)) = met {
            out.push_str(&self.held[..start]);
            self.held.clear();
            return Some(which);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        out.extend(self.held.drain(..self.held.len() - keep));
        None
    }

    /// Nothing more comes: what is held was no stop string.
    pub(super) fn flush(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

/// The length of the longest end of `text` that is a beginning of `stop`, short of all of it.
pub(super) fn overlap(text: &str, stop: &str) -> usize {
    let most = text.len().min(stop.len().saturating_sub(1));
    (1..=most)
        .rev()
        .find(|&length| stop.is_char_boundary(length) && text.as_bytes().ends_with(&stop.as_bytes()[..length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[String], pieces: &[String]) -> (Vec<String>, Option<usize>) {
        let mut state = Stops::new(stops.into());
        let mut outs = Vec::new();
        for piece in pieces {
            let mut out = String::new();
            let met = state.feed(piece, &mut out);
            outs.push(out);
            if met.is_some() {
                return (outs, met);
            }
        }
        let mut out = String::new();
        state.flush(&mut out);
        outs.push(out);
        (outs, None)
    }

    /// By brute force: the stop string that ends first, and of those the longest.
    fn expected(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in 0..=text.len() {
            let ending = stops
                .iter()
                .enumerate()
                .filter(|(_, stop)| text.as_bytes()[..end].ends_with(stop.as_bytes()));
            if let Some((which, stop)) = ending.max_by_key(|(which, stop)| (stop.len(), std::cmp::Reverse(*which))) {
                return (text[..end - stop.len()].to_owned(), Some(which));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn however_text_is_cut_the_answer_is_what_stands_before_the_first_stop(
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            pieces in prop::collection::vec("[abcé]{0,3}", 0..12),
        ) {
            let (outs, met) = run(&stops, &pieces);
            let (text, which) = expected(&stops, &pieces.concat());
            prop_assert_eq!(met, which);
            prop_assert_eq!(outs.concat(), text);
        }

        #[test]
        fn no_more_is_held_than_may_begin_a_stop(stop in "[ab]{1,4}", pieces in prop::collection::vec("[abc]{0,3}", 0..12)) {
            let mut state = Stops::new(Arc::from([stop.clone()]));
            for piece in &pieces {
                let mut out = String::new();
                if state.feed(piece, &mut out).is_some() {
                    break;
                }
                prop_assert!(state.held.len() < stop.len() && stop.starts_with(&state.held));
            }
        }
    }

    #[test]
    fn text_that_only_began_a_stop_is_released() {
        let (outs, met) = run(&["END".into()], &["a".into(), "E".into(), "N".into(), "x".into()]);
        assert_eq!(
            (outs, met),
            (vec!["a".into(), String::new(), String::new(), "ENx".into(), String::new()], None)
        );
    }
}
