//! Sessions of MCP clients: names that prove themselves, so that any process knows them, also after a restart.
//!
//! Versions of the protocol before 2026-07-28 cancel a call by a second request, and the ids of requests are unique within a
//! session alone: that is what a session is for here. It carries no state and no rights, and belongs to the key that it
//! was given to: shown with another one, it is unknown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{Time, TimeDelta};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a session lasts; its client begins another one then.
const LIFE: TimeDelta = TimeDelta::hours(24);
/// How far the clocks of two processes may be apart.
const SKEW: TimeDelta = TimeDelta::minutes(5);
/// How many ended sessions are remembered; who ends more has the oldest forgotten, which harms nobody.
const MOST_ENDED: usize = 10_000;
/// How many bytes of the proof are told.
const PROOF: usize = 16;

/// The name of a session that was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Session(Uuid);

/// The sessions of one process.
pub(crate) struct Sessions {
    /// For where nobody shows keys: then there is nothing that all processes know and no caller does.
    own_secret: [u8; 32],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: HashMap<Session, Time>,
    calls: HashMap<(Session, String), (u64, CancellationToken)>,
    count: u64,
}

impl Sessions {
    /// None yet.
    pub(crate) fn new() -> Self {
        let mut own_secret = [0; 32];
        let halves = [Uuid::new_v4(), Uuid::new_v4()];
        let random = halves.iter().flat_map(Uuid::as_bytes);
        own_secret
            .iter_mut()
            .zip(random)
            .for_each(|(to, from)| *to = *from);
        Self {
            own_secret,
            state: Mutex::default(),
        }
    }

    /// A new one for the caller of this account.
    pub(crate) fn begin(&self, secret: Option<[u8; 32]>, account: &str, now: Time) -> String {
        let secret = secret.unwrap_or(self.own_secret);
        mint(&secret, account, Uuid::new_v4(), now)
    }

    /// The one of this name, if the caller of this account has it and it has not ended.
    pub(crate) fn find(
        &self,
        secret: Option<[u8; 32]>,
        account: &str,
        name: &str,
        now: Time,
    ) -> Option<Session> {
        let secret = secret.unwrap_or(self.own_secret);
        let session = read(&secret, account, name, now)?;
        (!self.lock().ended.contains_key(&session)).then_some(session)
    }

    /// Ends one, with the calls that are under way in it.
    pub(crate) fn end(&self, session: Session, now: Time) {
        let mut state = self.lock();
        if state.ended.len() >= MOST_ENDED {
            state.ended.retain(|_, at| now - *at < LIFE);
        }
        if state.ended.len() >= MOST_ENDED {
            let oldest = state.ended.iter().min_by_key(|(_, at)| **at);
            let oldest = oldest.map(|(session, _)| *session);
            oldest.map(|session| state.ended.remove(&session));
        }
        state.ended.insert(session, now);
        for ((of, _), (_, token)) in &state.calls {
            if *of == session {
                token.cancel();
            }
        }
    }

    /// A call begins that may be cancelled by the id of its request.
    pub(crate) fn call(self: &Arc<Self>, session: Session, request: String) -> UnderWay {
        let token = CancellationToken::new();
        let mut state = self.lock();
        state.count += 1;
        let (number, key) = (state.count, (session, request));
        state.calls.insert(key.clone(), (number, token.clone()));
        drop(state);
        UnderWay {
            sessions: self.clone(),
            key,
            number,
            token,
        }
    }

