//! Whether it is well, told to an operator, to a container's engine and to systemd.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::project::{Project, Ran};

/// Nothing of this machine listens there.
const NOWHERE: (&str, &str) = ("AGENT_POOL_PORT", "1");

async fn run(project: &Project, more: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = project.command(args);
    command.env(NOWHERE.0, NOWHERE.1).envs(more.iter().copied());
    Ran::of(command).await
}

#[tokio::test]
async fn health_tells_all_from_some_from_none() {
    let project = Project::new();
    for args in [&["health"][..], &["health", "--self"]] {
        let ran = run(&project, &[], args).await;
        assert_eq!(ran.code, 3, "{ran:?}");
    }
    let server = project.up().await;
    let ran = run(&project, &[], &["health"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let rows = ran.json();
    assert_eq!(rows.as_array().unwrap().len(), 5, "{rows}");
    assert_eq!(rows[0]["service"], "state-manager", "{rows}");
    assert_eq!(rows[0]["status"], "ready", "{rows}");
    assert_eq!(rows[0]["dependencies"]["database"], "ok", "{rows}");

    let ran = run(&project, &[("STATE_MANAGER_PORT", "2")], &["health"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(ran.json()[0]["status"], "unreachable", "{ran:?}");
    assert_eq!(ran.json()[2]["status"], "ready", "{ran:?}");

    // Whichever part it is: what does not listen is not asked. What the check does not need is not looked at.
    let other = [
        ("STATE_MANAGER_PORT", "2"),
        ("OPENAI_API_KEY", "vault://secret/agentrunner#openai"),
        ("BIND_ADDRESS", "0.0.0.0"),
    ];
    let ran = run(&project, &other, &["health", "--self"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json().as_array().unwrap().len(), 4, "{ran:?}");
    drop(server);
}

#[tokio::test]
async fn systemd_is_told() {
    let project = Project::new();
    let path = project.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let heard = || {
        let mut words = [0; 256];
        let length = systemd.recv(&mut words).unwrap();
        String::from_utf8_lossy(&words[..length]).into_owned()
    };
    let server = project
        .up_with(&[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "60000000"),
            ("AGENT_DRAIN_SECONDS", "0"),
        ])
        .await;
    assert!(heard().starts_with("READY=1\n"));
    assert_eq!(heard(), "WATCHDOG=1");
    server.signal("TERM");
    let (code, log) = server.ended().await;
    assert_eq!(code, 0, "{log}");
    assert!(heard().starts_with("STOPPING=1\n"));
}
