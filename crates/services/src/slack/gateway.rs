//! Takes errands and does them: what came in, in order within each thread, and what is to go out, side by side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::Time;
use futures::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::{Errand, ErrandChange, ErrandClaim, ErrandNext, NewErrand, Store};
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::CallError;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::pace::Method;
use super::{Slack, intake, outgoing, socket};
use crate::http::App;

/// What came in.
pub(super) const IN: &str = "slack-in";
/// What is to go out.
pub(super) const OUT: &str = "slack-out";
/// Which agent a thread belongs to; nothing is to be done about these but to forget them.
pub(super) const THREADS: &str = "slack-threads";

/// How often it is looked whether another process has left something.
const POLL: Duration = Duration::from_secs(1);
/// How much is taken in at once.
const BATCH: usize = 64;
/// How many threads are looked after at once.
const AT_ONCE: usize = 16;
/// How much is sent side by side: an execution that is followed has a place until it ends.
const OPEN: usize = 4096;
/// How long it is known what was done.
const KNOWN: Duration = Duration::from_secs(3 * 86_400);
/// How often what was done longer ago is forgotten.
const SWEEP: Duration = Duration::from_secs(600);

/// What those who do errands work with.
#[derive(Clone)]
pub(super) struct Gateway {
    pub(super) slack: Slack,
    pub(super) app: App,
}

impl Gateway {
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.app.engine.store()
    }

    pub(super) fn now(&self) -> Time {
        self.app.engine.now()
    }

    /// Adds something that is to go out; what is known is there already.
    ///
    /// # Errors
    /// The store can't take it.
    pub(super) async fn send(&self, id: String, outgoing: &Outgoing) -> store::Result<()> {
        let errand = NewErrand {
            id,
            queue: OUT.to_owned(),
            body: serde_json::to_string(outgoing).unwrap_or_default(),
            due_at: self.now(),
        };
        self.store().add_errand(errand).await?;
        self.slack.0.goes.notify_one();
        Ok(())
    }

    /// Looks at something again that is to go out.
    ///
    /// # Errors
    /// The store can't be reached.
    pub(super) async fn wake(&self, id: &str) -> store::Result<()> {
        self.store().wake_errand(id, self.now()).await?;
        self.slack.0.goes.notify_one();
        Ok(())
    }

    async fn claim(&self, queue: &str, limit: usize) -> Vec<Errand> {
        let claim = ErrandClaim {
            queue: queue.to_owned(),
            now: self.now(),
            lease: self.slack.0.lease,
            limit,
        };
        let claimed = self.store().claim_errands(claim).await;
        claimed.unwrap_or_else(|error| {
            tracing::warn!(%error, "what is to be done for Slack can't be looked up; it is tried again");
            Vec::new()
        })
    }
}

/// Runs until the app's shutdown.
pub(super) async fn run(slack: Slack, app: App) {
    let stop = app.shutdown.clone();
    let gateway = Gateway { slack, app };
    let sockets = async {
        match &gateway.slack.0.client {
            Some(client) if client.can_listen() => socket::listen(&gateway, client, &stop).await,
            _ => {}
        }
    };
    tokio::join!(
        take_in(&gateway, &stop),
        send_out(&gateway, &stop),
        sweep(&gateway, &stop),
        greet(&gateway, &stop),
        sockets,
    );
}

/// Says in the log, and in the health, whether the token is taken.
async fn greet(gateway: &Gateway, stop: &CancellationToken) {
    let Some(client) = gateway.slack.writer() else {
        return;
    };
    let nothing = serde_json::json!({});
    let asked = client.call(Method::AuthTest, None, &nothing);
    match stop.run_until_cancelled(asked).await {
        Some(Ok(answer)) => {
            let of = |name| answer.get(name).and_then(serde_json::Value::as_str);
            tracing::info!(
                team = of("team"),
                user = of("user"),
                "Slack knows us by this name"
            );
        }
        Some(Err(error)) => tracing::warn!(?error, "Slack does not take our token now"),
        None => {}
    }
}

