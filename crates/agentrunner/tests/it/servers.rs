//! On PostgreSQL and RabbitMQ: one process, several, and what they do when a process or a server dies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::provider::{Answer, Request};
use testkit::servers::{Kind, Server};
use testkit::{EffectsStandIn, Filter, ProviderStandIn};

use crate::backing::{self, Variables, borrowed};
use crate::product::{Product, Project};
use crate::project;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Within this, what a killed process had must have come to its end elsewhere.
const TAKEOVER: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);

/// Calls its tool once and answers.
fn once_then_done(request: &Request) -> Answer {
    if request.turn == 0 {
        Answer::call(&request.tools[0].name, json!({}))
    } else {
        Answer::say("done")
    }
}

/// A provider, a tool, and an agent `worker` that uses both.
pub(crate) struct Stage {
    pub(crate) provider: ProviderStandIn,
    effects: EffectsStandIn,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            provider: ProviderStandIn::start(once_then_done),
            effects: EffectsStandIn::start(),
        }
    }

    pub(crate) fn project(&self) -> Project {
        let project = Project::new();
        let url = self.effects.url();
        project.agent(
            "worker",
            &format!(
                "name: worker\nexecution_mode: autonomous\nllm_config: {{ provider: openai, model: gpt-4o-mini }}\n\
                 system_prompt: You work.\ntools:\n  \
                 - {{ name: charge, type: api, method: POST, url: '{url}/charge', body: {{ cents: 1 }} }}\n"
            ),
        );
        project
    }

    /// Starts a process on these servers.
    pub(crate) async fn up(&self, project: &Project, servers: &Variables) -> Product {
        let base = self.provider.openai_url();
        let mut variables = borrowed(servers);
        variables.extend([
            ("OPENAI_API_KEY", "sk-test"),
            ("OPENAI_BASE_URL", base.as_str()),
            ("AGENT_CAPACITY", "20"),
            ("LOG_LEVEL", "WARNING"),
        ]);
        Product::up(project, &variables).await
    }

    /// How often the model was asked in this turn.
    pub(crate) fn asked(&self, turn: usize) -> usize {
        let requests = self.provider.requests();
        let of_turn = requests.iter().filter(|one| one.request.turn == turn);
        of_turn.count()
    }

    /// How often the tool did its work.
    pub(crate) fn charges(&self) -> usize {
        let calls = self.effects.calls_to(testkit::effects::Route::Charge);
        calls.iter().filter(|call| call.effect.is_some()).count()
    }
}

pub(crate) async fn submit(product: &Product, n: usize) -> String {
    let body = json!({ "agent_name": "worker", "task_data": { "prompt": format!("task {n}") } });
    let accepted = product.post("/tasks", &body).await;
    accepted["execution_id"].as_str().expect("an id").to_owned()
}

pub(crate) async fn submit_many(product: &Product, numbers: std::ops::Range<usize>) -> Vec<String> {
    let mut ids = Vec::new();
    for n in numbers {
        ids.push(submit(product, n).await);
    }
    ids
}

/// Waits until all are completed, each with its five steps and no more.
pub(crate) async fn all_completed(product: &Product, ids: &[String]) {
    let began = Instant::now();
    for id in ids {
        loop {
            let task = product.get(&format!("/tasks/{id}")).await;
            match task["status"].as_str() {
                Some("completed") => {
                    assert_eq!(task["steps"], 5, "{task}");
                    break;
                }
                Some("queued" | "running") => tokio::time::sleep(PAUSE).await,
                _ => panic!("{task}"),
            }
            assert!(began.elapsed() < PATIENCE, "{task}\n{}", product.log());
        }
    }
}

/// Waits until a request is answered as wanted.
pub(crate) async fn until(product: &Product, path: &str, is_wanted: impl Fn(u16, &Value) -> bool) {
    let began = Instant::now();
    loop {
        let (status, body) = product.ask(path).await;
        if is_wanted(status, &body) {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{path}: {status}: {body}\n{}",
            product.log()
        );
        tokio::time::sleep(PAUSE).await;
    }
}

