//! A disk that is full, and a database that a newer program made.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::rig::{Rig, says};
use crate::product::{Product, Project};
use crate::project::Ran;

/// A small disk in memory, taken away at the end.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one, with options such as its size.
    pub(crate) fn mount(at: &Path, options: &str) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .status()
            .unwrap();
        assert!(
            mounted.success(),
            "this test mounts a small disk: run it as root"
        );
        Self(at.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the space that is left.
    pub(crate) fn fill(&self) {
        let filler = vec![0; 4096];
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &filler).is_ok() {}
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may still be about to end.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_new_work_and_loses_none_that_was_accepted() {
    let project = Project::new();
    let disk = SmallDisk::mount(&project.path().join("small"), "size=3m");
    let rig = Rig::with(project, &[("DATA_DIR", "small")]).await;

    // Accepted, and held in the middle: its model answers when the disk is full already.
    let hold = rig.provider.hold(
        testkit::Filter::any().with("point", "before_answer"),
        Some(1),
    );
    let task = json!({ "agent_name": "openai", "task_data": { "prompt": "hello", "padding": "x".repeat(4096) } });
    let accepted = rig.product.post("/tasks", &task).await;
    let id = accepted["execution_id"].as_str().unwrap().to_owned();
    hold.wait(1).await;
    disk.fill();

    // A log that still has room takes a few more; then it is said.
    let mut taken = vec![id];
    let body = task.to_string();
    let refusal = loop {
        let (status, answer) = rig.product.send("/tasks", body.clone()).await;
        if status != 202 {
            break (status, answer);
        }
        taken.push(answer["execution_id"].as_str().unwrap().to_owned());
        assert!(taken.len() < 2000, "it never fills up");
    };
    assert_eq!(refusal.0, 503, "{refusal:?}");
    assert_eq!(refusal.1["error"]["code"], "DEPENDENCY_UNAVAILABLE");
    says(&refusal.1.to_string(), &["disk is full", "free some space"]);
    hold.release();
    let listed = rig.product.get("/tasks").await;
    assert!(listed.is_array(), "what is there can still be read");

    disk.free();
    for id in &taken {
        let task = rig
            .product
            .until(id, |task| task["status"] == "completed")
            .await;
        assert_eq!(task["status"], "completed");
    }
    rig.is_well().await;

    // A start that needs a new file says so.
    let Rig {
        product, project, ..
    } = rig;
    product.kill().await;
    disk.fill();
    let mut fresh = project.command(&[("DATA_DIR", "small/fresh")]);
    fresh.arg("tasks");
    let ran = Ran::of(fresh).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    says(&ran.stderr, &["small/fresh", "full"]);
    disk.free();
    let product = Product::up(&project, &[("DATA_DIR", "small")]).await;
    for id in &taken {
        let task = product.get(&format!("/tasks/{id}")).await;
        assert_eq!(task["status"], "completed");
    }
    product.kill().await;
    drop(disk);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let project = crate::project::Project::new();
    assert_eq!(project.run(&["run", "greeter", "hello"]).await.code, 0);
    let file = project.path().join("data/agentrunner.db");
    let made_newer = Command::new("python3")
        .args(["-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('pragma user_version = 99'); c.close()"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(made_newer.success());
    let before = std::fs::read(&file).unwrap();
    for command in [&["up"][..], &["run", "greeter", "hello"], &["tasks"]] {
        let ran: Ran = project.run(command).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        says(
            &ran.stderr,
            &["version 99", "use the newer program", "agentrunner.db"],
        );
    }
    assert_eq!(
        std::fs::read(&file).unwrap(),
        before,
        "not a byte is written"
    );
}
