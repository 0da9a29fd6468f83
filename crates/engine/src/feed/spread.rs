//! Carries notes between processes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cursor::Source;
use super::{Feed, INTEREST, Numbered};
use crate::shared::Shared;

/// Where all processes listen and speak.
const CHANNEL: &str = "live.feed";
/// How often the others are asked while somebody looks.
const ASK: Duration = Duration::from_secs(2);
/// How long notes are gathered.
const GATHER: Duration = Duration::from_millis(25);
/// How many notes are told in one message.
const AT_ONCE: usize = 500;
/// How long to rest before listening is tried again.
const REST: Duration = Duration::from_secs(2);

/// What processes say to one another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Whisper {
    /// Somebody looks.
    Ask { by: Source },
    /// This happened, and so far have I come.
    Tell {
        by: Source,
        next: u64,
        notes: Vec<Numbered>,
    },
}

impl Feed {
    /// Whoever begins to listen says where it is, and asks where the others are: so all know one another, whichever came
    /// first, and a reader who comes from another process is not told of a gap where nothing happened.
    fn introduce(&self) {
        self.lock().is_asked = true;
        self.to_tell.notify_one();
    }

    fn hear(&self, whisper: Whisper) {
        let mut state = self.lock();
        match whisper {
            Whisper::Ask { by } if by != self.me => {
                state.wanted = Some(Instant::now() + INTEREST);
                state.is_asked = true;
                drop(state);
                self.to_tell.notify_one();
            }
            Whisper::Tell { by, next, notes } if by != self.me => {
                for Numbered { n, note } in notes {
                    state.ring.add(by, n, note);
                }
                state.ring.reached(by, next);
                drop(state);
                self.tell();
            }
            Whisper::Ask { .. } | Whisper::Tell { .. } => {}
        }
    }

    /// What the others are to be told now.
    fn say(&self) -> Vec<Whisper> {
        let mut state = self.lock();
        let waiting = std::mem::take(&mut state.waiting);
        let is_asked = std::mem::take(&mut state.is_asked);
        let by = self.me;
        let mut all: Vec<_> = waiting
            .chunks(AT_ONCE)
            .map(|notes| Whisper::Tell {
                by,
                next: notes.last().map_or(0, |last| last.n + 1),
                notes: notes.to_vec(),
            })
            .collect();
        // There was no room for all of it: that they are missing is known by this.
        let next = state.next;
        let is_behind = waiting.last().is_some_and(|last| last.n + 1 < next);
        if is_asked || is_behind {
            let notes = Vec::new();
            all.push(Whisper::Tell { by, next, notes });
        }
        all
    }
}

/// Begins to note what others say, and to tell and ask them.
pub(crate) fn start(core: &Arc<Shared>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(hear(core.clone(), stop.clone()));
    tasks.spawn(ask(core.clone(), stop.clone()));
    tasks.spawn(tell(core.clone(), stop.clone()));
}

async fn hear(core: Arc<Shared>, stop: CancellationToken) {
    let channels = [CHANNEL.to_owned()];
    while let Some(opened) = stop
        .run_until_cancelled(core.ports.bus.listen(&channels))
        .await
    {
        match opened {
            Ok(mut listener) => {
                core.feed.introduce();
                whisper(&core, &Whisper::Ask { by: core.feed.me });
                while let Some(Some(words)) = stop.run_until_cancelled(listener.next()).await {
                    // What a later version says is not understood, and found to be missing by its number.
                    if let Ok(whisper) = serde_json::from_slice(&words) {
                        core.feed.hear(whisper);
                    }
                }
                return;
            }
            Err(bus::Error::Closed) => return,
            Err(error) => {
                tracing::debug!("what happens in other processes is not heard: {error}");
                stop.run_until_cancelled(tokio::time::sleep(REST)).await;
            }
        }
    }
}

async fn ask(core: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ASK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = core.feed.to_ask.notified() => {}
        }
        if core.feed.lock().looks() {
            whisper(&core, &Whisper::Ask { by: core.feed.me });
        }
    }
}

async fn tell(core: Arc<Shared>, stop: CancellationToken) {
    while stop
        .run_until_cancelled(core.feed.to_tell.notified())
        .await
        .is_some()
    {
        tokio::time::sleep(GATHER).await;
        for saying in core.feed.say() {
            whisper(&core, &saying);
        }
    }
}

fn whisper(core: &Shared, saying: &Whisper) {
    if let Ok(words) = serde_json::to_vec(saying) {
        core.ports.bus.whisper(CHANNEL, words);
    }
}
