//! The connections that read. They see everything that was acknowledged before a read began.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::fault::{Outcome, closed, internal};
use super::{Options, connection};
use crate::Result;

/// A pool of connections, opened when they are needed.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    options: Options,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    is_closed: AtomicBool,
}

impl Readers {
    /// None is opened yet.
    pub(super) fn new(path: PathBuf, options: Options) -> Self {
        let permits = Arc::new(Semaphore::new(options.readers.max(1)));
        Self {
            shared: Arc::new(Shared {
                path,
                options,
                idle: Mutex::default(),
                permits,
                is_closed: AtomicBool::new(false),
            }),
        }
    }

    /// Reads, on a thread that may block.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Outcome<T> + Send + 'static,
    {
        let permit = self.shared.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| closed())?;
        let shared = self.shared.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let result = shared.read(work);
            drop(permit);
            result
        });
        reading
            .await
            .unwrap_or_else(|_| Err(internal("a read panicked; see the log")))
    }

    /// Closes the connections; later reads fail.
    pub(super) fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
        self.shared.permits.close();
        self.shared.idle().clear();
    }
}

impl Shared {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T> {
        let idle = self.idle().pop();
        let conn = match idle {
            Some(conn) => conn,
            None => connection::open_reader(&self.path, &self.options)?,
        };
        let result = work(&conn);
        if !self.is_closed.load(Ordering::Acquire) {
            self.idle().push(conn);
        }
        Ok(result?)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
