//! OpenAI's chat completions: the dialect of vLLM, SGLang, TGI, llama-server, Ollama and most others.

pub(super) mod ask;
pub(super) mod chunk;
mod conversation;
