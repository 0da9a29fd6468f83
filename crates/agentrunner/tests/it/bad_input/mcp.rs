//! MCP servers on stdio that do not keep to the protocol, or do not live long enough to.

use super::rig::{Rig, failed, says};
use crate::product::Project;

/// A server in a few lines that does, at the call of its tool, what its argument says.
const SERVER: &str = r#"
const mode = process.argv[2];
const say = (id, result) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", id, result }) + "\n");
const flood = () => {
  const line = "x".repeat(1 << 20);
  let left = 1024;
  const more = () => { while (left-- > 0) if (!process.stdout.write(line)) return process.stdout.once("drain", more); };
  more();
};
const call = {
  dies: () => process.exit(3),
  garbage: () => process.stdout.write("\xff{{{ this is no JSON\n[]\n17\n"),
  silent: () => {},
  huge: flood,
};
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (method === "initialize")
    say(id, { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "bad", version: "1" } });
  if (method === "tools/list")
    say(id, { tools: [{ name: "look", description: "Looks.", inputSchema: { type: "object" } }] });
  if (method === "tools/call") call[mode]();
});
"#;

fn agent(name: &str, command: &str, args: &str, timeout: u32) -> String {
    format!(
        "name: {name}
execution_mode: autonomous
llm_config: {{ provider: openai, model: test-model }}
system_prompt: Use your tools.
retry_config: {{ max_retries: 0 }}
timeout_seconds: {timeout}
tools:
  - {{ name: {name}, type: mcp, command: {command}, args: {args}, effect: read_only, timeout_seconds: 3 }}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_wrong_in_a_call_fails_that_call_alone() {
    let project = Project::new();
    std::fs::write(project.path().join("server.js"), SERVER).unwrap();
    let modes = ["dies", "garbage", "silent", "huge"];
    for mode in modes {
        project.agent(
            mode,
            &agent(mode, "node", &format!("[server.js, {mode}]"), 60),
        );
    }
    let rig = Rig::with(project, &[]).await;
    for (mode, said) in [
        ("dies", "the server was lost during the call"),
        ("garbage", "no answer in time"),
        ("silent", "no answer in time"),
        ("huge", "no answer in time"),
    ] {
        let result = rig.product.run(mode, "look").await;
        assert_eq!(result["status"], "completed", "{mode}: {result}");
        let output = result["output"].as_str().unwrap();
        assert!(output.len() < 4096, "{mode}: {} bytes", output.len());
        says(output, &[said]);
        rig.is_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_comes_up_fails_the_execution_with_its_name() {
    let project = Project::new();
    project.agent("missing", &agent("missing", "no-such-program", "[]", 60));
    project.agent(
        "ends",
        &agent("ends", "sh", "[-c, 'echo it is broken >&2; exit 3']", 60),
    );
    project.agent(
        "babbles",
        &agent("babbles", "sh", "[-c, 'echo hello; exec cat > babble']", 3),
    );
    let rig = Rig::with(project, &[]).await;
    for (name, parts) in [
        (
            "missing",
            &["no-such-program", "install it, or correct command"][..],
        ),
        ("ends", &["does not speak MCP", "it says: it is broken"]),
    ] {
        let message = failed(&rig.product.run(name, "look").await, "TOOLS_UNAVAILABLE");
        says(&message, &["tool server", name]);
        says(&message, parts);
    }
    // One that lives and says nothing to the purpose may still come round: it has the time of the execution.
    let result = rig.product.run("babbles", "look").await;
    assert_eq!(result["status"], "timeout", "{result}");
    let message = result["error"]["message"].as_str().unwrap();
    says(message, &["deadline", "babbles", "does not speak MCP"]);
    rig.is_well().await;
}
