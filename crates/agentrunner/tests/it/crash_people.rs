//! Kills the real process while executions wait for a person, while agents work for agents, and while retries and forks
//! are taken in; and audits that nothing is lost, nothing is called twice, and each wish is one execution.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::effects::Route;
use testkit::provider::{Answer, Request};
use testkit::{EffectsStandIn, Filter, ProviderStandIn};

use crate::backing::{self, Variables, borrowed};
use crate::product::{Product, Project};

const ROUNDS: usize = 6;
const ROUNDS_ON_POSTGRES: usize = 2;
/// How many of each kind in a round.
const EACH: usize = 3;
const PAUSE: Duration = Duration::from_millis(20);

struct Bench {
    provider: ProviderStandIn,
    effects: EffectsStandIn,
    project: Project,
    servers: Variables,
    product: Option<Product>,
}

/// Payers charge and are done; parents have a payer charge for them.
fn play(request: &Request) -> Answer {
    let tool = request.tools.first().map(|tool| tool.name.clone());
    match (request.turn, tool.as_deref()) {
        _ if request.last_user() == "go on" => Answer::say("done"),
        (0, Some("charge")) => Answer::call("charge", json!({})),
        (0, Some(agent)) => {
            let task = format!("for {}", request.conversation);
            Answer::call(agent, json!({ "task": task }))
        }
        _ => Answer::say("done"),
    }
}

fn agent(name: &str, tool: &str) -> String {
    format!(
        "name: {name}\nexecution_mode: autonomous\nllm_config: {{ provider: openai, model: gpt-4o-mini }}\n\
         system_prompt: You are {name}.\ntools:\n  - {tool}\n"
    )
}

impl Bench {
    async fn new(servers: Variables) -> Self {
        let effects = EffectsStandIn::start();
        let project = Project::new();
        let charge = format!(
            "name: charge, type: api, method: POST, url: '{}/charge', body: {{ cents: 1 }}",
            effects.url()
        );
        let careful = format!("{{ {charge}, requires_approval: true }}");
        project.agent("careful", &agent("careful", &careful));
        project.agent("payer", &agent("payer", &format!("{{ {charge} }}")));
        project.agent("parent", &agent("parent", "{ name: payer, type: agent }"));
        let mut bench = Self {
            provider: ProviderStandIn::start(play),
            effects,
            project,
            servers,
            product: None,
        };
        bench.start().await;
        bench
    }

    async fn start(&mut self) {
        let base = self.provider.openai_url();
        let mut variables = borrowed(&self.servers);
        variables.extend([
            ("OPENAI_API_KEY", "sk-test"),
            ("OPENAI_BASE_URL", &base),
            ("AGENT_RESTART_MAX_ATTEMPTS", "100"),
            ("LOG_LEVEL", "WARNING"),
        ]);
        self.product = Some(Product::up(&self.project, &variables).await);
    }

    fn product(&self) -> &Product {
        self.product.as_ref().expect("it runs")
    }

    async fn kill(&mut self) {
        self.product.take().expect("it runs").kill().await;
        self.start().await;
    }

    async fn submit(&self, agent: &str, prompt: &str) -> String {
        let task = json!({ "agent_name": agent, "task_data": { "prompt": prompt } });
        let accepted = self.product().post("/tasks", &task).await;
        accepted["execution_id"].as_str().expect("an id").to_owned()
    }

    async fn until(&self, id: &str, status: &str) -> Value {
        self.product()
            .until(id, |task| task["status"] == status)
            .await
    }

    /// How often the effects stand-in was reached under this execution's keys.
    fn charges(&self, id: &str) -> usize {
        let calls = self.effects.calls_to(Route::Charge).into_iter();
        let mine = calls.filter(|call| call.key.as_deref().is_some_and(|key| key.starts_with(id)));
        mine.count()
    }
}

/// While they wait, and again when they are answered: nothing is charged before, and each once after.
async fn kill_while_waiting(bench: &mut Bench, round: usize) {
    let mut ids = Vec::new();
    for n in 0..EACH {
        ids.push(
            bench
                .submit("careful", &format!("careful {round}.{n}"))
                .await,
        );
    }
    for id in &ids {
        bench.until(id, "waiting_for_input").await;
    }
    bench.kill().await;
    let inbox = bench.product().get("/inbox").await;
    assert_eq!(inbox.as_array().map(Vec::len), Some(EACH), "{inbox}");
    for id in &ids {
        assert_eq!(bench.charges(id), 0, "{id}");
        let path = format!("/tasks/{id}/input");
        bench
            .product()
            .post(
                &path,
                &json!({ "request": 2, "answer": "approve", "by": "ada" }),
            )
            .await;
    }
    bench.kill().await;
    for id in &ids {
        let path = format!("/tasks/{id}/input");
        let late = json!({ "request": 2, "answer": "reject", "reason": "no", "by": "bob" });
        let (status, body) = bench.product().try_post(&path, &late).await;
        let first = &body["error"]["details"]["first"]["by"];
        assert_eq!((status, first), (409, &json!("ada")), "{body}");
        settle_and_complete(bench, id).await;
        assert_eq!(bench.effects_of(id), 1, "{id}");
    }
}

impl Bench {
    /// How many of them had an effect.
    fn effects_of(&self, id: &str) -> usize {
        let calls = self.effects.calls_to(Route::Charge).into_iter();
        let mine = calls.filter(|call| call.key.as_deref().is_some_and(|key| key.starts_with(id)));
        mine.filter(|call| call.effect.is_some()).count()
    }
}

