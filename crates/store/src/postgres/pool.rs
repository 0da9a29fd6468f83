//! The sessions for everything that is not gathered: opened when they are needed, a few kept.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection::{Conn, Role};
use super::fault::{Outcome, closed, unavailable};
use super::settings::Server;

/// A pool of sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: Arc<Server>,
    role: Role,
    idle: Mutex<Vec<Conn>>,
    permits: Arc<Semaphore>,
    keep: usize,
    most: usize,
    patience: Duration,
    is_closed: AtomicBool,
}

/// A session on loan. One that is given back in the middle of a transaction is closed, which rolls it back.
#[derive(Debug)]
pub(super) struct Lent {
    conn: Option<Conn>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// None is opened yet.
    pub(super) fn new(
        server: Arc<Server>,
        role: Role,
        keep: usize,
        most: usize,
        patience: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                server,
                role,
                idle: Mutex::default(),
                permits: Arc::new(Semaphore::new(most)),
                keep,
                most,
                patience,
                is_closed: AtomicBool::new(false),
            }),
        }
    }

    /// A session: one that was used before, or a new one.
    pub(super) async fn get(&self) -> Outcome<Lent> {
        let shared = self.shared.clone();
        let permit = timeout(shared.patience, shared.permits.clone().acquire_owned())
            .await
            .map_err(|_| {
                unavailable(format!(
                    "all {} connections to PostgreSQL have been busy for {} s; raise DB_POOL_SIZE, or look for what keeps them busy",
                    shared.most,
                    shared.patience.as_secs()
                ))
            })?
            .map_err(|_| closed())?;
        let used = {
            let mut idle = shared.idle();
            idle.retain(Conn::is_clean);
            idle.pop()
        };
        let conn = match used {
            Some(conn) => conn,
            None => Conn::open(&shared.server, shared.role).await?,
        };
        Ok(Lent {
            conn: Some(conn),
            shared,
            _permit: permit,
        })
    }

    /// Closes the sessions; later calls fail.
    pub(super) fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
        self.shared.permits.close();
        self.shared.idle().clear();
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Lent {
    type Target = Conn;

    #[expect(clippy::expect_used, reason = "it is taken out by drop only")]
    fn deref(&self) -> &Conn {
        self.conn.as_ref().expect("a lent session")
    }
}

impl DerefMut for Lent {
    #[expect(clippy::expect_used, reason = "it is taken out by drop only")]
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("a lent session")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        if !conn.is_clean() || self.shared.is_closed.load(Ordering::Acquire) {
            return;
        }
        let mut idle = self.shared.idle();
        if idle.len() < self.shared.keep {
            idle.push(conn);
        }
    }
}
