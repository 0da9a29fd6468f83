//! Those who use the agents: customers in several tempers, people with questions, people with tasks for a team. They
//! remember what they were promised and check what they were told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::Service;
use super::company::Company;
use super::person::LESS;

/// How many messages a short conversation has.
const MESSAGES: usize = 5;
/// How long the executions that an event starts may be looked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message to support that was accepted.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) conversation: String,
    pub(super) name: String,
    pub(super) wish: Wish,
    /// The execution; none for an event.
    pub(super) id: Option<String>,
}

/// What a customer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Where,
    Refund(u64),
    Thanks,
}

impl Wish {
    /// What message `n` of a conversation is about: all amounts come up.
    const fn of(n: usize) -> Self {
        match n % 6 {
            0 | 3 => Self::Where,
            1 => Self::Refund([30, 60, 70, 80][(n / 6) % 4]),
            4 => Self::Refund([60, 80, 30, 70][(n / 6) % 4]),
            _ => Self::Thanks,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Where => "where is it?".to_owned(),
            Self::Refund(sum) => format!("refund {sum}"),
            Self::Thanks => "thanks".to_owned(),
        }
    }

    /// What is given back for it, after a person looked at it.
    pub(super) const fn given_back(self) -> Option<u64> {
        match self {
            Self::Refund(80) | Self::Where | Self::Thanks => None,
            Self::Refund(70) => Some(LESS),
            Self::Refund(sum) => Some(sum),
        }
    }

    /// The tool that it takes.
    pub(super) const fn tool(self) -> Option<&'static str> {
        match self {
            Self::Where => Some("find_order"),
            Self::Refund(_) => Some("refund"),
            Self::Thanks => None,
        }
    }

    /// The answer to message `name` that comes after `before`.
    pub(super) fn answer(self, name: &str, before: &str) -> String {
        let rest = match (self, self.given_back()) {
            (Self::Where, _) => "found".to_owned(),
            (Self::Thanks, _) => "you are welcome".to_owned(),
            (Self::Refund(_), Some(sum)) => format!("refunded {sum}"),
            (Self::Refund(_), None) => "refused".to_owned(),
        };
        format!("{name} after {before}: {rest}")
    }
}

/// Everything that was promised.
#[derive(Debug, Clone, Default)]
pub(super) struct Promises {
    /// In the order of their acceptance, within each conversation.
    pub(super) messages: Vec<Message>,
    /// Name and execution.
    pub(super) questions: Vec<(String, String)>,
    /// Number and execution.
    pub(super) teams: Vec<(usize, String)>,
    /// How many streams were followed to their end.
    pub(super) followed: usize,
}

/// All of them.
pub(super) struct Clients {
    company: Arc<Company>,
    is_closed: AtomicBool,
    promises: Mutex<Promises>,
    numbers: AtomicUsize,
}

impl Clients {
    pub(super) fn new(company: Arc<Company>) -> Self {
        Self {
            company,
            is_closed: AtomicBool::new(false),
            promises: Mutex::default(),
            numbers: AtomicUsize::new(0),
        }
    }

