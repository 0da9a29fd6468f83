//! The official client libraries of OpenAI, Anthropic, Ollama and AWS prove that the stand-in is right.
//!
//! They come from `scripts/test-deps`, the scripts and their scenarios from `clients/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use agentrunner_testkit::provider::Script;
use agentrunner_testkit::{ProviderStandIn, SecretsStandIn, node_folder, python};

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs a client script against a fresh stand-in and expects it to succeed.
fn prove(mut command: Command) {
    let scenarios = std::fs::read_to_string(clients().join("scenarios.yaml")).unwrap();
    let script = Script::parse(&scenarios).unwrap();
    let provider = ProviderStandIn::start(script.into_behaviour());
    let output = command.arg(provider.url()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains(" passed, 0 failed"), "{said}");
    assert!(provider.count() > 10, "the client talked to the stand-in");
}

fn python_script(name: &str) -> Command {
    let mut command = Command::new(python());
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(clients().join("python").join(name));
    command
}

#[test]
fn openai_for_python() {
    prove(python_script("openai_client.py"));
}

#[test]
fn anthropic_for_python() {
    prove(python_script("anthropic_client.py"));
}

#[test]
fn ollama_for_python() {
    prove(python_script("ollama_client.py"));
}

#[test]
fn boto3() {
    let mut command = python_script("boto3_client.py");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command.env_remove("AWS_PROFILE");
    command.env_remove("AWS_BEARER_TOKEN_BEDROCK");
    prove(command);
}

#[test]
fn hvac_and_boto3_for_secrets() {
    let managers = SecretsStandIn::start();
    managers.allow_token("root-token", Some(std::time::Duration::from_secs(60)));
    managers.allow_role("role", "secret-id", std::time::Duration::from_secs(60));
    managers.put_vault("secret/app", serde_json::json!({ "openai": "sk-1" }));
    managers.put_aws("prod/app", r#"{"openai":"sk-2"}"#);
    let mut command = python_script("secrets_client.py");
    command.env_remove("AWS_PROFILE");
    let output = command.arg(managers.url()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains(" passed, 0 failed"), "{said}");
}

#[test]
fn openai_anthropic_and_ollama_for_node() {
    let mut command = Command::new("node");
    command
        .current_dir(node_folder())
        .arg(clients().join("node/clients.mjs"));
    prove(command);
}
