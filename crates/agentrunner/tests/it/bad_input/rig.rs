//! A server with agents of every provider, a provider and a tool that misbehave as the prompt asks them to.

use serde_json::{Value, json};
use testkit::effects::EffectFault;
use testkit::provider::{AWS_KEY_ID, Answer, Delivery, Fault, Request, aws_secret};
use testkit::{EffectsStandIn, Filter, ProviderStandIn};

use crate::product::{Product, Project};

/// The faces of the provider stand-in; each has an agent of its name.
pub(super) const FACES: [&str; 4] = ["openai", "anthropic", "ollama", "bedrock"];

/// What the process may have in memory at most, in MiB: a debug build, and a hundred times less than what is thrown
/// at it.
const MOST_MIB: u64 = 250;

pub(super) struct Rig {
    pub(super) product: Product,
    pub(super) provider: ProviderStandIn,
    pub(super) effects: EffectsStandIn,
    pub(super) project: Project,
    /// An execution that ended well before anything went wrong.
    committed: Value,
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(Project::new(), &[]).await
    }

    /// Takes a project that has agents already, and more variables.
    pub(super) async fn with(project: Project, more: &[(&str, &str)]) -> Self {
        Self::start(project, more, true).await
    }

    /// The same, although something that it needs is not as it should be.
    pub(super) async fn unwell(project: Project, more: &[(&str, &str)]) -> Self {
        Self::start(project, more, false).await
    }

    async fn start(project: Project, more: &[(&str, &str)], is_well: bool) -> Self {
        let provider = ProviderStandIn::start(behave);
        let effects = EffectsStandIn::start();
        let faults = [
            ("huge", EffectFault::Huge { bytes: None }),
            ("silent", EffectFault::NeverAnswer),
            ("cut", EffectFault::Cut),
            ("reset", EffectFault::Reset),
        ];
        for (name, fault) in faults {
            effects.fail(Filter::any().with("name", name), None, fault);
        }
        for face in FACES {
            project.agent(face, &agent(face, &effects.url()));
        }
        let openai = provider.openai_url();
        let mut variables = vec![
            ("OPENAI_API_KEY", "sk-canary-openai"),
            ("OPENAI_BASE_URL", openai.as_str()),
            ("ANTHROPIC_API_KEY", "sk-canary-anthropic"),
        ];
        let url = provider.url();
        let secret = aws_secret(AWS_KEY_ID);
        variables.extend([
            ("ANTHROPIC_BASE_URL", url.as_str()),
            ("OLLAMA_BASE_URL", &url),
            ("AWS_BEDROCK_ENDPOINT", &url),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", AWS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", &secret),
            ("AWS_SESSION_TOKEN", "sk-canary-aws"),
        ]);
        variables.extend(more);
        let product = match is_well {
            true => Product::up(&project, &variables).await,
            false => Product::up_unwell(&project, &variables).await,
        };
        let committed = product.run("openai", "hello").await;
        assert_eq!(committed["output"], "hello to you", "{committed}");
        Self {
            product,
            provider,
            effects,
            project,
            committed,
        }
    }

    /// What must be true after anything went wrong: the server is well, the next execution works, what was committed
    /// is as it was, and memory stayed bounded.
    pub(super) async fn is_well(&self) {
        let result = self.product.run("openai", "hello").await;
        assert_eq!(result["output"], "hello to you", "{result}");
        let id = self.committed["execution_id"].as_str().unwrap();
        let kept = self.product.get(&format!("/tasks/{id}/result")).await;
        assert_eq!(kept, self.committed);
        let peak = self.product.peak_mib();
        assert!(peak < MOST_MIB, "{peak} MiB");
    }
}

/// Ends as failed with this code; answers the message.
#[track_caller]
pub(super) fn failed(result: &Value, code: &str) -> String {
    assert_eq!(result["status"], "failed", "{result}");
    assert_eq!(result["error"]["code"], code, "{result}");
    result["error"]["message"].as_str().unwrap().to_owned()
}

/// Contains each of these.
#[track_caller]
pub(super) fn says(text: &str, parts: &[&str]) {
    println!("message: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn agent(face: &str, effects: &str) -> String {
    format!(
        "name: {face}
execution_mode: autonomous
llm_config: {{ provider: {face}, model: test-model, timeout: 2 }}
system_prompt: Use your tools.
max_steps: 4
retry_config: {{ max_retries: 1, retry_delay_seconds: 0.01 }}
tools:
  - {{ name: read, type: api, url: '{effects}/read/{{name}}', effect: read_only, timeout_seconds: 2 }}
  - {{ name: set, type: api, method: PUT, url: '{effects}/set/{{name}}', timeout_seconds: 2 }}
"
    )
}

fn behave(request: &Request) -> Answer {
    let long = || Answer::say("word ".repeat(50));
    match (request.conversation.as_str(), request.turn) {
        ("unknown tool", 0) => Answer::call("raed", json!({ "name": "x" })),
        ("bad arguments", 0) => Answer::call("read", json!({ "nmae": 5 })),
        ("broken arguments", 0) => Answer::call_malformed("read", "{\"name\": "),
        ("loop", _) => Answer::call("read", json!({ "name": "x" })),
        ("html", _) => Answer::html(),
        ("echo", _) => shows_its_key(request),
        ("garbage", _) => long().fault(Fault::Garbage { after: None }),
        ("cut", _) => long().fault(Fault::Cut { after: None }),
        ("half", _) => long().fault(Fault::HalfEvent),
        ("early", _) => long().fault(Fault::EndEarly { after: None }),
        ("huge", _) => long().fault(Fault::Huge { bytes: None }),
        ("endless", _) => long().fault(Fault::Endless),
        ("silent", _) => long().fault(Fault::NeverAnswer),
        ("silence", _) => long().fault(Fault::Silence { after: None }),
        ("reset", _) => long().fault(Fault::Reset),
        ("hello", _) => Answer::say("hello to you"),
        (prompt, 0) => {
            let (tool, name) = prompt.split_once(' ').unwrap_or((prompt, "x"));
            Answer::call(tool, json!({ "name": name }))
        }
        // In large pieces: a huge result in small ones takes an unoptimised build longer than it may.
        _ => Answer {
            delivery: Delivery {
                piece_chars: 4096,
                ..Delivery::default()
            },
            ..Answer::say(format!("it said: {}", request.last_tool_result()))
        },
    }
}

/// A refusal that shows what came with the request, the key included.
fn shows_its_key(request: &Request) -> Answer {
    let message = format!("wrong key: {:?}", request.headers);
    let error =
        json!({ "type": "authentication_error", "code": "invalid_api_key", "message": message });
    Answer::raw(
        401,
        "application/json",
        json!({ "error": error }).to_string(),
    )
}
