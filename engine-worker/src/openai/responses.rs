//! OpenAI's Responses, also as vLLM and others serve it (<https://www.openresponses.org>).

pub(super) mod ask;
pub(super) mod event;
