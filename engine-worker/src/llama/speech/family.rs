//! How families of models write their thoughts and their calls of functions: the marks between which they stand.
//!
//! A table, and its detection from the chat template that was made for the model. [`super::Speech`] reads by it,
//! [`super::super::tools`] makes the model write by it.

use clap::ValueEnum;

/// How a family writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::llama) enum Family {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, one pair of marks for each call: Hermes, Qwen 2.5 and 3, SmolLM3, …
    Hermes,
    /// `{"name": …, "parameters": {…}}` as the whole answer, with or without `<|python_tag|>` before it, more after a `;`: Llama 3
    Llama3,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, later `[TOOL_CALLS]name[ARGS]{…}`: Mistral
    Mistral,
    /// `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>name`, then the arguments as a block of JSON: DeepSeek V3 and R1.
    /// V3.1: `name<｜tool▁sep｜>{…}`
    Deepseek,
}

/// Which way of writing calls the model is asked for and read by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ToolFormat {
    /// As the model's chat template shows; `prompt` where it shows none
    #[default]
    Auto,
    /// `<tool_call>{"name", "arguments"}</tool_call>`
    Hermes,
    /// `{"name", "parameters"}`
    Llama3,
    /// `[TOOL_CALLS]`
    Mistral,
    /// `<｜tool▁calls▁begin｜>`
    Deepseek,
    /// As `hermes`, explained to the model in a system message of ours
    Prompt,
}

/// How this model writes calls, and whether its template explains the functions to it. If not, a system message of ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::llama) struct Dialect {
    pub(in crate::llama) family: Family,
    pub(in crate::llama) native: bool,
}

/// The marks of thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::llama) struct ThoughtMarks {
    pub(in crate::llama) open: &'static str,
    pub(in crate::llama) close: &'static str,
}

/// Most models that think, Magistral, Seed-OSS, Command.
const THOUGHTS: [ThoughtMarks; 4] = [
    ThoughtMarks {
        open: "<think>",
        close: "</think>",
    },
    ThoughtMarks {
        open: "[THINK]",
        close: "[/THINK]",
    },
    ThoughtMarks {
        open: "<seed:think>",
        close: "</seed:think>",
    },
    ThoughtMarks {
        open: "<|START_THINKING|>",
        close: "<|END_THINKING|>",
    },
];

impl ThoughtMarks {
    /// Those that a template knows, if it knows any.
    pub(in crate::llama) fn of(template: &str) -> Option<Self> {
        THOUGHTS
            .into_iter()
            .find(|marks| template.contains(marks.open) || template.contains(marks.close))
    }
}

impl Dialect {
    /// What a setting asks for, of a model with this template.
    pub(in crate::llama) fn of(format: ToolFormat, template: &str) -> Self {
        let native = template.contains("tools");
        let family = match format {
            ToolFormat::Auto => return Self::shown(template),
            ToolFormat::Hermes => Family::Hermes,
            ToolFormat::Llama3 => Family::Llama3,
            ToolFormat::Mistral => Family::Mistral,
            ToolFormat::Deepseek => Family::Deepseek,
            ToolFormat::Prompt => {
                return Self {
                    family: Family::Hermes,
                    native: false,
                };
            }
        };
        Self { family, native }
    }

    fn shown(template: &str) -> Self {
        // Some write XML between the marks of Hermes, which is not read here.
        let xml = template.contains("<function=") || template.contains("<arg_key>");
        let shows = |mark: &str| template.contains("tools") && template.contains(mark);
        let family = if shows("<tool_call>") && !xml {
            Some(Family::Hermes)
        } else if shows("[TOOL_CALLS]") {
            Some(Family::Mistral)
        } else if shows("<｜tool▁calls▁begin｜>") {
            Some(Family::Deepseek)
        } else if shows("<|python_tag|>") || (shows("<|start_header_id|>") && shows("parameters")) {
            Some(Family::Llama3)
        } else {
            None
        };
        Self {
            family: family.unwrap_or(Family::Hermes),
            native: family.is_some(),
        }
    }
}