async fn both() -> Variables {
    let (mut servers, rabbitmq) = tokio::join!(backing::postgres(), backing::rabbitmq());
    servers.extend(rabbitmq);
    servers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_both_servers_everything_goes_on_after_a_kill() {
    let servers = both().await;
    let project = project::Project::new();
    let variables = borrowed(&servers);
    let server = project.up_with(&variables).await;
    for line in [
        "store: PostgreSQL at 127.0.0.1",
        "bus: RabbitMQ at 127.0.0.1",
    ] {
        assert!(server.log.contains(line), "{line}: {}", server.log);
    }
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(project.submit("thinker").await);
    }
    project
        .until(&format!("/tasks/{}", ids[0]), |task| {
            task["steps"].as_u64() >= Some(3)
        })
        .await;
    server.kill().await;

    let server = project.up_with(&variables).await;
    for id in &ids {
        let task = project
            .until(&format!("/tasks/{id}"), |task| {
                task["status"] == "completed"
            })
            .await;
        assert_eq!(task["steps"], 5, "{task}");
    }
    server.signal("TERM");
    let (code, log) = server.ended().await;
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("panicked"), "{log}");

    // Nobody serves now: the commands open the store themselves.
    let mut command = project.command(&["tasks", "--json"]);
    command.envs(variables.iter().copied());
    let ran = project::Ran::of(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains(&ids[0]), "{ran:?}");
    let mut command = project.command(&["run", "greeter", "hello"]);
    command.envs(variables.iter().copied());
    let ran = project::Ran::of(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut command = project.command(&["doctor", "--json"]);
    command.envs(variables.iter().copied());
    let ran = project::Ran::of(command).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "database\",\"found\":\"PostgreSQL 1",
        " at 127.0.0.1",
        "RabbitMQ at 127.0.0.1",
        " answers; ",
        ", as PostgreSQL says too",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    assert!(!project.path().join("data/agentrunner.db").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_is_used_without_the_other() {
    for (servers, store, bus) in [
        (backing::postgres().await, "PostgreSQL", "in this process"),
        (backing::rabbitmq().await, "embedded SQLite", "RabbitMQ"),
    ] {
        let project = project::Project::new();
        let server = project.up_with(&borrowed(&servers)).await;
        for line in [format!("store: {store}"), format!("bus: {bus}")] {
            assert!(server.log.contains(&line), "{line}: {}", server.log);
        }
        let id = project.submit("greeter").await;
        project
            .until(&format!("/tasks/{id}"), |task| {
                task["status"] == "completed"
            })
            .await;
        server.signal("TERM");
        assert_eq!(server.ended().await.0, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_ends_at_another_and_repeats_nothing() {
    let servers = both().await;
    let stage = Stage::new();
    let (first_home, second_home) = (stage.project(), stage.project());
    // Everybody stops in the second answer of the model, when the first answer and the tool's result are committed.
    let last_answers = stage.provider.hold(
        Filter::any().with("point", "mid_stream").with("turn", 1),
        None,
    );
    let first = stage.up(&first_home, &servers).await;
    let second = stage.up(&second_home, &servers).await;
    let ids = submit_many(&first, 0..40).await;
    last_answers.wait(40).await;
    let (_, health) = second.ask("/health").await;
    assert_eq!(health["active_executions"], 20, "they share: {health}");

    first.kill().await;
    let killed = Instant::now();
    last_answers.release();
    all_completed(&second, &ids).await;
    let took = killed.elapsed();
    assert!(took < TAKEOVER, "taken over after {took:?}");
    let seen = (stage.asked(0), stage.asked(1), stage.charges());
    assert_eq!(
        seen,
        (40, 60, 40),
        "asked in turn 0 and 1, charged: only what was not committed is repeated"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_costs_nothing_that_was_accepted() {
    let broker = Server::start(Kind::RabbitMq).await;
    let mut servers = backing::postgres().await;
    let database = servers[0].1.clone();
    servers.extend(broker.variables());
    let stage = Stage::new();
    let project = stage.project();
    let product = stage.up(&project, &servers).await;
    let mut ids = submit_many(&product, 0..30).await;
    broker.kill();
    ids.extend(submit_many(&product, 30..60).await);
    // Work goes on without a broker.
    all_completed(&product, &ids).await;
    broker.up().await;
    ids.extend(submit_many(&product, 60..90).await);
    all_completed(&product, &ids).await;
    assert_eq!(
        (stage.asked(0), stage.asked(1), stage.charges()),
        (90, 90, 90)
    );
    until(&product, "/health/ready", |status, _| status == 200).await;
    let session = backing::session(&database).await;
    let began = Instant::now();
    loop {
        let row = session.query_one("SELECT count(*) FROM outbox", &[]).await;
        let waiting: i64 = row.unwrap().get(0);
        if waiting == 0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{waiting} events still wait");
        tokio::time::sleep(PAUSE).await;
    }
    drop(broker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_dies_is_waited_for() {
    let database = Server::start(Kind::Postgres).await;
    let stage = Stage::new();
    let project = stage.project();
    let product = stage.up(&project, &database.variables()).await;
    let last_answers = stage.provider.hold(
        Filter::any().with("point", "mid_stream").with("turn", 1),
        None,
    );
    let mut ids = submit_many(&product, 0..10).await;
    last_answers.wait(10).await;

    database.kill();
    // The server's sessions outlive it for a moment; what they accept is durable and counts.
    let began = Instant::now();
    loop {
        let prompt = format!("late {}", ids.len());
        let task = json!({ "agent_name": "worker", "task_data": { "prompt": prompt } });
        let (status, body) = product.try_post("/tasks", &task).await;
        match status {
            202 => ids.push(body["execution_id"].as_str().unwrap().to_owned()),
            503 => break,
            other => panic!("{other}: {body}"),
        }
        assert!(
            began.elapsed() < PATIENCE,
            "work is accepted without a database"
        );
    }
    until(&product, "/health/ready", |status, body| {
        status == 503 && body["dependencies"]["database"] == "unavailable"
    })
    .await;
    let (status, _) = product.ask("/health/live").await;
    assert_eq!(status, 200);
    last_answers.release();

    database.up().await;
    until(&product, "/health/ready", |status, _| status == 200).await;
    all_completed(&product, &ids).await;
    let more = submit_many(&product, 10..20).await;
    all_completed(&product, &more).await;
    let all = ids.len() + more.len();
    assert_eq!(stage.charges(), all);
    // Of those that came while it died, an answer of the model may have been too late to be kept.
    let late = ids.len() - 10;
    let asked = stage.asked(0);
    assert!((all..=all + late).contains(&asked), "{asked} of {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_used_is_named_at_start() {
    let (postgres, rabbitmq) = (backing::postgres().await, backing::rabbitmq().await);
    let (postgres, rabbitmq) = (&postgres[0].1, &rabbitmq[0].1);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port().to_string();
    let other_password = |url: &str| {
        let (front, back) = url.split_once('@').unwrap();
        format!("{}:canary@{back}", front.rsplit_once(':').unwrap().0)
    };
    let cases: [(Vec<(&str, String)>, &str); 8] = [
        (
            vec![
                ("POSTGRES_HOST", "127.0.0.1".to_owned()),
                ("POSTGRES_PORT", "1".to_owned()),
            ],
            "nothing listens at 127.0.0.1:1; start PostgreSQL",
        ),
        (
            vec![("POSTGRES_HOST", "nowhere.invalid".to_owned())],
            "the host nowhere.invalid is not known",
        ),
        (
            vec![("DATABASE_URL", other_password(postgres))],
            "refuses the password",
        ),
        (
            vec![
                ("POSTGRES_HOST", "127.0.0.1".to_owned()),
                ("POSTGRES_PORT", silent.clone()),
            ],
            "does not answer within",
        ),
        (
            vec![
                ("RABBITMQ_HOST", "127.0.0.1".to_owned()),
                ("RABBITMQ_PORT", "1".to_owned()),
            ],
            "RabbitMQ at 127.0.0.1:1 can't be used",
        ),
        (
            vec![("RABBITMQ_HOST", "nowhere.invalid".to_owned())],
            "RabbitMQ at nowhere.invalid:5672 can't be used",
        ),
        (
            vec![("RABBITMQ_URL", other_password(rabbitmq))],
            "the name or the password is wrong",
        ),
        (
            vec![
                ("RABBITMQ_HOST", "127.0.0.1".to_owned()),
                ("RABBITMQ_PORT", silent),
            ],
            "does not answer within",
        ),
    ];
    for (variables, part) in cases {
        let project = project::Project::new();
        let mut command = project.command(&["up"]);
        command.envs(
            variables
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        // Whatever is said at any level, no password is.
        command.env("LOG_LEVEL", "TRACE");
        let ran = project::Ran::of(command).await;
        assert_eq!(ran.code, 1, "{part}: {ran:?}");
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        assert!(!format!("{ran:?}").contains("canary"), "{ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_are_made_when_they_are_allowed_or_asked_for() {
    let mut servers = backing::postgres().await;
    servers.push(("AUTO_MIGRATE", "false".to_owned()));
    let project = project::Project::new();
    let run = async |args: &[&str]| {
        let mut command = project.command(args);
        command.envs(borrowed(&servers));
        project::Ran::of(command).await
    };
    let applied = |ran: &project::Ran| {
        assert_eq!(ran.code, 0, "{ran:?}");
        let rows = ran.json();
        let rows = rows.as_array().expect("a list").clone();
        rows.iter().filter(|row| row["applied"] == true).count()
    };
    let ran = run(&["up"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("agentrunner migrate up"), "{ran:?}");
    assert_eq!(applied(&run(&["migrate", "status", "--json"]).await), 0);
    let all = applied(&run(&["migrate", "up", "--json"]).await);
    assert!(all >= 2);
    assert_eq!(
        applied(&run(&["migrate", "down", "1", "--json"]).await),
        all - 1
    );
    assert_eq!(applied(&run(&["migrate", "up", "--json"]).await), all);
    let ran = run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
}
