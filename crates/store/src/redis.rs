//! Redis: copies for reading and shared counters. Losing it costs time and nothing else.
//!
//! There is one connection, kept by a task of its own (`redis/link.rs`). While that task has no connection that works,
//! every call is answered at once as if nothing were there. A call that fails or takes longer than
//! [`Settings::patience`] takes the connection away from all others, so a server that hangs costs each caller that
//! waited at that moment one patience, and nobody after them anything. The task looks once a second whether the server
//! really works - it reads and writes - and so finds a dead one when nobody asks, and one that is back.
//!
//! (The crate's `ConnectionManager` would make connections anew too, but a hanging server would hold up every call.)
//!
//! Keys are `agentrunner:{form}:{store}:…`: the form of the values, so that two releases do not read each other's, and
//! the store, so that two installations on one Redis do not.

mod cache;
mod counters;
mod link;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::cache::Away;

use self::link::{Keeper, Link};

/// Where it is, and how long it may take.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `redis://user:password@host:port/db`; `rediss` for TLS.
    pub url: SecretString,
    /// The same for people, without secrets: `host:port`.
    pub place: String,
    /// What tells this installation's keys from others' on the same server.
    pub store: String,
    /// How long a call may take.
    pub patience: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How often it is looked whether the server works.
    pub look_period: Duration,
}

impl Settings {
    /// With the usual times.
    pub fn new(url: SecretString, place: String, store: String) -> Self {
        Self {
            url,
            place,
            store,
            patience: Duration::from_millis(250),
            connect_timeout: Duration::from_secs(2),
            look_period: Duration::from_secs(1),
        }
    }
}

/// Copies and counters on a server. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Redis {
    link: Arc<Link>,
    _keeper: Arc<Keeper>,
}

impl Redis {
    /// Tries once to connect, and goes on trying in the background: a server that can't be used now is no error, see
    /// [`crate::cache::Cache::health`].
    ///
    /// # Errors
    /// The address can't be understood.
    pub async fn connect(settings: Settings) -> Result<Self, Away> {
        let link = Arc::new(Link::new(settings)?);
        if let Err(Away(why)) = link.connect().await {
            link.say_away(&why);
            link.remember(why);
        }
        let keeper = Keeper::start(link.clone());
        Ok(Self {
            link,
            _keeper: Arc::new(keeper),
        })
    }

    /// What the server says that it is; `None` when it can't be asked, or does not tell us.
    pub async fn server_version(&self) -> Option<String> {
        self.link.version().await
    }
}
