//! The commands themselves: what they print, what they refuse, what they leave behind.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use testkit::servers::Kind as ServerKind;

use crate::backing;
use crate::bad_input::disk::SmallDisk;
use crate::product::Project as Folder;
use crate::project::{Project, Ran};

/// A project in which somebody has worked, and what is in its folder of backups.
pub(super) async fn worked() -> Project {
    let project = Project::new();
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    project
}

fn backups(project: &Project) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(project.path().join("backups")) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

async fn backed_up(project: &Project) -> String {
    let made = project.run(&["backup"]).await;
    assert_eq!(made.code, 0, "{made:?}");
    made.json()["file"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_backup_is_made_checked_and_restored() {
    let project = worked().await;
    let made = project.run(&["backup"]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let about = made.json();
    let file = about["file"].as_str().unwrap();
    let sum = about["sha256"].as_str().unwrap();
    assert_eq!(backups(&project).len(), 1);
    assert_eq!(about["files"], 8, "four agents and their scripts: {about}");

    let good = project
        .run(&["backup", "verify", file, "--sha256", sum])
        .await;
    assert_eq!(good.code, 0, "{good:?}");
    assert_eq!(good.json()["executions"], 1);
    let other = "0".repeat(64);
    let wrong = project
        .run(&["backup", "verify", file, "--sha256", &other])
        .await;
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains(sum), "{wrong:?}");

    // What is there is not written over without its name.
    let refused = project.run(&["restore", file]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("--over agentrunner.db"),
        "{refused:?}"
    );

    let looked = project.run(&["restore", file, "--dry-run"]).await;
    assert_eq!(looked.code, 1, "{looked:?}");
    assert!(looked.stderr.contains("--over"), "{looked:?}");
    assert_eq!(looked.json()["goes_on"][0]["count"], 1);

    let tasks = project.run(&["tasks", "list"]).await.json();
    fs::remove_dir_all(project.path().join("data")).unwrap();
    fs::remove_file(project.path().join("config/agents/greeter.yml")).unwrap();
    project.write("config/agents/asker.yml", "name: mine\n");
    let looked = project.run(&["restore", file, "--dry-run"]).await;
    assert_eq!(looked.code, 0, "{looked:?}");
    assert!(!project.path().join("data/agentrunner.db").exists());
    let restored = project.run(&["restore", file]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    let files = &restored.json()["files"];
    assert_eq!(
        *files,
        json!({ "written": 1, "as_they_were": 6, "differ_and_stay": ["agents/asker.yml"] })
    );
    let mine = fs::read_to_string(project.path().join("config/agents/asker.yml")).unwrap();
    assert_eq!(mine, "name: mine\n");
    fs::remove_file(project.path().join("config/agents/asker.yml")).unwrap();
    assert_eq!(project.run(&["tasks", "list"]).await.json(), tasks);
    let named = project
        .run(&["restore", file, "--over", "agentrunner.db"])
        .await;
    assert_eq!(named.code, 0, "{named:?}");
}

#[tokio::test]
async fn a_backup_holds_no_secret_and_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let project = worked().await;
    let mut command = project.command(&["backup"]);
    command.env("OPENAI_API_KEY", "sk-canary-of-the-backups");
    command.env(
        "API_SECRET_KEY",
        "canary-that-is-long-enough-to-be-a-key-of-the-api",
    );
    let made = Ran::of(command).await;
    assert_eq!(made.code, 0, "{made:?}");
    let path = project.path().join(made.json()["file"].as_str().unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let plain = zstd::decode_all(fs::File::open(&path).unwrap()).unwrap();
    let text = String::from_utf8_lossy(&plain);
    assert!(text.contains("You greet."), "it is the plain text");
    assert!(!text.contains("canary"), "a secret is in it");
}

#[tokio::test]
async fn the_newest_backups_are_kept() {
    let project = worked().await;
    let folder = project.path().join("backups");
    fs::create_dir(&folder).unwrap();
    for name in [
        "agentrunner-20200101T000000Z.tar.zst",
        "agentrunner-20210101T000000Z.tar.zst",
        "notes",
    ] {
        fs::write(folder.join(name), "x").unwrap();
    }
    let made = project.run(&["backup", "--keep", "2"]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let names: Vec<String> = backups(&project)
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[0], "agentrunner-20210101T000000Z.tar.zst");
    assert_eq!(names[2], "notes");
    let deleted = made.json()["deleted"].clone();
    assert_eq!(
        deleted,
        json!(["backups/agentrunner-20200101T000000Z.tar.zst"])
    );
}

#[tokio::test]
async fn a_disk_that_is_full_or_becomes_so_leaves_no_file() {
    let project = worked().await;
    // A comment that can't be compressed to what the disk has.
    let mut dice = 1_u64;
    let noise = std::iter::repeat_with(|| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (dice >> 33) as u8 % 26)
    });
    let comment = format!("# {}\n", noise.take(400_000).collect::<String>());
    let disk = SmallDisk::mount(&project.path().join("small"), "size=64k");
    let is_told = async |left: &[&str]| {
        let ran = project.run(&["backup", "--output", "small"]).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        for part in ["small/agentrunner-", "can't be written", "No space left"] {
            assert!(ran.stderr.contains(part), "{ran:?}");
        }
        let files = fs::read_dir(disk.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), left);
    };
    disk.fill();
    is_told(&["filler"]).await;
    disk.free();
    project.write("config/agents/noise.yml", &comment);
    is_told(&[]).await;
    fs::remove_file(project.path().join("config/agents/noise.yml")).unwrap();
    let made = project.run(&["backup", "--output", "small"]).await;
    assert_eq!(made.code, 0, "{made:?}");
}

