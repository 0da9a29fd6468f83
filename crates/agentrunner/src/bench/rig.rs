//! What every measurement stands on: a folder of its own, agents, the stand-in provider as a process, and the real
//! wiring.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::asking::Make;
use super::disk;
use super::report::Report;
use super::statistics::{ms, percentile};
use crate::cli::Context;
use crate::settings::Settings;
use crate::wiring::{Purpose, System};

/// How long the stand-in is asked alone.
const ALONE: Duration = Duration::from_millis(1500);
const ALONE_AT_ONCE: usize = 64;
const COMMITS: usize = 200;

/// The agents and the path of the stand-in that each asks.
pub(crate) const TURNS: &str = "bench-turns";
pub(crate) const SCHEMA: &str = "bench-schema";
pub(crate) const ASK: &str = "bench-ask";
pub(crate) const SCHEDULED: &str = "bench-scheduled";
pub(crate) const SLEEPER: &str = "bench-sleeper";

/// A folder that is deleted when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Below `parent`, or below `DATA_DIR`: measured is the disk that would be used.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) fn new(settings: &Settings, parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.unwrap_or(&settings.data_dir);
        let name = format!("bench-{}", uuid::Uuid::now_v7().simple());
        let path = parent.join(name);
        std::fs::create_dir_all(path.join("config/agents"))
            .with_context(|| format!("{} can't be written", path.display()))?;
        Ok(Self(std::path::absolute(path)?))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the folder of the bench is left behind");
        }
    }
}

/// The stand-in as a process.
pub(crate) struct Provider {
    pub(crate) url: String,
    // Killed when it is dropped.
    _child: Child,
}

impl Provider {
    /// Starts it.
    ///
    /// # Errors
    /// This program can't be started once more.
    pub(crate) async fn start(latency: Duration) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bench-provider")
            .arg("--latency-ms")
            .arg(latency.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let out = child.stdout.take().context("the stand-in has no output")?;
        let url = BufReader::new(out)
            .lines()
            .next_line()
            .await?
            .context("the stand-in did not start")?;
        Ok(Self { url, _child: child })
    }

    /// Requests a second that it answers without latency, asked by the client that the engine uses too.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn requests_per_s(&self) -> anyhow::Result<f64> {
        let client = client()?;
        let began = Instant::now();
        let answers = futures::stream::repeat(())
            .take_while(|()| std::future::ready(began.elapsed() < ALONE))
            .map(|()| self.ask(&client, "/bare/turns"))
            .buffer_unordered(ALONE_AT_ONCE)
            .fold(Ok(0u32), |count: anyhow::Result<u32>, answer| async move {
                answer?;
                Ok(count? + 1)
            })
            .await?;
        Ok(f64::from(answers) / began.elapsed().as_secs_f64())
    }

    /// One model turn without an engine: asked, and read to the end.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn ask(
        &self,
        client: &reqwest::Client,
        path: &str,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let body = json!({
            "model": "bench", "stream": true,
            "messages": [{ "role": "system", "content": "You are measured." }, { "role": "user", "content": "Go." }],
        });
        let url = format!("{}{path}/v1/chat/completions", self.url);
        client
            .post(url)
            .json(&body)
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?;
        Ok(began.elapsed())
    }
}

/// A client that asks this machine directly.
///
/// # Errors
/// TLS can't be set up.
pub(crate) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
}

/// What Slack's requests are signed with.
pub(crate) const SLACK_SECRET: &str = "measured";

/// How a system can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faces {
    /// Through the engine, in this process.
    None,
    /// Over HTTP too.
    Http,
    /// Over HTTP, of a process that accepts and performs nothing.
    Orchestrator,
    /// As Slack sends events, too.
    Slack,
    /// Through the engine, which performs nothing.
    Scheduler,
}

/// The system under measurement.
pub(crate) struct Rig {
    pub(crate) system: System,
    pub(crate) provider: Provider,
    pub(crate) folder: Folder,
}

impl Rig {
    /// Builds and starts it.
    ///
    /// # Errors
    /// The folder can't be written, or a process not started.
    pub(crate) async fn start(
        context: &Context,
        latency: Duration,
        capacity: usize,
        store_dir: Option<&Path>,
    ) -> anyhow::Result<Self> {
        Self::with(context, latency, capacity, store_dir, Faces::None).await
    }

    /// The same, with these faces.
    ///
    /// # Errors
    /// As for [`Rig::start`].
    pub(crate) async fn with(
        context: &Context,
        latency: Duration,
        capacity: usize,
        store_dir: Option<&Path>,
        faces: Faces,
    ) -> anyhow::Result<Self> {
        Self::among(context, latency, capacity, store_dir, (faces, 0)).await
    }

    /// The same, with so many agents more that wait for events, and without faces.
    ///
    /// # Errors
    /// As for [`Rig::start`].
    pub(crate) async fn listened_to(
        context: &Context,
        listeners: u32,
        capacity: usize,
        store_dir: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let among = (Faces::None, listeners);
        Self::among(context, Duration::ZERO, capacity, store_dir, among).await
    }

