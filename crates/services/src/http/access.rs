//! Who asks: the keys that a process knows, and what they allow.
//!
//! A process holds a copy of all keys that may be used, read anew every two seconds, so that a check asks nobody. A key
//! that was made a moment ago elsewhere is looked for once; one that was revoked elsewhere is worth nothing after four
//! seconds at the latest, because an older copy is not gone by: then nobody is let in but the bootstrap key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::access::key::{self, KeyStatus};
use domain::access::{ApiKey, Grants, KeyHash, KeyId};
use domain::{Time, TimeDelta};
use engine::Engine;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, header};
use sha2::Sha256;
use store::{KeyFilter, Page};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Answer, ApiError, Code};

/// How often the copy is read anew.
const REFRESH: Duration = Duration::from_secs(2);
/// How old a copy may be and still be gone by.
const TRUST: Duration = Duration::from_secs(4);
/// How soon after a reading the next may follow for an unknown key: whoever tries keys out costs four reads a second.
const AGAIN: Duration = Duration::from_millis(250);
/// How long the store is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// How exactly it is noted when a key was last used.
const USE_GRAIN: TimeDelta = TimeDelta::seconds(60);
/// The longest text that is looked at as a key.
const LONGEST: usize = 512;
/// The protocol of our WebSockets.
pub(crate) const PROTOCOL: &str = "agentrunner.v1";
/// How the protocol begins by which a browser, which can send no headers with a WebSocket, shows a key. Not in the address:
/// that is logged on the way.
const KEY_PROTOCOL: &str = "agentrunner.key.";
/// How many keys are read at once.
const PAGE: usize = 1000;

/// Where a caller's name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// No keys are asked for: whoever reaches the port.
    Anybody,
    /// The key of the settings.
    Bootstrap,
    /// A key that was made.
    Key(KeyId),
}

/// A caller, as far as is known. A person who logged in would be one more [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Where the name comes from.
    pub identity: Identity,
    /// The name, for people.
    pub name: String,
    /// What may be done.
    pub grants: Grants,
}

impl Principal {
    fn anybody() -> Self {
        Self {
            identity: Identity::Anybody,
            name: "api".to_owned(),
            grants: Grants::all(),
        }
    }

    /// What the principal's requests are counted under; `None` when only the address is known.
    pub(crate) fn account(&self) -> Option<String> {
        match self.identity {
            Identity::Anybody => None,
            Identity::Bootstrap => Some("bootstrap".to_owned()),
            Identity::Key(id) => Some(id.to_string()),
        }
    }
}

/// Whether callers have to show keys, and which. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Access(Option<Arc<Book>>);

struct Book {
    bootstrap: KeyHash,
    name: String,
    engine: Engine,
    copy: watch::Sender<Copy>,
    /// One reads the store at a time; when that failed last.
    reading: tokio::sync::Mutex<Option<Instant>>,
    used: Mutex<HashMap<KeyId, Use>>,
}

/// When a key was used last, and what the store knows of it.
#[derive(Clone, Copy)]
struct Use {
    at: Time,
    is_noted: bool,
}

#[derive(Clone, Default)]
struct Copy {
    keys: Arc<HashMap<KeyHash, Arc<ApiKey>>>,
    /// When its reading began.
    as_of: Option<Instant>,
}

impl Copy {
    fn is_younger_than(&self, age: Duration) -> bool {
        self.as_of.is_some_and(|at| at.elapsed() < age)
    }
}

impl Access {
    /// Nobody has to show a key.
    pub fn open() -> Self {
        Self::default()
    }

    /// Whether nobody has to show a key.
    pub(crate) const fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Everybody has to show a key: this one, under this name, or one that is in the engine's store.
    pub fn keyed(bootstrap: KeyHash, name: &str, engine: Engine) -> Self {
        Self(Some(Arc::new(Book {
            bootstrap,
            name: name.to_owned(),
            engine,
            copy: watch::Sender::default(),
            reading: tokio::sync::Mutex::default(),
            used: Mutex::default(),
        })))
    }

    /// A secret for one purpose, the same in all processes that know the bootstrap key; `None` when nobody shows keys.
    pub(crate) fn secret_for(&self, purpose: &str) -> Option<[u8; 32]> {
        let book = self.0.as_ref()?;
        // Never an error: a key may have any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(book.bootstrap.as_bytes()).ok()?;
        mac.update(purpose.as_bytes());
        Some(mac.finalize().into_bytes().into())
    }

    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// AUTH_FAILED; or DEPENDENCY_UNAVAILABLE when it can't be told whether the key was revoked.
    pub(crate) async fn identify(&self, headers: &HeaderMap) -> Answer<Principal> {
        let Some(book) = &self.0 else {
            return Ok(Principal::anybody());
        };
        match shown(headers) {
            Shown::Nothing => Err(refusal(
                "this needs a key: send it as X-API-Key: … or as Authorization: Bearer …",
            )),
            Shown::Unclear(why) => Err(refusal(why)),
            Shown::Key(text) => book.admit(text).await,
        }
    }