#[tokio::test]
async fn a_living_system_is_not_restored_over() {
    let project = worked().await;
    let file = backed_up(&project).await;
    let _server = project.up().await;
    for extra in [vec![], vec!["--over", "agentrunner.db"]] {
        let args = [vec!["restore", file.as_str()], extra].concat();
        let refused = project.run(&args).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        let is_told = refused.stderr.contains("processes work with it")
            || refused.stderr.contains("stop it first");
        assert!(is_told, "{refused:?}");
    }
    let id = project.submit("greeter").await;
    project
        .until(&format!("/tasks/{id}"), |task| {
            task["status"] == "completed"
        })
        .await;
}

#[tokio::test]
async fn servers_what_is_embedded_moves_to_postgres_and_back() {
    let project = worked().await;
    let tasks = project.run(&["tasks", "list"]).await.json();
    let servers = backing::postgres().await;
    let url = &servers
        .iter()
        .find(|(name, _)| *name == ServerKind::Postgres.variable())
        .unwrap()
        .1;
    let with_server = async |args: &[&str]| {
        let mut command = project.command(args);
        command.env("DATABASE_URL", url);
        Ran::of(command).await
    };
    let unsaid = project.run(&["transfer", "--to", "postgres"]).await;
    assert_eq!(unsaid.code, 1);
    assert!(unsaid.stderr.contains("DATABASE_URL"), "{unsaid:?}");
    let moved = with_server(&["transfer", "--to", "postgres"]).await;
    assert_eq!(moved.code, 0, "{moved:?}");
    assert_eq!(with_server(&["tasks", "list"]).await.json(), tasks);
    let again = with_server(&["transfer", "--to", "postgres"]).await;
    assert_eq!(again.code, 1, "{again:?}");
    fs::remove_dir_all(project.path().join("data")).unwrap();
    let back = with_server(&["transfer", "--to", "sqlite"]).await;
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(project.run(&["tasks", "list"]).await.json(), tasks);
}

#[tokio::test]
async fn nothing_to_back_up_is_told() {
    let folder = Folder::new();
    let mut command = folder.command(&[]);
    command.arg("backup");
    let ran = super::world::ran(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("there is no database"), "{ran:?}");
}