    /// The same, with these faces and so many agents more that wait for events.
    ///
    /// # Errors
    /// As for [`Rig::start`].
    pub(crate) async fn among(
        context: &Context,
        latency: Duration,
        capacity: usize,
        store_dir: Option<&Path>,
        (faces, listeners): (Faces, u32),
    ) -> anyhow::Result<Self> {
        let folder = Folder::new(&context.settings, store_dir)?;
        let provider = Provider::start(latency).await?;
        write_agents(folder.path(), &provider.url, listeners)?;
        let mut settings = context.settings.clone();
        settings.config_dir = folder.path().join("config");
        settings.data_dir = folder.path().join("data");
        settings.work.capacity = capacity;
        settings.models.instead = None;
        let system = match faces {
            Faces::None => System::engine_alone(&settings).await?,
            Faces::Http => System::private(&settings, Purpose::Work).await?,
            Faces::Orchestrator => System::private(&settings, Purpose::Accept).await?,
            Faces::Slack => System::with_slack(&settings, SLACK_SECRET).await?,
            Faces::Scheduler => System::scheduler_alone(&settings).await?,
        };
        Ok(Self {
            system,
            provider,
            folder,
        })
    }

    /// Adds what the disk can do alone.
    ///
    /// # Errors
    /// The disk can't be written.
    pub(crate) async fn report_disk(&self, report: &mut Report) -> anyhow::Result<()> {
        report.add(
            "fsync_ms_p50",
            "raw fsync, median",
            disk::fsync_ms(self.folder.path())?,
            "ms",
        );
        report.add(
            "commit_ms_p50",
            "one row committed, median",
            self.commit_ms().await?,
            "ms",
        );
        Ok(())
    }

    /// The median time of a transaction with one row, one after the other.
    async fn commit_ms(&self) -> anyhow::Result<f64> {
        let mut samples = Vec::with_capacity(COMMITS);
        for _ in 0..COMMITS {
            samples.push(ms(self.commit().await?));
        }
        Ok(percentile(&mut samples, 50.0))
    }

    /// The time of one transaction with one row.
    ///
    /// # Errors
    /// The store can't be written.
    pub(crate) async fn commit(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.system.engine().store().check().await?;
        Ok(began.elapsed())
    }

    /// A request to it, with the key that it wants.
    pub(crate) fn request(
        &self,
        make: impl Fn(&reqwest::Client) -> reqwest::RequestBuilder + Send + Sync + 'static,
    ) -> Make {
        let key = self.system.own_key();
        Arc::new(move |client, _| match &key {
            Some(key) => make(client).bearer_auth(key.expose_secret()),
            None => make(client),
        })
    }

    /// Ends it and deletes its folder.
    pub(crate) async fn close(self) {
        self.system.shutdown(Duration::ZERO).await;
    }
}

/// The name of an agent that waits for events, and their topic.
pub(crate) fn listener(which: u32) -> (String, String) {
    (
        format!("bench-listener-{which}"),
        format!("bench.event.{which}"),
    )
}

/// Writes the agents into a folder.
///
/// # Errors
/// It can't be written.
pub(crate) fn write_agents(folder: &Path, provider: &str, listeners: u32) -> std::io::Result<()> {
    let agents = [
        (
            TURNS,
            "turns",
            "tools:\n  - name: current_time\n    type: function\n",
        ),
        (
            SCHEMA,
            "schema",
            "output_schema: {type: object, required: [x], properties: {x: {type: integer}}}\n",
        ),
        (
            ASK,
            "ask",
            "tools:\n  - name: ask_human\n    type: function\n",
        ),
        (
            SCHEDULED,
            "turns",
            "tools:\n  - name: current_time\n    type: function\nschedule_config: {type: interval, interval_seconds: 86400}\n",
        ),
        (
            SLEEPER,
            "clock",
            "continuous_config: {max_conversation_history: 1000}\n",
        ),
    ];
    let agents = agents.map(|(name, path, rest)| (name.to_owned(), path, rest.to_owned()));
    let listeners = (0..listeners).map(|which| {
        let (name, topic) = listener(which);
        (name, "clock", format!("event_subscriptions: [{topic}]\n"))
    });
    for (name, path, rest) in agents.into_iter().chain(listeners) {
        let mode = match name.as_str() {
            SCHEDULED => "scheduled",
            SLEEPER => "continuous",
            _ => "autonomous",
        };
        let text = format!(
            "name: {name}\nexecution_mode: {mode}\nsystem_prompt: You are measured.\nllm_config:\n  provider: openai\n  model: bench\n  api_base: {provider}/{path}/v1\n{rest}"
        );
        std::fs::write(folder.join(format!("config/agents/{name}.yml")), text)?;
    }
    Ok(())
}
