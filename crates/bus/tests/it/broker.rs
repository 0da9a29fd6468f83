//! Brokers for tests: one for all tests of this binary, and one that may be killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bus::RabbitMq;
use bus::rabbitmq::Settings;
use lapin::uri::AMQPUri;

/// Names a broker that runs already, such as `amqp://guest:guest@localhost`. Each test uses names of its own.
const VARIABLE: &str = "AGENTRUNNER_TEST_RABBITMQ_URL";

/// The URL of the broker for tests that do it no harm.
pub(crate) fn url() -> String {
    static SHARED: OnceLock<String> = OnceLock::new();
    let start = || {
        std::env::var(VARIABLE).unwrap_or_else(|_| {
            // Not dropped: it is stopped when the binary ends.
            Box::leak(Box::new(Broker::start())).url.clone()
        })
    };
    SHARED.get_or_init(start).clone()
}

/// A prefix that no other test has, on this broker or by another run.
pub(crate) fn prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let began = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!(
        "test.{:x}.{}.{number}.",
        began.as_millis(),
        std::process::id()
    )
}

pub(crate) fn settings(url: &str, prefix: &str) -> Settings {
    Settings {
        prefix: prefix.to_owned(),
        // A loaded machine is no failure.
        timeout: Duration::from_secs(20),
        patience: Duration::from_secs(60),
        ..Settings::new(url.into())
    }
}

pub(crate) async fn connect(prefix: &str) -> RabbitMq {
    RabbitMq::connect(settings(&url(), prefix)).await.unwrap()
}

/// What a test does behind the back of the bus.
pub(crate) async fn channel(url: &str) -> lapin::Channel {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    // The channel keeps it open.
    connection.await.unwrap().create_channel().await.unwrap()
}

/// A broker of one's own, gone with the value or with the process, whatever ends it.
pub(crate) struct Broker {
    pub(crate) url: String,
    folder: PathBuf,
    /// Stops the broker when its input ends.
    undertaker: Child,
}

impl Broker {
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
        let mut broker = Self {
            url: String::new(),
            folder,
            undertaker,
        };
        let exports = broker.up();
        let value = |name: &str| {
            let line = exports.lines().find_map(|line| {
                line.strip_prefix("export ")?
                    .strip_prefix(name)?
                    .strip_prefix('=')
            });
            line.unwrap_or_else(|| panic!("{name} is not in {exports}"))
        };
        broker.url = format!(
            "amqp://{}:{}@{}:{}",
            value("RABBITMQ_USER"),
            value("RABBITMQ_PASSWORD"),
            value("RABBITMQ_HOST"),
            value("RABBITMQ_PORT")
        );
        broker
    }

    /// Starts it unless it runs, with the data that it had.
    pub(crate) fn up(&self) -> String {
        let output = Command::new(script())
            .args(["up", "--env", "rabbitmq"])
            .env("AGENTRUNNER_SERVICES", &self.folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no broker: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends it in an instant, as a power failure would.
    pub(crate) fn kill(&self) {
        let file = std::fs::read_to_string(self.folder.join("rabbitmq/pid")).unwrap();
        let pid = file.lines().next().unwrap();
        let killed = Command::new("kill").args(["-KILL", pid]).status().unwrap();
        assert!(killed.success());
    }

    /// Stops it in good order, keeping its data.
    pub(crate) fn stop(&self) {
        let stopped = Command::new(script())
            .args(["down", "--keep", "rabbitmq"])
            .env("AGENTRUNNER_SERVICES", &self.folder)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(stopped.success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.undertaker.stdin.take());
        // It may be gone already; then there is nothing to wait for.
        self.undertaker.wait().ok();
    }
}

/// The same URL by way of another address, such as a proxy's.
pub(crate) fn by_way_of(url: &str, address: SocketAddr) -> String {
    let uri: AMQPUri = url.parse().unwrap();
    let user = uri.authority.userinfo;
    format!("amqp://{}:{}@{address}", user.username, user.password)
}

pub(crate) fn address(url: &str) -> SocketAddr {
    let uri: AMQPUri = url.parse().unwrap();
    format!("{}:{}", uri.authority.host, uri.authority.port)
        .parse()
        .unwrap()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services")
}
