//! One process of the product, and whoever starts it again when it is gone: what a supervisor does in production.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Child;

use super::agents;
use super::role::{Door, PORTS, Role};
use crate::product::Project;

/// Between two looks at the process.
const GLANCE: Duration = Duration::from_millis(100);
/// How long a kill waits for the process to serve: at its start it has little to lose.
const WORTH_KILLING: Duration = Duration::from_secs(10);
/// How long one that ended before it served is left alone.
const REST: Duration = Duration::from_millis(500);
/// How long a stop or a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A place where a process runs, one after the other.
pub(super) struct Process {
    pub(super) role: Role,
    variables: Vec<(&'static str, String)>,
    project: Project,
    running: Mutex<Option<Running>>,
    /// The program that it is started from.
    program: Mutex<PathBuf>,
    /// Whether it should run.
    is_wanted: AtomicBool,
    is_frozen: AtomicBool,
    /// Whether it was told to stop, by us.
    is_leaving: AtomicBool,
    /// How often it was started, and how often it ended before it served, for want of a server.
    pub(super) starts: AtomicUsize,
    pub(super) vain_starts: AtomicUsize,
    /// How often it ended by itself after it had served. It must not.
    pub(super) own_ends: Mutex<Vec<String>>,
}

struct Running {
    child: Child,
    /// By variable.
    ports: Vec<(&'static str, u16)>,
    serves: bool,
}

impl Running {
    fn url(&self, port: &str) -> String {
        let (_, port) = self.ports.iter().find(|(name, _)| *name == port).unwrap();
        format!("http://127.0.0.1:{port}")
    }
}

impl Process {
    pub(super) fn new(
        role: Role,
        effects: &str,
        mut variables: Vec<(&'static str, String)>,
    ) -> Self {
        let project = Project::new();
        agents::write(&project, effects, agents::Kind::ALL);
        let clock = project.path().join("clock");
        variables.push(("TEST_CLOCK_FILE", clock.to_str().unwrap().to_owned()));
        Self {
            role,
            variables,
            project,
            running: Mutex::default(),
            program: Mutex::new(crate::product::PROGRAM.into()),
            is_wanted: AtomicBool::new(true),
            is_frozen: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            starts: AtomicUsize::new(0),
            vain_starts: AtomicUsize::new(0),
            own_ends: Mutex::default(),
        }
    }

    /// Keeps it running while it is wanted, for ever.
    pub(super) async fn supervise(&self, client: &reqwest::Client) {
        loop {
            if !self.look() {
                tokio::time::sleep(REST).await;
            }
            if let Some(url) = self.not_yet_serving() {
                let live = client.get(format!("{url}/health/live"));
                let live = live.timeout(Duration::from_secs(2)).send().await;
                if live.is_ok_and(|answer| answer.status().is_success()) {
                    self.now_serves(&url);
                }
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Starts what is gone and wanted; `false` when it ended before it served.
    fn look(&self) -> bool {
        let mut running = self.lock();
        if self.is_leaving.load(Ordering::Acquire) {
            return true;
        }
        if let Some(one) = running.as_mut()
            && let Some(status) = one.child.try_wait().unwrap()
        {
            let served = one.serves;
            *running = None;
            if !served {
                self.vain_starts.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            let what = format!("{status}\n{}", self.log_tail());
            self.own_ends.lock().unwrap().push(what);
        }
        if running.is_none() && self.is_wanted.load(Ordering::Acquire) {
            *running = Some(self.start());
        }
        true
    }

    fn start(&self) -> Running {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let ports = PORTS.map(|name| (name, quiet_port())).to_vec();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let variables: Vec<(&str, &str)> = self
            .variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let program = self.program.lock().unwrap().clone();
        let child = self
            .project
            .command_of(&program, &variables)
            .envs(ports.iter().map(|(name, port)| (name, port.to_string())))
            .args(self.role.arguments())
            .stdout(log.try_clone().unwrap())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        Running {
            child,
            ports,
            serves: false,
        }
    }

    fn not_yet_serving(&self) -> Option<String> {
        let running = self.lock();
        let one = running.as_ref().filter(|one| !one.serves)?;
        Some(one.url(self.role.port()))
    }

    fn now_serves(&self, url: &str) {
        let port = self.role.port();
        if let Some(one) = self.lock().as_mut().filter(|one| one.url(port) == url) {
            one.serves = true;
        }
    }

    /// Where such a door is, if it has one and serves at this moment.
    pub(super) fn url(&self, door: Door) -> Option<String> {
        let port = self.role.has(door).then_some(door.port())?;
        self.url_of(port)
    }

    /// Where it tells of its health, once it serves.
    pub(super) fn health_url(&self) -> Option<String> {
        self.url_of(self.role.port())
    }

    fn url_of(&self, port: &str) -> Option<String> {
        let running = self.lock();
        let one = running.as_ref().filter(|one| one.serves)?;
        Some(one.url(port))
    }

    pub(super) fn serves(&self) -> bool {
        self.lock().as_ref().is_some_and(|one| one.serves)
    }

    /// SIGKILL; started again after `down`. One that does not serve for long is killed while it starts. Tells whether
    /// there was something to kill.
    pub(super) async fn kill(&self, down: Duration) -> bool {
        let began = Instant::now();
        while !self.serves() && began.elapsed() < WORTH_KILLING {
            tokio::time::sleep(GLANCE).await;
        }
        self.is_wanted.store(false, Ordering::Release);
        let taken = self.lock().take();
        let was_alive = match taken {
            Some(mut one) => {
                let was_alive = one.child.try_wait().unwrap().is_none();
                one.child.kill().await.unwrap();
                was_alive
            }
            None => false,
        };
        tokio::time::sleep(down).await;
        self.is_wanted.store(true, Ordering::Release);
        was_alive
    }

    /// Starts the next one from another program.
    pub(super) fn use_program(&self, program: &Path) {
        program.clone_into(&mut self.program.lock().unwrap());
    }

    /// SIGTERM; who sends requests goes elsewhere once it says that it is not ready. Then it must end with 0, and the
    /// next one is waited for.
    ///
    /// # Errors
    /// It does otherwise.
    pub(super) async fn replace(&self, client: &reqwest::Client) -> Result<(), String> {
        let name = self.role.name();
        let (Some(id), Some(url)) = (self.id(), self.health_url()) else {
            return Err(format!("{name} does not run"));
        };
        self.is_leaving.store(true, Ordering::Release);
        assert!(signal(id, "TERM"));
        let began = Instant::now();
        let mut said = None;
        while said.is_none() && began.elapsed() < PATIENCE {
            let ready = client.get(format!("{url}/health/ready")).send().await;
            match ready.map(|answer| answer.status().as_u16()) {
                Ok(200) => tokio::time::sleep(GLANCE / 4).await,
                Ok(503) => said = Some(Ok(())),
                other => said = Some(Err(format!("{name} said {other:?} when it was to stop"))),
            }
        }
        let taken = self.lock().take();
        let mut one = taken.expect("nobody else ends it");
        let ended = tokio::time::timeout(PATIENCE, one.child.wait()).await;
        self.is_leaving.store(false, Ordering::Release);
        match ended {
            Ok(Ok(status)) if status.success() => {}
            other => {
                return Err(format!(
                    "{name} was to stop: {other:?}\n{}",
                    self.log_tail()
                ));
            }
        }
        said.unwrap_or_else(|| Err(format!("{name} never says that it stops")))?;
        while !self.is_ready(client).await {
            if began.elapsed() > 2 * PATIENCE {
                return Err(format!("{name} does not start\n{}", self.log_tail()));
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Whether it says that it is ready, its servers included.
    pub(super) async fn is_ready(&self, client: &reqwest::Client) -> bool {
        let Some(url) = self.health_url() else {
            return false;
        };
        let ready = client.get(format!("{url}/health/ready"));
        let ready = ready.timeout(Duration::from_secs(5)).send().await;
        ready.is_ok_and(|answer| answer.status().is_success())
    }

    /// SIGSTOP, and SIGCONT after `length`. Tells whether there was something to stop.
    pub(super) async fn freeze(&self, length: Duration) -> bool {
        let Some(id) = self.id() else { return false };
        self.is_frozen.store(true, Ordering::Release);
        // It may have ended in this moment, for want of a server.
        if !signal(id, "STOP") {
            self.is_frozen.store(false, Ordering::Release);
            return false;
        }
        tokio::time::sleep(length).await;
        // Nothing else kills it meanwhile: one fault at a time.
        assert!(signal(id, "CONT"));
        self.is_frozen.store(false, Ordering::Release);
        true
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Acquire)
    }

    /// Sets its clock this far from the true time.
    pub(super) fn set_clock(&self, seconds: i64) {
        // Renamed into place, so that nobody reads half of it.
        let (new, path) = (
            self.project.path().join("clock.new"),
            self.project.path().join("clock"),
        );
        std::fs::write(&new, (seconds * 1000).to_string()).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.lock().as_ref().and_then(|one| one.child.id())
    }

    fn log_path(&self) -> PathBuf {
        self.project.path().join("up.log")
    }

    /// What all its processes logged.
    pub(super) fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Keeps its log in a folder, under its number.
    pub(super) fn keep_log(&self, folder: &Path, number: usize) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::copy(
            self.log_path(),
            folder.join(format!("process-{number}.log")),
        )
        .ok();
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port that nobody has: not among those that the system gives to connections, of which there are hundreds here, and
/// another each time, since many processes start at once.
fn quiet_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // Other tests begin elsewhere.
        let place = std::process::id().wrapping_mul(97).wrapping_add(next) % COUNT;
        let port = u16::try_from(FIRST + place).expect("it is below 32,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Tells whether there is such a process.
fn signal(id: u32, name: &str) -> bool {
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &id.to_string()])
        .status()
        .unwrap();
    sent.success()
}
