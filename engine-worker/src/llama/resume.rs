//! Going on with a choice that another worker began: its tokens are taken once more, and what was written of them there is not written again.
//!
//! [`super::request`] uses it. Pure.

use proto::v1::{Entry, Failure, GenerateRequest, ResumePoint};

use super::{
    choice::{Choice, Taken},
    said,
    tokens::Vocabulary,
};

/// How many entries of a choice were written elsewhere, as far as the request says.
pub(super) fn delivered(request: &GenerateRequest, choice: u32) -> Option<usize> {
    let alone = request.request.as_ref().is_some_and(|chat| chat.n <= 1);
    if request.entries.is_empty() {
        return alone.then_some(request.position as usize);
    }
    Some(request.entries.iter().filter(|entry| entry.choice == choice).count())
}

/// Brings a choice to where another worker left it. Returns the entries that this one owes: a token may bring several, and not all of them
/// may have been written. Nothing else is written again.
///
/// # Errors
/// The tokens and entries are not what this choice would have made.
pub(super) fn replay(
    vocabulary: &Vocabulary,
    choices: &mut [Choice],
    point: &ResumePoint,
    delivered: Option<usize>,
) -> Result<Vec<Entry>, Failure> {
    let wrong = |what: &str| Failure::invalid("resume", format!("choice {}: {what}", point.choice));
    let many = choices.len() > 1;
    let choice = choices
        .get_mut(point.choice as usize)
        .ok_or_else(|| wrong("there is no such choice"))?;
    let (mut made, mut last) = (0, Vec::new());
    for &token in &point.token_ids {
        if token as usize >= vocabulary.len() || vocabulary.is_eog(token) {
            return Err(wrong("its tokens are not of this model"));
        }
        if choice.end.is_some() {
            return Err(wrong("its tokens go on past its end"));
        }
        match choice.take(vocabulary, token) {
            Taken::Token(said) => last = said::entries(choice, Some(token), said, many),
            Taken::End(_) | Taken::Refused => return Err(wrong("its tokens are not of the shape that was asked for")),
        }
        made += last.len();
    }
    if point.end.is_some() {
        choice.end.clone_from(&point.end);
        return Ok(Vec::new());
    }
    let delivered = delivered.unwrap_or(made);
    if delivered > made && choice.end.is_none() {
        // What was held was said at the end, which brings no token: the choice has ended.
        let said = choice.end();
        last = said::entries(choice, None, said, many);
        made += last.len();
    }
    let Some(owed) = made.checked_sub(delivered).filter(|owed| *owed <= last.len()) else {
        return Err(wrong("its tokens and its entries do not belong together"));
    };
    Ok(last.split_off(last.len() - owed))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{
        super::{
            choice::{Shape, Terms},
            speech::{Calls, Family, Manner, ThoughtMarks},
        },
        *,
    };

    /// Tokens that bring thoughts, words, stop strings and calls, and some that bring several at once.
    const TOKENS: [&str; 16] = [
        "<think>",
        "hm",
        "</think>",
        "ok</think>\n\nWell",
        " word",
        " EN",
        "D",
        "\n",
        "<tool_call>",
        "see <tool_call>{\"name\": \"f\", \"arguments\": {",
        "{\"name\": \"f\",",
        " \"arguments\": {\"a\": ",
        "1}}",
        "}",
        "</tool_call>",
        "1}}</tool_call> and <tool_call>{\"name\": \"f\"}</tool_call>\nso ",
    ];

    fn choices(count: u32, thinking: bool, single: bool, most: usize) -> Vec<Choice> {
        let terms = Terms {
            most,
            stops: Arc::from([" END".to_owned()]),
            shape: Shape::Free,
            manner: Manner {
                thoughts: ThoughtMarks::of("<think>"),
                thinking,
                calls: Some(Calls {
                    family: Family::Hermes,
                    names: Arc::from(["f".to_owned()]),
                    single,
                }),
            },
            key: 1,
        };
        (0..count).map(|index| Choice::new(index, terms.clone())).collect()
    }

    /// The entries of a choice that makes these tokens and then ends.
    fn make(vocabulary: &Vocabulary, choice: &mut Choice, tokens: &[u32], many: bool) -> Vec<Entry> {
        let mut entries = Vec::new();
        for &token in tokens.iter().chain([&16]) {
            if choice.end.is_some() {
                break;
            }
            match choice.take(vocabulary, token) {
                Taken::Token(said) => entries.extend(said::entries(choice, Some(token), said, many)),
                Taken::End(said) => entries.extend(said::entries(choice, None, said, many)),
                Taken::Refused => panic!("nothing is refused"),
            }
        }
        entries
    }

    proptest! {
        #[test]
        fn wherever_it_was_cut_a_choice_goes_on_as_it_would_have(
            tokens in prop::collection::vec(0u32..16, 0..14),
            thinking: bool,
            single: bool,
            many: bool,
            most in 1usize..16,
        ) {
            let pieces: Vec<&[u8]> = TOKENS.iter().map(|token| token.as_bytes()).collect();
            let vocabulary = Vocabulary::of(&pieces);
            let count = if many { 2 } else { 1 };
            let mut unbroken = choices(count, thinking, single, most);
            let whole = make(&vocabulary, &mut unbroken[0], &tokens, many);
            prop_assert_eq!(whole.iter().map(|entry| entry.tokens as usize).sum::<usize>(), unbroken[0].made.len());
            for cut in 0..=whole.len() {
                let before = &whole[..cut];
                let point = ResumePoint {
                    token_ids: before.iter().flat_map(|entry| entry.token_ids.clone()).collect(),
                    end: before.iter().find_map(|entry| entry.end.as_deref().cloned()),
                    ..ResumePoint::default()
                };
                let mut resumed = choices(count, thinking, single, most);
                let mut entries = replay(&vocabulary, &mut resumed, &point, Some(cut)).unwrap();
                let made = resumed[0].made.len();
                entries.extend(make(&vocabulary, &mut resumed[0], &tokens[made..], many));
                prop_assert_eq!(&entries, &whole[cut..], "cut at {}", cut);
                prop_assert_eq!(&resumed[0].end, &unbroken[0].end);
            }
        }
    }

    #[test]
    fn entries_that_do_not_belong_to_the_tokens_are_refused() {
        let pieces: Vec<&[u8]> = TOKENS.iter().map(|token| token.as_bytes()).collect();
        let vocabulary = Vocabulary::of(&pieces);
        let point = ResumePoint {
            token_ids: vec![4, 4, 4],
            ..ResumePoint::default()
        };
        for delivered in [0, 1, 5] {
            let failure = replay(&vocabulary, &mut choices(1, false, false, 9), &point, Some(delivered)).unwrap_err();
            assert_eq!(failure.param, "resume", "{delivered}");
        }
        replay(&vocabulary, &mut choices(1, false, false, 9), &point, Some(3)).unwrap();
    }
}
