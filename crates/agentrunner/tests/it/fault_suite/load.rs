//! Those who use the product meanwhile: they hand in tasks until they are accepted, answer questions, call things off,
//! and remember everything that they were promised.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::EffectsStandIn;
use testkit::effects::Route;

use super::agents::{self, CONVERSATIONS, Kind, TOPIC};
use super::dice::Dice;
use super::process::Process;
use super::role::Door;
use super::schedule::Size;
use super::slack;
use super::world::World;

/// How long a client waits for an answer before it asks again, with the same key.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one waits who may not ask again: longer than anything takes on a busy machine.
const LONG_PATIENCE: Duration = Duration::from_secs(90);
/// How long a person takes to look into the book before they say whether a call happened: what a killed process has
/// sent is there by then. While a process is frozen nobody says so at all: it may have been stopped between a look at
/// its lease and the call, and no program can take back what it does then. See docs/fault-suite.md.
const SECOND_LOOK: Duration = Duration::from_millis(2500);
/// What was begun before a cancellation was acknowledged arrives within this time.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Something to ask for.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) name: String,
    pub(super) kind: Kind,
    at: Duration,
    /// Called off so long after it was accepted.
    call_off: Option<Duration>,
    /// Handed in once more after it was accepted.
    twice: bool,
    /// The conversation that it is a message of.
    conversation: Option<String>,
    /// Whether a person must approve its plan.
    plan_approval: bool,
    /// Something that happened in Slack.
    by_slack: bool,
}

impl Order {
    /// Something to ask for at once.
    pub(super) fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            at: Duration::ZERO,
            call_off: None,
            twice: false,
            conversation: None,
            plan_approval: false,
            by_slack: false,
        }
    }

    /// What an event starts may happen in Slack as well.
    #[must_use]
    pub(super) fn by_slack(mut self) -> Self {
        assert_eq!(self.kind, Kind::Listener);
        self.by_slack = true;
        self
    }

    /// A message of a conversation.
    #[must_use]
    pub(super) fn said_in(mut self, conversation: &str) -> Self {
        self.conversation = Some(conversation.to_owned());
        self
    }

    /// One that is called off.
    #[must_use]
    pub(super) fn called_off(mut self) -> Self {
        self.call_off = Some(Duration::ZERO);
        self
    }

    /// One whose plan a person must approve.
    #[must_use]
    pub(super) fn with_plan_approval(mut self) -> Self {
        self.plan_approval = true;
        self
    }

    /// Where it is asked for, and how.
    pub(super) fn request(&self) -> (&'static str, Value) {
        let name = &self.name;
        match self.kind {
            Kind::Listener => {
                let body = json!({ "topic": TOPIC, "event_id": name, "data": { "name": name } });
                ("/events", body)
            }
            Kind::Lead => {
                let body = json!({
                    "coordinator_agent": self.kind.name(), "task_description": name,
                    "require_plan_approval": self.plan_approval,
                });
                ("/collaborative/tasks", body)
            }
            _ => {
                let body = json!({
                    "agent_name": self.kind.name(),
                    "task_data": { "prompt": name },
                    "conversation_id": self.conversation,
                });
                ("/tasks", body)
            }
        }
    }

    pub(super) const fn is_called_off(&self) -> bool {
        self.call_off.is_some()
    }
}

/// What was promised.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    pub(super) order: Order,
    /// The execution; none for an event.
    pub(super) id: Option<String>,
    /// When it was asked for first, and when it was known to be accepted.
    pub(super) between: (Instant, Instant),
    /// What the stand-ins had seen when no more was to come.
    pub(super) called_off: Option<Seen>,
}

/// How many requests and calls had arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) requests: usize,
    pub(super) calls: usize,
}

/// What a client takes for a reason to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    /// No answer, and an answer that says so: processes are killed.
    WhenInDoubt,
    /// That nobody is there to connect to, and an answer that says so and when: nothing is killed, and whoever took a
    /// request answers it.
    WhenTold,
}

/// Everybody who uses the product.
pub(super) struct Load {
    world: Arc<World>,
    manners: Manners,
    accepted: Mutex<Vec<Accepted>>,
    /// How often a client had to ask again.
    pub(super) refused: AtomicUsize,
    pub(super) unknown_outcomes: AtomicUsize,
    /// How many tool calls had arrived when an execution's approval was first answered.
    answered: Mutex<HashMap<String, usize>>,
    /// How many answers were taken.
    pub(super) answers: AtomicUsize,
}

impl Load {
    pub(super) fn new(world: Arc<World>, manners: Manners) -> Arc<Self> {
        Arc::new(Self {
            world,
            manners,
            accepted: Mutex::default(),
            refused: AtomicUsize::new(0),
            unknown_outcomes: AtomicUsize::new(0),
            answered: Mutex::default(),
            answers: AtomicUsize::new(0),
        })
    }

