//! Where a stop string cuts what a choice says. The script knows all that it will say, so it looks ahead: nothing of a stop string
//! can leak, wherever it begins and ends.

use std::cmp::Ordering;

use compact_str::CompactString;

use super::oracle::Oracle;

/// Where a stop string cuts the text of a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The token whose text is cut; later ones say nothing.
    index: u32,
    /// How much of its text is released, in bytes.
    text: usize,
    /// The tokens that are made until the stop string is whole.
    pub(super) tokens: u32,
    pub(super) stop: String,
}

impl Cut {
    /// The first stop string to become whole within so many tokens, if any does.
    pub(super) fn find(oracle: &Oracle, choice: u32, tokens: u32, stops: &[String]) -> Option<Self> {
        if stops.is_empty() {
            return None;
        }
        let whole = oracle.whole(choice, tokens);
        let met = stops
            .iter()
            .filter_map(|stop| whole.find(stop.as_str()).map(|at| (at + stop.len(), at, stop)));
        let (end, at, stop) = met.min()?;
        // The token in which the stop string begins, and where; then the one in which it ends.
        let (mut from, mut begins) = (0, None);
        for index in 0..tokens {
            let to = from + oracle.text(choice, index).len();
            if begins.is_none() && at < to {
                begins = Some((index, at - from));
            }
            if let Some((first, text)) = begins
                && end <= to
            {
                return Some(Self {
                    index: first,
                    text,
                    tokens: index + 1,
                    stop: stop.clone(),
                });
            }
            from = to;
        }
        None
    }

    /// Leaves of a token's text what is released.
    pub(super) fn apply(&self, index: u32, text: &mut CompactString) {
        match index.cmp(&self.index) {
            Ordering::Less => {}
            Ordering::Equal => text.truncate(self.text),
            Ordering::Greater => text.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is released, and how many tokens that takes.
    fn said(stop: &str) -> (String, u32) {
        let oracle = Oracle::named("r");
        let cut = Cut::find(&oracle, 0, 9, &["never".to_owned(), stop.to_owned()]);
        let tokens = cut.as_ref().map_or(9, |cut| cut.tokens);
        let texts = (0..tokens).map(|index| {
            let mut text = oracle.text(0, index);
            if let Some(cut) = &cut {
                cut.apply(index, &mut text);
            }
            text
        });
        (texts.collect(), tokens)
    }

    #[test]
    fn a_stop_string_never_leaks_wherever_it_begins_and_ends() {
        assert_eq!(said(".2 r.3"), ("r.0 r.1 r".to_owned(), 4));
        assert_eq!(said("r.0"), (String::new(), 1));
        assert_eq!(said(" "), ("r.0".to_owned(), 1));
        assert_eq!(said("unmet").1, 9);
    }
}
