//! Backups in a bucket: the binary against moto, a store that is not ours, and with a gate before it for what goes wrong.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::sync::Notify;

use super::commands::worked;
use crate::project::{Project, Ran, Server};

const BUCKET: &str = "s3://acme-backups/nightly";
const SECRET: &str = "secret-canary-of-the-bucket";
const OLD: [&str; 2] = [
    "agentrunner-20200101T000000Z.tar.zst",
    "agentrunner-20210101T000000Z.tar.zst",
];

/// moto's server. Killed when dropped.
struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    /// Starts it on a free port, with a bucket.
    async fn start() -> Self {
        let mut child = Command::new(testkit::python())
            .args(["-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let (_, url) = line.split_once("Running on ")?;
            Some(url.trim().to_owned())
        });
        // It tells of every request, and must not wait for somebody to read that.
        std::thread::spawn(move || lines.for_each(drop));
        let moto = Self {
            child,
            url: url.expect("moto starts: run scripts/test-deps"),
        };
        moto.put("", b"").await;
        moto
    }

    /// Puts an object, or makes the bucket.
    async fn put(&self, key: &str, content: &[u8]) {
        let url = format!("{}/acme-backups/{key}", self.url);
        let put = reqwest::Client::new().put(url);
        let put = put.header("content-type", "application/octet-stream");
        let answer = put.body(content.to_vec()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    async fn get(&self, key: &str) -> Vec<u8> {
        let url = format!("{}/acme-backups/{key}", self.url);
        let answer = reqwest::get(url).await.unwrap();
        answer.bytes().await.unwrap().to_vec()
    }

    /// The keys of all objects.
    async fn keys(&self) -> Vec<String> {
        let list = String::from_utf8(self.get("?list-type=2").await).unwrap();
        let keys = list.split("<Key>").skip(1);
        keys.map(|rest| rest.split('<').next().unwrap().to_owned())
            .collect()
    }

    /// Whether uploads are open.
    async fn has_uploads(&self) -> bool {
        let list = String::from_utf8(self.get("?uploads").await).unwrap();
        assert!(list.contains("ListMultipartUploadsResult"), "{list}");
        list.contains("<UploadId>")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the gate does with requests that have this in their line.
#[derive(Clone, Copy)]
enum Does {
    Says(u16, &'static str),
    /// Never answers.
    Holds,
}

/// A gate before moto.
struct Gate {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    rule: Mutex<Option<(&'static str, Does)>>,
    held: Notify,
}

impl Gate {
    async fn before(moto: &Moto) -> Self {
        let shared = Arc::new(Shared {
            upstream: moto.url.clone(),
            rule: Mutex::default(),
            held: Notify::new(),
        });
        let router = axum::Router::new()
            .fallback(pass)
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared }
    }

    fn rule(&self, part: &'static str, does: Does) {
        *self.shared.rule.lock().unwrap() = Some((part, does));
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let line = format!("{} {}", parts.method, parts.uri);
    let rule = *shared.rule.lock().unwrap();
    match rule.filter(|(part, _)| line.contains(part)) {
        Some((_, Does::Says(status, code))) => {
            let body = format!("<Error><Code>{code}</Code><Message>No.</Message></Error>");
            return (StatusCode::from_u16(status).unwrap(), body).into_response();
        }
        Some((_, Does::Holds)) => {
            shared.held.notify_one();
            std::future::pending::<()>().await;
        }
        None => {}
    }
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let url = format!("{}{}", shared.upstream, parts.uri);
    let asked = reqwest::Client::new()
        .request(parts.method, url)
        .headers(parts.headers)
        .body(body);
    let answer = asked.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn command(project: &Project, url: &str, args: &[&str]) -> tokio::process::Command {
    let mut command = project.command(args);
    command
        .env("AWS_ENDPOINT_URL_S3", url)
        .env("AWS_ACCESS_KEY_ID", "AKIDCANARY")
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    command
}

async fn ran(project: &Project, url: &str, args: &[&str]) -> Ran {
    let ran = Ran::of(command(project, url, args)).await;
    for secret in [SECRET, "X-Amz-Signature"] {
        let is_told = ran.stdout.contains(secret) || ran.stderr.contains(secret);
        assert!(!is_told, "{ran:?}");
    }
    ran
}

fn key(address: &str) -> &str {
    address.strip_prefix("s3://acme-backups/").unwrap()
}

/// What is in the data folder, besides the database.
fn left(project: &Project) -> Vec<String> {
    let Ok(files) = fs::read_dir(project.path().join("data")) else {
        return Vec::new();
    };
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !name.starts_with("agentrunner.db"))
        .collect()
}

#[tokio::test]
async fn a_backup_lives_in_a_bucket() {
    let (project, moto) = (worked().await, Moto::start().await);
    for name in OLD {
        moto.put(&format!("nightly/{name}"), b"old").await;
    }
    moto.put("nightly/notes", b"mine").await;
    let before = left(&project);

    let backup = ["backup", "--output", BUCKET, "--keep", "2"];
    let made = ran(&project, &moto.url, &backup).await;
    assert_eq!(made.code, 0, "{made:?}");
    let about = made.json();
    let file = about["file"].as_str().unwrap();
    assert!(file.starts_with(&format!("{BUCKET}/agentrunner-")));
    assert_eq!(about["deleted"], json!([format!("{BUCKET}/{}", OLD[0])]));
    let kept = [&format!("nightly/{}", OLD[1]), key(file), "nightly/notes"];
    assert_eq!(moto.keys().await, kept);
    assert!(!moto.has_uploads().await);
    assert_eq!(left(&project), before, "nothing lies about");

    let sum = about["sha256"].as_str().unwrap();
    let verify = ["backup", "verify", file, "--sha256", sum];
    let good = ran(&project, &moto.url, &verify).await;
    assert_eq!(good.code, 0, "{good:?}");
    let good = good.json();
    assert_eq!(
        (&good["file"], &good["executions"]),
        (&about["file"], &json!(1))
    );

    // One that was cut, one that is something else, and one that is not there.
    let whole = moto.get(key(file)).await;
    moto.put("nightly/cut", &whole[..whole.len() - 1]).await;
    let newest = format!("is not there ({}); the newest below", &moto.url[7..]);
    for (name, part) in [
        ("cut", "is damaged"),
        ("notes", "is not a backup"),
        ("none", newest.as_str()),
    ] {
        let address = format!("{BUCKET}/{name}");
        let refused = ran(&project, &moto.url, &["restore", &address]).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(part), "{refused:?}");
        assert!(refused.stderr.contains(&address), "{refused:?}");
    }

    let tasks = project.run(&["tasks", "list"]).await.json();
    fs::remove_dir_all(project.path().join("data")).unwrap();
    let restored = ran(&project, &moto.url, &["restore", file]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(project.run(&["tasks", "list"]).await.json(), tasks);
    assert_eq!(left(&project), before, "nothing lies about");
}

#[tokio::test]
async fn what_can_t_be_put_leaves_nothing_in_the_bucket() {
    let (project, moto) = (worked().await, Moto::start().await);
    let gate = Gate::before(&moto).await;
    let backup = ["backup", "--output", BUCKET];
    for (part, does, words) in [
        (
            "list-type",
            Does::Says(403, "InvalidAccessKeyId"),
            "set AWS_ACCESS_KEY_ID and",
        ),
        ("partNumber", Does::Says(503, "SlowDown"), "try again later"),
        (
            "partNumber",
            Does::Says(400, "InvalidRequest"),
            "was not made",
        ),
    ] {
        gate.rule(part, does);
        let refused = ran(&project, &gate.url, &backup).await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    // Ended by somebody in the midst of it.
    gate.rule("partNumber", Does::Holds);
    let running = Server::of(command(&project, &gate.url, &backup));
    gate.shared.held.notified().await;
    assert!(moto.has_uploads().await);
    running.signal("INT");
    let (code, log) = running.ended().await;
    assert_eq!(code, 130, "{log}");
    assert!(log.contains("was not made: stopped"), "{log}");
    assert!(moto.keys().await.is_empty() && !moto.has_uploads().await);

    let elsewhere = ["backup", "--output", "s3://acme-backup"];
    let refused = ran(&project, &moto.url, &elsewhere).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("there is no bucket acme-backup"),
        "{refused:?}"
    );
    let slip = ran(
        &project,
        &moto.url,
        &["backup", "--output", "s3:/acme-backups"],
    )
    .await;
    assert_eq!(slip.code, 2, "{slip:?}");
    assert!(slip.stderr.contains("write s3://BUCKET/PREFIX"), "{slip:?}");
}