    /// Keeps the copy current and notes the use of keys, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Some(book) = self.0 else { return };
        let mut ticks = tokio::time::interval(REFRESH);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            // Said where it is missed: at the door.
            drop(book.read_anew(Duration::ZERO).await);
            book.note_use().await;
        }
        book.note_use().await;
    }

    /// Reads the keys at once, after this process changed one.
    pub(crate) async fn changed(&self) {
        if let Some(book) = &self.0 {
            drop(book.read_anew(Duration::ZERO).await);
        }
    }

    /// Waits until a caller who was let in is not to be let in any more.
    pub(crate) async fn ended(&self, principal: &Principal) {
        let (Some(book), Identity::Key(id)) = (&self.0, principal.identity) else {
            return std::future::pending().await;
        };
        let mut copies = book.copy.subscribe();
        let is_over = |copy: &mut Copy| {
            let now = book.engine.now();
            copy.as_of.is_some()
                && !copy
                    .keys
                    .values()
                    .any(|key| key.id == id && key.status(now) == KeyStatus::Active)
        };
        // The sender lives as long as the book.
        drop(copies.wait_for(|copy| is_over(&mut copy.clone())).await);
    }
}

impl Book {
    async fn admit(&self, text: &str) -> Answer<Principal> {
        if self.bootstrap.equals(&KeyHash::of(text)) {
            return Ok(Principal {
                identity: Identity::Bootstrap,
                name: self.name.clone(),
                grants: Grants::all(),
            });
        }
        let hash = key::read(text).map_err(|_| unknown())?;
        let known = self.find(&hash, TRUST);
        let key = match known {
            Some(key) => key,
            // Made a moment ago elsewhere, perhaps; or the copy is old.
            None => {
                self.read_anew(AGAIN).await?;
                self.find(&hash, TRUST).ok_or_else(unknown)?
            }
        };
        let now = self.engine.now();
        if key.status(now) != KeyStatus::Active {
            return Err(unknown());
        }
        self.count_use(key.id, key.last_used_at, now);
        Ok(Principal {
            identity: Identity::Key(key.id),
            name: key.name.clone(),
            grants: key.grants.clone(),
        })
    }

    fn find(&self, hash: &KeyHash, age: Duration) -> Option<Arc<ApiKey>> {
        let copy = self.copy.borrow();
        let found = copy.keys.get(hash).cloned();
        found.filter(|_| copy.is_younger_than(age))
    }

    /// Reads the keys, unless another who began after this was asked for did; not within `pause` of the last reading.
    async fn read_anew(&self, pause: Duration) -> Answer<()> {
        let asked = Instant::now();
        let mut failed = self.reading.lock().await;
        let last = self.copy.borrow().as_of;
        if last.is_some_and(|at| at >= asked) {
            return Ok(());
        }
        // Those who waited for one that failed do not each wait for their own.
        if failed.is_some_and(|at| at >= asked) {
            return Err(unavailable());
        }
        if let Some(last) = last {
            tokio::time::sleep_until(last + pause).await;
        }
        let as_of = Some(Instant::now());
        let read = tokio::time::timeout(PATIENCE, self.read()).await;
        let keys = read.map_err(|_| "no answer in time".to_owned());
        match keys.and_then(|keys| keys.map_err(|error| error.to_string())) {
            Ok(keys) => {
                let keys = Arc::new(keys);
                self.copy.send_replace(Copy { keys, as_of });
            }
            Err(why) => {
                tracing::warn!(why, "the keys can't be read");
                *failed = Some(Instant::now());
                return Err(unavailable());
            }
        }
        Ok(())
    }

    async fn read(&self) -> store::Result<HashMap<KeyHash, Arc<ApiKey>>> {
        let mut keys = HashMap::new();
        let mut after = None;
        loop {
            let page = Page { limit: PAGE, after };
            let active_at = Some(self.engine.now());
            let some = self
                .engine
                .store()
                .keys(KeyFilter { active_at, page })
                .await?;
            let is_last = some.len() < PAGE;
            after = some.last().map(|key| (key.created_at, key.id.to_string()));
            keys.extend(some.into_iter().map(|key| (key.hash, Arc::new(key))));
            if is_last {
                return Ok(keys);
            }
        }
    }