impl Family {
    /// What calls begin with.
    pub(in crate::llama) fn open(self) -> &'static str {
        match self {
            Self::Hermes => "<tool_call>",
            Self::Llama3 => "<|python_tag|>",
            Self::Mistral => "[TOOL_CALLS]",
            Self::Deepseek => "<｜tool▁calls▁begin｜>",
        }
    }

    /// What calls end with. Empty: with the answer.
    pub(in crate::llama) fn close(self) -> &'static str {
        match self {
            Self::Hermes => "</tool_call>",
            Self::Llama3 => "",
            Self::Mistral => "]",
            Self::Deepseek => "<｜tool▁calls▁end｜>",
        }
    }

    /// What may stand around a call, and says nothing.
    pub(super) fn noise(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => &[],
            Self::Llama3 => &[";", "<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]", "[", ","],
            Self::Deepseek => &["<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "```"],
        }
    }

    /// Whether a call may be the whole answer, without a mark.
    pub(super) fn is_bare(self) -> bool {
        self == Self::Llama3
    }

    /// Whether the function's name stands before the arguments and not in one object with them.
    pub(super) fn has_heading(self) -> bool {
        matches!(self, Self::Mistral | Self::Deepseek)
    }

    /// The function that a heading names.
    pub(super) fn named_in(self, heading: &str) -> &str {
        let (separator, kind) = match self {
            Self::Deepseek => ("<｜tool▁sep｜>", "function"),
            _ => ("[ARGS]", ""),
        };
        let mut parts = heading.split(separator).map(str::trim);
        let first = parts.next().unwrap_or_default();
        let name = if first == kind { parts.next().unwrap_or_default() } else { first };
        // Mistral's names may bear the id of the call.
        let name = name.split("[CALL_ID]").next().unwrap_or_default();
        name.lines().next().unwrap_or_default().trim()
    }

    /// All marks that a tokenizer may have as one token.
    pub(in crate::llama) fn marks(self) -> Vec<&'static str> {
        let separators: &[&str] = match self {
            Self::Mistral => &["[ARGS]", "[CALL_ID]"],
            Self::Deepseek => &["<｜tool▁sep｜>"],
            Self::Hermes | Self::Llama3 => &[],
        };
        let mut marks = vec![self.open(), self.close()];
        marks.extend_from_slice(self.noise());
        marks.extend_from_slice(separators);
        marks.retain(|mark| mark.len() > 3);
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_shows_how_its_model_writes_calls() {
        let shown = |template| Dialect::of(ToolFormat::Auto, template);
        let native = |family| Dialect { family, native: true };
        assert_eq!(shown("{% if tools %}<tool_call>{% endif %}"), native(Family::Hermes));
        assert_eq!(
            shown("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]"),
            native(Family::Mistral)
        );
        assert_eq!(shown("{{ tools }}<｜tool▁calls▁begin｜>"), native(Family::Deepseek));
        assert_eq!(shown("{{ tools }}<|python_tag|>"), native(Family::Llama3));
        let ours = Dialect {
            family: Family::Hermes,
            native: false,
        };
        assert_eq!(shown("<|im_start|>"), ours);
        assert_eq!(shown("{{ tools }}<tool_call><function=f>"), ours, "not read here");
        assert_eq!(Dialect::of(ToolFormat::Prompt, "{{ tools }}<tool_call>"), ours);
    }

    #[test]
    fn a_heading_names_its_function() {
        assert_eq!(Family::Deepseek.named_in("function<｜tool▁sep｜>look\n```json\n"), "look");
        assert_eq!(Family::Deepseek.named_in("look<｜tool▁sep｜>"), "look");
        assert_eq!(Family::Mistral.named_in(" look[ARGS]"), "look");
        assert_eq!(Family::Mistral.named_in("look[CALL_ID]123456789[ARGS]"), "look");
    }

    #[test]
    fn models_that_think_are_known_by_their_template() {
        assert_eq!(ThoughtMarks::of("… </think> …").unwrap().open, "<think>");
        assert_eq!(ThoughtMarks::of("<|im_start|>"), None);
    }
}
