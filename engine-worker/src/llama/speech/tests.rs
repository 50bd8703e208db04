//! What is read of texts as models of each family write them, however they are cut.

use proptest::prelude::*;

use super::*;

const THINK: ThoughtMarks = ThoughtMarks {
    open: "<think>",
    close: "</think>",
};

fn manner(family: Family) -> Manner {
    Manner {
        thoughts: Some(THINK),
        thinking: false,
        calls: Some(Calls {
            family,
            names: Arc::from(["look".to_owned(), "add".to_owned()]),
            single: false,
        }),
    }
}

/// What was said of a text that came in these pieces.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    words: String,
    thought: String,
    calls: Vec<(String, String)>,
}

fn read<'a>(manner: &Manner, pieces: impl IntoIterator<Item = &'a str>) -> Said {
    let mut speech = Speech::new(manner.clone());
    let mut out = Vec::new();
    for piece in pieces {
        speech.feed(piece, &mut out);
    }
    speech.flush(&mut out);
    let mut said = Said::default();
    for piece in out {
        match piece {
            Piece::Words(words) => said.words.push_str(&words),
            Piece::Thought(thought) => said.thought.push_str(&thought),
            Piece::Call { index, name, arguments } => {
                assert_eq!(index as usize, said.calls.len(), "calls are counted from 0");
                said.calls.push((name, arguments));
            }
            Piece::Arguments { index, arguments } => said.calls[index as usize].1.push_str(&arguments),
        }
    }
    said
}

