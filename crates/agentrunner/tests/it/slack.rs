//! Slack through the binary: a mention answered in its thread with an approval between, and gateways that die.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::provider::{Answer, Request};
use testkit::slack::{BOT_TOKEN, SIGNING_SECRET, SlackMessage, SlackUser, mention, press, sign};
use testkit::{EffectsStandIn, Filter, ProviderStandIn, SlackStandIn};

use crate::backing::{self, Variables, borrowed};
use crate::product::{Product, Project, free_ports};

const ANN: SlackUser = SlackUser {
    id: "UANN00001",
    name: "ann",
};
const BOB: SlackUser = SlackUser {
    id: "UBOB00001",
    name: "bob",
};
const GENERAL: &str = "C00000001";
const ANSWER: &str = "It is *done*, and this is the whole answer to it.";

/// A model, a tool that costs money, and Slack.
struct Stage {
    provider: ProviderStandIn,
    effects: EffectsStandIn,
    slack: SlackStandIn,
}

/// Calls its tool when it is told to pay, and answers.
fn model(request: &Request) -> Answer {
    match request.turn {
        0 if request.conversation.contains("pay") => {
            Answer::call("charge", json!({ "cents": 300, "note": "<!channel> `x`" }))
        }
        _ => Answer::say("It is **done**, and this is the whole answer to it."),
    }
}

impl Stage {
    fn new() -> Self {
        Self {
            provider: ProviderStandIn::start(model),
            effects: EffectsStandIn::start(),
            slack: SlackStandIn::start(),
        }
    }

    fn project(&self) -> Project {
        let project = Project::new();
        let url = self.effects.url();
        project.agent(
            "clerk",
            &format!(
                "name: clerk\nexecution_mode: autonomous\nllm_config: {{ provider: openai, model: gpt-4o-mini }}\n\
                 system_prompt: You work.\nslack: {{ channels: [{GENERAL}], approvers: [{}] }}\ntools:\n  \
                 - name: charge\n    type: api\n    method: POST\n    url: '{url}/charge'\n    requires_approval: true\n    \
                 parameters: {{ type: object, properties: {{ cents: {{ type: integer }}, note: {{ type: string }} }} }}\n",
                BOB.id
            ),
        );
        project
    }

    fn variables(&self) -> Variables {
        vec![
            ("OPENAI_API_KEY", "sk-test".to_owned()),
            ("OPENAI_BASE_URL", self.provider.openai_url()),
            ("SLACK_API_URL", self.slack.api_url()),
            ("SLACK_BOT_TOKEN", BOT_TOKEN.to_owned()),
            ("SLACK_SIGNING_SECRET", SIGNING_SECRET.to_owned()),
            ("AGENT_LEASE_SECONDS", "2".to_owned()),
            ("EGRESS_ALLOW", "127.0.0.1".to_owned()),
        ]
    }

    /// A person mentions the app; the event goes to these gateways, `times` times.
    async fn mention(&self, gateways: &[u16], text: &str, times: usize) -> String {
        let ts = self.slack.write(GENERAL, ANN.id, text);
        let event = mention(&format!("Ev{ts}"), ANN, GENERAL, &ts, None, text).to_string();
        let posts = (0..times).map(|n| post(gateways[n % gateways.len()], "events", &event));
        for status in futures::future::join_all(posts).await {
            assert_eq!(status, StatusCode::OK);
        }
        ts
    }

    /// The app's messages in a thread, when there is one that says this.
    async fn said(&self, thread: &str, text: &str) -> Vec<SlackMessage> {
        let find = |all: &[SlackMessage]| {
            let of_thread = all.iter().filter(|m| m.thread.as_deref() == Some(thread));
            let of_thread: Vec<SlackMessage> = of_thread.cloned().collect();
            of_thread
                .iter()
                .any(|m| m.text.contains(text))
                .then_some(of_thread)
        };
        self.slack.wait_for(GENERAL, find).await
    }

    fn assert_sound(&self) {
        let rejections = self.slack.rejections();
        assert!(rejections.is_empty(), "{rejections:?}");
    }
}

async fn post(port: u16, route: &str, body: &str) -> StatusCode {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let at = i64::try_from(at.unwrap().as_secs()).unwrap();
    let request = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{port}/slack/{route}"))
        .header("x-slack-request-timestamp", at.to_string())
        .header("x-slack-signature", sign(SIGNING_SECRET, at, body))
        .body(body.to_owned());
    request.send().await.unwrap().status()
}

