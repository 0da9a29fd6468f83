//! A server with a few agents, and what must be true of it after an attack.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use testkit::ProviderStandIn;
use testkit::provider::{Answer, Request};

use crate::product::{Product, Project};

/// How much more memory an attack may cost, in MiB.
const MOST_MIB: u64 = 64;

/// A word that no answer and no log may have.
pub(super) const CANARY: &str = "canary-5f3a9c0d7e";

pub(super) struct Rig {
    pub(super) product: Product,
    pub(super) project: Project,
    pub(super) provider: ProviderStandIn,
    client: Client,
    memory: u64,
}

impl Rig {
    /// A server without keys whose models do what `behave` says.
    pub(super) async fn new(behave: fn(&Request) -> Answer) -> Self {
        Self::with(Project::new(), behave, &[]).await
    }

    /// Takes a project that has agents already, and more variables.
    pub(super) async fn with(
        project: Project,
        behave: fn(&Request) -> Answer,
        more: &[(&str, &str)],
    ) -> Self {
        let provider = ProviderStandIn::start(behave);
        project.agent("helper", &agent("helper", ""));
        let url = provider.openai_url();
        let mut variables = vec![
            ("OPENAI_API_KEY", CANARY),
            ("OPENAI_BASE_URL", url.as_str()),
            ("PLANTED", CANARY),
        ];
        variables.extend(more);
        let product = Product::up(&project, &variables).await;
        let client = Client::builder().no_proxy().build().unwrap();
        let memory = product.peak_mib();
        Self {
            product,
            project,
            provider,
            client,
            memory,
        }
    }

    /// The address of a service by its place among the ports.
    pub(super) fn url(&self, service: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.product.ports()[service])
    }

    pub(super) fn request(&self, method: Method, service: usize, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(service, path))
    }

    /// It lives, serves, has told no secret, and did not grow.
    pub(super) async fn is_well(&self) {
        let live = self.request(Method::GET, ORCHESTRATOR, "/health/live");
        assert_eq!(live.send().await.unwrap().status(), 200);
        let rise = self.product.peak_mib().saturating_sub(self.memory);
        assert!(rise < MOST_MIB, "it took {rise} MiB more");
        assert!(!self.product.log().contains(CANARY), "a secret is logged");
    }
}

pub(super) const STATE: usize = 0;
pub(super) const CONFIG: usize = 1;
pub(super) const ORCHESTRATOR: usize = 2;
pub(super) const SCHEDULER: usize = 3;

/// An agent's file, with more lines.
pub(super) fn agent(name: &str, more: &str) -> String {
    format!(
        "name: {name}\nexecution_mode: autonomous\nsystem_prompt: You help.\n\
         llm_config: {{ provider: openai, model: test-model, timeout: 30 }}\n\
         retry_config: {{ max_retries: 0 }}\n{more}"
    )
}

/// The status and body of an answer, which is never our fault and never tells a secret.
#[track_caller]
pub(super) fn read(status: u16, text: &str) -> (u16, Value) {
    assert!(status < 500, "{status}: {text}");
    assert!(!text.contains(CANARY), "a secret is told: {text}");
    (status, serde_json::from_str(text).unwrap_or(Value::Null))
}

/// Sends, and reads the answer as [`read`] does.
pub(super) async fn send(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    read(status, &response.text().await.unwrap())
}

/// Was refused with this code, in words that say what to do.
#[track_caller]
pub(super) fn refused(answer: &(u16, Value), status: u16, code: &str) {
    let (got, body) = answer;
    let error = &body["error"];
    assert_eq!(
        (*got, error["code"].as_str()),
        (status, Some(code)),
        "{body}"
    );
    assert!(error["message"].as_str().unwrap().len() > 15, "{body}");
}

/// A model that says the same to everything.
pub(super) fn polite(_: &Request) -> Answer {
    Answer::say("hello to you")
}
