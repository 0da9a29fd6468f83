//! Real PostgreSQL, RabbitMQ and Redis for tests: one of each for all that do it no harm, and private ones that may be
//! killed, frozen, and cut off.
//!
//! ```no_run
//! # use agentrunner_testkit as testkit;
//! # async fn a_test() {
//! use testkit::servers::{self, Kind, Server};
//!
//! let url = servers::shared(Kind::Redis).await; // must come to no harm; use names that are `unique_name()`s
//! let broker = Server::start(Kind::RabbitMq).await; // a private one, gone with the value or the test's process
//! let (proxy, by_proxy) = broker.proxied(); // the same server behind a `FaultProxy`
//! broker.kill(); // kill -9, as a power failure would
//! broker.up().await; // again, on the same port with the same data
//! broker.pause(); // SIGSTOP: it accepts connections and never answers
//! broker.resume();
//! let variables = broker.variables(); // what makes the product use it
//! # }
//! ```
//!
//! They are started by `scripts/services`, which installs what is missing. A server that takes part in many tests is
//! named by the variable of its [`Kind`], as `scripts/test` does; without it, each test binary starts one.

mod urls;

use std::env;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::UNIX_EPOCH;

use tokio::sync::OnceCell;

use crate::FaultProxy;

pub use urls::{address, by_way_of, with_database};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// PostgreSQL, with `fsync` and `synchronous_commit`. `AGENTRUNNER_TEST_POSTGRES_URL` names a shared one, whose user
    /// must be allowed to make databases.
    Postgres,
    /// RabbitMQ. `AGENTRUNNER_TEST_RABBITMQ_URL` names a shared one.
    RabbitMq,
    /// Redis, which keeps nothing on disk. `AGENTRUNNER_TEST_REDIS_URL` names a shared one.
    Redis,
}

impl Kind {
    /// Returns the variable that names a server which runs already.
    #[must_use]
    pub fn test_variable(self) -> &'static str {
        match self {
            Self::Postgres => "AGENTRUNNER_TEST_POSTGRES_URL",
            Self::RabbitMq => "AGENTRUNNER_TEST_RABBITMQ_URL",
            Self::Redis => "AGENTRUNNER_TEST_REDIS_URL",
        }
    }

    /// Returns the variable that makes the product use a server.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "DATABASE_URL",
            Self::RabbitMq => "RABBITMQ_URL",
            Self::Redis => "REDIS_URL",
        }
    }

    /// Its name for `scripts/services`.
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::RabbitMq => "rabbitmq",
            Self::Redis => "redis",
        }
    }
}

/// Returns the URL of the server for tests that do it no harm. The first call may start it; it is gone with the process.
///
/// # Panics
/// When it does not start.
pub async fn shared(kind: Kind) -> &'static str {
    static POSTGRES: OnceCell<String> = OnceCell::const_new();
    static RABBITMQ: OnceCell<String> = OnceCell::const_new();
    static REDIS: OnceCell<String> = OnceCell::const_new();
    let cell = match kind {
        Kind::Postgres => &POSTGRES,
        Kind::RabbitMq => &RABBITMQ,
        Kind::Redis => &REDIS,
    };
    let start = || async {
        match env::var(kind.test_variable()) {
            Ok(url) => url,
            Err(_) => Box::leak(Box::new(Server::start(kind).await)).url(),
        }
    };
    cell.get_or_init(start).await
}

/// Makes a name that no other test has, on the same server or in another run: small letters, digits and `_`.
#[must_use]
pub fn unique_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    format!("test_{now:x}_{}_{number}", std::process::id())
}

/// A private server. It is stopped and its data removed with the value, or with the process, whatever ends that.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    folder: PathBuf,
    /// What `scripts/services up --env` says of it.
    exports: Vec<(String, String)>,
    /// Stops the server when its input ends.
    undertaker: Child,
}

