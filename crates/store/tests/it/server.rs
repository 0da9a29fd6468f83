//! PostgreSQL servers for tests: one for all tests of this binary, with a database for each, and ones that may be
//! killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use store::postgres::{Postgres, Schema, Settings};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// Names a server that runs already, such as `postgres://postgres:postgres@localhost/postgres`. The user must be
/// allowed to make databases; they are left behind.
const VARIABLE: &str = "AGENTRUNNER_TEST_POSTGRES_URL";

/// The URL of the server for tests that do it no harm.
fn shared() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| {
        std::env::var(VARIABLE).unwrap_or_else(|_| {
            // Not dropped: it is stopped when the binary ends.
            Box::leak(Box::new(Server::start())).url.clone()
        })
    })
}

/// A name that no other test has, on this server or by another run.
fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(
        "agentrunner_test_{}_{number}",
        uuid::Uuid::now_v7().simple()
    )
}

/// A session behind the store's back.
pub(crate) async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client
}

/// The same server, another database.
pub(crate) fn with_database(url: &str, database: &str) -> String {
    let mut parts = url.rsplitn(2, '/');
    parts.next();
    format!("{}/{database}", parts.next().unwrap())
}

/// The URL of an empty database that no other test uses.
pub(crate) async fn empty_database() -> String {
    create_database("template0").await
}

/// The URL of a database with the current schema that no other test uses.
pub(crate) async fn database() -> String {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let make = || async {
        let url = empty_database().await;
        Schema::connect(&settings(&url))
            .await
            .unwrap()
            .up()
            .await
            .unwrap();
        url.rsplit('/').next().unwrap().to_owned()
    };
    create_database(TEMPLATE.get_or_init(make).await).await
}

async fn create_database(template: &str) -> String {
    let url = tokio::task::spawn_blocking(shared).await.unwrap();
    let name = unique();
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
    let client = session(url).await;
    // Whoever made the template may still be leaving it.
    for attempt in 0.. {
        match client.batch_execute(&sql).await {
            Ok(()) => break,
            Err(error) => assert!(attempt < 50, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    with_database(url, &name)
}

pub(crate) fn settings(url: &str) -> Settings {
    Settings {
        url: Some(url.to_owned().into()),
        pool_size: 6,
        // A loaded machine is no failure.
        connect_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_secs(60),
        ..Settings::default()
    }
}

pub(crate) async fn connect(url: &str) -> Postgres {
    Postgres::connect(settings(url)).await.unwrap()
}

/// A server of one's own, gone with the value or with the process, whatever ends it.
pub(crate) struct Server {
    pub(crate) url: String,
    folder: PathBuf,
    /// Stops the server when its input ends.
    undertaker: Child,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let undertaker = Command::new("setsid")
            .args([
                "bash",
                "-c",
                r#"read -r; "$0" down; rm -rf "$AGENTRUNNER_SERVICES""#,
            ])
            .arg(script())
            .env("AGENTRUNNER_SERVICES", &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            url: String::new(),
            folder,
            undertaker,
        };
        let exports = server.up();
        let value = |name: &str| {
            let line = exports.lines().find_map(|line| {
                line.strip_prefix("export ")?
                    .strip_prefix(name)?
                    .strip_prefix('=')
            });
            line.unwrap_or_else(|| panic!("{name} is not in {exports}"))
        };
        server.url = format!(
            "postgres://{}:{}@{}:{}/{}",
            value("POSTGRES_USER"),
            value("POSTGRES_PASSWORD"),
            value("POSTGRES_HOST"),
            value("POSTGRES_PORT"),
            value("POSTGRES_DB"),
        );
        server
    }

    /// Starts it unless it runs, with the data that it had.
    pub(crate) fn up(&self) -> String {
        let output = Command::new(script())
            .args(["up", "--env", "postgres"])
            .env("AGENTRUNNER_SERVICES", &self.folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no server: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends it in an instant, as a power failure would.
    pub(crate) fn kill(&self) {
        let file = std::fs::read_to_string(self.folder.join("postgres/pid")).unwrap();
        let pid = file.lines().next().unwrap();
        let killed = Command::new("kill").args(["-KILL", pid]).status().unwrap();
        assert!(killed.success());
    }

    /// Stops it in good order, keeping its data.
    pub(crate) fn stop(&self) {
        let stopped = Command::new(script())
            .args(["down", "--keep", "postgres"])
            .env("AGENTRUNNER_SERVICES", &self.folder)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(stopped.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.undertaker.stdin.take());
        // It may be gone already; then there is nothing to wait for.
        self.undertaker.wait().ok();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services")
}
