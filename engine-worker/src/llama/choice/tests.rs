//! What a choice says of tokens, one after the other.

use super::{super::speech::Calls, *};

fn terms(most: usize, stops: &[&str]) -> Terms {
    let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
    Terms {
        most,
        stops: stops.into(),
        shape: Shape::Free,
        manner: Manner::default(),
        key: 7,
    }
}

fn choice(most: usize, stops: &[&str]) -> Choice {
    Choice::new(0, terms(most, stops))
}

fn calling(stops: &[&str]) -> Choice {
    let manner = Manner {
        calls: Some(Calls {
            family: Family::Hermes,
            names: Arc::from(["f".to_owned()]),
            single: false,
        }),
        ..Manner::default()
    };
    Choice::new(
        0,
        Terms {
            manner,
            ..terms(99, stops)
        },
    )
}

fn text(text: &str) -> Vec<Said> {
    vec![Said::Text(text.to_owned())]
}

fn reason(choice: &Choice) -> FinishReason {
    choice.end.as_ref().unwrap().reason()
}

#[test]
fn a_stop_string_ends_the_choice_and_never_leaks() {
    let vocabulary = Vocabulary::of(&[b"a", b"E", b"ND", b"x"]);
    let mut choice = choice(9, &["END"]);
    let taken: Vec<Taken> = [0, 1, 2].iter().map(|&id| choice.take(&vocabulary, id)).collect();
    assert_eq!(taken, [Taken::Token(text("a")), Taken::Token(vec![]), Taken::Token(vec![])]);
    assert_eq!((reason(&choice), choice.end.unwrap().stop.as_str()), (FinishReason::Stop, "END"));
}

#[test]
fn held_text_is_released_when_the_model_ends() {
    let vocabulary = Vocabulary::of(&[b"a", b"E"]);
    let mut choice = choice(9, &["END"]);
    choice.take(&vocabulary, 0);
    choice.take(&vocabulary, 1);
    assert_eq!(choice.take(&vocabulary, 2), Taken::End(text("E")));
    assert_eq!(reason(&choice), FinishReason::Stop);
    assert_eq!(choice.made, [0, 1], "the token that ends is no part of it");
}

#[test]
fn the_last_token_that_may_be_made_releases_what_is_held() {
    let vocabulary = Vocabulary::of(&[b"E", "é".as_bytes()]);
    let mut choice = choice(2, &["Eé!"]);
    assert_eq!(choice.take(&vocabulary, 0), Taken::Token(vec![]));
    assert_eq!(choice.take(&vocabulary, 1), Taken::Token(text("Eé")));
    assert_eq!(reason(&choice), FinishReason::Length);
}

#[test]
fn a_character_of_two_tokens_comes_with_the_second() {
    let vocabulary = Vocabulary::of(&[&"é".as_bytes()[..1], &"é".as_bytes()[1..]]);
    let mut choice = choice(9, &[]);
    assert_eq!(choice.take(&vocabulary, 0), Taken::Token(vec![]));
    assert_eq!(choice.take(&vocabulary, 1), Taken::Token(text("é")));
}

#[test]
fn held_words_come_before_the_call_that_shows_they_were_no_stop_string() {
    let vocabulary = Vocabulary::of(&[
        b"E",
        b"N<tool_call>{\"name\": \"f\", ",
        b"\"arguments\": {\"a\":",
        b" 1}}",
        b"</tool_call>",
    ]);
    let mut choice = calling(&["END"]);
    assert_eq!(choice.take(&vocabulary, 0), Taken::Token(vec![]));
    let Taken::Token(said) = choice.take(&vocabulary, 1) else {
        panic!("refused")
    };
    let [Said::Text(words), Said::Call(first)] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!((words.as_str(), first.name.as_str(), first.index), ("EN", "f", 0));
    assert!(first.id.len() == 29 && first.id.starts_with("call_"), "{}", first.id);
    let arguments: Vec<Taken> = [2, 3].iter().map(|&id| choice.take(&vocabulary, id)).collect();
    let piece = |arguments: &str| {
        Taken::Token(vec![Said::Call(ToolCallDelta {
            arguments: arguments.to_owned(),
            ..ToolCallDelta::default()
        })])
    };
    assert_eq!(arguments, [piece("{\"a\":"), piece(" 1}")]);
    assert_eq!(choice.take(&vocabulary, 4), Taken::Token(vec![]));
    assert_eq!(choice.take(&vocabulary, 5), Taken::End(vec![]));
    assert_eq!(reason(&choice), FinishReason::ToolCalls);
}

#[test]
fn stop_strings_count_in_words_only() {
    let vocabulary = Vocabulary::of(&[b"<tool_call>{\"name\": \"f\", \"arguments\": {\"END\": 1}}</tool_call>"]);
    let mut choice = calling(&["END"]);
    let Taken::Token(said) = choice.take(&vocabulary, 0) else {
        panic!("refused")
    };
    assert!(
        matches!(&said[..], [Said::Call(call)] if call.arguments == "{\"END\": 1}"),
        "{said:?}"
    );
    assert_eq!(choice.end, None);
}

#[test]
fn ids_of_calls_differ_and_are_the_same_everywhere() {
    let (one, same) = (calling(&[]), calling(&[]));
    assert_eq!(one.call_id(0), same.call_id(0));
    assert_ne!(one.call_id(0), one.call_id(1));
    let other = Choice::new(1, Terms { key: 7, ..terms(9, &[]) });
    assert_ne!(one.call_id(0), other.call_id(0));
}
