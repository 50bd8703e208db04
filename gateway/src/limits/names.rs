//! Names of reservations. A request has one, however many answers it asks for: that of its answer or, of several (`/v1/completions` takes
//! several prompts), that of the first and how many they are. So whoever finds a reservation open knows which answers to look up. Pure.

/// Before the number of answers. No answer has it in its name.
const MANY: char = '/';

/// The name of the reservation for as many answers as there are, of which the first has this name.
pub(super) fn of(first: &str, answers: usize) -> String {
    if answers > 1 {
        format!("{first}{MANY}{answers}")
    } else {
        first.to_owned()
    }
}

/// The answers that a reservation of this name is for.
pub(super) fn answers(name: &str) -> Vec<String> {
    match name.split_once(MANY) {
        None => vec![name.to_owned()],
        Some((first, count)) => (0..count.parse().unwrap_or(1)).map(|index| nth(first, index)).collect(),
    }
}

/// The name of one of the answers to a request, by that of the first, which is 0.
pub(crate) fn nth(first: &str, index: usize) -> String {
    if index == 0 { first.to_owned() } else { format!("{first}-{index}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_tells_its_answers() {
        assert_eq!(answers(&of("a", 1)), ["a"]);
        assert_eq!(answers(&of("a-1", 3)), ["a-1", "a-1-1", "a-1-2"]);
        assert!(!crate::event_id::is_stream_id(&of("a", 2)), "it is no answer's");
    }
}