    /// The client does not want the answer to a request any more.
    pub(crate) fn cancel(&self, session: Session, request: &str) {
        let state = self.lock();
        if let Some((_, token)) = state.calls.get(&(session, request.to_owned())) {
            token.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that can be cancelled for as long as this is held.
pub(crate) struct UnderWay {
    sessions: Arc<Sessions>,
    key: (Session, String),
    number: u64,
    token: CancellationToken,
}

impl UnderWay {
    /// Waits until the client does not want the answer any more.
    pub(crate) async fn cancelled(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.sessions.lock();
        // A client that uses an id twice has another call there now.
        let is_ours = |(number, _): &(u64, CancellationToken)| *number == self.number;
        if state.calls.get(&self.key).is_some_and(is_ours) {
            state.calls.remove(&self.key);
        }
    }
}

/// Makes a name: which session, since when, and a proof that it was made here and for whom.
fn mint(secret: &[u8; 32], account: &str, id: Uuid, now: Time) -> String {
    let claim = format!("{}{:016x}", id.simple(), now.timestamp());
    let proof = prove(secret, account, &claim).map(|mac| mac.finalize().into_bytes());
    let proof = proof.iter().flatten().take(PROOF);
    let proof: String = proof.map(|byte| format!("{byte:02x}")).collect();
    claim + &proof
}

/// The session of a name that was made here for this account, and not too long ago.
fn read(secret: &[u8; 32], account: &str, name: &str, now: Time) -> Option<Session> {
    let (claim, proof) = name.split_at_checked(48)?;
    let proof: Vec<u8> = proof
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<_>>()?;
    if proof.len() != PROOF {
        return None;
    }
    let mac = prove(secret, account, claim)?;
    mac.verify_truncated_left(&proof).ok()?;
    let (id, since) = claim.split_at_checked(32)?;
    let since = Time::from_timestamp(i64::from_str_radix(since, 16).ok()?, 0)?;
    let age = now - since;
    let is_current = age < LIFE && age > -SKEW;
    is_current.then_some(Session(id.parse().ok()?))
}

fn prove(secret: &[u8; 32], account: &str, claim: &str) -> Option<Hmac<Sha256>> {
    // Never an error: a key may have any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(claim.as_bytes());
    mac.update(account.as_bytes());
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    fn now() -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap()
    }

    #[test]
    fn a_name_is_known_to_whoever_has_the_secret_and_belongs_to_one_account() {
        let id = Uuid::from_u128(42);
        let name = mint(&SECRET, "ann", id, now());
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(read(&SECRET, "ann", &name, now()), Some(Session(id)));
        assert_eq!(read(&SECRET, "bob", &name, now()), None);
        assert_eq!(read(&[8; 32], "ann", &name, now()), None);
        let later = |delta| read(&SECRET, "ann", &name, now() + delta);
        assert!(later(TimeDelta::hours(23)).is_some());
        assert_eq!(later(TimeDelta::hours(24)), None);
        assert_eq!(later(TimeDelta::minutes(-6)), None);
    }

    #[test]
    fn no_other_name_is_known() {
        let name = mint(&SECRET, "ann", Uuid::from_u128(42), now());
        for at in 0..name.len() {
            let mut bytes = name.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let other = String::from_utf8(bytes).unwrap();
            assert_eq!(read(&SECRET, "ann", &other, now()), None, "{other}");
        }
        for other in ["", "x", "é".repeat(40).as_str(), &name[..78], &name[..48]] {
            assert_eq!(read(&SECRET, "ann", other, now()), None, "{other}");
        }
        assert_eq!(read(&SECRET, "ann", &format!("{name}00"), now()), None);
    }

    #[tokio::test]
    async fn a_call_is_cancelled_in_its_own_session_alone() {
        let sessions = Arc::new(Sessions::new());
        let [ours, other] = [1, 2].map(|id| Session(Uuid::from_u128(id)));
        let first = sessions.call(ours, "7".to_owned());
        sessions.cancel(other, "7");
        sessions.cancel(ours, "\"7\"");
        assert!(!first.token.is_cancelled());
        sessions.cancel(ours, "7");
        first.cancelled().await;
        // The id is used again before the first is gone.
        let second = sessions.call(ours, "7".to_owned());
        drop(first);
        sessions.end(ours, now());
        second.cancelled().await;
        drop(second);
        assert!(sessions.lock().calls.is_empty());
    }

    #[test]
    fn an_ended_session_is_unknown() {
        let sessions = Sessions::new();
        let name = sessions.begin(None, "ann", now());
        let session = sessions.find(None, "ann", &name, now()).unwrap();
        sessions.end(session, now());
        assert_eq!(sessions.find(None, "ann", &name, now()), None);
    }
}
