//! What the services say of themselves holds, whatever they are asked: schemathesis reads the description of each, makes
//! requests that fit it and requests that do not, and checks each answer against it. Without keys, and with.
//!
//! Which checks can't hold where, and why, is written in `schemathesis.toml` beside this file.

use std::path::Path;
use std::process::Stdio;

use testkit::python;
use tokio::process::Command;

use crate::product::{Product, Project};

/// The services by the place of their port.
const SERVICES: [(&str, usize); 5] = [
    ("state-manager", 0),
    ("config-service", 1),
    ("agent-orchestrator", 2),
    ("scheduler-service", 3),
    ("slack-gateway", 4),
];
/// How many requests for each operation are made up, besides those that follow from the description alone. More find
/// more: `SCHEMATHESIS_EXAMPLES=500 cargo test …`.
const EXAMPLES: &str = "4";
const KEY: &str = "first-key-0123456789abcdef";

fn project() -> Project {
    let project = Project::new();
    let scripts = project.path().join("config/scripts");
    std::fs::create_dir_all(&scripts).unwrap();
    std::fs::write(scripts.join("hello.yml"), "- reply: Hello there.\n").unwrap();
    for (name, mode) in [("helper", "autonomous"), ("talker", "continuous")] {
        let agent = format!(
            "name: {name}\nexecution_mode: {mode}\nsystem_prompt: You greet.\n\
             llm_config: {{ provider: scripted, model: scripts/hello.yml }}\n"
        );
        project.agent(name, &agent);
    }
    project
}

/// Tests a service; answers what was said, and how many requests were made.
async fn test(
    product: &Product,
    project: &Project,
    service: (&str, usize),
    key: Option<&str>,
) -> (bool, String, u64) {
    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schemathesis.toml");
    let examples = std::env::var("SCHEMATHESIS_EXAMPLES");
    let examples = examples.unwrap_or_else(|_| EXAMPLES.to_owned());
    let url = format!(
        "http://127.0.0.1:{}/openapi.json",
        product.ports()[service.1]
    );
    let mut command = Command::new(python());
    command
        .args([
            "-c",
            "from schemathesis.cli import schemathesis; schemathesis()",
        ])
        .arg("--config-file")
        .arg(settings)
        .args(["run", &url, "--max-examples", &examples])
        .current_dir(project.path())
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(key) = key {
        command.args(["--header", &format!("Authorization: Bearer {key}")]);
    }
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    let generated = said.lines().find_map(|line| {
        let number = line.trim().split(" generated").next()?;
        number.replace(',', "").parse().ok()
    });
    let said = format!(
        "{}, keys: {}\n{said}\n{complained}",
        service.0,
        key.is_some()
    );
    (output.status.success(), said, generated.unwrap_or_default())
}

async fn all(variables: &[(&str, &str)], key: Option<&str>) {
    let project = project();
    let product = Product::up(&project, variables).await;
    let (mut wrong, mut requests) = (String::new(), 0);
    for service in SERVICES {
        let (is_right, said, count) = test(&product, &project, service, key).await;
        requests += count;
        if !is_right {
            wrong.push_str(&said);
        }
    }
    println!("{requests} requests");
    assert!(wrong.is_empty(), "{wrong}");
    assert!(requests > 1000, "only {requests} requests were made");
    let log = product.log();
    assert!(!log.contains("panicked"), "{log}");
    product.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_every_answer_is_as_described() {
    all(&[], None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_every_answer_is_as_described_and_nobody_else_is_let_in() {
    let keys = [
        ("ENABLE_API_AUTH", "true"),
        ("API_SECRET_KEY", KEY),
        // It asks each operation without a key and with wrong ones, far more often than that.
        ("FAILED_KEYS_PER_MINUTE", "100000"),
    ];
    all(&keys, Some(KEY)).await;
}
