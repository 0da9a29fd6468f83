//! Kills the real process while a conversation goes on: its messages are answered in order, one at a time, none is lost,
//! and no committed answer is asked for again (I1, I3, I5).

use std::time::Duration;

use serde_json::{Value, json};
use testkit::provider::{Answer, Recorded, Request};
use testkit::{Filter, ProviderStandIn};

use crate::backing::{self, Variables, borrowed};
use crate::product::{Product, Project};

/// How many messages are sent, all at once.
const MESSAGES: usize = 16;
/// After how many questions to the model the process is killed, each counted from the start before.
const KILLS: [usize; 4] = [3, 2, 4, 3];

const AGENT: &str = "\
name: concierge
execution_mode: continuous
llm_config: { provider: openai, model: gpt-4o-mini }
system_prompt: You help guests.
continuous_config:
  max_conversation_history: 8
  conversation_pruning_strategy: summarize
  conversation_key: guest.room
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_survives_kills_on_the_embedded_store() {
    converse(Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_survives_kills_on_postgres() {
    converse(backing::postgres().await).await;
}

fn is_summary(request: &Request) -> bool {
    let first = request.messages.first();
    first.is_some_and(|message| message.text.starts_with("You keep the memory"))
}

async fn start(project: &Project, provider: &ProviderStandIn, servers: &Variables) -> Product {
    let base = provider.openai_url();
    let mut variables = borrowed(servers);
    variables.extend([
        ("OPENAI_API_KEY", "sk-test"),
        ("OPENAI_BASE_URL", &base),
        ("AGENT_LEASE_SECONDS", "2"),
        ("AGENT_RESTART_MAX_ATTEMPTS", "100"),
        ("LOG_LEVEL", "WARNING"),
    ]);
    Product::up(project, &variables).await
}

async fn converse(servers: Variables) {
    let provider = ProviderStandIn::start(|request: &Request| {
        let answer = match is_summary(request) {
            true => Answer::say("they said much"),
            false => Answer::say(format!("re: {}", request.last_user())),
        };
        answer.after(Duration::from_millis(30))
    });
    let project = Project::new();
    project.agent("concierge", AGENT);
    let mut product = start(&project, &provider, &servers).await;
    // Nothing is answered before all is sent: else there may be nothing left to be killed in.
    let hold = provider.hold(Filter::any().with("point", "before_answer"), None);
    let mut ids = Vec::new();
    for n in 0..MESSAGES {
        let task = json!({ "text": format!("m{n}"), "guest": { "room": 12 } });
        let task = json!({ "agent_name": "concierge", "task_data": task });
        let accepted = product.post("/tasks", &task).await;
        ids.push(accepted["execution_id"].as_str().expect("an id").to_owned());
    }
    let last = format!("\"m{}\"", MESSAGES - 1);
    let mut before = provider.requests().len();
    hold.release();
    // Now and then while a summary is made.
    for (n, questions) in KILLS.into_iter().enumerate() {
        let wanted = |all: &[Recorded]| {
            let new = all.get(before..).unwrap_or_default();
            let has_summary = new.iter().any(|recorded| is_summary(&recorded.request));
            let is_last = all
                .iter()
                .any(|recorded| recorded.request.last_user().contains(&last));
            is_last || new.len() >= questions && (n % 2 == 0 || has_summary || new.len() >= 12)
        };
        provider.wait_until(wanted).await;
        product.kill().await;
        before = provider.requests().len();
        product = start(&project, &provider, &servers).await;
    }
    for id in &ids {
        product
            .until(id, |task| task["status"] == "completed")
            .await;
    }
    audit(&product, &provider, &ids).await;
}

async fn audit(product: &Product, provider: &ProviderStandIn, ids: &[String]) {
    // In order: none began before the one before it was over.
    let mut over: Option<String> = None;
    for id in ids {
        let task = product.get(&format!("/tasks/{id}")).await;
        let time = |name: &str| task[name].as_str().expect(name).to_owned();
        assert!(over.is_none_or(|over| over <= time("started_at")), "{task}");
        over = Some(time("finished_at"));
    }
    // Each was asked about in order, and knew the answer before it, in words or in short.
    let requests = provider.requests();
    let questions: Vec<&Request> = requests
        .iter()
        .map(|recorded| &recorded.request)
        .filter(|request| !is_summary(request))
        .collect();
    let number = |request: &Request| -> usize {
        let text = request.last_user();
        let digits = text
            .split("\"m")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        digits
            .and_then(|digits| digits.parse().ok())
            .expect("its number")
    };
    let numbers: Vec<usize> = questions.iter().map(|request| number(request)).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let repeated = numbers.len() - MESSAGES;
    assert!(
        repeated <= KILLS.len(),
        "each kill costs a question: {numbers:?}"
    );
    for request in &questions {
        assert!(
            request.messages.len() <= 9,
            "the system prompt and 8 messages"
        );
        let n = number(request);
        if n > 0 {
            let answer = &request.messages[request.messages.len() - 2].text;
            assert!(answer.starts_with("re: ") && answer.contains(&format!("\"m{}\"", n - 1)));
        }
    }
    let summaries = requests.len() - questions.len();
    let state = "/agents/concierge/state?conversation_id=12&limit=1000";
    let state = product.get_state(state).await;
    let history = state["conversation_history"].as_array().expect("messages");
    assert!(
        history.len() <= 9,
        "what is summarised is gone: {}",
        history.len()
    );
    let first = history[0]["content"].as_str().unwrap_or_default();
    assert!(
        first.starts_with("[Summary of the conversation so far]"),
        "{first}"
    );
    assert_eq!(
        (&state["status"], &state["execution_id"]),
        (&json!("waiting"), &Value::Null)
    );
    println!(
        "{} kills, {MESSAGES} messages in order, {repeated} questions and of {summaries} summaries some asked again",
        KILLS.len()
    );
}
