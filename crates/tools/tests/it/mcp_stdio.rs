//! MCP servers as child processes: the reference servers from npm, and one that misbehaves on request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agentrunner_tools::{Call, Error, Toolbox, Toolkit};
use domain::ToolOutcome;
use domain::definition::{Effect, Tool};
use domain::pin::Fingerprint;
use serde_json::{Value, json};
use testkit::{CommandLine, npm_servers};

use crate::support::{
    agent, call, entry, failure, names, offers, refusal, run, run_for, stdio_server, text, toolkit,
    trace, unknown,
};

fn npm(name: &str, line: CommandLine, more: Value) -> Tool {
    let mut whole =
        json!({"name": name, "type": "mcp", "command": line.program, "args": line.args});
    let more = more.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(more);
    entry(whole)
}

/// What the server of the tests notes, and waiting for it.
struct Notes(tempfile::TempDir);

impl Notes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("notes")
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn count(&self, prefix: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.starts_with(prefix))
            .count()
    }

    async fn wait_for(&self, prefix: &str) {
        wait_until(|| self.count(prefix) > 0).await;
    }

    fn server(&self, more: Value) -> Tool {
        let mut fields = json!({"env": {"NOTES": self.path()}});
        if let Some(env) = more["env"].as_object() {
            fields["env"].as_object_mut().unwrap().extend(env.clone());
        }
        let mut more = more.as_object().unwrap().clone();
        more.remove("env");
        fields.as_object_mut().unwrap().extend(more);
        stdio_server(fields)
    }
}

/// Waits for something that another process does: there is no signal to wait on.
async fn wait_until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("it happens in time");
}

fn is_alive(pid: &Value) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is as dead as it gets.
    !stat.is_empty() && !stat.contains(") Z ")
}

fn plain() -> Toolkit {
    toolkit(|_| {})
}

#[tokio::test]
async fn the_filesystem_server_works() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::write(root.join("note.txt"), "Hello from a file").unwrap();
    let files = npm(
        "files",
        npm_servers().filesystem(&root),
        json!({"effects": {"read_text_file": "read_only"}, "requires_approval": ["write_file"]}),
    );
    let toolkit = plain();
    let offered = offers(&toolkit, "1", std::slice::from_ref(&files))
        .await
        .unwrap();
    let of = |name: &str| offered.iter().find(|offer| offer.name == name).unwrap();
    assert_eq!(of("read_text_file").effect, Effect::ReadOnly);
    assert_eq!(
        (of("write_file").effect, of("write_file").approval),
        (Effect::Unsafe, true)
    );
    let path = root.join("note.txt");
    let read = run(&toolkit, &files, "read_text_file", json!({"path": path})).await;
    assert_eq!(text(read), "Hello from a file");
    let out = json!({"path": "/etc/passwd"});
    failure(run(&toolkit, &files, "read_text_file", out).await);
    let write = json!({"path": root.join("new.txt"), "content": "new"});
    text(run(&toolkit, &files, "write_file", write).await);
    assert_eq!(
        std::fs::read_to_string(root.join("new.txt")).unwrap(),
        "new"
    );
    toolkit.shutdown().await;
}

#[tokio::test]
async fn the_everything_server_works() {
    let everything = npm("everything", npm_servers().everything(), json!({}));
    let toolkit = plain();
    let offered = offers(&toolkit, "1", std::slice::from_ref(&everything))
        .await
        .unwrap();
    assert!(names(&offered).contains(&"echo"), "{:?}", names(&offered));
    let echo = run(&toolkit, &everything, "echo", json!({"message": "hello"})).await;
    assert!(text(echo).contains("hello"));
    let sum = if names(&offered).contains(&"get-sum") {
        "get-sum"
    } else {
        "add"
    };
    let sum = run(&toolkit, &everything, sum, json!({"a": 2, "b": 40})).await;
    assert!(text(sum).contains("42"));
    let image = if names(&offered).contains(&"get-tiny-image") {
        "get-tiny-image"
    } else {
        "getTinyImage"
    };
    let image = text(run(&toolkit, &everything, image, json!({})).await);
    assert!(image.contains("[image image/png, "), "{image}");
    toolkit.shutdown().await;
}

#[tokio::test]
async fn the_key_and_the_trace_are_sent_and_the_environment_is_not() {
    let toolkit = toolkit(|settings| settings.home = Some("/nowhere".into()));
    let server = stdio_server(json!({"env": {"TOKEN": "t0ken"}}));
    let meta = text(run(&toolkit, &server, "meta", json!({})).await);
    let meta: Value = serde_json::from_str(&meta).unwrap();
    assert_eq!(meta["agentrunner/idempotencyKey"], "exec:7");
    assert!(
        meta["traceparent"]
            .as_str()
            .unwrap()
            .contains("0af7651916cd43dd8448eb211c80319c")
    );
    let env = text(run(&toolkit, &server, "env", json!({})).await);
    let env: serde_json::Map<String, Value> = serde_json::from_str(&env).unwrap();
    let mut seen: Vec<&str> = env.keys().map(String::as_str).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["HOME", "PATH", "TOKEN"]);
    assert_eq!(env["HOME"], "/nowhere");
    toolkit.shutdown().await;
}

