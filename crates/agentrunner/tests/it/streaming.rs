//! Clients who read answers while these are written, through resets and at changing API processes, while API processes and
//! workers are killed: what each one holds in the end is what is stored, byte for byte.

mod client;
mod lots;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::ProviderStandIn;
use testkit::provider::{Answer, Delivery, Fault, Request};

use crate::backing::{self, Variables, borrowed};
use crate::five_kinds::part::{End, Part};
use crate::product::{Project, free_ports};
use crate::project::Ran;
use client::{Heard, Reader};
use lots::Lots;

/// How many processes of each kind.
const PROCESSES: usize = 3;
/// How many answers are written, and how many read each.
const ANSWERS: usize = 50;
const READERS: usize = 10;
/// How many processes are killed at least.
const KILLS: usize = 5;
/// Until when tasks are given, and processes killed, in every test run; `STREAMING_SECONDS` says otherwise.
const LENGTH: Duration = Duration::from_secs(15);
/// How long what is under way may take to come to its end.
const SETTLE: Duration = Duration::from_secs(90);

/// What answers are made of.
const WORDS: [&str; 7] = [
    "grüße ",
    "words, ",
    "\n\n",
    "\"quoted\" ",
    "🦀",
    "data: x ",
    "naïve ",
];

/// A system of separate processes on real servers.
struct System {
    http: reqwest::Client,
    project: Project,
    _provider: ProviderStandIn,
    variables: Variables,
    orchestrators: Vec<u16>,
    parts: Vec<tokio::sync::Mutex<Part>>,
}

impl System {
    async fn start() -> Self {
        let (mut variables, rabbitmq) = tokio::join!(backing::postgres(), backing::rabbitmq());
        variables.extend(rabbitmq);
        let provider = ProviderStandIn::start(tell);
        for (name, value) in [
            ("OPENAI_API_KEY", "sk-test".to_owned()),
            ("OPENAI_BASE_URL", provider.openai_url()),
            ("AGENT_CAPACITY", "100".to_owned()),
            ("LOG_LEVEL", "WARNING".to_owned()),
        ] {
            variables.push((name, value));
        }
        let project = Project::new();
        project.agent(
            "teller",
            "name: teller\nexecution_mode: autonomous\nsystem_prompt: You tell.\n\
             llm_config: { provider: openai, model: gpt-4o-mini }\n\
             retry_config: { max_retries: 20, retry_delay_seconds: 0.1, max_retry_delay: 0.5 }\n",
        );
        let mut migrate = project.command(&borrowed(&variables));
        migrate.args(["migrate", "up"]);
        assert_eq!(Ran::of(migrate).await.code, 0);
        let ports = free_ports(2 * PROCESSES);
        let (orchestrators, pools) = ports.split_at(PROCESSES);
        let log = |port: &u16| -> PathBuf { project.path().join(format!("{port}.log")) };
        let part = |name, port: &u16| tokio::sync::Mutex::new(Part::new(name, *port, log(port)));
        let parts = orchestrators
            .iter()
            .map(|port| part("agent-orchestrator", port))
            .chain(pools.iter().map(|port| part("autonomous-agent-pool", port)))
            .collect();
        let system = Self {
            http: client::http(),
            _provider: provider,
            variables,
            orchestrators: orchestrators.to_vec(),
            parts,
            project,
        };
        for number in 0..system.parts.len() {
            system.begin(number).await;
        }
        system
    }

    async fn begin(&self, number: usize) {
        let mut part = self.parts[number].lock().await;
        let port = part.port.to_string();
        let mut variables = borrowed(&self.variables);
        let name = match part.name {
            "agent-orchestrator" => "ORCHESTRATOR_PORT",
            _ => "AGENT_POOL_PORT",
        };
        variables.push((name, &port));
        part.start(self.project.command(&variables)).await;
    }

    async fn kill(&self, number: usize) {
        let wrong = self.parts[number].lock().await.end(End::Kill).await;
        assert_eq!(wrong, None);
    }

