//! What is said to whoever listens now.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Listener, MAX_WHISPER, WAITING_WHISPERS};

type Ears = Vec<mpsc::Sender<Vec<u8>>>;

/// Who listens, by channel.
#[derive(Debug, Default)]
pub(super) struct Whispers(Mutex<HashMap<String, Ears>>);

impl Whispers {
    pub(super) fn pass_on(&self, channel: &str, words: Vec<u8>) {
        if words.len() > MAX_WHISPER {
            tracing::debug!(channel, bytes = words.len(), "too long for a whisper");
            return;
        }
        let mut channels = self.lock();
        let Some(ears) = channels.get_mut(channel) else {
            return;
        };
        // One that is full misses it.
        ears.retain(|ear| {
            !matches!(
                ear.try_send(words.clone()),
                Err(mpsc::error::TrySendError::Closed(_))
            )
        });
        if ears.is_empty() {
            channels.remove(channel);
        }
    }

    pub(super) fn listen(&self, channels: &[String], closed: CancellationToken) -> Hearing {
        let (ear, heard) = mpsc::channel(WAITING_WHISPERS);
        let mut all = self.lock();
        for channel in channels {
            let ears = all.entry(channel.clone()).or_default();
            ears.retain(|ear| !ear.is_closed());
            ears.push(ear.clone());
        }
        Hearing { heard, closed }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Ears>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Hearing {
    heard: mpsc::Receiver<Vec<u8>>,
    closed: CancellationToken,
}

#[async_trait]
impl Listener for Hearing {
    async fn next(&mut self) -> Option<Vec<u8>> {
        self.closed.run_until_cancelled(self.heard.recv()).await?
    }
}