    /// Throws what is asked for, evenly over the time.
    pub(super) fn orders(size: &Size, dice: &mut Dice) -> Vec<Order> {
        let mut dice = dice.fork();
        let mut orders = Vec::new();
        let mut executions = 0;
        while executions < size.executions {
            let kind = dice.pick(&Kind::ASKED_FOR);
            executions += kind.size();
            let is_event = kind == Kind::Listener;
            let name = format!("e{}-{}", orders.len(), kind.name());
            let room = format!("{}-room-{}", kind.name(), orders.len() % CONVERSATIONS);
            orders.push(Order {
                call_off: (!is_event && dice.chance(10)).then(|| dice.millis(0, 3000)),
                twice: dice.chance(15),
                conversation: kind.talks().then_some(room),
                plan_approval: kind == Kind::Lead && dice.chance(50),
                ..Order::new(name, kind)
            });
        }
        let count = u32::try_from(orders.len()).expect("thousands");
        for (n, order) in (0..count).zip(&mut orders) {
            order.at = size.length * n / count;
        }
        orders
    }

    /// Hands all of it in; answers when all is accepted and what is to be called off is.
    pub(super) async fn hand_in(self: &Arc<Self>, orders: Vec<Order>) {
        let began = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for (n, order) in orders.into_iter().enumerate() {
            let this = self.clone();
            running.spawn(async move {
                tokio::time::sleep_until((began + order.at).into()).await;
                this.place(n, order).await;
            });
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
    }

    pub(super) fn accepted(&self) -> Vec<Accepted> {
        self.accepted.lock().unwrap().clone()
    }

    async fn place(&self, n: usize, order: Order) {
        let asked = Instant::now();
        let id = self.submit(n, &order).await;
        let between = (asked, Instant::now());
        if order.twice {
            let again = self.submit(n + 1, &order).await;
            if again != id {
                let name = &order.name;
                self.world.complain(format!(
                    "{name} was accepted twice: as {id:?} and {again:?}"
                ));
            }
        }
        let called_off = match (&id, order.call_off) {
            (Some(id), Some(after)) => {
                tokio::time::sleep(after).await;
                self.call_off(n, id).await
            }
            _ => None,
        };
        self.accepted.lock().unwrap().push(Accepted {
            order,
            id,
            between,
            called_off,
        });
    }

    /// Until it is accepted.
    async fn submit(&self, n: usize, order: &Order) -> Option<String> {
        let name = &order.name;
        if order.by_slack {
            self.insist(Door::Slack, n, &[200], |url| {
                slack::happening(&self.world.client, url, name)
            })
            .await;
            return None;
        }
        let (path, body) = order.request();
        let accepted = self
            .insist(Door::Tasks, n, &[200, 202], |url| {
                let request = self.world.client.post(format!("{url}{path}")).json(&body);
                request.header("Idempotency-Key", name)
            })
            .await;
        accepted.1["execution_id"].as_str().map(str::to_owned)
    }

    /// Calls it off; answers what had been seen when it was over, unless it had ended before.
    async fn call_off(&self, n: usize, id: &str) -> Option<Seen> {
        let (status, _) = self
            .insist(Door::Tasks, n, &[200, 202, 409], |url| {
                self.world.client.delete(format!("{url}/tasks/{id}"))
            })
            .await;
        if status == 409 {
            return None;
        }
        tokio::time::sleep(ON_ITS_WAY).await;
        Some(Seen {
            requests: self.world.provider.count(),
            calls: self.world.effects.count(),
        })
    }

    /// Asks one process after the other until one of these statuses comes. Only what says that it may be asked again
    /// may come before that.
    pub(super) async fn insist(
        &self,
        door: Door,
        n: usize,
        wanted: &[u16],
        request: impl Fn(&str) -> reqwest::RequestBuilder,
    ) -> (u16, Value) {
        let patience = match self.manners {
            Manners::WhenInDoubt => PATIENCE,
            Manners::WhenTold => LONG_PATIENCE,
        };
        for again in 0.. {
            if let Some(url) = self.world.any_url(door, n + again) {
                match Reply::to(request(&url).timeout(patience)).await {
                    Ok(reply) if wanted.contains(&reply.status) => {
                        let body = serde_json::from_str(&reply.text).unwrap_or_default();
                        return (reply.status, body);
                    }
                    Ok(reply) if reply.may_be_asked_again(self.manners) => {}
                    Ok(reply) => self.world.complain(format!("{url}: {reply:?}")),
                    Err(error) if self.manners == Manners::WhenTold && !error.is_connect() => {
                        self.world
                            .complain(format!("{url}: it was cut off: {error:?}"));
                    }
                    // Without an answer it is not known what became of the request.
                    Err(_) => {}
                }
            }
            self.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        unreachable!("it insists")
    }

    /// Answers whatever is asked, for ever.
    pub(super) async fn answer_questions(&self) {
        let mut seen: HashMap<(String, u64), Instant> = HashMap::new();
        for n in 0.. {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let Some(url) = self.world.any_url(Door::Tasks, n) else {
                continue;
            };
            let inbox = self.world.client.get(format!("{url}/inbox?limit=500"));
            let Ok(answer) = inbox.timeout(PATIENCE).send().await else {
                continue;
            };
            let questions: Value = answer.json().await.unwrap_or_default();
            if self.world.processes.iter().any(Process::is_frozen) {
                // Asked again, and looked at again, when it goes on.
                seen.clear();
                continue;
            }
            for question in questions.as_array().into_iter().flatten() {
                let Some(id) = question["execution_id"].as_str() else {
                    continue;
                };
                let request = question["request"].as_u64().unwrap_or_default();
                let first = seen
                    .entry((id.to_owned(), request))
                    .or_insert_with(Instant::now);
                if first.elapsed() >= SECOND_LOOK {
                    self.answer(&url, id, question).await;
                }
            }
        }
    }

    async fn answer(&self, url: &str, id: &str, question: &Value) {
        if question["question"] == "approval" {
            let so_far = self.world.effects.count();
            let mut answered = self.answered.lock().unwrap();
            answered.entry(id.to_owned()).or_insert(so_far);
        }
        let answer = answer_to(question, &self.world.effects);
        // 409: it was answered by a request whose own answer was lost, or called off.
        match self.say(url, id, &answer).await {
            Some((200 | 202, _)) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                if question["question"] == "unknown_outcome" {
                    self.unknown_outcomes.fetch_add(1, Ordering::Relaxed);
                }
                self.change_ones_mind(url, id, &question["request"]).await;
            }
            None | Some((409 | 503, _)) => {}
            Some((status, text)) => {
                let what = format!("an answer to {question}: {status}: {text:?}");
                self.world.complain(what);
            }
        }
    }

    /// What was said once can't be unsaid.
    async fn change_ones_mind(&self, url: &str, id: &str, request: &Value) {
        let other =
            json!({ "answer": "reject", "reason": "on second thoughts", "request": request });
        match self.say(url, id, &other).await {
            None | Some((409 | 503, _)) => {}
            Some((status, text)) => {
                let what = format!("a second answer to {request} of {id}: {status}: {text:?}");
                self.world.complain(what);
            }
        }
    }

    async fn say(&self, url: &str, id: &str, answer: &Value) -> Option<(u16, String)> {
        let input = self.world.client.post(format!("{url}/tasks/{id}/input"));
        let taken = input.json(answer).timeout(PATIENCE).send().await.ok()?;
        let status = taken.status().as_u16();
        Some((status, taken.text().await.unwrap_or_default()))
    }

    /// How many tool calls had arrived when an execution's approval was first answered.
    pub(super) fn answered(&self) -> HashMap<String, usize> {
        self.answered.lock().unwrap().clone()
    }
}

/// What was answered.
#[derive(Debug)]
struct Reply {
    status: u16,
    says_when: bool,
    text: String,
}

impl Reply {
    async fn to(request: reqwest::RequestBuilder) -> Result<Self, reqwest::Error> {
        let answer = request.send().await?;
        Ok(Self {
            status: answer.status().as_u16(),
            says_when: answer.headers().contains_key("retry-after"),
            text: answer.text().await?,
        })
    }

    fn may_be_asked_again(&self, manners: Manners) -> bool {
        matches!(self.status, 429 | 503) && (self.says_when || manners == Manners::WhenInDoubt)
    }
}

/// What a person says: no to one in four who want to charge; and whether a call happened, by the tool's own book.
pub(super) fn answer_to(question: &Value, effects: &EffectsStandIn) -> Value {
    let arguments = question["arguments"].as_str().unwrap_or_default();
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let call = arguments["what"].as_str().unwrap_or_default();
    let is_refused = agents::owner_of(call).is_some_and(|(name, _)| agents::is_refused(name));
    let is_in_the_book = || {
        let charges = effects.effects(Route::Charge);
        charges.iter().any(|charge| charge.body["what"] == *call)
    };
    let mut answer = match question["question"].as_str() {
        Some("approval") if is_refused => json!({ "answer": "reject", "reason": "too dear" }),
        Some("approval" | "plan") => json!({ "answer": "approve" }),
        Some("clarification") => json!({ "text": "You shall." }),
        _ if is_in_the_book() => json!({ "answer": "happened", "result": "it is in the book" }),
        _ => json!({ "answer": "repeat" }),
    };
    answer["request"] = question["request"].clone();
    answer
}