async fn take_in(gateway: &Gateway, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let claimed = gateway.claim(IN, BATCH).await;
        if claimed.is_empty() {
            pause(&gateway.slack.0.came, stop).await;
            continue;
        }
        let mut lanes: BTreeMap<String, Vec<(Errand, Incoming)>> = BTreeMap::new();
        for errand in claimed {
            match serde_json::from_str::<Incoming>(&errand.body) {
                Ok(incoming) => {
                    let lane = lanes.entry(intake::lane(&incoming)).or_default();
                    lane.push((errand, incoming));
                }
                Err(error) => put_aside(gateway, &errand, &error.to_string()).await,
            }
        }
        let lanes = lanes.into_values().map(|lane| async move {
            for (errand, incoming) in lane {
                take_one_in(gateway, errand, incoming).await;
            }
        });
        futures::stream::iter(lanes)
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
    }
}

async fn take_one_in(gateway: &Gateway, errand: Errand, incoming: Incoming) {
    let done = intake::act(gateway, &errand.id, incoming).await;
    let next = match done {
        Ok(()) => ErrandNext::Done(gateway.now()),
        Err(error) => {
            tracing::warn!(errand = errand.id, %error, "what Slack sent waits: the store is unavailable");
            ErrandNext::Later(gateway.now() + POLL)
        }
    };
    finish(gateway, errand, next).await;
}

async fn send_out(gateway: &Gateway, stop: &CancellationToken) {
    // Without a token nothing can be said; another process may have one.
    if gateway.slack.writer().is_none() {
        return;
    }
    let places = Arc::new(Semaphore::new(OPEN));
    let running = TaskTracker::new();
    while !stop.is_cancelled() {
        let free = places.available_permits().min(BATCH);
        let claimed = if free == 0 {
            Vec::new()
        } else {
            gateway.claim(OUT, free).await
        };
        if claimed.is_empty() {
            pause(&gateway.slack.0.goes, stop).await;
            continue;
        }
        for errand in claimed {
            let Ok(place) = places.clone().try_acquire_owned() else {
                // Its lease ends; nobody is to wait for it with a place that there is not.
                continue;
            };
            let (gateway, stop) = (gateway.clone(), stop.clone());
            running.spawn(async move {
                send_one_out(&gateway, errand, &stop).await;
                drop(place);
            });
        }
    }
    running.close();
    running.wait().await;
}

async fn send_one_out(gateway: &Gateway, errand: Errand, stop: &CancellationToken) {
    let outgoing = match serde_json::from_str::<Outgoing>(&errand.body) {
        Ok(outgoing) => outgoing,
        Err(error) => return put_aside(gateway, &errand, &error.to_string()).await,
    };
    let Some(client) = gateway.slack.writer() else {
        return;
    };
    let held = Held::new(gateway, errand);
    let ended = tokio::select! {
        ended = outgoing::perform(gateway, client, &held, outgoing) => ended,
        () = held.keep() => {
            tracing::warn!(errand = held.id, "another process does this now");
            return;
        }
        () = stop.cancelled() => Err(Stop::Later(Duration::ZERO, None)),
    };
    let next = match ended {
        Ok(()) => ErrandNext::Done(gateway.now()),
        Err(Stop::Later(delay, why)) => {
            if let Some(why) = why {
                tracing::warn!(errand = held.id, "{why}; it is tried again");
            }
            ErrandNext::Later(gateway.now() + delay)
        }
        Err(Stop::Lost) => return,
        Err(Stop::Refused(error)) => {
            metrics::counter!("agentrunner_slack_undeliverable_total").increment(1);
            tracing::error!(
                errand = held.id,
                error,
                "Slack does not take this; it is given up"
            );
            ErrandNext::Done(gateway.now())
        }
    };
    if let Err(error) = held.write(next).await {
        // Its lease ends, and it is done again: who does it looks first how far it came.
        tracing::warn!(errand = held.id, %error, "what was done for Slack is not written down");
    }
}

