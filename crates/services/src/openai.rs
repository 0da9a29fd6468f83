//! Every agent as a model of OpenAI's API: unmodified clients list agents, ask them, and read answers as they are
//! written. A part of AgentOrchestrator.
//!
//! Only standard frames are sent, and errors have OpenAI's own shape. What an agent is stays its file's matter:
//! its prompt, model, tools and limits; what a client says of them (`temperature`, `max_tokens` and their kin) is not
//! looked at.
//!
//! Source: <https://platform.openai.com/docs/api-reference/chat>.

mod answer;
mod chat;
mod error;
mod models;
mod request;
mod responses;
mod telling;
mod words;

use utoipa_axum::routes;

use crate::http::door::{Owner, READ, Routes, SUBMIT};

pub(crate) use error::{OpenAiError, render};

/// Whether a route speaks OpenAI's format, in its errors too.
pub(crate) fn is_ours(route: &str) -> bool {
    route.starts_with("/v1/")
}

/// Whether a request to this path waits for an agent, without saying so.
pub(crate) fn waits(path: &str) -> bool {
    matches!(path, "/v1/chat/completions" | "/v1/responses")
}

/// The routes.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .with(READ.of(Owner::Handler), routes!(models::list))
        .with(READ.of(Owner::Agent("model")), routes!(models::show))
        .with(SUBMIT.of(Owner::Handler), routes!(chat::complete))
        .with(SUBMIT.of(Owner::Handler), routes!(responses::create))
        .with(READ.of(Owner::Handler), routes!(responses::show))
}
