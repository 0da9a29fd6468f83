//! Brings executions to a moment, kills the process there, starts it again, and has everything come to its end.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use domain::{ExecutionId, Status};
use serde_json::{Value, json};
use store::Store;
use testkit::{EffectsStandIn, Filter, Hold, Outcome, ProviderStandIn};

use super::super::SECRET;
use super::super::agents::{self, Kind};
use super::super::audit::{self, Evidence};
use super::super::load::{Accepted, Order, Seen, answer_to};
use super::super::model::{self, Arrivals};
use crate::backing::{Variables, borrowed};
use crate::ledger;
use crate::product::{Product, Project};

/// Between two looks at what has no signal.
const GLANCE: Duration = Duration::from_millis(20);
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many executions are brought to each moment.
const EACH: usize = 2;

/// Where the process is killed. Some moments are there only when the children that do certain steps are done.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    /// In the middle of the model's answer to a question with these words.
    Words(&'static str, &'static [&'static str]),
    /// At a commit, as `hold` names it.
    Commit(&'static str, &'static [&'static str]),
    /// In the middle of a call of this tool: it has happened, and nobody knows.
    Call(&'static str),
    /// When it waits for a person.
    Waiting,
    /// At a commit after a person has answered.
    Answered(&'static str),
}

impl At {
    const fn commit(self) -> Option<&'static str> {
        match self {
            Self::Commit(commit, _) | Self::Answered(commit) => Some(commit),
            Self::Words(..) | Self::Call(_) | Self::Waiting => None,
        }
    }

    /// Whether a question to the model dies with the process.
    fn kills_a_question(self) -> bool {
        match self {
            Self::Words(..) => true,
            // The answer is committed with what follows from it, so it is lost with that.
            Self::Commit(commit, _) => {
                commit.starts_with("before-") && commit != "before-child-end"
            }
            Self::Call(_) | Self::Waiting | Self::Answered(_) => false,
        }
    }
}

/// A process, and everything that it uses.
pub(super) struct Bench {
    provider: ProviderStandIn,
    effects: Arc<EffectsStandIn>,
    arrivals: Arrivals,
    project: Project,
    servers: Variables,
    marks: PathBuf,
    product: Option<Product>,
    store: Option<Box<dyn Store>>,
    client: reqwest::Client,
    accepted: Vec<Accepted>,
    /// Where and how each of them was asked for.
    requests: Vec<(&'static str, Value)>,
    answered: HashMap<String, usize>,
    /// How many questions to the model died with the process.
    died: usize,
    kills: usize,
}

/// What stands still until the process is dead.
#[derive(Default)]
struct Held {
    model: Option<Hold>,
    tool: Option<Hold>,
}

/// The variables of the processes, beside those that name servers.
pub(super) fn variables<'a>(
    servers: &'a Variables,
    provider: &'a str,
    marks: &'a Path,
) -> Vec<(&'a str, &'a str)> {
    let mut variables = borrowed(servers);
    variables.extend([
        ("OPENAI_API_KEY", SECRET),
        ("OPENAI_BASE_URL", provider),
        ("TEST_HOLD_DIR", marks.to_str().unwrap()),
        ("AGENT_RESTART_MAX_ATTEMPTS", "100"),
        ("LOG_LEVEL", "WARNING"),
    ]);
    variables
}

/// Opens the store behind the back of the processes.
pub(super) async fn open(servers: &Variables, project: &Project) -> Box<dyn Store> {
    match servers.first() {
        Some((_, url)) => Box::new(audit::open(url).await),
        None => {
            let file = project.path().join("data/agentrunner.db");
            let options = store::sqlite::Options::default();
            Box::new(store::sqlite::Sqlite::open(&file, options).unwrap())
        }
    }
}

impl Bench {
    pub(super) async fn new(servers: Variables) -> Self {
        let effects = Arc::new(EffectsStandIn::start());
        let arrivals = Arrivals::default();
        let project = Project::new();
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Ticker);
        agents::write(&project, &effects.url(), kinds);
        let marks = project.path().join("marks");
        std::fs::create_dir_all(&marks).unwrap();
        let mut bench = Self {
            provider: model::provider(&effects, &arrivals),
            effects,
            arrivals,
            project,
            servers,
            marks,
            product: None,
            store: None,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            accepted: Vec::new(),
            requests: Vec::new(),
            answered: HashMap::new(),
            died: 0,
            kills: 0,
        };
        bench.start().await;
        bench.store = Some(open(&bench.servers, &bench.project).await);
        bench
    }

    async fn start(&mut self) {
        let base = self.provider.openai_url();
        let variables = variables(&self.servers, &base, &self.marks);
        self.product = Some(Product::up(&self.project, &variables).await);
    }

    fn product(&self) -> &Product {
        self.product.as_ref().expect("it runs")
    }

    fn store(&self) -> &dyn Store {
        self.store.as_deref().expect("it is open")
    }

    /// Brings some of a kind to a moment, kills the process, and has them end.
    pub(super) async fn moment(&mut self, kind: Kind, at: At) {
        self.moment_of(|name| Order::new(name, kind), kind, at)
            .await;
    }

    /// The same, with something to make them different.
    pub(super) async fn moment_of(&mut self, make: impl Fn(String) -> Order, kind: Kind, at: At) {
        let first = self.accepted.len();
        let held = self.bring_to(make, kind, at).await;
        self.kill(held).await;
        self.ask_again(first).await;
        self.all_end(first).await;
        self.asked_no_more_than_need_be(&format!("{kind:?} {at:?}"))
            .await;
    }

    /// The model was asked once for each answer that there is, and once for each question that died.
    async fn asked_no_more_than_need_be(&self, when: &str) {
        let rows = ledger::rows(self.store()).await;
        let answers: u32 = rows.iter().map(|row| row.totals.model_calls).sum();
        let requests = self.provider.requests();
        let gone = requests
            .iter()
            .filter(|one| one.outcome == Outcome::Abandoned);
        let gone = gone.map(|one| (agents::subject(one.request.last_user()), one.request.turn));
        assert_eq!(
            requests.len(),
            answers as usize + self.died,
            "{when}: {answers} answers are in the journals, {} questions died; abandoned were {:?}",
            self.died,
            gone.collect::<Vec<_>>()
        );
    }

    /// The same, and they are called off before the process dies: nothing is begun any more.
    pub(super) async fn cancelled(&mut self, kind: Kind, at: At) {
        let first = self.accepted.len();
        let make = |name| Order::new(name, kind).called_off();
        let held = self.bring_to(make, kind, at).await;
        let seen = Seen {
            requests: self.provider.count(),
            calls: self.effects.count(),
        };
        for n in first..self.accepted.len() {
            let id = self.accepted[n].id.as_ref().expect("a task");
            let url = format!("{}/tasks/{id}", self.product().orchestrator);
            let answer = self.client.delete(url).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.status());
            self.accepted[n].called_off = Some(seen);
        }
        self.kill(held).await;
        self.all_end(first).await;
        self.asked_no_more_than_need_be(&format!("{kind:?} {at:?}"))
            .await;
        let now = (self.provider.count(), self.effects.count());
        let before = (seen.requests, seen.calls);
        assert_eq!(before, now, "questions and calls after all was called off");
    }

    /// Conversations that are so long that the next message has them summed up first.
    pub(super) async fn after_much_was_said(&mut self, at: At) {
        let kind = Kind::Chronicler;
        let rooms: Vec<String> = (0..EACH)
            .map(|n| format!("room-{}", self.accepted.len() + n))
            .collect();
        for _ in 0..2 {
            let first = self.accepted.len();
            for room in &rooms {
                let order = Order::new(self.next_name(kind), kind).said_in(room);
                self.submit(order, None).await;
            }
            self.all_end(first).await;
        }
        let next = AtomicUsize::new(0);
        let make = |name: String| {
            let n = next.fetch_add(1, Ordering::Relaxed);
            Order::new(name, kind).said_in(&rooms[n])
        };
        self.moment_of(make, kind, at).await;
    }

    fn next_name(&self, kind: Kind) -> String {
        format!("e{}-{}", self.accepted.len(), kind.name())
    }

    /// Hands some in, and waits until they stand at the moment and nothing else is under way.
    async fn bring_to(&mut self, make: impl Fn(String) -> Order, kind: Kind, at: At) -> Held {
        let first = self.accepted.len();
        let point = |point: &str| Filter::any().with("point", point);
        let mut held = Held::default();
        match at {
            At::Words(words, _) => {
                let filter = point("mid_stream").containing(words);
                held.model = Some(self.provider.hold(filter, Some(EACH)));
            }
            At::Call(route) => {
                let filter = point("after_effect").with("route", route);
                held.tool = Some(self.effects.hold(filter, Some(EACH)));
            }
            At::Commit(..) | At::Waiting | At::Answered(_) => {}
        }
        for _ in 0..EACH {
            let order = make(self.next_name(kind));
            self.submit(order, at.commit()).await;
        }
        if matches!(at, At::Waiting | At::Answered(_)) {
            self.all_wait(first).await;
        }
        if matches!(at, At::Answered(_)) {
            self.answer_people().await;
        }
        if at.commit().is_some() {
            self.wait_for_marks(first, at).await;
        }
        for hold in held.model.iter().chain(&held.tool) {
            within(&format!("{kind:?} {at:?}"), hold.wait(EACH)).await;
        }
        if let At::Words(_, steps) | At::Commit(_, steps) = at {
            self.steps_are_done(first, steps).await;
        }
        if at.kills_a_question() {
            self.died += EACH;
        }
        held
    }

    async fn submit(&mut self, order: Order, hold_at: Option<&str>) {
        let (mut path, mut body) = order.request();
        if let Some(point) = hold_at {
            if order.kind == Kind::Lead {
                // The route for teams takes no notes.
                path = "/tasks";
                let terms = body.as_object_mut().expect("an object");
                let agent = terms.remove("coordinator_agent");
                body = json!({ "agent_name": agent, "task_data": terms });
            }
            body["metadata"] = json!({ "hold_at": point });
        }
        let asked = Instant::now();
        let id = self.post(path, &body, &order.name).await;
        self.requests.push((path, body));
        self.accepted.push(Accepted {
            order,
            id,
            between: (asked, Instant::now()),
            called_off: None,
        });
    }

    /// What is asked for again with its key is the same.
    async fn ask_again(&self, first: usize) {
        let again = self.accepted.iter().zip(&self.requests).skip(first);
        for (promise, (path, body)) in again {
            let id = self.post(path, body, &promise.order.name).await;
            assert_eq!(id, promise.id, "{}", promise.order.name);
        }
    }

    async fn post(&self, path: &str, body: &Value, key: &str) -> Option<String> {
        let url = format!("{}{path}", self.product().orchestrator);
        let request = self.client.post(url).header("Idempotency-Key", key);
        let answer = request.json(body).send().await.unwrap();
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{status}: {answer}");
        answer["execution_id"].as_str().map(str::to_owned)
    }

    async fn kill(&mut self, held: Held) {
        let product = self.product.take().expect("it runs");
        product.signal_kill();
        drop(held);
        product.kill().await;
        self.kills += 1;
        self.start().await;
    }

    /// How everything stands that was asked for from `first` on: by name, with their children.
    async fn standing(&self, first: usize) -> HashMap<String, (ExecutionId, Status)> {
        let wanted: HashSet<&str> = self.accepted[first..]
            .iter()
            .map(|promise| promise.order.name.as_str())
            .collect();
        let rows = ledger::rows(self.store()).await.into_iter();
        let named = rows.filter_map(|row| {
            let name = agents::name_in(&row.execution.input)?;
            let is_wanted = wanted.contains(agents::asked_for(&name));
            is_wanted.then_some((name, (row.execution.id, row.status)))
        });
        named.collect()
    }

    async fn steps_are_done(&self, first: usize, steps: &[&str]) {
        self.until("the steps are done", async || {
            let standing = self.standing(first).await;
            let is_done = |name: String| {
                let status = standing.get(&name).map(|(_, status)| *status);
                status == Some(Status::Completed)
            };
            let leads = self.accepted[first..].iter().map(|p| &p.order.name);
            leads
                .flat_map(|lead| steps.iter().map(|step| agents::part_of(lead, step)))
                .all(is_done)
        })
        .await;
    }

    async fn all_wait(&self, first: usize) {
        self.until("all wait for a person", async || {
            let standing = self.standing(first).await;
            let mut waiting = standing.values();
            standing.len() == EACH && waiting.all(|(_, status)| *status == Status::WaitingForInput)
        })
        .await;
    }

    async fn wait_for_marks(&self, first: usize, at: At) {
        self.until(&format!("all are at {at:?}"), async || {
            let marks = self.accepted[first..].iter().map(|promise| {
                let id = promise.id.as_ref().expect("a task");
                self.marks.join(id).exists()
            });
            marks.into_iter().all(|is_there| is_there)
        })
        .await;
    }

    /// Answers what people are asked until everything is over.
    async fn all_end(&mut self, first: usize) {
        let began = Instant::now();
        loop {
            self.answer_people().await;
            let standing = self.standing(first).await;
            let names = self.accepted[first..].iter().map(|p| &p.order.name);
            let are_there = names.into_iter().all(|name| standing.contains_key(name));
            if are_there && standing.values().all(|(_, status)| status.is_terminal()) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "they do not end: {standing:?}");
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Answers every question once; what is answered again is refused.
    async fn answer_people(&mut self) {
        let questions = self.product().get("/inbox?limit=100").await;
        for question in questions.as_array().expect("a list") {
            let id = question["execution_id"].as_str().expect("an id");
            if question["question"] == "approval" {
                let so_far = self.effects.count();
                self.answered.entry(id.to_owned()).or_insert(so_far);
            }
            let answer = answer_to(question, &self.effects);
            let path = format!("/tasks/{id}/input");
            let (status, said) = self.product().try_post(&path, &answer).await;
            assert_eq!(status, 200, "{question}: {said}");
            let other =
                json!({ "answer": "reject", "reason": "no", "request": question["request"] });
            let (status, said) = self.product().try_post(&path, &other).await;
            assert_eq!(status, 409, "a second answer to {question}: {said}");
        }
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !is_so().await {
            assert!(
                began.elapsed() < PATIENCE,
                "it never came to it that {what}"
            );
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// I1 to I8 and I10 of everything that was done.
    pub(super) async fn audit(mut self) {
        let log = self.product().log();
        self.product.take().expect("it runs").kill().await;
        assert!(!log.contains(SECRET), "a log line holds a secret");
        assert!(!log.contains("panicked"), "{log}");
        let store = self.store();
        let findings = audit::audit(&Evidence {
            store,
            provider: &self.provider,
            effects: &self.effects,
            arrivals: &self.arrivals,
            accepted: self.accepted.clone(),
            answered: self.answered.clone(),
            schedules: &[],
            mended: chrono::Utc::now(),
            is_orderly: false,
        })
        .await;
        assert!(findings.wrong.is_empty(), "{:#?}", findings.wrong);
        println!(
            "{} kills, {} executions, {} steps, {} questions of which {} died with a process, {} tool calls",
            self.kills,
            findings.executions(),
            findings.steps,
            findings.model_requests,
            self.died,
            findings.tool_calls
        );
    }
}

async fn within(what: &str, signal: impl Future<Output = ()>) {
    let came = tokio::time::timeout(PATIENCE, signal).await;
    assert!(came.is_ok(), "it never came to {what}");
}
