//! AgentOrchestrator: agents, tasks, their events and results, questions to people.

mod agents;
mod collaboration;
mod dead_letters;
mod effects;
mod events;
mod inbox;
mod pools;
mod question;
mod stream;
mod submit;
mod tasks;
mod travel;
mod tree;
mod usage;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::App;

/// The routes.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(agents::list))
        .routes(routes!(agents::show))
        .routes(routes!(agents::status))
        .routes(routes!(submit::invoke))
        .routes(routes!(submit::submit, tasks::list))
        .routes(routes!(tasks::show, tasks::cancel))
        .routes(routes!(tasks::result))
        .routes(routes!(tree::show))
        .routes(routes!(travel::retry))
        .routes(routes!(travel::fork))
        .routes(routes!(collaboration::submit))
        .routes(routes!(collaboration::show))
        .routes(routes!(effects::list))
        .routes(routes!(effects::settle))
        .routes(routes!(inbox::answer))
        .routes(routes!(inbox::list))
        .routes(routes!(stream::follow))
        .routes(routes!(events::publish))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::replay_all))
        .routes(routes!(dead_letters::show, dead_letters::remove))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(usage::list))
        .routes(routes!(pools::list))
}
