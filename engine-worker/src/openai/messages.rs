//! Anthropic's Messages, also as llama-server, Ollama and others serve it.

pub(super) mod ask;
mod conversation;
pub(super) mod event;