#[tokio::test]
async fn results_failures_and_strange_names_are_passed_on() {
    let toolkit = plain();
    let server = stdio_server(json!({"max_result_bytes": 1000, "deny": ["env"]}));
    offers(&toolkit, "1", std::slice::from_ref(&server))
        .await
        .unwrap();
    assert_eq!(
        failure(run(&toolkit, &server, "fail", json!({})).await),
        "it went wrong"
    );
    let huge = run(&toolkit, &server, "huge", json!({})).await;
    assert!(
        matches!(huge, ToolOutcome::Succeeded { content, truncated: true } if content.len() == 1000)
    );
    assert_eq!(
        text(run(&toolkit, &server, "dotted_name", json!({})).await),
        "dotted"
    );
    refusal(run(&toolkit, &server, "env", json!({})).await);
    let reason = failure(run(&toolkit, &server, "none", json!({})).await);
    assert_eq!(reason, "no tool none");
    toolkit.shutdown().await;
}

#[tokio::test]
async fn a_call_that_is_taken_up_by_a_new_process_needs_no_offer_before() {
    let toolkit = plain();
    let server = stdio_server(json!({"deny": ["dotted.name"]}));
    refusal(run(&toolkit, &server, "dotted_name", json!({})).await);
    let server = stdio_server(json!({}));
    assert_eq!(
        text(run(&toolkit, &server, "dotted_name", json!({})).await),
        "dotted"
    );
    toolkit.shutdown().await;
}

