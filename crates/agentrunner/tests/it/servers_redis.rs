//! With Redis, and with what can happen to it: the results are the same, whatever happens to it in between.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::ProviderStandIn;
use testkit::provider::{Answer, Request};
use testkit::servers::{Kind, Server};

use crate::backing::{self, Variables, borrowed};
use crate::product::{Product, Project};
use crate::project;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);
const TALKS: usize = 3;
const TURNS: usize = 4;
/// What is logged when it is lost, once each time.
const LOST: &str = "can't be used:";
const BACK: &str = "is back after";

/// Says all that it was told, so that a forgotten message shows.
fn echo(request: &Request) -> Answer {
    let texts: Vec<&str> = request.messages.iter().map(|m| m.text.as_str()).collect();
    Answer::say(texts.join(" / "))
}

/// Asks a Redis; answers what it says.
fn tell(server: &Server, command: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .unwrap();
    let mut answer = [0; 200];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn project() -> Project {
    let project = Project::new();
    project.agent(
        "talker",
        "name: talker\nexecution_mode: autonomous\nllm_config: { provider: openai, model: gpt-4o-mini }\n\
         system_prompt: You talk.\n",
    );
    project
}

async fn up(project: &Project, provider: &ProviderStandIn, servers: &Variables) -> Product {
    let base = provider.openai_url();
    let mut variables = borrowed(servers);
    variables.extend([
        ("OPENAI_API_KEY", "sk-test"),
        ("OPENAI_BASE_URL", base.as_str()),
    ]);
    Product::up(project, &variables).await
}

/// Says something in a conversation at one process, and answers what comes of it at the other, asked twice.
async fn say(here: &Product, there: &Product, talk: &str, text: &str) -> String {
    let body =
        json!({ "agent_name": "talker", "conversation_id": talk, "task_data": { "prompt": text } });
    let accepted = here.post("/tasks", &body).await;
    let id = accepted["execution_id"].as_str().expect("an id");
    let path = format!("/tasks/{id}/result");
    let began = Instant::now();
    let first = loop {
        let (status, result) = there.ask(&path).await;
        if result["status"] == "completed" {
            break result;
        }
        assert!(
            status < 500 && began.elapsed() < PATIENCE,
            "{status}: {result}"
        );
        tokio::time::sleep(PAUSE).await;
    };
    for product in [here, there, here] {
        assert_eq!(
            product.get(&path).await,
            first,
            "every process says the same"
        );
    }
    first["output"].as_str().expect("an output").to_owned()
}

/// Conversations whose turns go to one process and the other in turn. In the middle, something happens.
async fn talk(products: &[Product; 2], round: &str, happens: impl FnOnce()) -> Vec<String> {
    let [one, other] = products;
    let mut outputs = Vec::new();
    let mut happens = Some(happens);
    for turn in 0..TURNS {
        if turn == TURNS / 2
            && let Some(happens) = happens.take()
        {
            happens();
        }
        for number in 0..TALKS {
            let (talk, text) = (
                format!("{round}-{number}"),
                format!("turn {turn} of {number}"),
            );
            let (here, there) = if turn % 2 == 0 {
                (one, other)
            } else {
                (other, one)
            };
            outputs.push(say(here, there, &talk, &text).await);
        }
    }
    outputs
}

async fn until_cache_is(product: &Product, wanted: &str) -> Value {
    let began = Instant::now();
    loop {
        let (status, body) = product.ask("/health/ready").await;
        assert_eq!(status, 200, "nobody needs a cache: {body}");
        if body["dependencies"]["cache"] == wanted {
            return body;
        }
        assert!(began.elapsed() < PATIENCE, "{body}\n{}", product.log());
        tokio::time::sleep(PAUSE).await;
    }
}

fn times(product: &Product, text: &str) -> usize {
    product.log().matches(text).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_it_the_results_are_the_same() {
    let (mut servers, redis) = tokio::join!(backing::postgres(), Server::start(Kind::Redis));
    servers.extend(redis.variables());
    let provider = ProviderStandIn::start(echo);
    let homes = [project(), project()];
    let products = [
        up(&homes[0], &provider, &servers).await,
        up(&homes[1], &provider, &servers).await,
    ];
    let log = products[0].log();
    assert!(log.contains("cache: Redis at 127.0.0.1"), "{log}");

    let undisturbed = talk(&products, "undisturbed", || {}).await;
    assert_eq!(undisturbed.len(), TALKS * TURNS);
    let last = undisturbed.last().unwrap();
    assert!(
        last.contains("turn 0 of 2") && last.contains("turn 3 of 2"),
        "{last}"
    );
    let kept = tell(&redis, "DBSIZE");
    assert!(
        kept.starts_with(':') && kept.trim() != ":0",
        "it is used: {kept}"
    );

    let flushed = talk(&products, "flushed", || {
        assert!(tell(&redis, "FLUSHALL").starts_with("+OK"));
    });
    assert_eq!(flushed.await, undisturbed);
    assert_eq!(times(&products[0], LOST), 0, "{}", products[0].log());

    let killed = talk(&products, "killed", || redis.kill()).await;
    assert_eq!(killed, undisturbed);
    until_cache_is(&products[0], "degraded").await;
    redis.up().await;
    for product in &products {
        until_cache_is(product, "ok").await;
        assert_eq!(
            (times(product, LOST), times(product, BACK)),
            (1, 1),
            "{}",
            product.log()
        );
    }

    let held = talk(&products, "held", || redis.pause()).await;
    assert_eq!(held, undisturbed);
    let health = until_cache_is(&products[1], "degraded").await;
    assert_eq!(
        health["degraded"],
        json!(["cache: it does not answer in time"])
    );
    redis.resume();
    for product in &products {
        until_cache_is(product, "ok").await;
        assert_eq!(
            (times(product, LOST), times(product, BACK)),
            (2, 2),
            "{}",
            product.log()
        );
    }

    let locked = talk(&products, "locked", || {
        let commands = "CONFIG SET requirepass other\r\nCLIENT KILL TYPE normal SKIPME yes";
        assert!(tell(&redis, commands).starts_with("+OK"));
    });
    assert_eq!(locked.await, undisturbed);
    for product in &products {
        let health = until_cache_is(product, "degraded").await;
        let why = health["degraded"][0].as_str().unwrap();
        assert!(
            why.contains("correct REDIS_PASSWORD") || why.contains("lost"),
            "{health}"
        );
        assert_eq!(
            (times(product, LOST), times(product, BACK)),
            (3, 2),
            "{}",
            product.log()
        );
    }
    for product in products {
        assert!(!product.log().contains("panicked"), "{}", product.log());
        product.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_can_not_be_used_is_named_and_stops_nothing() {
    let redis = Server::start(Kind::Redis).await;
    assert!(tell(&redis, "CONFIG SET requirepass right").starts_with("+OK"));
    let port = redis.address().port().to_string();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port().to_string();
    let cases = [
        (
            vec![("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", "1")],
            "nothing listens there",
        ),
        (
            vec![("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &silent)],
            "does not answer in time",
        ),
        (
            vec![("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)],
            "correct REDIS_PASSWORD",
        ),
        (
            vec![
                ("REDIS_HOST", "127.0.0.1"),
                ("REDIS_PORT", &port),
                ("REDIS_PASSWORD", "canary"),
            ],
            "correct REDIS_PASSWORD",
        ),
    ];
    let provider = ProviderStandIn::start(echo);
    for (variables, part) in cases {
        let owned = variables
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let home = project();
        let product = up(&home, &provider, &owned.collect()).await;
        let health = until_cache_is(&product, "degraded").await;
        let why = health["degraded"][0].as_str().unwrap();
        assert!(why.contains(part), "{part}: {health}");
        say(&product, &product, "t", "hello").await;
        let log = product.log();
        assert_eq!(log.matches(LOST).count(), 1, "once: {log}");
        assert!(
            log.contains(part) && !log.contains("canary"),
            "{part}: {log}"
        );
        product.kill().await;

        let place = project::Project::new();
        let mut command = place.command(&["doctor"]);
        command.envs(variables.iter().copied());
        let ran = project::Ran::of(command).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.stdout.contains("FAIL cache") && ran.stdout.contains(part),
            "{ran:?}"
        );
        assert!(!ran.stdout.contains("canary"), "{ran:?}");
    }
    // With the right one, all is well.
    let home = project();
    let url = format!("redis://:right@127.0.0.1:{port}/0");
    let mut command = project::Project::new().command(&["doctor", "--offline"]);
    command.env("REDIS_URL", &url).current_dir(home.path());
    let ran = project::Ran::of(command).await;
    let version = ran.stdout.split_once("cache: Redis ").map(|(_, rest)| rest);
    assert!(
        version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit())),
        "{ran:?}"
    );
    let product = up(&home, &provider, &vec![("REDIS_URL", url)]).await;
    until_cache_is(&product, "ok").await;
    say(&product, &product, "t", "hello").await;
    assert_eq!(times(&product, LOST), 0);
    let (status, body) = product.post_state("/cache/clear").await;
    assert_eq!(status, 200, "{body}");
    assert!(body["cleared"].as_u64().unwrap() >= 1, "{body}");
    let (_, body) = product.post_state("/cache/clear").await;
    assert_eq!(body, json!({ "cleared": 0 }));
    product.kill().await;
}