/// Answers what is in doubt by what the tool's own book says, until it is over.
async fn settle_and_complete(bench: &Bench, id: &str) {
    for _ in 0..1500 {
        let task = bench.product().get(&format!("/tasks/{id}")).await;
        match task["status"].as_str().expect("a status") {
            "completed" => return,
            "waiting_for_input" => {
                let key = task["open_questions"][0]["key"]
                    .as_str()
                    .unwrap_or_default();
                let calls = bench.effects.calls_to(Route::Charge).into_iter();
                let mut same = calls.filter(|call| call.key.as_deref() == Some(key));
                let answer = if same.any(|call| call.effect.is_some()) {
                    json!({ "answer": "happened", "result": "it is in the book" })
                } else {
                    json!({ "answer": "repeat" })
                };
                bench
                    .product()
                    .try_post(&format!("/tasks/{id}/input"), &answer)
                    .await;
            }
            "queued" | "running" => {}
            other => panic!("{id} ended as {other}: {task}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{id} does not end");
}

/// Between children: one has charged and the other is in the middle of its first word.
async fn kill_between_children(bench: &mut Bench, round: usize) {
    let filter = Filter::any().with("point", "mid_stream").with("turn", 1);
    let hold = bench.provider.hold(filter, None);
    let mut ids = Vec::new();
    for n in 0..EACH {
        ids.push(bench.submit("parent", &format!("parent {round}.{n}")).await);
    }
    hold.wait(EACH).await;
    bench.product().signal_kill();
    hold.release();
    bench.kill().await;
    for id in &ids {
        bench.until(id, "completed").await;
        let tree = bench.product().get(&format!("/tasks/{id}/tree")).await;
        assert_eq!(tree["executions"], 2, "{tree}");
        let child = &tree["children"][0];
        assert_eq!(
            (&child["status"], &child["trace_id"]),
            (&json!("completed"), &tree["trace_id"])
        );
        let child = child["execution_id"].as_str().expect("an id");
        assert_eq!(bench.charges(child), 1, "{tree}");
    }
}

/// While retries and forks are taken in: each wish, repeated with its key until it is answered, is one execution, and
/// what was charged is not charged again.
async fn kill_while_branching(bench: &mut Bench, round: usize) {
    let filter = Filter::any().with("point", "mid_stream").with("turn", 1);
    let hold = bench.provider.hold(filter, None);
    let mut ids = Vec::new();
    for n in 0..EACH {
        ids.push(bench.submit("payer", &format!("payer {round}.{n}")).await);
    }
    hold.wait(EACH).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for id in &ids {
        let url = format!("{}/tasks/{id}", bench.product().orchestrator);
        client.delete(url).send().await.unwrap();
        bench.until(id, "cancelled").await;
    }
    hold.release();
    let wishes: Vec<(String, Value)> = ids
        .iter()
        .flat_map(|id| {
            [
                (format!("/tasks/{id}/retry"), json!({})),
                (
                    format!("/tasks/{id}/fork"),
                    json!({ "from_step": 3, "message": "go on" }),
                ),
            ]
        })
        .collect();
    let post = |base: String, (path, body): (String, Value)| {
        let request = client
            .post(format!("{base}{path}"))
            .header("idempotency-key", path.replace('/', "-"))
            .json(&body);
        async move { request.send().await.ok()?.json::<Value>().await.ok() }
    };
    let base = bench.product().orchestrator.clone();
    let sent = wishes
        .iter()
        .cloned()
        .map(|wish| tokio::spawn(post(base.clone(), wish)));
    let sent: Vec<_> = sent.collect();
    // Sooner in each round: in the middle of the answers.
    tokio::time::sleep(Duration::from_millis(3 * round as u64)).await;
    bench.kill().await;
    for (answer, wish) in sent.into_iter().zip(wishes) {
        let before = answer.await.unwrap();
        let base = bench.product().orchestrator.clone();
        let again = post(base, wish.clone()).await.expect("an answer");
        let id = again["execution_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{again}"));
        if let Some(before) = before {
            assert_eq!(
                before["execution_id"], id,
                "{wish:?}: one wish, one execution"
            );
        }
        assert_eq!(again["forked_from"]["step"], 3, "{again}");
        let done = bench.until(id, "completed").await;
        assert_eq!(
            done["forked_from"]["execution_id"],
            again["forked_from"]["execution_id"]
        );
        assert_eq!(
            done["model_calls"], 1,
            "the shared answer is not counted again: {done}"
        );
        assert_eq!(bench.charges(id), 0, "it charged again: {done}");
    }
    for id in &ids {
        assert_eq!(bench.charges(id), 1, "{id}");
    }
}

async fn kill(servers: Variables, rounds: usize) {
    let mut bench = Bench::new(servers).await;
    for round in 0..rounds {
        kill_while_waiting(&mut bench, round).await;
        kill_between_children(&mut bench, round).await;
        kill_while_branching(&mut bench, round).await;
    }
    let mut effects: BTreeMap<String, usize> = BTreeMap::new();
    for call in bench.effects.calls_to(Route::Charge) {
        if call.effect.is_some() {
            *effects.entry(call.key.unwrap_or_default()).or_default() += 1;
        }
    }
    assert!(effects.values().all(|times| *times == 1), "{effects:?}");
    let rejections = bench.provider.rejections();
    assert!(rejections.is_empty(), "{rejections:?}");
    println!(
        "{} kills, {} charges, none twice",
        rounds * 4,
        effects.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_people_children_and_branches_are_waited_for() {
    kill(Variables::new(), ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_killed_while_people_children_and_branches_are_waited_for() {
    kill(backing::postgres().await, ROUNDS_ON_POSTGRES).await;
}