/// What nobody can read must not be taken again and again.
async fn put_aside(gateway: &Gateway, errand: &Errand, why: &str) {
    tracing::error!(
        errand = errand.id,
        why,
        "an errand for Slack can't be read; it is put aside"
    );
    let next = ErrandNext::Done(gateway.now());
    finish(gateway, errand.clone(), next).await;
}

async fn finish(gateway: &Gateway, errand: Errand, next: ErrandNext) {
    let change = ErrandChange {
        id: errand.id.clone(),
        version: errand.version,
        body: errand.body,
        next,
    };
    if let Err(error) = gateway.store().save_errand(change).await {
        tracing::warn!(errand = errand.id, %error, "what was done for Slack is not written down; it is done again");
    }
}

async fn pause(news: &Notify, stop: &CancellationToken) {
    tokio::select! {
        () = news.notified() => {}
        () = tokio::time::sleep(POLL) => {}
        () = stop.cancelled() => {}
    }
}

/// Forgets what was done long ago.
async fn sweep(gateway: &Gateway, stop: &CancellationToken) {
    let mut ticks = tokio::time::interval(SWEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for errand in gateway.claim(THREADS, 1000).await {
            let next = ErrandNext::Done(gateway.now());
            finish(gateway, errand, next).await;
        }
        loop {
            let before = gateway.now() - KNOWN;
            match gateway.store().forget_errands(before).await {
                Ok(1000) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "what was done for Slack long ago is not forgotten yet");
                    break;
                }
            }
        }
    }
}

/// Why an errand is not done.
#[derive(Debug)]
pub(super) enum Stop {
    /// It goes on after that long; why, when that is worth a line.
    Later(Duration, Option<String>),
    /// It is another's.
    Lost,
    /// Slack does not take it.
    Refused(String),
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Later(delay, why) => Self::Later(delay, Some(why)),
            CallError::Refused(error) => Self::Refused(error),
        }
    }
}

impl From<store::Error> for Stop {
    fn from(error: store::Error) -> Self {
        Self::Later(POLL, Some(error.to_string()))
    }
}

/// An errand that is this process's for now.
pub(super) struct Held<'a> {
    gateway: &'a Gateway,
    pub(super) id: String,
    version: u64,
    body: Mutex<String>,
}

impl<'a> Held<'a> {
    fn new(gateway: &'a Gateway, errand: Errand) -> Self {
        Self {
            gateway,
            id: errand.id,
            version: errand.version,
            body: Mutex::new(errand.body),
        }
    }

    /// Writes down how far it has come, before the next thing is done.
    ///
    /// # Errors
    /// It is another's, or the store can't be reached.
    pub(super) async fn note(&self, doc: &(impl Serialize + Sync)) -> Result<(), Stop> {
        *self.body.lock().await = serde_json::to_string(doc).unwrap_or_default();
        if self.write(self.longer()).await? {
            Ok(())
        } else {
            Err(Stop::Lost)
        }
    }

    /// Keeps it; ends when it is lost.
    async fn keep(&self) {
        let lease = self.gateway.slack.0.lease;
        let mut certain = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(lease / 3).await;
            match self.write(self.longer()).await {
                Ok(true) => certain = tokio::time::Instant::now(),
                Ok(false) => return,
                Err(_) if certain.elapsed() < lease => {}
                Err(_) => return,
            }
        }
    }

    fn longer(&self) -> ErrandNext {
        ErrandNext::Keep(self.gateway.now() + self.gateway.slack.0.lease)
    }

    async fn write(&self, next: ErrandNext) -> store::Result<bool> {
        // Locked while it is written: what is older is not to come after what is newer.
        let body = self.body.lock().await;
        let change = ErrandChange {
            id: self.id.clone(),
            version: self.version,
            body: body.clone(),
            next,
        };
        self.gateway.store().save_errand(change).await
    }
}

/// Reads the document of an errand.
pub(super) fn read<T: DeserializeOwned>(errand: &Errand) -> Option<T> {
    serde_json::from_str(&errand.body).ok()
}
