//! What the outside relies on, the router and the description are the same routes: none is missing, none is undocumented.

use std::collections::BTreeSet;

use agentrunner_services::http::{Service, api, rules};

/// The contract, route by route.
const STATE_MANAGER: &str = "
    GET,PUT,POST,DELETE /agents/{agent}/state
    POST /agents/{agent}/conversation
    GET /executions
    GET /executions/{id}
    GET /executions/{id}/steps
    GET /executions/{id}/steps/{seq}
    POST /cache/clear
    POST /maintenance/cleanup
";

const CONFIG_SERVICE: &str = "
    GET /configs
    GET /configs/{name}
    GET /configs/{name}/versions
    GET /configs/{name}/versions/{version}
    POST /configs/validate
    POST /configs/upload
    POST /configs/{name}/rollback
    POST /reload
    GET /schema/agent.json
";

const AGENT_ORCHESTRATOR: &str = "
    GET /agents
    GET /agents/{name}
    GET /agents/{name}/status
    POST /agents/{name}/invoke
    POST /agents/{name}/restart
    POST /agents/{name}/tools/approve
    POST /agents/{name}/enable
    POST /agents/{name}/disable
    GET,POST /tasks
    GET,DELETE /tasks/{id}
    GET /tasks/{id}/effects
    POST /tasks/{id}/effects/{seq}/settle
    GET /tasks/{id}/result
    POST /tasks/{id}/retry
    POST /tasks/{id}/fork
    POST /tasks/{id}/input
    GET /tasks/{id}/events
    GET /tasks/{id}/tree
    GET /ws/tasks/{id}
    GET /events/stream
    GET /audit
    GET /callbacks
    GET /callbacks/{id}
    POST /callbacks/{id}/resend
    GET /alerts
    GET /alerts/deliveries
    POST /collaborative/tasks
    GET /collaborative/tasks/{id}
    POST /events
    GET /inbox
    GET /dead-letters
    POST /dead-letters/replay
    GET,DELETE /dead-letters/{id}
    POST /dead-letters/{id}/replay
    GET /metrics/pool-stats
    GET /usage
    GET,POST /keys
    GET,DELETE /keys/{id}
    GET /v1/models
    GET /v1/models/{model}
    POST /v1/chat/completions
    POST /v1/responses
    GET /v1/responses/{id}
    POST,DELETE /mcp
";

const SCHEDULER_SERVICE: &str = "
    GET,POST /schedules
    GET,PUT,DELETE /schedules/{name}
    PATCH /schedules/{name}/enabled
    POST /schedules/{name}/trigger
    GET /schedules/{name}/runs
    GET /schedules/{name}/next
    GET /workers
";

const SLACK_GATEWAY: &str = "
    POST /slack/events
    POST /slack/commands
    POST /slack/interactive
    POST /slack/send-message
    PUT,DELETE /slack/messages/{ts}
";

/// What every service has. `/docs` and `/openapi.json` describe the others and not themselves.
const ALL: &str = "
    GET /health
    GET /health/live
    GET /health/ready
    GET /metrics
";

const fn contract(service: Service) -> &'static str {
    match service {
        Service::StateManager => STATE_MANAGER,
        Service::ConfigService => CONFIG_SERVICE,
        Service::AgentOrchestrator => AGENT_ORCHESTRATOR,
        Service::SchedulerService => SCHEDULER_SERVICE,
        Service::SlackGateway => SLACK_GATEWAY,
        Service::AgentPool => "",
    }
}

fn promised(service: Service) -> BTreeSet<String> {
    let lines = contract(service).lines().chain(ALL.lines());
    let routes = lines.filter_map(|line| line.trim().split_once(' '));
    routes
        .flat_map(|(methods, path)| {
            let methods = methods.split(',');
            methods.map(move |method| format!("{method} {path}"))
        })
        .collect()
}

fn served(service: Service) -> BTreeSet<String> {
    let rules = rules(service).into_iter();
    rules
        .flat_map(|(path, methods)| {
            let methods = methods.into_iter();
            methods.map(move |(method, _)| format!("{method} {path}"))
        })
        .collect()
}

fn described(service: Service) -> BTreeSet<String> {
    let doc = serde_json::to_value(api(service, "1").into_openapi()).unwrap();
    let paths = doc["paths"].as_object().unwrap().clone().into_iter();
    paths
        .flat_map(|(path, item)| {
            let item = item.as_object().unwrap().clone().into_iter();
            let methods = item.map(|(method, _)| method.to_uppercase());
            let path = path.clone();
            methods.map(move |method| format!("{method} {path}"))
        })
        .collect()
}

#[test]
fn the_contract_the_router_and_the_description_are_the_same_routes() {
    for service in [
        Service::StateManager,
        Service::ConfigService,
        Service::AgentOrchestrator,
        Service::SchedulerService,
        Service::SlackGateway,
        Service::AgentPool,
    ] {
        let promised = promised(service);
        let name = service.as_str();
        assert_eq!(
            served(service),
            promised,
            "what {name} serves, and its contract"
        );
        assert_eq!(
            described(service),
            promised,
            "what {name} describes, and its contract"
        );
    }
}