async fn push(port: u16, payload: &Value) {
    let form = [("payload", payload.to_string())];
    let form = reqwest::Url::parse_with_params("http://x", form).unwrap();
    let status = post(port, "interactive", form.query().unwrap()).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mention_is_answered_in_its_thread_with_an_approval_by_button_between() {
    let stage = Stage::new();
    let project = stage.project();
    let product = Product::up(&project, &borrowed(&stage.variables())).await;
    let gateway = product.ports()[4];
    let thread = stage.mention(&[gateway], "please pay", 1).await;
    let said = stage.said(&thread, "wants to call `charge`").await;
    let asked = said
        .iter()
        .find(|m| m.text.contains("wants to call"))
        .unwrap();
    let blocks = serde_json::to_string(&asked.blocks).unwrap();
    assert!(
        blocks.contains("<!channel> `x`"),
        "shown as it is: {blocks}"
    );
    assert_eq!(stage.effects.count(), 0);
    push(
        gateway,
        &press("p.1", BOB, GENERAL, asked, "agentrunner:approve", None),
    )
    .await;
    let said = stage.said(&thread, ANSWER).await;
    assert_eq!(
        said.len(),
        2,
        "the answer, and the question with its decision: {said:#?}"
    );
    assert!(
        said.iter()
            .any(|m| m.text.contains("Approved by bob (Slack UBOB00001)")),
        "{said:#?}"
    );
    assert_eq!(stage.effects.count(), 1);
    let tasks = product.get("/tasks").await;
    assert_eq!(tasks.as_array().unwrap().len(), 1);

    // Killed in the middle of an answer, it goes on with the same message.
    let hold = stage
        .provider
        .hold(Filter::any().with("point", "mid_stream"), Some(1));
    let thread = stage.mention(&[gateway], "hello", 1).await;
    hold.wait(1).await;
    let said = stage.said(&thread, "").await;
    let ports = product.ports();
    product.kill().await;
    hold.release();
    let product = Product::up_at(&ports, &project, &borrowed(&stage.variables())).await;
    let after = stage.said(&thread, ANSWER).await;
    assert_eq!((after.len(), &after[0].ts), (1, &said[0].ts), "{after:#?}");
    product.kill().await;
    stage.assert_sound();
}

/// A gateway of its own, at this port.
async fn gateway(
    project: &crate::project::Project,
    variables: &Variables,
    port: u16,
) -> crate::project::Server {
    let port = port.to_string();
    let mut variables = borrowed(variables);
    variables.push(("SLACK_GATEWAY_PORT", &port));
    project.serve("slack-gateway", &variables).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_deliveries_through_two_gateways_are_one_and_a_gateway_that_dies_leaves_nothing_half_said()
 {
    let stage = Stage::new();
    let (mut variables, rabbitmq) = tokio::join!(backing::postgres(), backing::rabbitmq());
    variables.extend(rabbitmq);
    variables.extend(stage.variables());
    let project = crate::project::Project::empty();
    let agents = stage.project();
    let yaml = std::fs::read_to_string(agents.path().join("config/agents/clerk.yml")).unwrap();
    project.write("config/agents/clerk.yml", &yaml);
    let mut migrate = project.command(&["migrate", "up"]);
    migrate.envs(borrowed(&variables));
    assert_eq!(crate::project::Ran::of(migrate).await.code, 0);
    let ports = free_ports(3);
    let pool_port = ports[2].to_string();
    let mut of_pool = borrowed(&variables);
    of_pool.push(("AGENT_POOL_PORT", &pool_port));
    let _pool = project.serve("autonomous-agent-pool", &of_pool).await;
    let _orchestrator = project
        .serve("agent-orchestrator", &borrowed(&variables))
        .await;

    let first = gateway(&project, &variables, ports[0]).await;
    let hold = stage
        .provider
        .hold(Filter::any().with("point", "mid_stream"), Some(1));
    let thread = stage.mention(&ports[..1], "hello", 1).await;
    hold.wait(1).await;
    let said = stage.said(&thread, "").await;
    let second = gateway(&project, &variables, ports[1]).await;
    first.kill().await;
    hold.release();
    let after = stage.said(&thread, ANSWER).await;
    assert_eq!((after.len(), &after[0].ts), (1, &said[0].ts), "{after:#?}");

    let first = gateway(&project, &variables, ports[0]).await;
    let thread = stage.mention(&ports[..2], "hello again", 5).await;
    stage.said(&thread, ANSWER).await;
    // What comes after it is done: had there been a second, it would be there.
    let last = stage.mention(&ports[..2], "and once more", 2).await;
    stage.said(&last, ANSWER).await;
    assert_eq!(stage.said(&thread, ANSWER).await.len(), 1);
    let tasks = project.get("/tasks").await;
    assert_eq!(tasks.as_array().unwrap().len(), 3, "{tasks}");
    for server in [first, second] {
        server.signal("TERM");
        let (code, log) = tokio::time::timeout(Duration::from_secs(60), server.ended())
            .await
            .unwrap();
        assert_eq!(code, 0, "{log}");
    }
    stage.assert_sound();
}
