//! PostgreSQL and RabbitMQ for tests: shared ones, and ones that may be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tokio_postgres::{Client, NoTls};

/// Name servers that run already, as `scripts/test` does. The user must be allowed to make databases; they are left
/// behind.
const POSTGRES_URL: &str = "AGENTRUNNER_TEST_POSTGRES_URL";
const RABBITMQ_URL: &str = "AGENTRUNNER_TEST_RABBITMQ_URL";

/// Variables that make the product use a server.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// As the helpers that start the product take them.
pub(crate) fn borrowed(variables: &Variables) -> Vec<(&str, &str)> {
    variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

/// An empty database of one's own on the PostgreSQL of all tests.
pub(crate) async fn postgres() -> Variables {
    let url = shared(POSTGRES_URL, "postgres").await;
    vec![("DATABASE_URL", new_database(&url).await)]
}

/// The RabbitMQ of all tests. Its messages are hints, so tests may hear each other.
pub(crate) async fn rabbitmq() -> Variables {
    vec![("RABBITMQ_URL", shared(RABBITMQ_URL, "rabbitmq").await)]
}

async fn shared(variable: &'static str, name: &'static str) -> String {
    static POSTGRES: OnceLock<String> = OnceLock::new();
    static RABBITMQ: OnceLock<String> = OnceLock::new();
    let place = if name == "postgres" {
        &POSTGRES
    } else {
        &RABBITMQ
    };
    let start = move || {
        place.get_or_init(|| {
            std::env::var(variable).unwrap_or_else(|_| {
                // Not dropped: it is stopped when the binary ends.
                Box::leak(Box::new(Server::start(name))).url()
            })
        })
    };
    tokio::task::spawn_blocking(start).await.unwrap().clone()
}

/// Makes a database beside the one of the URL; answers its URL.
async fn new_database(url: &str) -> String {
    let name = format!("agentrunner_{}", uuid::Uuid::now_v7().simple());
    let sql = format!("CREATE DATABASE {name} TEMPLATE template0");
    session(url).await.batch_execute(&sql).await.unwrap();
    format!("{}/{name}", url.rsplit_once('/').unwrap().0)
}

/// A session behind the product's back.
pub(crate) async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client
}

/// A server of one's own, gone with the value or with the process, whatever ends it.
pub(crate) struct Server {
    name: &'static str,
    exports: Vec<(String, String)>,
    folder: PathBuf,
    /// Stops the server when its input ends.
    undertaker: Child,
}

impl Server {
    /// Starts `postgres` or `rabbitmq`.
    pub(crate) fn start(name: &'static str) -> Self {
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
            name,
            exports: Vec::new(),
            folder,
            undertaker,
        };
        server.exports = server
            .up()
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        server
    }

    /// What `scripts/services up --env` prints, for the product.
    pub(crate) fn variables(&self) -> Variables {
        let known: &[&str] = match self.name {
            "postgres" => &[
                "POSTGRES_HOST",
                "POSTGRES_PORT",
                "POSTGRES_DB",
                "POSTGRES_USER",
                "POSTGRES_PASSWORD",
            ],
            _ => &[
                "RABBITMQ_HOST",
                "RABBITMQ_PORT",
                "RABBITMQ_USER",
                "RABBITMQ_PASSWORD",
            ],
        };
        known.iter().map(|name| (*name, self.value(name))).collect()
    }

    pub(crate) fn url(&self) -> String {
        let (scheme, prefix, path) = match self.name {
            "postgres" => (
                "postgres",
                "POSTGRES",
                format!("/{}", self.value("POSTGRES_DB")),
            ),
            _ => ("amqp", "RABBITMQ", String::new()),
        };
        let value = |name: &str| self.value(&format!("{prefix}_{name}"));
        format!(
            "{scheme}://{}:{}@{}:{}{path}",
            value("USER"),
            value("PASSWORD"),
            value("HOST"),
            value("PORT")
        )
    }

    fn value(&self, name: &str) -> String {
        let found = self.exports.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    }

    /// Starts it unless it runs, with the data that it had.
    pub(crate) fn up(&self) -> String {
        let output = Command::new(script())
            .args(["up", "--env", self.name])
            .env("AGENTRUNNER_SERVICES", &self.folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no {}: {said}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends it in an instant, as a power failure would.
    pub(crate) fn kill(&self) {
        let path = self.folder.join(self.name).join("pid");
        let file = std::fs::read_to_string(path).unwrap();
        let pid = file.lines().next().unwrap();
        let killed = Command::new("kill").args(["-KILL", pid]).status().unwrap();
        assert!(killed.success());
    }
}

impl Server {
    /// Stops it in good order, keeping its data.
    pub(crate) fn stop(&self) {
        let stopped = Command::new(script())
            .args(["down", "--keep", self.name])
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