    /// Gives a task to whichever process takes it.
    async fn submit(&self, n: usize, lots: &mut Lots) -> String {
        let body = json!({
            "agent_name": "teller", "task_data": { "prompt": format!("story {n}") },
        });
        loop {
            let url = format!(
                "http://127.0.0.1:{}/tasks",
                lots.one_of(&self.orchestrators)
            );
            let sent = self
                .http
                .post(url)
                .header("idempotency-key", format!("story-{n}"))
                .json(&body)
                .send();
            if let Ok(answer) = sent.await
                && answer.status().is_success()
                && let Ok(accepted) = answer.json::<Value>().await
            {
                return accepted["execution_id"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What all processes logged.
    async fn log(&self) -> String {
        let mut all = String::new();
        for part in &self.parts {
            all.push_str(&part.lock().await.text());
        }
        all
    }
}

/// Tells slowly, each time something else; some connections to the model are cut in the middle.
fn tell(request: &Request) -> Answer {
    let mut lots = Lots::new(request.number as u64);
    let mut text = format!("{} · №{}: ", request.conversation, request.number);
    while text.len() < 500 {
        let word: &&str = lots.one_of(&WORDS);
        text.push_str(word);
    }
    Answer {
        delivery: Delivery {
            chunk_ms: lots.up_to(40) + 20,
            piece_chars: 8,
            fault: (lots.up_to(5) == 0).then_some(Fault::Cut { after: Some(20) }),
            ..Delivery::default()
        },
        ..Answer::say(text)
    }
}

/// Kills a process now and then, and starts it again in the same place.
async fn disturb(system: &System, until: Instant, kills: &AtomicUsize) {
    let mut lots = Lots::new(7);
    let mut number = 0;
    while Instant::now() < until || kills.load(Ordering::Relaxed) < KILLS {
        tokio::time::sleep(Duration::from_millis(lots.up_to(1500) + 500)).await;
        // Each in turn: two API processes and workers are there at any time.
        number = (number + PROCESSES + 1) % (2 * PROCESSES);
        system.kill(number).await;
        kills.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(lots.up_to(500))).await;
        system.begin(number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_500_streaming_clients_hold_is_what_is_stored_whatever_is_killed() {
    let seconds = std::env::var("STREAMING_SECONDS").ok();
    let length = seconds.map_or(LENGTH, |text| {
        Duration::from_secs(text.parse().expect("STREAMING_SECONDS is a number"))
    });
    let system = Arc::new(System::start().await);
    let began = Instant::now();
    let kills = AtomicUsize::new(0);
    let give = async {
        let mut lots = Lots::new(1);
        let mut readers = tokio::task::JoinSet::new();
        for n in 0..ANSWERS {
            let id = system.submit(n, &mut lots).await;
            for reader in 0..READERS {
                let seed = (n * READERS + reader) as u64;
                let (http, ports) = (system.http.clone(), system.orchestrators.clone());
                let reader = Reader::new(http, id.clone(), ports, seed);
                readers.spawn(reader.read());
            }
            let due = length.mul_f64(n as f64 / ANSWERS as f64);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
        readers
    };
    let (mut readers, ()) = tokio::join!(give, disturb(&system, began + length, &kills));
    let mut heard = Vec::new();
    let all = async {
        while let Some(one) = readers.join_next().await {
            heard.push(one.unwrap());
        }
    };
    if tokio::time::timeout(SETTLE, all).await.is_err() {
        panic!("some never came to the end:\n{}", system.log().await);
    }
    assert_eq!(heard.len(), ANSWERS * READERS);
    let mut total = Heard::default();
    for one in &heard {
        let stored = stored(&system, &one.id).await;
        assert_eq!(one.text, stored, "{}", one.id);
        total.add(one);
    }
    println!(
        "{} clients, {} kills, {:?}: {} streams, {} superseded, {} of {} bytes heard before they were committed",
        heard.len(),
        kills.load(Ordering::Relaxed),
        began.elapsed(),
        total.streams,
        total.superseded,
        total.early,
        total.bytes
    );
    // It was a test of something: words were read before they were committed, by clients who came back, some of it in vain.
    // How much of it, the machine's load decides.
    assert!(total.early > 0, "{total:?}");
    assert!(total.streams > heard.len(), "{total:?}");
    assert!(total.superseded > 0, "{total:?}");
}

/// The answer as it is stored.
async fn stored(system: &System, id: &str) -> String {
    let url = format!(
        "http://127.0.0.1:{}/tasks/{id}/result",
        system.orchestrators[0]
    );
    let result: Value = system
        .http
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(result["status"], "completed", "{result}");
    result["output"].as_str().unwrap().to_owned()
}