    /// From now on nobody begins anything.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire)
    }

    pub(super) fn promises(&self) -> Promises {
        self.promises.lock().unwrap().clone()
    }

    fn promise(&self, add: impl FnOnce(&mut Promises)) {
        add(&mut self.promises.lock().unwrap());
    }

    /// All use it side by side until it is closed, and have their last answers.
    pub(super) async fn come_and_go(&self) {
        tokio::join!(
            self.patient("p"),
            self.patient("r"),
            self.hasty("h"),
            self.hasty("k"),
            self.by_mail("m"),
            self.by_mail("n"),
            self.regular(),
            self.curious(),
            self.with_teams(0),
            self.with_teams(1),
        );
    }

    /// Writes, and waits for the answer, before writing again.
    async fn patient(&self, who: &str) {
        for n in 0.. {
            if !self.is_open() {
                return;
            }
            let conversation = format!("{who}{n}");
            for place in 0..MESSAGES {
                let id = self.write(&conversation, place).await;
                self.follow(&id).await;
                think(300).await;
            }
        }
    }

    /// Writes everything at once.
    async fn hasty(&self, who: &str) {
        for n in 0.. {
            if !self.is_open() {
                return;
            }
            let conversation = format!("{who}{n}");
            let mut ids = Vec::new();
            for place in 0..MESSAGES {
                ids.push(self.write(&conversation, place).await);
            }
            for id in ids {
                self.company.api.result(&id).await;
            }
            think(700).await;
        }
    }

    /// Writes everything at once, in events.
    async fn by_mail(&self, who: &str) {
        for n in 0.. {
            if !self.is_open() {
                return;
            }
            let conversation = format!("{who}{n}");
            for place in 0..MESSAGES {
                let (name, wish, data) = message(&conversation, place);
                let event = json!({ "topic": "support.message", "event_id": name, "data": data });
                self.company.api.create("/events", &event, &name).await;
                self.promise(|all| {
                    all.messages.push(Message {
                        conversation: conversation.clone(),
                        name,
                        wish,
                        id: None,
                    });
                });
            }
            self.until_answered(&conversation).await;
            think(700).await;
        }
    }

    async fn until_answered(&self, conversation: &str) {
        let path = format!(
            "/tasks?agent_name=support&status=completed&conversation_id={conversation}&limit=1"
        );
        let began = Instant::now();
        while self.company.api.total(&path).await < MESSAGES as u64 {
            if began.elapsed() > PATIENCE {
                self.company
                    .complain(format!("mail of {conversation} is not answered"));
                return;
            }
            think(200).await;
        }
    }

    /// Comes back again and again: a conversation that no model can read whole.
    async fn regular(&self) {
        for place in 0.. {
            if !self.is_open() {
                return;
            }
            let id = self.write("regular", place).await;
            self.company.api.result(&id).await;
            think(100).await;
        }
    }

    async fn write(&self, conversation: &str, place: usize) -> String {
        let (name, wish, data) = message(conversation, place);
        let task = json!({ "agent_name": "support", "task_data": data });
        let accepted = self.company.api.create("/tasks", &task, &name).await;
        let id = id_in(&accepted, "execution_id");
        self.promise(|all| {
            all.messages.push(Message {
                conversation: conversation.to_owned(),
                name,
                wish,
                id: Some(id.clone()),
            });
        });
        id
    }

    /// Sees every step once, in order.
    async fn follow(&self, id: &str) {
        let (steps, result) = self.company.api.follow(id).await;
        let all: Vec<u64> = (1..=result["steps"].as_u64().unwrap_or_default()).collect();
        if steps != all {
            self.company
                .complain(format!("the stream of {id} showed {steps:?} of {all:?}"));
        }
        self.promise(|all| all.followed += 1);
    }

    /// Has questions for the analyst.
    async fn curious(&self) {
        for n in 0.. {
            if !self.is_open() {
                return;
            }
            let name = format!("q{n}");
            let text = format!("{name} Why do so few people pay?");
            let task = json!({ "agent_name": "analyst", "task_data": { "question": text } });
            let accepted = self.company.api.create("/tasks", &task, &name).await;
            let id = id_in(&accepted, "execution_id");
            self.promise(|all| all.questions.push((name, id.clone())));
            self.follow(&id).await;
            think(1000).await;
        }
    }

    /// Has tasks for the team.
    async fn with_teams(&self, offset: u64) {
        think(500 * offset).await;
        while self.is_open() {
            let n = self.numbers.fetch_add(1, Ordering::Relaxed);
            let manner = if n % 4 == 3 { "vague" } else { "plain" };
            let task = json!({
                "coordinator_agent": "research-team",
                "task_description": format!("t{n} {manner} Should we sell bicycles?"),
            });
            let key = format!("t{n}");
            let accepted = self
                .company
                .api
                .create("/collaborative/tasks", &task, &key)
                .await;
            let id = id_in(&accepted, "task_id");
            self.promise(|all| all.teams.push((n, id.clone())));
            self.company.api.result(&id).await;
            // It is there for whoever looks at it later, too.
            let path = format!("/collaborative/tasks/{id}");
            self.company.api.get(Service::Orchestrator, &path).await;
            think(500).await;
        }
    }
}

fn message(conversation: &str, place: usize) -> (String, Wish, Value) {
    let name = format!("{conversation}-{place}");
    // Other conversations begin elsewhere.
    let digits: String = conversation.chars().filter(char::is_ascii_digit).collect();
    let wish = Wish::of(place + MESSAGES * digits.parse::<usize>().unwrap_or_default());
    let text = format!("{name} {}", wish.words());
    let data = json!({ "text": text, "customer": { "id": conversation } });
    (name, wish, data)
}

fn id_in(accepted: &Value, field: &str) -> String {
    let id = accepted[field].as_str();
    id.unwrap_or_else(|| panic!("{accepted}")).to_owned()
}

async fn think(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
