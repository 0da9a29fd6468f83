//! `serve`: a whole system of separate processes on one PostgreSQL and one RabbitMQ.

use std::time::{Duration, Instant};

use eventsource_stream::Eventsource;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::backing::{self, Variables, borrowed};
use crate::product::free_ports;
use crate::project::{Project, Ran, Server};

/// Within which it must show that a pool is gone.
const INTERVAL: Duration = Duration::from_secs(6);

/// Processes in one folder, on the same servers.
struct Fleet {
    project: Project,
    variables: Variables,
}

impl Fleet {
    /// The servers, with their schema made.
    async fn new() -> Self {
        let (mut variables, rabbitmq) = tokio::join!(backing::postgres(), backing::rabbitmq());
        variables.extend(rabbitmq);
        variables.extend([
            (
                "AGENT_HEALTH_CHECK_INTERVAL",
                INTERVAL.as_secs().to_string(),
            ),
            ("AGENT_CAPACITY", "20".to_owned()),
            ("AGENT_SHUTDOWN_TIMEOUT", "1".to_owned()),
        ]);
        let project = Project::new();
        Self { project, variables }
    }

    async fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.project.command(args);
        command.envs(borrowed(&self.variables));
        Ran::of(command).await
    }

    async fn service(&self, part: &str) -> Server {
        self.project.serve(part, &borrowed(&self.variables)).await
    }

    /// A pool, with its health at this port.
    async fn pool(&self, part: &str, port: u16) -> Server {
        let port = port.to_string();
        let mut variables = borrowed(&self.variables);
        variables.push(("AGENT_POOL_PORT", &port));
        self.project.serve(part, &variables).await
    }

    async fn until_status(&self, agent: &str, status: &str) -> Value {
        let path = format!("/agents/{agent}/status");
        self.project
            .until(&path, |agent| agent["status"] == status)
            .await
    }

    /// The workers of a pool, as the orchestrator knows them.
    async fn until_pool(&self, name: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let of = |pools: &Value| -> Value {
            let mut pools = pools.as_array().into_iter().flatten();
            pools.find(|pool| pool["pool"] == name).cloned().into()
        };
        let pools = self.project.until("/metrics/pool-stats", |pools| {
            let pool = of(pools);
            !pool.is_null() && is_wanted(&pool)
        });
        of(&pools.await)
    }
}

async fn get(url: &str) -> (u16, Value) {
    let response = reqwest::get(url).await.unwrap();
    (
        response.status().as_u16(),
        response.json().await.unwrap_or_default(),
    )
}

fn alive(pool: &Value) -> usize {
    let workers = pool["workers"].as_array().expect("a list").iter();
    workers.filter(|worker| worker["status"] == "alive").count()
}

