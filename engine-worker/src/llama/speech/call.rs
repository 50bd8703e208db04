//! One call of a function as the model writes it: a JSON object, read character by character, so that its arguments go out as they come.
//!
//! Not a validator: what stands in the arguments goes out to the letter, and only where they end is judged here. A grammar sees to it
//! that they are right.

/// The longest name and key in bytes: a call that is not one is given up early.
const MAX_NAME: usize = 256;

/// A call in the reading.
#[derive(Clone, Debug)]
pub(super) struct Call {
    at: At,
    /// The text of the key or value that is being read, where all of it is needed.
    raw: String,
    name: Option<String>,
    /// Arguments that came before the name.
    early: String,
    /// Whether arguments came.
    any: bool,
}

/// What the next character belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Open,
    /// Between two fields.
    Field,
    Key {
        escaped: bool,
    },
    Colon(Role),
    /// Before the first character of a value.
    Value(Role),
    Text {
        role: Role,
        escaped: bool,
    },
    Nested {
        role: Role,
        depth: usize,
        text: bool,
        escaped: bool,
    },
    Word(Role),
}

/// What a field is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Name,
    Arguments,
    /// Something that is not needed.
    Other,
    /// The arguments of a call whose name came before it: with them it is whole.
    Only,
}

/// What a character did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The call goes on.
    More,
    /// It is whole.
    Whole,
    /// It is none.
    Wrong,
}

impl Call {
    /// One that is about to begin with its brace.
    pub(super) fn new() -> Self {
        Self {
            at: At::Open,
            raw: String::new(),
            name: None,
            early: String::new(),
            any: false,
        }
    }

    /// One whose name is known, and whose arguments are about to begin.
    pub(super) fn named(name: &str) -> Self {
        Self {
            at: At::Value(Role::Only),
            name: Some(name.to_owned()),
            ..Self::new()
        }
    }

    /// The function, once it is known.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Takes the next character, and appends to `arguments` what it brings of them.
    pub(super) fn feed(&mut self, c: char, arguments: &mut String) -> Read {
        match self.at {
            At::Open if c == '{' => self.go(At::Field),
            At::Open | At::Field | At::Colon(_) | At::Value(_) if c.is_whitespace() => Read::More,
            At::Field => match c {
                '"' => self.go(At::Key { escaped: false }),
                ',' => Read::More,
                '}' => self.end(arguments),
                _ => Read::Wrong,
            },
            At::Key { escaped } => self.key(c, escaped),
            At::Colon(role) if c == ':' => self.go(At::Value(role)),
            At::Value(role) => self.value(role, c, arguments),
            At::Text { role, escaped } => self.text(role, escaped, c, arguments),
            At::Nested { .. } => self.nested(c, arguments),
            At::Word(role) => self.word(role, c, arguments),
            At::Open | At::Colon(_) => Read::Wrong,
        }
    }

    fn go(&mut self, at: At) -> Read {
        self.at = at;
        Read::More
    }

    fn key(&mut self, c: char, escaped: bool) -> Read {
        if c != '"' || escaped {
            return self.keep(
                c,
                At::Key {
                    escaped: c == '\\' && !escaped,
                },
            );
        }
        let role = match std::mem::take(&mut self.raw).as_str() {
            "name" => Role::Name,
            "arguments" | "parameters" if !self.any => Role::Arguments,
            _ => Role::Other,
        };
        self.go(At::Colon(role))
    }

    fn value(&mut self, role: Role, c: char, arguments: &mut String) -> Read {
        match (c, role) {
            ('"', _) => self.go(At::Text { role, escaped: false }),
            ('{', _) | ('[', Role::Other) => {
                self.at = At::Nested {
                    role,
                    depth: 0,
                    text: false,
                    escaped: false,
                };
                self.nested(c, arguments)
            }
            (_, Role::Other) | ('n', Role::Arguments) => self.go(At::Word(role)), // null is no arguments
            _ => Read::Wrong,
        }
    }

    /// Inside a string that is a whole value.
    fn text(&mut self, role: Role, escaped: bool, c: char, arguments: &mut String) -> Read {
        if c != '"' || escaped {
            let at = At::Text {
                role,
                escaped: c == '\\' && !escaped,
            };
            return match role {
                Role::Name => self.keep(c, at),
                Role::Other => self.go(at),
                Role::Arguments | Role::Only => {
                    self.raw.push(c);
                    self.go(at)
                }
            };
        }
        let raw = format!("\"{}\"", std::mem::take(&mut self.raw));
        match role {
            Role::Other => {}
            Role::Name => match serde_json::from_str(&raw) {
                Ok(name) => {
                    self.name = Some(name);
                    arguments.push_str(&std::mem::take(&mut self.early));
                }
                Err(_) => return Read::Wrong,
            },
            // Some models write the arguments' JSON as a string.
            Role::Arguments | Role::Only => match serde_json::from_str::<String>(&raw) {
                Ok(text) => self.say(&text, arguments),
                Err(_) => return Read::Wrong,
            },
        }
        self.close(role)
    }

