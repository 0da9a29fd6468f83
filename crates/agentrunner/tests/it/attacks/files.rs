//! A5, A6, A18: agents' files.

use std::fs;

use reqwest::Method;
use serde_json::Value;

use super::rig::{CONFIG, Rig, agent, polite, refused, send};

async fn upload(rig: &Rig, text: impl Into<String>) -> (u16, Value) {
    let request = rig.request(Method::POST, CONFIG, "/configs/upload?replace=true");
    let request = request.header("content-type", "application/yaml");
    send(request.body(text.into())).await
}

fn files(rig: &Rig) -> Vec<String> {
    let folder = rig.project.path().join("config/agents");
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_hostile_yaml_is_refused_and_costs_nothing() {
    let rig = Rig::new(polite).await;
    let bomb = (0..30).fold("a0: &a0 x\n".to_owned(), |text, n| {
        let many = format!("*a{n},").repeat(9);
        format!("{text}a{}: &a{} [{many}]\n", n + 1, n + 1)
    });
    let texts = [
        bomb,
        agent(
            "new",
            "description: !!python/object/apply:os.system ['id']\n",
        ),
        agent("new", "metadata: &m\n  <<: *m\n"),
        format!("{}---\n{}", agent("new", ""), agent("newer", "")),
        "- \n".repeat(300_000),
        format!("{}tags: [{}]\n", agent("new", ""), "x,".repeat(500_000)),
        "[".repeat(1_000_000),
        format!("{}\u{0}", agent("new", "")),
    ];
    for text in texts {
        let shown: String = text.chars().take(60).collect();
        let request = rig.request(Method::POST, CONFIG, "/configs/validate");
        let request = request.header("content-type", "application/yaml");
        let (status, verdict) = send(request.body(text.clone())).await;
        assert_eq!(
            (status, &verdict["valid"]),
            (200, &Value::Bool(false)),
            "{shown}"
        );
        refused(&upload(&rig, text).await, 400, "INVALID_CONFIG");
    }
    refused(
        &upload(&rig, " ".repeat(16 << 20)).await,
        413,
        "PAYLOAD_TOO_LARGE",
    );
    assert_eq!(files(&rig), ["helper.yml"]);
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_no_name_leads_out_of_the_folder() {
    let rig = Rig::new(polite).await;
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim.yml");
    fs::write(&victim, "theirs").unwrap();
    let folder = rig.project.path().join("config/agents");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&victim, folder.join("linked.yml")).unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.join("away")).unwrap();
    }
    let absolute = outside.path().join("x").display().to_string();
    for name in [
        "../../x",
        absolute.as_str(),
        "%2e%2e%2fx",
        "'a\\0b'",
        "away/x",
        ".x",
        "CON",
        "a b",
        "'..'",
    ] {
        let answer = upload(&rig, agent(name, "")).await;
        refused(&answer, 400, "INVALID_CONFIG");
    }
    refused(
        &upload(&rig, agent("linked", "")).await,
        409,
        "STATE_CONFLICT",
    );
    for path in [
        "/configs/..%2F..%2Fetc%2Fpasswd",
        "/configs/%2e%2e",
        "/configs/a%00b",
        "/configs/%2Fetc%2Fpasswd/versions",
        "/configs/helper/versions/..%2F..%2Fx",
        "/configs/linked",
        "/docs/..%2f..%2f..%2fetc%2fpasswd",
    ] {
        let (status, answer) = send(rig.request(Method::GET, CONFIG, path)).await;
        assert!(matches!(status, 400 | 404), "{path}: {status} {answer}");
    }
    let request = rig.request(Method::POST, CONFIG, "/configs/..%2Fhelper/rollback");
    refused(&send(request).await, 404, "CONFIG_NOT_FOUND");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(!rig.project.path().join("x.yml").exists());
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_no_program_is_named_through_the_api() {
    let rig = Rig::new(polite).await;
    let mark = rig.project.path().join("started");
    let touch = mark.display();
    for tool in [
        format!("command: sh, args: [-c, 'touch {touch}']"),
        format!("command: /bin/sh, args: [-c, 'touch {touch}']"),
        "command: npx, args: [-c, id]".to_owned(),
        "command: npx, args: [--yes, evil]".to_owned(),
        format!("command: touch, args: ['{touch}']"),
        format!(
            "command: /usr/bin/env, args: [touch, '{touch}'], env: {{ LD_PRELOAD: /tmp/x.so }}"
        ),
    ] {
        let tools = format!("tools:\n  - {{ name: t, type: mcp, {tool} }}\n");
        for name in ["new", "helper"] {
            let answer = upload(&rig, agent(name, &tools)).await;
            refused(&answer, 400, "INVALID_CONFIG");
            let message = answer.1["error"]["message"].as_str().unwrap();
            assert!(message.contains("through the API"), "{message}");
        }
        let request = rig.request(Method::POST, CONFIG, "/configs/validate");
        let request = request.header("content-type", "application/yaml");
        assert_eq!(send(request.body(agent("new", &tools))).await.0, 200);
    }
    assert!(!mark.exists(), "nothing was started");
    assert_eq!(files(&rig), ["helper.yml"]);
    rig.is_well().await;
}
