//! Kills the real process with SIGKILL at each point of the step protocol, for each effect class, more than 200 times
//! on the embedded store and some times on PostgreSQL, and audits what the provider and the tool saw: no committed step runs again, no execution is lost, no unsafe call is
//! made twice, and every unknown outcome is shown (I1, I3, R1, R5, R6, R20).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::effects::{Call, Route};
use testkit::provider::{Answer, Request};
use testkit::{EffectsStandIn, Filter, Hold, ProviderStandIn};

use crate::backing::{self, Variables, borrowed};
use crate::product::{Product, Project};

/// How many times the process is killed: so many rounds of four kinds.
const ROUNDS: usize = 51;
const ROUNDS_ON_POSTGRES: usize = 10;

/// Between two looks at an execution.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

pub(crate) const EFFECTS: [&str; 4] = ["read_only", "idempotent", "checkable", "unsafe"];

/// Where commits are interrupted. What the journal must then say is in [`expected`].
const COMMITS: [&str; 6] = [
    "before-intent",
    "after-intent",
    "before-result",
    "after-result",
    "before-finish",
    "after-finish",
];

/// One execution and where it was interrupted.
#[derive(Debug, Clone)]
struct Case {
    id: String,
    prompt: String,
    effect: &'static str,
    point: &'static str,
    asked: bool,
}

struct Bench {
    provider: ProviderStandIn,
    effects: EffectsStandIn,
    project: Project,
    /// Which servers the product uses.
    servers: Variables,
    marks: PathBuf,
    product: Option<Product>,
    cases: Vec<Case>,
    /// How many of the cases have come to their end.
    ended: usize,
}

impl Bench {
    async fn new(servers: Variables) -> Self {
        let provider = ProviderStandIn::start(|request: &Request| match request.turn {
            0 => {
                let tools: Vec<String> =
                    request.tools.iter().map(|tool| tool.name.clone()).collect();
                let main = tools.iter().find(|name| *name != "check").expect("a tool");
                Answer::call(main, json!({}))
            }
            _ => Answer::say("done"),
        });
        let effects = EffectsStandIn::start();
        let project = Project::new();
        for effect in EFFECTS {
            project.agent(effect, &agent(effect, &effects.url()));
        }
        let marks = project.path().join("marks");
        std::fs::create_dir_all(&marks).unwrap();
        let mut bench = Self {
            provider,
            effects,
            project,
            servers,
            marks,
            product: None,
            cases: Vec::new(),
            ended: 0,
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
            ("TEST_HOLD_DIR", self.marks.to_str().unwrap()),
            ("AGENT_RESTART_MAX_ATTEMPTS", "100"),
            ("LOG_LEVEL", "WARNING"),
        ]);
        self.product = Some(Product::up(&self.project, &variables).await);
    }

    fn product(&self) -> &Product {
        self.product.as_ref().expect("it runs")
    }

    /// Kills, starts again, and brings everything that is open to its end.
    async fn kill_and_recover(&mut self) {
        self.product.take().expect("it runs").kill().await;
        self.start().await;
        for i in self.ended..self.cases.len() {
            self.bring_to_end(i).await;
        }
        self.ended = self.cases.len();
    }

    async fn bring_to_end(&mut self, i: usize) {
        let id = self.cases[i].id.clone();
        loop {
            let task = self.product().get(&format!("/tasks/{id}")).await;
            match task["status"].as_str().expect("a status") {
                "completed" => return,
                // Answered, and not yet heard.
                "waiting_for_input" if self.cases[i].asked => tokio::time::sleep(PAUSE).await,
                "waiting_for_input" => {
                    assert_eq!(
                        self.cases[i].effect, "unsafe",
                        "{:?} asks a person: {task}",
                        self.cases[i]
                    );
                    self.cases[i].asked = true;
                    self.settle(&id).await;
                }
                "queued" | "running" => tokio::time::sleep(PAUSE).await,
                other => panic!("{:?} ended as {other}: {task}", self.cases[i]),
            }
        }
    }

    /// Answers the question about an unknown outcome by what the tool's own book says.
    async fn settle(&self, id: &str) {
        let happened = self
            .calls(id, Route::Charge)
            .iter()
            .any(|call| call.effect.is_some());
        let answer = if happened {
            json!({ "answer": "happened", "result": "it is in the book" })
        } else {
            json!({ "answer": "repeat" })
        };
        self.product()
            .post(&format!("/tasks/{id}/input"), &answer)
            .await;
    }

    async fn submit(&mut self, effect: &'static str, point: &'static str) {
        let prompt = format!("task {} of {effect} at {point}", self.cases.len());
        let body = json!({
            "agent_name": effect, "task_data": { "prompt": prompt }, "metadata": { "hold_at": point },
        });
        let accepted = self.product().post("/tasks", &body).await;
        let id = accepted["execution_id"].as_str().expect("an id").to_owned();
        self.cases.push(Case {
            id,
            prompt,
            effect,
            point,
            asked: false,
        });
    }

    /// Waits until every case from `first` on has left its mark.
    async fn wait_for_marks(&self, first: usize) {
        for case in &self.cases[first..] {
            let mark = self.marks.join(&case.id);
            wait_for(&mark, case).await;
        }
    }

    fn calls(&self, id: &str, route: Route) -> Vec<Call> {
        let is_mine = |call: &Call| {
            call.route == route && call.key.as_deref().is_some_and(|key| key.starts_with(id))
        };
        self.effects.calls_where(is_mine)
    }
}