/// Stops it in order.
async fn end(server: Server) {
    server.signal("TERM");
    let (code, log) = server.ended().await;
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_in_processes_of_their_own_are_one_system() {
    let fleet = Fleet::new().await;
    let refused = fleet.run(&["serve", "agent-orchestrator"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("agentrunner migrate up"),
        "{refused:?}"
    );
    assert_eq!(fleet.run(&["migrate", "up"]).await.code, 0);

    let state = fleet.service("state-manager").await;
    let config = fleet.service("config-service").await;
    let orchestrator = fleet.service("agent-orchestrator").await;
    // Without a pool, work is taken in and waits, and that can be seen.
    let agent = fleet.until_status("thinker", "unavailable").await;
    let reason = agent["status_reason"].as_str().unwrap();
    assert!(reason.contains("serve autonomous-agent-pool"), "{agent}");
    assert!(agent["last_heartbeat"].is_null(), "{agent}");
    let waiting = fleet.project.submit("thinker").await;

    let ports = free_ports(2);
    let first = fleet.pool("autonomous-agent-pool", ports[0]).await;
    let second = fleet.pool("autonomous-agent-pool", ports[1]).await;
    let task = format!("/tasks/{waiting}");
    fleet
        .project
        .until(&task, |task| task["status"] == "completed")
        .await;
    let pool = fleet
        .until_pool("autonomous-agent-pool", |pool| alive(pool) == 2)
        .await;
    assert_eq!(pool["capacity"], 40, "{pool}");

    follow_from_the_orchestrator(&fleet).await;
    cancel_at_the_orchestrator(&fleet).await;

    // Each says of itself what is true of it.
    let (status, steps) = get(&fleet
        .project
        .state_url(&format!("/executions/{waiting}/steps")))
    .await;
    assert_eq!((status, steps.as_array().map(Vec::len)), (200, Some(5)));
    let (status, configs) = get(&fleet.project.config_url("/configs")).await;
    assert_eq!((status, configs.as_array().map(Vec::len)), (200, Some(4)));
    let (status, ready) = get(&fleet.project.state_url("/health/ready")).await;
    assert_eq!(status, 200);
    assert_eq!(ready["dependencies"]["message_queue"], "not_used");
    let of_pool = |path: &str| format!("http://127.0.0.1:{}{path}", ports[0]);
    let (status, ready) = get(&of_pool("/health/ready")).await;
    assert_eq!(status, 200);
    assert_eq!(ready["dependencies"]["message_queue"], "ok");
    let (status, _) = get(&of_pool("/tasks")).await;
    assert_eq!(status, 404, "a pool answers for its health only");
    let (_, health) = get(&fleet.project.url("/health")).await;
    assert_eq!(
        health["active_executions"], 0,
        "the orchestrator performs none"
    );

    for process in [first, second, orchestrator, config, state] {
        end(process).await;
    }
}

/// Steps of a pool's run are seen while it runs.
async fn follow_from_the_orchestrator(fleet: &Fleet) {
    let id = fleet.project.submit("thinker").await;
    let url = fleet.project.url(&format!("/tasks/{id}/events"));
    let response = reqwest::get(url).await.unwrap();
    let mut events = response.bytes_stream().eventsource();
    let (mut steps, mut last) = (Vec::new(), String::new());
    while let Some(event) = events.next().await {
        let event = event.unwrap();
        if event.event == "step" {
            steps.push(event.id.clone());
            if event.id == "3" {
                let task = fleet.project.get(&format!("/tasks/{id}")).await;
                assert_eq!(task["status"], "running", "the step was seen too late");
                let age = task["heartbeat_age_seconds"].as_f64().unwrap();
                assert!(age < 10.0 && task["worker"].is_string(), "{task}");
            }
        }
        last = event.event;
    }
    assert_eq!(
        (steps.join(" ").as_str(), last.as_str()),
        ("1 2 3 4 5", "done")
    );
}

/// A pool hears of it without waiting for the next renewal of its lease.
async fn cancel_at_the_orchestrator(fleet: &Fleet) {
    for _ in 0..3 {
        let id = fleet.project.submit("dreamer").await;
        let task = format!("/tasks/{id}");
        fleet
            .project
            .until(&task, |task| task["steps"].as_u64() >= Some(3))
            .await;
        let began = Instant::now();
        let client = reqwest::Client::new();
        client
            .delete(fleet.project.url(&task))
            .send()
            .await
            .unwrap();
        fleet
            .project
            .until(&task, |task| task["status"] == "cancelled")
            .await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "cancelled after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_gone_is_seen_and_so_is_one_that_comes_back() {
    let fleet = Fleet::new().await;
    assert_eq!(fleet.run(&["migrate", "up"]).await.code, 0);
    let _orchestrator = fleet.service("agent-orchestrator").await;
    let ports = free_ports(4);
    let first = fleet.pool("autonomous-agent-pool", ports[0]).await;
    let second = fleet.pool("autonomous-agent-pool", ports[1]).await;
    fleet.until_status("greeter", "ready").await;
    let dream = fleet.project.submit("dreamer").await;
    let pool = fleet
        .until_pool("autonomous-agent-pool", |pool| {
            alive(pool) == 2 && pool["active"] == 1
        })
        .await;
    let shares: f64 = pool["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| worker["load_share"].as_f64().unwrap())
        .sum();
    assert!((shares - 1.0).abs() < 1e-9, "{pool}");
    assert_eq!(pool["load"], json!(1.0 / 40.0), "{pool}");
    fleet.until_status("dreamer", "running").await;
    // A lost worker is counted until the next step is committed: none is, in the middle of the dream.
    let dream = format!("/tasks/{dream}");
    fleet
        .project
        .until(&dream, |task| task["steps"].as_u64() >= Some(3))
        .await;

    first.kill().await;
    second.kill().await;
    let killed = Instant::now();
    let agent = fleet.until_status("greeter", "unavailable").await;
    let took = killed.elapsed();
    assert!(took < INTERVAL, "seen after {took:?}: {agent}");
    assert!(agent["last_heartbeat"].is_string(), "{agent}");
    let pool = fleet
        .until_pool("autonomous-agent-pool", |pool| alive(pool) == 0)
        .await;
    assert_eq!(
        (pool["workers"].as_array().unwrap().len(), &pool["capacity"]),
        (2, &json!(0)),
        "the lost are shown"
    );
    // Work is still taken in.
    let greeting = fleet.project.submit("greeter").await;

    // Another pool does not do it.
    let other = fleet.pool("collaborative-agent-pool", ports[2]).await;
    fleet
        .until_pool("collaborative-agent-pool", |pool| alive(pool) == 1)
        .await;
    // It looks for work once a second: this is two looks more than it would need.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let task = fleet.project.get(&format!("/tasks/{greeting}")).await;
    assert_eq!(task["status"], "queued", "{task}");
    let agent = fleet.until_status("greeter", "unavailable").await;
    assert!(!agent["status_reason"].is_null(), "{agent}");

    let back = fleet.pool("autonomous-agent-pool", ports[3]).await;
    fleet.until_status("greeter", "ready").await;
    fleet
        .project
        .until(&format!("/tasks/{greeting}"), |task| {
            task["status"] == "completed"
        })
        .await;
    // What the killed one had goes on there, and is known to have lost its worker once.
    fleet
        .project
        .until(&dream, |task| {
            task["restarts"] == 1 && task["worker"].is_string()
        })
        .await;

    // Who ends in order says so: nobody has to miss it.
    let began = Instant::now();
    back.signal("TERM");
    fleet.until_status("greeter", "unavailable").await;
    assert!(began.elapsed() < INTERVAL / 2, "{:?}", began.elapsed());
    let (code, log) = back.ended().await;
    assert_eq!(code, 0, "{log}");
    end(other).await;
}

#[tokio::test]
async fn a_part_that_could_not_work_is_refused_with_what_to_do() {
    let project = Project::new();
    let cases = [
        ("agent-orchestrator", "POSTGRES_HOST", "RABBITMQ_HOST"),
        ("autonomous-agent-pool", "POSTGRES_HOST", "RABBITMQ_HOST"),
        ("state-manager", "POSTGRES_HOST", "agentrunner up"),
        ("slack-gateway", "POSTGRES_HOST", "RABBITMQ_HOST"),
        ("scheduler-service", "POSTGRES_HOST", "RABBITMQ_HOST"),
    ];
    for (part, first, second) in cases {
        let ran = project.run(&["serve", part]).await;
        assert_eq!(ran.code, 1, "{part}: {ran:?}");
        assert!(ran.stderr.contains(first), "{part}: {ran:?}");
        assert!(ran.stderr.contains(second), "{part}: {ran:?}");
    }
    let ran = project.run(&["serve", "everything"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(!project.path().join("data").exists(), "nothing was made");
}

/// A part, started while its database does not answer yet.
async fn started_too_early(proxy: &testkit::FaultProxy, patience: &str) -> (Project, Server) {
    let (postgres, rabbitmq) = tokio::join!(backing::postgres(), backing::rabbitmq());
    let url = testkit::servers::by_way_of(&postgres[0].1, proxy.address());
    let project = Project::new();
    let mut command = project.command(&["serve", "state-manager"]);
    command.envs(borrowed(&rabbitmq)).envs([
        ("DATABASE_URL", url.as_str()),
        ("AUTO_MIGRATE", "true"),
        ("SERVERS_PATIENCE_SECONDS", patience),
    ]);
    let mut server = Server::of(command);
    server.wait_for_line("can't be used").await;
    (project, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_waits_for_its_servers_and_says_so() {
    let url = testkit::servers::shared(testkit::servers::Kind::Postgres).await;
    let proxy = testkit::FaultProxy::start(testkit::servers::address(url));
    proxy.set(testkit::Weather::Reset);
    let (project, mut server) = started_too_early(&proxy, "300").await;
    proxy.set(testkit::Weather::Clear);
    server.wait_for_line("ready in").await;
    let (status, _) = get(&project.state_url("/health/ready")).await;
    assert_eq!(status, 200);
    end(server).await;

    // Whoever does not want to wait for it need not.
    proxy.set(testkit::Weather::Reset);
    let (_project, server) = started_too_early(&proxy, "300").await;
    end(server).await;

    let (_project, server) = started_too_early(&proxy, "1").await;
    let (code, log) = server.ended().await;
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("tried again for 0 s more"), "{log}");
}
