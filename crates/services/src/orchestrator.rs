//! AgentOrchestrator: agents, tasks, their events and results, questions to people, keys, what was done.

mod agents;
mod alerts;
mod audit;
mod callbacks;
mod changed_tools;
mod collaboration;
mod dead_letters;
mod effects;
mod events;
mod feed;
pub(crate) mod fleet;
mod following;
mod inbox;
mod keys;
mod operate;
mod pools;
mod question;
mod socket;
mod stream;
mod submit;
mod tasks;
mod travel;
mod tree;
mod usage;

use utoipa_axum::routes;

use crate::http::door::{ADMIN, OPERATE, Owner, READ, Routes, SUBMIT};

/// The routes.
pub(crate) fn routes() -> Routes {
    let an_agents = Owner::Agent("name");
    let an_executions = Owner::Execution("id");
    Routes::new()
        .with(READ.of(Owner::Handler), routes!(agents::list))
        .with(READ.of(an_agents), routes!(agents::show))
        .with(READ.of(an_agents), routes!(agents::status))
        .with(OPERATE.of(an_agents), routes!(operate::enable))
        .with(OPERATE.of(an_agents), routes!(operate::disable))
        .with(OPERATE.of(an_agents), routes!(operate::restart))
        .with(ADMIN.of(an_agents), routes!(changed_tools::approve))
        .with(SUBMIT.of(an_agents), routes!(submit::invoke))
        .with(SUBMIT.of(Owner::Handler), routes!(submit::submit))
        .with(READ.of(Owner::Handler), routes!(tasks::list))
        .with(READ.of(an_executions), routes!(tasks::show))
        .with(OPERATE.of(an_executions), routes!(tasks::cancel))
        .with(READ.of(an_executions), routes!(tasks::result))
        .with(READ.of(an_executions), routes!(tree::show))
        .with(SUBMIT.of(an_executions), routes!(travel::retry))
        .with(SUBMIT.of(an_executions), routes!(travel::fork))
        .with(SUBMIT.of(Owner::Handler), routes!(collaboration::submit))
        .with(READ.of(an_executions), routes!(collaboration::show))
        .with(READ.of(an_executions), routes!(effects::list))
        .with(OPERATE.of(an_executions), routes!(effects::settle))
        .with(OPERATE.of(an_executions), routes!(inbox::answer))
        .with(READ.of(Owner::Handler), routes!(inbox::list))
        .with(READ.of(an_executions), routes!(stream::follow))
        .with(READ.of(an_executions), routes!(socket::follow_on_socket))
        .with(SUBMIT.of(Owner::Handler), routes!(events::publish))
        .with(READ.of(Owner::Handler), routes!(feed::stream))
        .with(READ.of(Owner::Everybody), routes!(dead_letters::list))
        .with(
            OPERATE.of(Owner::Everybody),
            routes!(dead_letters::replay_all),
        )
        .with(READ.of(Owner::Everybody), routes!(dead_letters::show))
        .with(OPERATE.of(Owner::Everybody), routes!(dead_letters::remove))
        .with(OPERATE.of(Owner::Everybody), routes!(dead_letters::replay))
        .with(READ.of(Owner::Handler), routes!(callbacks::list))
        .with(READ.of(an_executions), routes!(callbacks::show))
        .with(OPERATE.of(an_executions), routes!(callbacks::resend))
        .with(READ.of(Owner::Everybody), routes!(alerts::list))
        .with(READ.of(Owner::Everybody), routes!(alerts::deliveries))
        .with(READ.of(Owner::Handler), routes!(usage::list))
        .with(READ.of(Owner::Everybody), routes!(pools::list))
        .with(ADMIN.of(Owner::Everybody), routes!(audit::list))
        .with(
            ADMIN.of(Owner::Everybody),
            routes!(keys::list, keys::create),
        )
        .with(
            ADMIN.of(Owner::Everybody),
            routes!(keys::show, keys::revoke),
        )
}
