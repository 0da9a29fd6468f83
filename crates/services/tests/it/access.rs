//! Who may do what: every scope at every route, with things of one's own and of others.

use std::collections::BTreeSet;
use std::time::Duration;

use agentrunner_services::http::access::Access;
use agentrunner_services::http::door::{Owner, Rule};
use agentrunner_services::http::limits::Limits;
use agentrunner_services::http::{Service, Settings, rules};
use chrono::{TimeDelta, Utc};
use domain::access::{ApiKey, Grants, KeyHash, KeyId, Scope, key};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{System, Workers, agent, read};

const BOOTSTRAP: &str = "bootstrap-canary-0123456789";
const SERVICES: [Service; 6] = [
    Service::StateManager,
    Service::ConfigService,
    Service::AgentOrchestrator,
    Service::SchedulerService,
    Service::SlackGateway,
    Service::AgentPool,
];

async fn keyed(workers: Workers) -> System {
    let files = [
        ("helper.yml", agent("helper")),
        (
            "other.yml",
            format!("{}event_subscriptions: [orders.new]\n", agent("other")),
        ),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let folder = System::folder(&files);
    let settings = Settings {
        heartbeat: Duration::from_millis(100),
        ..Settings::default()
    };
    System::dressed(folder, workers, settings, |app| {
        let access = Access::keyed(KeyHash::of(BOOTSTRAP), "bootstrap", app.engine.clone());
        app.with_access(access)
    })
    .await
}

/// Makes a key behind the services' back.
async fn make(system: &System, n: u8, scopes: &[Scope], agents: Option<&str>) -> String {
    let text = key::mint([n; 32]);
    let agents = agents.map(|name| BTreeSet::from([name.parse().unwrap()]));
    let made = ApiKey {
        id: KeyId::from_uuid(Uuid::from_bytes([n; 16])),
        name: format!("key-{n}"),
        hash: KeyHash::of(&text),
        hint: key::hint(&text),
        grants: Grants::new(scopes.iter().copied().collect(), agents).unwrap(),
        created_at: Utc::now(),
        created_by: "test".to_owned(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        revoked_by: None,
    };
    assert!(system.store.add_key(made).await.unwrap());
    text
}

/// The code of a refusal, or nothing.
async fn ask(
    system: &System,
    service: Service,
    method: &Method,
    path: &str,
    key: Option<&str>,
) -> (StatusCode, Value) {
    let request = system.request(method.clone(), service, path);
    let request = key
        .iter()
        .fold(request, |r, key| r.header("x-api-key", *key));
    // Whoever reads this before the key says 400.
    let request = match *method {
        Method::GET | Method::DELETE => request,
        _ => request.header("content-type", "application/json").body("{"),
    };
    let response = request.send().await.unwrap();
    let status = response.status();
    let is_stream = response
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind == "text/event-stream");
    if is_stream {
        return (status, Value::Null);
    }
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    (status, body["error"]["code"].clone())
}

/// What there is of an agent, made anew, for it may have been deleted by the one before.
async fn things_of(system: &System, owner: &str, n: usize) -> (String, String) {
    let submit = json!({ "agent_name": owner, "task_data": { "prompt": "hi" } });
    let request = system.ask(Method::POST, "/tasks").json(&submit);
    let (status, task) = read(request.bearer_auth(BOOTSTRAP).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{task}");
    let name = format!("s{n}");
    let schedule = json!({ "name": name, "agent_name": owner, "cron": "@yearly" });
    let request = system.request(Method::POST, Service::SchedulerService, "/schedules");
    let request = request.json(&schedule).bearer_auth(BOOTSTRAP);
    let (status, made) = read(request.send().await.unwrap()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    (task["execution_id"].as_str().unwrap().to_owned(), name)
}

/// The address of a thing of this agent.
fn address(
    system: &System,
    route: &str,
    rule: Rule,
    agent: &str,
    execution: &str,
    schedule: &str,
) -> String {
    let known = system.engine.agents().get(&agent.parse().unwrap()).unwrap();
    let (name, value) = match rule.owner {
        Owner::Agent(name) | Owner::Config(name) => (name, agent),
        Owner::Execution(name) => (name, execution),
        Owner::Schedule(name) => (name, schedule),
        Owner::Nobody | Owner::Everybody | Owner::Handler => ("-", ""),
    };
    route
        .replace(&format!("{{{name}}}"), value)
        .replace("{seq}", "1")
        .replace("{version}", known.version.as_str())
        .replace("{id}", "0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f")
}

/// What says that a thing is not the caller's: nothing of that kind is there.
const fn hidden(owner: Owner) -> Option<&'static str> {
    match owner {
        Owner::Agent(_) => Some("AGENT_NOT_FOUND"),
        Owner::Config(_) => Some("CONFIG_NOT_FOUND"),
        Owner::Execution(_) => Some("EXECUTION_NOT_FOUND"),
        Owner::Schedule(_) => Some("SCHEDULE_NOT_FOUND"),
        Owner::Nobody | Owner::Everybody | Owner::Handler => None,
    }
}

/// The answer that the rule demands of a caller with these scopes; `None` for whatever the handler says.
fn demanded(rule: Rule, scope: Option<Scope>, limit: Limit) -> Option<(u16, &'static str)> {
    let needed = rule.scope?;
    let Some(scope) = scope else {
        return Some((401, "AUTH_FAILED"));
    };
    if scope != needed && scope != Scope::Admin {
        return Some((403, "FORBIDDEN"));
    }
    match (limit, rule.owner) {
        (Limit::None, _) => None,
        (_, Owner::Everybody) => Some((403, "FORBIDDEN")),
        (Limit::Own, _) => None,
        (Limit::Other, owner) => hidden(owner).map(|code| (404, code)),
    }
}

/// The word for it in the format of the route: OpenAI's has words of its own.
fn word(route: &str, code: &str) -> String {
    match code {
        code if !route.starts_with("/v1/") => code.to_owned(),
        "AUTH_FAILED" => "invalid_api_key".to_owned(),
        "AGENT_NOT_FOUND" => "model_not_found".to_owned(),
        code => code.to_lowercase(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    None,
    /// To the agent whose the thing is.
    Own,
    Other,
}

#[tokio::test]
async fn every_scope_at_every_route_gets_the_answer_that_the_rule_demands() {
    let system = keyed(Workers::Absent).await;
    let mut callers = vec![
        ("no key".to_owned(), None, None, Limit::None),
        (
            "a wrong key".to_owned(),
            Some("wrong".to_owned()),
            None,
            Limit::None,
        ),
        (
            "an unknown key".to_owned(),
            Some(key::mint([99; 32])),
            None,
            Limit::None,
        ),
        (
            "the bootstrap key".to_owned(),
            Some(BOOTSTRAP.to_owned()),
            Some(Scope::Admin),
            Limit::None,
        ),
    ];
    let mut n = 0;
    for scope in Scope::ALL {
        let limits = [
            (Limit::None, None),
            (Limit::Own, Some("helper")),
            (Limit::Other, Some("other")),
        ];
        for (limit, agent) in limits {
            if scope == Scope::Admin && limit != Limit::None {
                continue;
            }
            n += 1;
            let key = make(&system, n, &[scope], agent).await;
            let name = format!("{scope}, limit {limit:?}");
            callers.push((name, Some(key), Some(scope), limit));
        }
    }
    // A route's own service is asked; a pool's are those that all have.
    let mut cells = 0;
    for service in &SERVICES[..5] {
        for (route, methods) in rules(*service) {
            for (method, rule) in methods {
                for (name, key, scope, limit) in &callers {
                    cells += 1;
                    let wanted = demanded(rule, *scope, *limit);
                    let (execution, schedule) = match (wanted, rule.owner) {
                        (None, Owner::Execution(_) | Owner::Schedule(_))
                        | (Some((404, _)), Owner::Execution(_) | Owner::Schedule(_)) => {
                            things_of(&system, "helper", cells).await
                        }
                        _ => (Uuid::now_v7().to_string(), "none".to_owned()),
                    };
                    let path = address(&system, &route, rule, "helper", &execution, &schedule);
                    let (status, code) =
                        ask(&system, *service, &method, &path, key.as_deref()).await;
                    let what = format!("{name}: {method} {path} {rule:?}: {status} {code}");
                    match wanted {
                        Some((number, code_of_rule)) => {
                            let wanted = json!(word(&route, code_of_rule));
                            assert_eq!((status.as_u16(), &code), (number, &wanted), "{what}");
                        }
                        None => {
                            // Slack shows no key: it signs.
                            let is_unsigned = rule.scope.is_none() && code == "SIGNATURE_INVALID";
                            let is_refused = matches!(status.as_u16(), 401 | 403 | 405);
                            assert!(!is_refused || is_unsigned, "{what}");
                            // No coordinator of a team, and that is said of what is one's own.
                            let is_hidden = hidden(rule.owner)
                                .is_some_and(|hidden| code == word(&route, hidden));
                            assert!(!is_hidden || route.starts_with("/collaborative"), "{what}");
                        }
                    }
                }
            }
        }
    }
    assert!(cells > 50 * callers.len() / 2, "{cells} cells");
}

#[test]
fn the_page_shows_every_route_with_what_it_needs() {
    let mut table = String::new();
    for service in &SERVICES[..5] {
        for (route, methods) in rules(*service) {
            if route.starts_with("/health") || route == "/metrics" {
                continue;
            }
            for (method, rule) in methods {
                let scope = rule.scope.map_or("none", Scope::as_str);
                let whose = match rule.owner {
                    Owner::Nobody => "the same for all",
                    Owner::Everybody => "refused to limited keys",
                    Owner::Handler => "only what is of the listed agents",
                    Owner::Agent(_) | Owner::Config(_) => "the agent's",
                    Owner::Execution(_) | Owner::Schedule(_) => "its agent's",
                };
                table += &format!("| `{method} {route}` | {scope} | {whose} |\n");
            }
        }
    }
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(
        page.contains(&table),
        "docs/security.md should have:\n{table}"
    );
}

#[tokio::test]
async fn without_a_key_nothing_is_told_and_nothing_is_read() {
    let system = keyed(Workers::Absent).await;
    let long = "k".repeat(7 << 10);
    let attacks = [
        ("authorization", "Basic YWRtaW46YWRtaW4="),
        ("authorization", "Bearer ' OR '1'='1"),
        (
            "authorization",
            "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.",
        ),
        ("x-api-key", long.as_str()),
        ("x-api-key", ""),
        ("cookie", "session=admin"),
    ];
    for (header, value) in attacks {
        for path in [
            "/agents",
            "/nowhere",
            "/openapi.json",
            "/docs/",
            "/metrics",
            "/health",
        ] {
            let request = system.ask(Method::GET, path).header(header, value);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{path} {header}");
            let challenge = &response.headers()["www-authenticate"];
            assert!(challenge.to_str().unwrap().starts_with("Bearer"));
            let text = response.text().await.unwrap();
            assert!(
                text.contains("AUTH_FAILED") && !text.contains("helper"),
                "{text}"
            );
        }
    }
    // 64 MiB that nobody waits for.
    let endless = reqwest::Body::wrap_stream(futures::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(vec![b' '; 1 << 16])
    }));
    let request = system.ask(Method::POST, "/tasks").body(endless);
    let answered = tokio::time::timeout(Duration::from_secs(10), request.send()).await;
    if let Ok(response) = answered.expect("it is not read to an end that never comes") {
        assert_eq!(response.status(), 401);
    }
    for path in ["/health/live", "/health/ready"] {
        assert!(
            system
                .get(Service::AgentOrchestrator, path)
                .await
                .0
                .is_success()
        );
    }
}

#[tokio::test]
async fn a_request_that_waits_ends_when_its_key_is_revoked() {
    let system = keyed(Workers::Absent).await;
    let key = make(&system, 7, &[Scope::Submit], None).await;
    let body = json!({ "task_data": { "prompt": "hello" } });
    let waiting = system
        .ask(Method::POST, "/agents/helper/invoke?wait=60s")
        .header("x-api-key", &key)
        .json(&body)
        .send();
    let waiting = tokio::spawn(waiting);
    // It waits when the task is there.
    let id = KeyId::from_uuid(Uuid::from_bytes([7; 16]));
    let as_admin = |method, path: &str| system.ask(method, path).bearer_auth(BOOTSTRAP);
    loop {
        let (_, tasks) = read(as_admin(Method::GET, "/tasks").send().await.unwrap()).await;
        if tasks.as_array().is_some_and(|tasks| !tasks.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let revoked = as_admin(Method::DELETE, &format!("/keys/{id}"))
        .send()
        .await;
    assert_eq!(revoked.unwrap().status(), StatusCode::NO_CONTENT);
    let answer = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    let (status, refusal) = read(answer.expect("it waits on").unwrap().unwrap()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{refusal}");
    let message = refusal["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("was revoked or expired while this waited"),
        "{message}"
    );
}

#[tokio::test]
async fn a_key_is_made_shown_once_used_and_revoked() {
    let system = keyed(Workers::Absent).await;
    let as_admin = |method, path: &str| system.ask(method, path).bearer_auth(BOOTSTRAP);
    let body = json!({ "name": "ci", "scopes": ["read"], "agents": ["helper"] });
    let make = || {
        as_admin(Method::POST, "/keys")
            .header("idempotency-key", "once")
            .json(&body)
    };
    let response = make().send().await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let (status, made) = read(response).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let (status, again) = read(make().send().await.unwrap()).await;
    assert_eq!(
        (status, &again["error"]["details"]["id"]),
        (StatusCode::CONFLICT, &made["id"])
    );

    let get = |path: &str| system.ask(Method::GET, path).header("x-api-key", key);
    let (status, agents) = read(get("/agents").send().await.unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(agents.as_array().unwrap().len(), 1, "{agents}");
    let (status, listed) = read(as_admin(Method::GET, "/keys").send().await.unwrap()).await;
    assert_eq!(
        (status, &listed[0]["status"]),
        (StatusCode::OK, &json!("active"))
    );
    assert!(!listed.to_string().contains(key), "{listed}");

    let revoke = || as_admin(Method::DELETE, &format!("/keys/{id}")).send();
    for _ in 0..2 {
        assert_eq!(revoke().await.unwrap().status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(
        get("/agents").send().await.unwrap().status(),
        401,
        "here at once"
    );
    let (_, shown) = read(
        as_admin(Method::GET, &format!("/keys/{id}"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (&shown["status"], &shown["revoked_by"]),
        (&json!("revoked"), &json!("bootstrap"))
    );

    for (bad, field) in [
        (json!({ "name": " ", "scopes": ["read"] }), "name"),
        (json!({ "name": "x", "scopes": [] }), "scopes"),
        (json!({ "name": "x", "scopes": ["root"] }), "scopes"),
        (
            json!({ "name": "x", "scopes": ["admin"], "agents": ["helper"] }),
            "agents",
        ),
        (
            json!({ "name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z" }),
            "expires_at",
        ),
    ] {
        let (status, refusal) = read(
            as_admin(Method::POST, "/keys")
                .json(&bad)
                .send()
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refusal}");
        assert_eq!(
            refusal["error"]["details"]["fields"][0]["field"], field,
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn a_key_revoked_or_expired_elsewhere_is_worth_nothing_soon_and_its_streams_end() {
    let system = keyed(Workers::Absent).await;
    let key = make(&system, 1, &[Scope::Read], None).await;
    let (id, _) = things_of(&system, "helper", 1).await;
    let follow = system.ask(Method::GET, &format!("/tasks/{id}/events"));
    let stream = follow.header("x-api-key", &key).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let which = KeyId::from_uuid(Uuid::from_bytes([1; 16]));
    let revoked = Utc::now();
    assert!(
        system
            .store
            .revoke_key(which, "elsewhere", revoked)
            .await
            .unwrap()
    );
    let end = tokio::time::timeout(Duration::from_secs(30), stream.bytes());
    end.await.expect("the stream ends").unwrap();
    let get = || {
        system
            .ask(Method::GET, "/agents")
            .header("x-api-key", &key)
            .send()
    };
    assert_eq!(
        get().await.unwrap().status(),
        401,
        "whoever is hung up on is not let in again"
    );
    let took = Utc::now() - revoked;
    assert!(took < TimeDelta::seconds(5), "it took {took}");
}

#[tokio::test]
async fn a_limited_key_sees_and_wakes_only_its_agents() {
    let system = keyed(Workers::Absent).await;
    let all = [Scope::Read, Scope::Submit, Scope::Operate];
    let key = make(&system, 1, &all, Some("helper")).await;
    let (own, own_schedule) = things_of(&system, "helper", 1).await;
    let (other, _) = things_of(&system, "other", 2).await;
    let get = async |service, path: &str| {
        let request = system.request(Method::GET, service, path);
        let response = request.header("x-api-key", &key).send().await.unwrap();
        let total = response.headers().get("x-total-count").cloned();
        (read(response).await.1, total)
    };
    for (service, path) in [
        (Service::AgentOrchestrator, "/tasks"),
        (Service::StateManager, "/executions"),
    ] {
        let (listed, total) = get(service, path).await;
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed[0]["execution_id"], own);
        assert_eq!(total.unwrap(), "1");
        let named = format!("{path}?agent_name=other");
        assert_eq!(get(service, &named).await.0, json!([]));
    }
    let (schedules, total) = get(Service::SchedulerService, "/schedules").await;
    assert_eq!(
        (&schedules[0]["name"], total.unwrap()),
        (&json!(own_schedule), "1".parse().unwrap())
    );
    let (configs, _) = get(Service::ConfigService, "/configs").await;
    assert_eq!(
        (configs.as_array().unwrap().len(), &configs[0]["name"]),
        (1, &json!("helper"))
    );

    let post = async |path: &str, body: Value| {
        let request = system
            .ask(Method::POST, path)
            .header("x-api-key", &key)
            .json(&body);
        let (status, answer) = read(request.send().await.unwrap()).await;
        (status.as_u16(), answer["error"]["code"].clone())
    };
    let task = |agent: &str| json!({ "agent_name": agent, "task_data": "x" });
    assert_eq!(post("/tasks", task("helper")).await.0, 202);
    let absent = (404, json!("AGENT_NOT_FOUND"));
    assert_eq!(post("/tasks", task("other")).await, absent);
    assert_eq!(post("/tasks", task("nobody")).await, absent);
    let team = json!({ "coordinator_agent": "other", "task_description": "x" });
    assert_eq!(post("/collaborative/tasks", team).await, absent);
    let event = |topic: &str| json!({ "topic": topic, "data": {} });
    assert_eq!(post("/events", event("orders.old")).await.0, 202);
    assert_eq!(
        post("/events", event("orders.new")).await,
        (403, json!("FORBIDDEN"))
    );
    let retry = post(&format!("/tasks/{other}/retry"), json!({})).await;
    assert_eq!(retry, (404, json!("EXECUTION_NOT_FOUND")));
    let schedule = json!({ "name": "mine", "agent_name": "other", "cron": "@daily" });
    let request = system.request(Method::POST, Service::SchedulerService, "/schedules");
    let request = request.header("x-api-key", &key).json(&schedule);
    assert_eq!(request.send().await.unwrap().status(), 404);
    let moved = json!({ "agent_name": "other", "cron": "@daily" });
    let path = format!("/schedules/{own_schedule}");
    let request = system.request(Method::PUT, Service::SchedulerService, &path);
    let request = request.header("x-api-key", &key).json(&moved);
    assert_eq!(
        request.send().await.unwrap().status(),
        404,
        "nor is its own given away"
    );
}

#[tokio::test]
async fn a_limited_key_looks_only_at_what_happens_to_its_agents() {
    let system = keyed(Workers::Running).await;
    let key = make(&system, 1, &[Scope::Read], Some("helper")).await;
    let look = system
        .ask(Method::GET, "/events/stream")
        .header("x-api-key", &key);
    let mut stream = look.send().await.unwrap();
    let (other, _) = things_of(&system, "other", 1).await;
    let mut seen = String::new();
    let mut own = None;
    while !seen.contains("agent.execution.completed") {
        if own.is_none() && seen.len() > 100 {
            own = Some(things_of(&system, "helper", 2).await.0);
        }
        seen += std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap();
    }
    assert!(
        seen.contains(&own.unwrap()) && !seen.contains(&other),
        "{seen}"
    );
    let named = system
        .ask(Method::GET, "/events/stream?agent_name=other")
        .header("x-api-key", &key);
    assert_eq!(named.send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn the_inbox_of_a_limited_key_has_its_agents_questions() {
    let asking = |name: &str| {
        format!(
            "{}tools:\n  - {{ name: ask_human, type: function }}\n",
            agent(name)
        )
    };
    let files = [
        ("helper.yml", asking("helper")),
        ("other.yml", asking("other")),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let system = System::dressed(
        System::folder(&files),
        Workers::Running,
        Settings::default(),
        |app| {
            let access = Access::keyed(KeyHash::of(BOOTSTRAP), "bootstrap", app.engine.clone());
            app.with_access(access)
        },
    )
    .await;
    let mut ids = Vec::new();
    for agent in ["helper", "other"] {
        let body = json!({ "agent_name": agent, "task_data": { "prompt": "ask" } });
        let request = system
            .ask(Method::POST, "/tasks")
            .json(&body)
            .bearer_auth(BOOTSTRAP);
        let (_, task) = read(request.send().await.unwrap()).await;
        ids.push(task["execution_id"].as_str().unwrap().to_owned());
    }
    let inbox = async |key: &str| {
        let request = system.ask(Method::GET, "/inbox").bearer_auth(key);
        read(request.send().await.unwrap()).await.1
    };
    for _ in 0..500 {
        if inbox(BOOTSTRAP).await.as_array().unwrap().len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let key = make(&system, 1, &[Scope::Read, Scope::Operate], Some("helper")).await;
    let listed = inbox(&key).await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["execution_id"], ids[0]);
    let answer = async |id: &str| {
        let path = format!("/tasks/{id}/input");
        let body = json!({ "text": "the red one" });
        let request = system
            .ask(Method::POST, &path)
            .bearer_auth(&key)
            .json(&body);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(answer(&ids[1]).await, 404);
    assert_eq!(answer(&ids[0]).await, 200);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_go_on() {
    let settings = Settings::default();
    let folder = System::folder(&[("helper.yml", &agent("helper"))]);
    let system = System::dressed(folder, Workers::Absent, settings, |app| {
        let access = Access::keyed(KeyHash::of(BOOTSTRAP), "bootstrap", app.engine.clone());
        let number = |n| std::num::NonZeroU32::new(n).unwrap();
        let counters = std::sync::Arc::new(store::counters::LocalCounters::default());
        // One every ten minutes: nothing comes back while the test runs.
        let limits = Limits::new(counters, number(1), number(3));
        app.with_access(access).with_limits(limits)
    })
    .await;
    let get = |key: &str| system.ask(Method::GET, "/agents").bearer_auth(key).send();
    let header = |response: &reqwest::Response, name: &str| {
        response.headers()[name]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    for left in [2, 1, 0] {
        let response = get(BOOTSTRAP).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-ratelimit-limit"), 1);
        assert_eq!(header(&response, "x-ratelimit-remaining"), left);
    }
    let response = get(BOOTSTRAP).await.unwrap();
    assert_eq!(response.status(), 429);
    let (retry, reset) = (
        header(&response, "retry-after"),
        header(&response, "x-ratelimit-reset"),
    );
    assert!(
        (1..=60).contains(&retry) && (1..=180).contains(&reset),
        "{retry} {reset}"
    );
    assert_eq!(
        read(response).await.1["error"]["code"],
        "RATE_LIMIT_EXCEEDED"
    );
    // Another caller has its own; and health is asked as often as anyone likes.
    let other = make(&system, 1, &[Scope::Read], None).await;
    assert_eq!(get(&other).await.unwrap().status(), 200);
    for _ in 0..5 {
        let live = system
            .ask(Method::GET, "/health/live")
            .send()
            .await
            .unwrap();
        assert_eq!(live.status(), 200);
    }
    let mut wrong = Vec::new();
    for _ in 0..4 {
        wrong.push(get("wrong").await.unwrap().status().as_u16());
    }
    assert_eq!(
        wrong,
        [401, 401, 401, 429],
        "as few at once as the limit says"
    );
    assert_eq!(
        get(&other).await.unwrap().status(),
        200,
        "a valid key from there goes on"
    );
}