    fn nested(&mut self, c: char, arguments: &mut String) -> Read {
        let At::Nested {
            role,
            mut depth,
            mut text,
            mut escaped,
        } = self.at
        else {
            return Read::Wrong;
        };
        if text {
            (text, escaped) = (c != '"' || escaped, c == '\\' && !escaped);
        } else {
            match c {
                '"' => text = true,
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                _ => {}
            }
        }
        if role != Role::Other {
            self.say(c.encode_utf8(&mut [0; 4]), arguments);
        }
        if depth == 0 {
            return self.close(role);
        }
        self.go(At::Nested {
            role,
            depth,
            text,
            escaped,
        })
    }

    /// Inside a number, or `true`, `false` or `null`.
    fn word(&mut self, role: Role, c: char, arguments: &mut String) -> Read {
        if !matches!(c, ',' | '}') && !c.is_whitespace() {
            return Read::More;
        }
        self.close(role);
        self.feed(c, arguments)
    }

    /// A value has ended.
    fn close(&mut self, role: Role) -> Read {
        if role == Role::Only {
            return Read::Whole;
        }
        self.go(At::Field)
    }

    /// The object has ended.
    fn end(&mut self, arguments: &mut String) -> Read {
        if self.name.is_none() {
            return Read::Wrong;
        }
        if !self.any {
            self.say("{}", arguments);
        }
        Read::Whole
    }

    fn keep(&mut self, c: char, at: At) -> Read {
        self.raw.push(c);
        if self.raw.len() > MAX_NAME { Read::Wrong } else { self.go(at) }
    }

    fn say(&mut self, text: &str, arguments: &mut String) {
        self.any = true;
        let into = if self.name.is_some() { arguments } else { &mut self.early };
        into.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of a text: the name, the arguments, how it ended, and what is left.
    fn read(mut call: Call, text: &str) -> (Option<String>, String, Read, String) {
        let mut arguments = String::new();
        for (at, c) in text.char_indices() {
            match call.feed(c, &mut arguments) {
                Read::More => {}
                ended => {
                    let rest = text[at + c.len_utf8()..].to_owned();
                    return (call.name, arguments, ended, rest);
                }
            }
        }
        (call.name, arguments, Read::More, String::new())
    }

    #[test]
    fn arguments_come_out_to_the_letter() {
        for arguments in [r"{}", r#"{ "a" : [1, {"b": "}\"{"}], "é": "\\" }"#, "{\n\"a\": null\n}"] {
            let text = format!(r#"{{"name": "f", "arguments": {arguments}}}rest"#);
            assert_eq!(
                read(Call::new(), &text),
                (Some("f".into()), arguments.into(), Read::Whole, "rest".into())
            );
            let before = format!(r#"{{"id": 7, "parameters": {arguments}, "type": ["x"], "name": "f"}}"#);
            assert_eq!(read(Call::new(), &before).1, arguments);
            assert_eq!(read(Call::named("f"), &format!("{arguments}\n")).1, arguments);
        }
    }

    #[test]
    fn what_models_write_instead_of_an_object_becomes_one() {
        for (written, arguments) in [
            (r#"{"name": "f"}"#, "{}"),
            (r#"{"name": "f", "arguments": null}"#, "{}"),
            (r#"{"name": "f", "arguments": "{\"a\": 1}"}"#, r#"{"a": 1}"#),
        ] {
            let (name, said, ended, _) = read(Call::new(), written);
            assert_eq!(
                (name.as_deref(), said.as_str(), ended),
                (Some("f"), arguments, Read::Whole),
                "{written}"
            );
        }
    }

    #[test]
    fn what_is_no_call_is_given_up() {
        for text in [
            "[1]",
            "{name: 1}",
            r#"{"name": 1}"#,
            r#"{"arguments": {}}"#,
            r#"{"name": "f", "arguments": 7}"#,
            &format!("{{\"{}", "x".repeat(300)),
        ] {
            assert_eq!(read(Call::new(), text).2, Read::Wrong, "{text:.30}");
        }
    }
}