impl Server {
    /// Starts one on a free port with a folder of its own; answers when it can be used.
    ///
    /// # Panics
    /// When it does not start; the message has the end of its log.
    pub async fn start(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let undertaker = Command::new("setsid")
            .args(["bash", "-c"])
            .arg(r#"read -r; "$0" down; rm -rf "$AGENTRUNNER_SERVICES""#)
            .arg(script())
            .env("AGENTRUNNER_SERVICES", &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash and setsid are installed");
        let mut server = Self {
            kind,
            folder,
            exports: Vec::new(),
            undertaker,
        };
        let said = server.services(&["up", "--env", kind.name()]).await;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let exports = said.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        server.exports = exports.collect();
        server
    }

    /// Returns its URL, with password.
    #[must_use]
    pub fn url(&self) -> String {
        let at = |name: &str| format!("{}:{}", self.export(&format!("{name}_HOST")), self.port());
        let user = |name: &str| {
            let (user, password) = (format!("{name}_USER"), format!("{name}_PASSWORD"));
            format!("{}:{}@", self.export(&user), self.export(&password))
        };
        match self.kind {
            Kind::Postgres => format!(
                "postgres://{}{}/{}",
                user("POSTGRES"),
                at("POSTGRES"),
                self.export("POSTGRES_DB")
            ),
            Kind::RabbitMq => format!("amqp://{}{}", user("RABBITMQ"), at("RABBITMQ")),
            Kind::Redis => format!("redis://{}", at("REDIS")),
        }
    }

    /// Returns the variables that make the product use it.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(self.kind.variable(), self.url())]
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        address(&self.url())
    }

    /// Puts a proxy before it; returns that and the URL of the server by way of it.
    #[must_use]
    pub fn proxied(&self) -> (FaultProxy, String) {
        let proxy = FaultProxy::start(self.address());
        let url = by_way_of(&self.url(), proxy.address());
        (proxy, url)
    }

    /// Returns one of the values that `scripts/services up --env` prints, such as `RABBITMQ_MANAGEMENT_URL`.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn export(&self, name: &str) -> &str {
        let found = self.exports.iter().find(|(known, _)| known == name);
        found.map_or_else(
            || panic!("no {name} for {:?}", self.kind),
            |(_, value)| value,
        )
    }

    /// Starts it unless it runs, with the port and the data that it had; answers when it can be used.
    ///
    /// # Panics
    /// When it does not start; the message has the end of its log.
    pub async fn up(&self) {
        self.services(&["up", self.kind.name()]).await;
    }

    /// Stops it in good order and keeps its data.
    ///
    /// # Panics
    /// When that does not work.
    pub async fn stop(&self) {
        self.services(&["down", "--keep", self.kind.name()]).await;
    }

    /// Ends it in an instant, as a power failure would. What PostgreSQL forked notices that a moment later.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self) {
        let killed = Command::new("kill")
            .args(["-KILL", &self.pid().to_string()])
            .status();
        assert!(killed.expect("kill is installed").success(), "it must run");
    }

    /// Freezes it and all its processes: connections stay open and new ones are accepted, and nothing is answered.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.services_now(&["pause", self.kind.name()]);
    }

    /// Lets it go on after [`Server::pause`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.services_now(&["resume", self.kind.name()]);
    }

    /// Asks a RabbitMQ by `rabbitmqctl`; answers what that prints. Takes some seconds.
    ///
    /// # Panics
    /// When it fails.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        let arguments: Vec<&str> = std::iter::once("rabbitmqctl")
            .chain(arguments.iter().copied())
            .collect();
        let output = self.services(&arguments).await;
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the id of its first process.
    ///
    /// # Panics
    /// When it was stopped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let path = self.folder.join(self.kind.name()).join("pid");
        let file = std::fs::read_to_string(path).expect("it was started");
        let pid = file.lines().next().and_then(|line| line.parse().ok());
        pid.expect("a process id")
    }

    fn port(&self) -> &str {
        self.export(&format!("{}_PORT", self.kind.name().to_uppercase()))
    }

    async fn services(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        succeeded(output.expect("it does not panic"), arguments)
    }

    fn services_now(&self, arguments: &[&str]) {
        succeeded(self.command(arguments).output(), arguments);
    }

    fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(script());
        command
            .args(arguments)
            .env("AGENTRUNNER_SERVICES", &self.folder)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.undertaker.stdin.take());
        // It may be gone already; then there is nothing to wait for.
        self.undertaker.wait().ok();
    }
}

fn succeeded(output: std::io::Result<Output>, arguments: &[&str]) -> Output {
    let output = output.expect("scripts/services can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "scripts/services {}: {said}",
        arguments.join(" ")
    );
    output
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services")
}