    fn count_use(&self, id: KeyId, noted: Option<Time>, now: Time) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let last = used.get(&id).map(|last| last.at).max(noted);
        if last.is_none_or(|last| now - last >= USE_GRAIN) {
            let is_noted = false;
            used.insert(id, Use { at: now, is_noted });
        }
    }

    async fn note_use(&self) {
        let uses: Vec<(KeyId, Time)> = {
            let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let open = used.iter().filter(|(_, last)| !last.is_noted);
            open.map(|(id, last)| (*id, last.at)).collect()
        };
        if uses.is_empty() {
            return;
        }
        if let Err(error) = self.engine.store().note_key_use(&uses).await {
            // The next time, then.
            tracing::debug!(%error, "the use of keys was not noted");
            return;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, at) in uses {
            if let Some(last) = used.get_mut(&id).filter(|last| last.at == at) {
                last.is_noted = true;
            }
        }
        let now = self.engine.now();
        used.retain(|_, last| !last.is_noted || now - last.at < USE_GRAIN);
    }
}

/// What a request shows.
enum Shown<'a> {
    Nothing,
    Unclear(&'static str),
    Key(&'a str),
}

fn shown(headers: &HeaderMap) -> Shown<'_> {
    let plain = headers.get_all("x-api-key").iter();
    let bearer = headers.get_all(header::AUTHORIZATION).iter();
    let mut keys = Vec::new();
    for value in plain {
        match value.to_str() {
            Ok(text) => keys.push(text.trim()),
            Err(_) => return Shown::Unclear("the key in X-API-Key is not readable"),
        }
    }
    for value in bearer {
        let text = value.to_str().unwrap_or_default();
        match text.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => keys.push(key.trim()),
            _ => {
                return Shown::Unclear(
                    "this Authorization is not taken: send Authorization: Bearer … with a key, or X-API-Key: …",
                );
            }
        }
    }
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let protocols = value.to_str().unwrap_or_default().split(',');
        keys.extend(protocols.filter_map(|name| name.trim().strip_prefix(KEY_PROTOCOL)));
    }
    match keys.as_slice() {
        [] => Shown::Nothing,
        [first, rest @ ..] if rest.iter().any(|other| other != first) => {
            Shown::Unclear("two different keys came with one request; send one")
        }
        [key, ..] if key.len() > LONGEST => Shown::Unclear(UNKNOWN),
        [key, ..] => Shown::Key(key),
    }
}

const UNKNOWN: &str = "the key is not valid: it is unknown, revoked or expired; `agentrunner keys list` shows those that \
                       there are to an administrator";

fn unknown() -> ApiError {
    refusal(UNKNOWN)
}

/// For whoever waited when the key was revoked.
pub(crate) fn revoked() -> ApiError {
    refusal("the key was revoked or expired while this waited; what was asked for goes on")
}

fn refusal(message: &str) -> ApiError {
    ApiError::new(Code::AuthFailed, message)
}

fn unavailable() -> ApiError {
    let message =
        "the keys can't be looked up now, so nobody can tell whether this one is valid; try again";
    ApiError::new(Code::DependencyUnavailable, message)
        .with("dependency", "database")
        .retry_after(Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(pairs: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        match shown(&headers) {
            Shown::Key(key) => Some(key.to_owned()),
            Shown::Nothing | Shown::Unclear(_) => None,
        }
    }

    #[test]
    fn a_key_comes_in_either_header_and_never_as_two() {
        let taken = |pairs| key_of(pairs).as_deref() == Some("k");
        assert!(taken(&[("x-api-key", "k")]));
        assert!(taken(&[("authorization", "Bearer k")]));
        assert!(taken(&[("authorization", "bearer  k")]));
        assert!(taken(&[(
            "sec-websocket-protocol",
            "agentrunner.v1, agentrunner.key.k"
        )]));
        assert!(taken(&[("authorization", "Bearer k"), ("x-api-key", "k")]));
        for other in [
            &[("authorization", "Bearer k"), ("x-api-key", "l")][..],
            &[("x-api-key", "k"), ("x-api-key", "l")],
            &[("authorization", "Basic azpr")],
            &[("authorization", "k")],
            &[("authorization", "' OR 1=1 --")],
            &[],
        ] {
            assert_eq!(key_of(other), None, "{other:?}");
        }
        assert_eq!(key_of(&[("x-api-key", &"k".repeat(7 << 10))]), None);
    }
}
