//! Carries words of running answers between processes. Everything here may be lost at any time: who misses something
//! asks again, and reads the journal meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bus::Listener;
use domain::ExecutionId;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pieces::Part;
use super::wire::{ASKS, Whisper, channel_of};
use crate::shared::Shared;

/// How long questions are gathered, so that a thousand who come together are one message.
const GATHER_ASKS: Duration = Duration::from_millis(5);
/// How often all that is watched is asked for: those who answer forget who does not ask.
const ASK: Duration = Duration::from_secs(2);
/// How long words are gathered before they are told.
const GATHER: Duration = Duration::from_millis(25);
/// How many executions are asked for in one message.
const ASKED_AT_ONCE: usize = 1000;
/// About how many bytes are told in one message.
const TOLD_AT_ONCE: usize = 256 << 10;
/// How long to rest before listening is tried again.
const REST: Duration = Duration::from_secs(2);

/// Begins to ask and to hear and, for those who perform executions, to tell.
pub(crate) fn start(core: &Arc<Shared>, tasks: &TaskTracker, stop: &CancellationToken) {
    tasks.spawn(hear(core.clone(), stop.clone()));
    tasks.spawn(ask(core.clone(), stop.clone()));
    if !core.settings.modes.is_empty() {
        tasks.spawn(tell(core.clone(), stop.clone()));
    }
}

async fn hear(core: Arc<Shared>, stop: CancellationToken) {
    let mut channels = vec![channel_of(&core.settings.worker)];
    if !core.settings.modes.is_empty() {
        channels.push(ASKS.to_owned());
    }
    loop {
        let Some(opened) = stop
            .run_until_cancelled(core.ports.bus.listen(&channels))
            .await
        else {
            return;
        };
        match opened {
            Ok(mut listener) => {
                // What was asked before went unanswered.
                core.hub.to_ask.notify_one();
                let heard = hear_all(&core, listener.as_mut());
                stop.run_until_cancelled(heard).await;
                return;
            }
            Err(bus::Error::Closed) => return,
            Err(error) => {
                // Once: it is tried for as long as it takes, and watchers read the store meanwhile.
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("words of answers in other processes are not heard: {error}");
                }
                stop.run_until_cancelled(tokio::time::sleep(REST)).await;
            }
        }
    }
}

async fn hear_all(core: &Shared, listener: &mut dyn Listener) {
    while let Some(words) = listener.next().await {
        match Whisper::read(&words) {
            Some(Whisper::Ask { by, executions }) if by != core.settings.worker => {
                for (id, heard) in executions {
                    core.hub.telling.note(id, &by, heard, core.hub.run(id));
                }
            }
            Some(Whisper::Tell(parts)) => {
                for (id, part) in parts {
                    core.hub.hear(id, part);
                }
            }
            Some(Whisper::Ask { .. }) | None => {}
        }
    }
}

async fn ask(core: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(ASK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let all = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => true,
            () = core.hub.to_ask.notified() => false,
        };
        if all {
            core.hub.telling.forget();
        } else {
            tokio::time::sleep(GATHER_ASKS).await;
        }
        for some in core.hub.wanted(all).chunks(ASKED_AT_ONCE) {
            let ask = Whisper::Ask {
                by: core.settings.worker.clone(),
                executions: some.to_vec(),
            };
            core.ports.bus.whisper(ASKS, ask.write());
        }
    }
}

async fn tell(core: Arc<Shared>, stop: CancellationToken) {
    let telling = &core.hub.telling;
    let mut is_rest = false;
    loop {
        tokio::select! {
            biased;
            // What was committed last is told on the way out.
            () = stop.cancelled() => {
                say(&core);
                return;
            }
            () = telling.to_tell.notified(), if !is_rest => {}
            () = std::future::ready(()), if is_rest => {}
        }
        tokio::time::sleep(GATHER).await;
        is_rest = say(&core);
    }
}

/// Tells all who want to hear; whether something is left.
fn say(core: &Shared) -> bool {
    let (sayings, is_rest) = core.hub.telling.say();
    for (who, parts) in sayings {
        let channel = channel_of(&who);
        let mut some = Vec::new();
        let mut bytes = 0;
        for (id, part) in parts {
            bytes += part.size();
            some.push((id, part));
            if bytes > TOLD_AT_ONCE {
                whisper(core, &channel, std::mem::take(&mut some));
                bytes = 0;
            }
        }
        if !some.is_empty() {
            whisper(core, &channel, some);
        }
    }
    is_rest
}

fn whisper(core: &Shared, channel: &str, parts: Vec<(ExecutionId, Part)>) {
    core.ports
        .bus
        .whisper(channel, Whisper::Tell(parts).write());
}