async fn wait_for(mark: &Path, case: &Case) {
    for _ in 0..2000 {
        if mark.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{case:?} never came to its point");
}

pub(crate) fn agent(effect: &str, url: &str) -> String {
    let tool = match effect {
        "read_only" => {
            format!("{{ name: read, type: api, url: '{url}/read/x', effect: read_only }}")
        }
        "idempotent" => {
            format!(
                "{{ name: set, type: api, method: PUT, url: '{url}/set/x', body: {{ value: 1 }}, effect: idempotent }}"
            )
        }
        "checkable" => format!(
            "{{ name: order, type: api, method: POST, url: '{url}/order', body: {{ n: 1 }}, effect: checkable, check: check }}\n  \
             - {{ name: check, type: api, method: POST, url: '{url}/order/check', effect: read_only, \
             body: {{ key: '{{idempotency_key}}' }}, parameters: {{ type: object, properties: {{ idempotency_key: {{ type: string }} }} }} }}"
        ),
        _ => format!(
            "{{ name: charge, type: api, method: POST, url: '{url}/charge', body: {{ cents: 1 }} }}"
        ),
    };
    format!(
        "name: {effect}\nexecution_mode: autonomous\nllm_config: {{ provider: openai, model: gpt-4o-mini }}\n\
         system_prompt: You are {effect}.\ntools:\n  - {tool}\n"
    )
}

/// How often the model was asked in turn 0 and 1, how often the tool was reached, and whether a person was asked.
fn expected(case: &Case) -> (usize, usize, usize, bool) {
    let is_unsafe = case.effect == "unsafe";
    let again = usize::from(matches!(case.effect, "read_only" | "idempotent"));
    match case.point {
        "before-intent" | "model-0" => (2, 1, 1, false),
        "after-intent" => (1, 1, 1, is_unsafe),
        "before-result" | "after-effect" => (1, 1, 1 + again, is_unsafe),
        "before-effect" => (1, 1, 2, is_unsafe),
        "after-result" | "after-finish" => (1, 1, 1, false),
        "before-finish" | "model-1" => (1, 2, 1, false),
        other => panic!("no expectation for {other}"),
    }
}

/// The same, when the tool may have gone on without its caller: what real ones do, and the effect is there once all
/// the same.
fn foreseen(case: &Case, calls: &[Call]) -> (usize, usize, usize, bool) {
    let mut expected = expected(case);
    let went_on = calls.first().is_some_and(|call| call.effect.is_some());
    if case.point == "before-effect" && went_on && matches!(case.effect, "checkable" | "unsafe") {
        expected.2 = 1;
    }
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_point_nothing_is_lost_or_doubled() {
    assert!(kill(Variables::new(), ROUNDS).await >= 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_killed_at_every_point_nothing_is_lost_or_doubled() {
    kill(backing::postgres().await, ROUNDS_ON_POSTGRES).await;
}

/// Kills in rounds of four, and audits; answers how often.
async fn kill(servers: Variables, rounds: usize) -> usize {
    let mut bench = Bench::new(servers).await;
    let mut kills = 0;
    for _ in 0..rounds {
        // Held at the commits.
        let first = bench.cases.len();
        for point in COMMITS {
            for effect in EFFECTS {
                bench.submit(effect, point).await;
            }
        }
        bench.wait_for_marks(first).await;
        bench.kill_and_recover().await;
        // Held inside the tool: before the effect, and after it before the answer.
        for point in ["before-effect", "after-effect"] {
            let hold = bench
                .effects
                .hold(Filter::any().with("point", point.replace('-', "_")), None);
            hold_round(&mut bench, point, &EFFECTS, hold).await;
        }
        // Held in the middle of the model's answer, in turns.
        let (point, turn) = if kills % 8 == 0 {
            ("model-0", 0)
        } else {
            ("model-1", 1)
        };
        let filter = Filter::any().with("point", "mid_stream").with("turn", turn);
        let hold = bench.provider.hold(filter, None);
        hold_round(&mut bench, point, &EFFECTS, hold).await;
        kills += 4;
    }
    audit(&bench, kills).await;
    kills
}

async fn hold_round(bench: &mut Bench, point: &'static str, effects: &[&'static str], hold: Hold) {
    for effect in effects {
        bench.submit(effect, point).await;
    }
    hold.wait(effects.len()).await;
    bench.product.as_ref().expect("it runs").signal_kill();
    hold.release();
    bench.kill_and_recover().await;
}

async fn audit(bench: &Bench, kills: usize) {
    let mut asked_by_turn: BTreeMap<(String, usize), usize> = BTreeMap::new();
    for request in bench.provider.requests() {
        *asked_by_turn
            .entry((request.request.conversation.clone(), request.request.turn))
            .or_default() += 1;
    }
    let rejections = bench.provider.rejections();
    assert!(
        rejections.is_empty(),
        "the provider refused requests: {rejections:?}"
    );
    let mut unknown = 0;
    for case in &bench.cases {
        let prompt = case.prompt.clone();
        let turn = |turn| {
            asked_by_turn
                .get(&(prompt.clone(), turn))
                .copied()
                .unwrap_or(0)
        };
        let route = match case.effect {
            "read_only" => Route::Read,
            "idempotent" => Route::Set,
            "checkable" => Route::Order,
            _ => Route::Charge,
        };
        let calls = bench.calls(&case.id, route);
        let effects = calls.iter().filter(|call| call.effect.is_some()).count();
        if case.effect != "read_only" {
            assert_eq!(effects, 1, "{case:?}: {effects} effects");
        }
        let seen = (turn(0), turn(1), calls.len(), case.asked);
        assert_eq!(
            seen,
            foreseen(case, &calls),
            "{case:?}: (turn 0, turn 1, arrivals, asked)"
        );
        unknown += usize::from(case.asked);

        let result = bench
            .product()
            .get(&format!("/tasks/{}/result", case.id))
            .await;
        assert_eq!(
            (&result["status"], &result["output"]),
            (&json!("completed"), &json!("done")),
            "{case:?}: {result}"
        );
        assert_journal(bench, case).await;
    }
    println!(
        "{kills} kills, {} executions: 0 lost, 0 committed steps repeated, 0 unsafe calls doubled, {unknown} unknown outcomes shown",
        bench.cases.len()
    );
}

/// Two answers, one intent for each time the call was allowed, one end; positions without gap.
async fn assert_journal(bench: &Bench, case: &Case) {
    let steps = bench
        .product()
        .get_state(&format!("/executions/{}/steps", case.id))
        .await;
    let steps = steps.as_array().expect("a list");
    let count = |kind: &str| steps.iter().filter(|step| step["kind"] == kind).count();
    assert_eq!((count("model_call"), count("finished")), (2, 1), "{case:?}");
    let positions: Vec<u64> = steps
        .iter()
        .filter_map(|step| step["seq"].as_u64())
        .collect();
    assert_eq!(
        positions,
        (1..=steps.len() as u64).collect::<Vec<_>>(),
        "{case:?}"
    );
    let unknown = steps
        .iter()
        .any(|step: &Value| step["outcome"]["outcome"] == "unknown");
    assert_eq!(
        unknown, case.asked,
        "{case:?}: an unknown outcome is in the journal"
    );
}