#[tokio::test]
async fn a_server_gets_no_answers_to_its_questions() {
    let toolkit = plain();
    let answers = text(run(&toolkit, &stdio_server(json!({})), "ask", json!({})).await);
    let answers: Value = serde_json::from_str(&answers).unwrap();
    assert_eq!(answers["sampling/createMessage"], "error");
    assert_ne!(answers["elicitation/create"], "accept");
    assert_eq!(answers["roots/list"], "error");
    toolkit.shutdown().await;
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_and_the_lost_call_is_not_repeated() {
    let notes = Notes::new();
    let toolkit = plain();
    let server = notes.server(json!({"effects": {"echo": "read_only"}}));
    text(run(&toolkit, &server, "echo", json!({})).await);
    unknown(run(&toolkit, &server, "die", json!({})).await);
    assert_eq!(notes.count("call die"), 1);
    text(run(&toolkit, &server, "echo", json!({})).await);
    assert_eq!(notes.count("start"), 2);
    let read = notes.server(json!({"effect": "read_only"}));
    failure(run(&toolkit, &read, "die", json!({})).await);
    toolkit.shutdown().await;
}

#[tokio::test]
async fn only_the_tool_that_the_model_was_shown_is_called() {
    let notes = Notes::new();
    let toolkit = plain();
    let server = notes.server(json!({"effect": "read_only"}));
    let shown = async || {
        let offered = offers(&toolkit, "1", std::slice::from_ref(&server)).await;
        let offered = offered.unwrap();
        let echo = offered.iter().find(|offer| offer.name == "echo").unwrap();
        echo.pin.clone().unwrap().fingerprint
    };
    let echo = async |pin: &Fingerprint| {
        let (agent, trace, arguments) = (agent(), trace(), json!({}));
        let call = Call {
            pin: Some(pin),
            ..call(&server, "echo", &arguments, &agent, &trace)
        };
        toolkit.call(call).await
    };
    let first = shown().await;
    text(echo(&first).await);
    text(run(&toolkit, &server, "change", json!({})).await);
    let mut second = shown().await;
    // What the server says of itself may be read after its answer.
    while second == first {
        tokio::task::yield_now().await;
        second = shown().await;
    }
    let reason = refusal(echo(&first).await);
    assert!(
        reason.contains("agents approve-tools tester echo"),
        "{reason}"
    );
    text(echo(&second).await);
    // Another process of it is as it was at first: that is seen before the call, not after.
    failure(run(&toolkit, &server, "die", json!({})).await);
    refusal(echo(&second).await);
    assert_eq!((notes.count("call echo"), notes.count("start")), (2, 2));
    text(echo(&first).await);
    toolkit.shutdown().await;
}

#[tokio::test]
async fn a_killed_server_is_started_again_by_the_next_call() {
    let notes = Notes::new();
    let toolkit = plain();
    let server = notes.server(json!({}));
    let pids = text(run(&toolkit, &server, "child", json!({})).await);
    let pids: Value = serde_json::from_str(&pids).unwrap();
    let kill = std::process::Command::new("kill")
        .args(["-9", &pids["server"].to_string()])
        .status();
    assert!(kill.unwrap().success());
    // What the server started goes with it.
    wait_until(|| !is_alive(&pids["server"]) && !is_alive(&pids["child"])).await;
    assert_eq!(
        text(run(&toolkit, &server, "echo", json!({"a": 1})).await),
        r#"{"a":1}"#
    );
    assert_eq!(notes.count("start"), 2);
    toolkit.shutdown().await;
}

#[tokio::test]
async fn shutting_down_kills_servers_and_what_they_started() {
    for stubborn in [json!({}), json!({"env": {"STUBBORN": "1"}})] {
        let notes = Notes::new();
        let toolkit = plain();
        let server = notes.server(stubborn);
        let pids = text(run(&toolkit, &server, "child", json!({})).await);
        let pids: Value = serde_json::from_str(&pids).unwrap();
        assert!(is_alive(&pids["server"]) && is_alive(&pids["child"]));
        toolkit.shutdown().await;
        assert!(!is_alive(&pids["server"]), "the server");
        wait_until(|| !is_alive(&pids["child"])).await;
        let reason = failure(run(&toolkit, &server, "echo", json!({})).await);
        assert!(reason.contains("shutting down"), "{reason}");
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_cancelled_and_unknown() {
    let notes = Notes::new();
    let toolkit = plain();
    let server = notes.server(json!({"effects": {"echo": "read_only"}}));
    text(run(&toolkit, &server, "echo", json!({})).await);
    let short = Duration::from_millis(200);
    unknown(run_for(&toolkit, &server, "never", json!({}), short).await);
    notes.wait_for("notifications/cancelled").await;
    text(run(&toolkit, &server, "echo", json!({})).await);
    assert_eq!(notes.count("start"), 1, "the server goes on");
    toolkit.shutdown().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled() {
    let notes = Notes::new();
    let toolkit = plain();
    let server = notes.server(json!({}));
    let (agent, trace, none) = (agent(), trace(), json!({}));
    let never: Call<'_> = call(&server, "never", &none, &agent, &trace);
    tokio::select! {
        outcome = toolkit.call(never) => panic!("{outcome:?}"),
        () = notes.wait_for("call never") => {}
    }
    notes.wait_for("notifications/cancelled").await;
    toolkit.shutdown().await;
}

#[tokio::test]
async fn the_list_is_read_again_when_it_changed_and_only_then() {
    let notes = Notes::new();
    let toolkit = plain();
    let server = notes.server(json!({}));
    let entries = [server.clone()];
    let first = offers(&toolkit, "1", &entries).await.unwrap();
    assert_eq!(first.len(), 12, "both pages");
    for _ in 0..3 {
        offers(&toolkit, "1", &entries).await.unwrap();
    }
    assert_eq!(notes.count("list"), 2);
    text(run(&toolkit, &server, "grow", json!({})).await);
    wait_until_async(async || {
        let now = offers(&toolkit, "1", &entries).await.unwrap();
        names(&now).contains(&"grown")
    })
    .await;
    text(run(&toolkit, &server, "change", json!({})).await);
    wait_until_async(async || {
        let now = offers(&toolkit, "1", &entries).await.unwrap();
        now[0].description == "now it does something else"
    })
    .await;
    toolkit.shutdown().await;
}

async fn wait_until_async(done: impl AsyncFn() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("it happens in time");
}

#[tokio::test]
async fn a_server_is_shared_and_stopped_when_nobody_calls_it() {
    let notes = Notes::new();
    let toolkit = toolkit(|settings| settings.mcp_idle_timeout = Duration::from_millis(300));
    let one = notes.server(json!({}));
    let mut other = notes.server(json!({"deny": ["die"]}));
    other.name = "other".to_owned();
    let runs = futures::future::join(
        run(&toolkit, &one, "child", json!({})),
        run(&toolkit, &other, "echo", json!({})),
    );
    let (pids, echo) = runs.await;
    text(echo);
    assert_eq!(notes.count("start"), 1, "one server for both entries");
    let pids: Value = serde_json::from_str(&text(pids)).unwrap();
    wait_until(|| !is_alive(&pids["server"])).await;
    text(run(&toolkit, &one, "echo", json!({})).await);
    assert_eq!(notes.count("start"), 2);
    toolkit.shutdown().await;
}

#[tokio::test]
async fn a_server_that_cannot_start_is_told_with_its_last_words_but_no_secret() {
    let toolkit = toolkit(|settings| settings.mcp_connect_timeout = Duration::from_secs(2));
    let broken = stdio_server(json!({"env": {"BROKEN": "s3cret-value"}}));
    let error = offers(&toolkit, "1", &[broken]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("\"srv\"") && message.contains("cannot start"),
        "{message}"
    );
    assert!(!message.contains("s3cret-value"), "{message}");
    let missing =
        entry(json!({"name": "gone", "type": "mcp", "command": "no-such-program-anywhere"}));
    let error = offers(&toolkit, "2", std::slice::from_ref(&missing))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no-such-program-anywhere"), "{error}");
    let reason = failure(run(&toolkit, &missing, "x", json!({})).await);
    assert!(reason.contains("not called"), "{reason}");
    assert!(!Path::new("no-such-program-anywhere").exists());
}