fn characters(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()])
}

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn each_familys_calls_are_read() {
    let two = vec![call("look", r#"{"at": "cat"}"#), call("add", r#"{"a":1}"#)];
    let texts = [
        (
            Family::Hermes,
            "Let me see.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"cat\"}}\n</tool_call>\n<tool_call>\n{\"name\":\"add\",\"arguments\":{\"a\":1}}\n</tool_call>",
        ),
        (
            Family::Llama3,
            "Let me see.<|python_tag|>{\"name\": \"look\", \"parameters\": {\"at\": \"cat\"}}; {\"name\":\"add\",\"parameters\":{\"a\":1}}",
        ),
        (
            Family::Mistral,
            "Let me see.[TOOL_CALLS] [{\"name\": \"look\", \"arguments\": {\"at\": \"cat\"}}, {\"name\":\"add\",\"arguments\":{\"a\":1}}]",
        ),
        (
            Family::Mistral,
            "Let me see.[TOOL_CALLS]look[ARGS]{\"at\": \"cat\"}[TOOL_CALLS]add[ARGS]{\"a\":1}",
        ),
        (
            Family::Deepseek,
            "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n{\"at\": \"cat\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\":1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            Family::Deepseek,
            "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>{\"at\": \"cat\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\":1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
    ];
    for (family, text) in texts {
        let said = read(&manner(family), characters(text));
        assert_eq!((said.words.as_str(), &said.calls), ("Let me see.", &two), "{family:?} {text}");
        assert_eq!(read(&manner(family), [text]), said, "{family:?} at once");
    }
}

#[test]
fn a_bare_call_is_one_only_if_it_names_a_function() {
    let manner = manner(Family::Llama3);
    let said = read(&manner, characters(r#"{"name": "look", "parameters": {}}"#));
    assert_eq!((said.words.as_str(), said.calls), ("", vec![call("look", "{}")]));
    for text in [r#"{"name": "Ann", "age": 7}"#, r#"{"a": {"name": "look"}}"#, "{ never mind"] {
        let said = read(&manner, characters(text));
        assert_eq!((said.words.as_str(), said.calls.len()), (text, 0));
    }
}

#[test]
fn what_only_looked_like_a_call_comes_out_as_words() {
    let manner = manner(Family::Hermes);
    for text in [
        "The tag <tool_call> begins a call.",
        "<tool_call>",
        " \n<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>{\"name\": \"lo",
        "a <tool_ b",
        "trailing space \n",
    ] {
        let said = read(&manner, characters(text));
        assert_eq!((said.words.as_str(), said.calls.len()), (text, 0));
    }
}

#[test]
fn a_call_that_is_cut_short_keeps_what_came_and_leaks_no_mark() {
    let manner = manner(Family::Hermes);
    let said = read(&manner, characters("<tool_call>{\"name\": \"look\", \"arguments\": {\"at\": \"ca"));
    assert_eq!((said.words.as_str(), said.calls), ("", vec![call("look", r#"{"at": "ca"#)]));
    let said = read(&manner, characters("<tool_call>{\"name\": \"look\", \"arguments\": {}}\n</tool_c"));
    assert_eq!((said.words.as_str(), said.calls), ("", vec![call("look", "{}")]));
}

#[test]
fn thoughts_are_told_from_words() {
    let manner = manner(Family::Hermes);
    let said = read(&manner, characters("<think>\nHm. <b>\n</think>\n\nYes. </think>"));
    assert_eq!((said.thought.as_str(), said.words.as_str()), ("Hm. <b>", "Yes. </think>"));
    let said = read(&manner, characters("No <think> here"));
    assert_eq!((said.thought.as_str(), said.words.as_str()), ("", "No <think> here"));
    let begun = Manner {
        thinking: true,
        ..manner.clone()
    };
    let said = read(&begun, characters("Hm.\n</think>Yes."));
    assert_eq!((said.thought.as_str(), said.words.as_str()), ("Hm.", "Yes."));
    let said = read(&begun, characters("Never done "));
    assert_eq!((said.thought.as_str(), said.words.as_str()), ("Never done", ""));
    let said = read(
        &manner,
        characters("<think>look</think>\n<tool_call>{\"name\":\"look\"}</tool_call>"),
    );
    assert_eq!((said.words.as_str(), said.calls), ("", vec![call("look", "{}")]));
}

#[test]
fn where_one_call_is_allowed_the_answer_ends_with_it() {
    let mut manner = manner(Family::Hermes);
    manner.calls.as_mut().unwrap().single = true;
    let mut speech = Speech::new(manner);
    let mut out = Vec::new();
    speech.feed("<tool_call>{\"name\": \"look\", \"arguments\": {}", &mut out);
    assert!(!speech.is_over());
    speech.feed("} and more", &mut out);
    assert!(speech.is_over());
    speech.flush(&mut out);
    assert_eq!(out.len(), 1, "{out:?}");
}

#[test]
fn who_neither_thinks_nor_calls_is_not_held_up() {
    let mut speech = Speech::new(Manner::default());
    let mut out = Vec::new();
    speech.feed("<think> <tool_call> \n", &mut out);
    assert_eq!(out, [Piece::Words("<think> <tool_call> \n".to_owned())]);
}

#[test]
fn it_is_told_where_calls_begin_and_thoughts_end() {
    let mut speech = Speech::new(manner(Family::Hermes));
    let mut out = Vec::new();
    speech.feed("<think>a</think>\n", &mut out);
    assert_eq!((speech.thought_out(), speech.calls_in()), (Some("\n"), None));
    speech.feed("<tool_call>", &mut out);
    assert_eq!((speech.thought_out(), speech.calls_in()), (None, Some("")));
    assert!(speech.is_calling());
    speech.feed("{\"name\":\"look\"}</tool_call>", &mut out);
    assert!(!speech.is_calling() && speech.has_called());
}

const PARTS: [&str; 16] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<｜tool▁calls▁begin｜>",
    "{\"name\": \"look\", \"arguments\": {\"é\": \"}\"}}",
    "{\"name\": \"no\"}",
    "look",
    "\n",
    " word",
    "[",
    "]",
    "<",
    "```",
];

proptest! {
    #[test]
    fn however_a_text_is_cut_the_same_is_read_of_it(
        parts in prop::collection::vec(prop::sample::select(PARTS.as_slice()), 0..8),
        size in 1usize..6,
        thinking: bool,
        which in 0usize..4,
    ) {
        let family = [Family::Hermes, Family::Llama3, Family::Mistral, Family::Deepseek][which];
        let manner = Manner { thinking, ..manner(family) };
        let text = parts.concat();
        let cut: Vec<String> = text.chars().collect::<Vec<_>>().chunks(size).map(|chunk| chunk.iter().collect()).collect();
        prop_assert_eq!(read(&manner, cut.iter().map(String::as_str)), read(&manner, [text.as_str()]));
    }

    #[test]
    fn a_text_without_marks_is_all_words(text in "[a-z{}\"<\\[ \n]{0,40}") {
        for family in [Family::Hermes, Family::Mistral, Family::Deepseek] {
            let said = read(&manner(family), characters(&text));
            prop_assert_eq!(&said.words, &text);
        }
    }
}
