//! What is to be done outside.

use async_trait::async_trait;
use domain::Time;
use store::{Errand, ErrandChange, ErrandClaim, ErrandNext, Errands, NewErrand, Result};

use super::Tables;
use crate::simulation::store::{Reached, Way};

/// An errand, when it is due, and whose it is until when.
pub(super) struct Kept {
    queue: String,
    errand: Errand,
    due_at: Time,
    owned_until: Option<Time>,
    done_at: Option<Time>,
}

impl Tables {
    fn add_errand(&mut self, new: NewErrand) -> bool {
        if self.errands.contains_key(&new.id) {
            return false;
        }
        let errand = Errand {
            id: new.id.clone(),
            body: new.body,
            version: 0,
            is_done: false,
        };
        let kept = Kept {
            queue: new.queue,
            errand,
            due_at: new.due_at,
            owned_until: None,
            done_at: None,
        };
        self.errands.insert(new.id, kept);
        true
    }

    fn claim_errands(&mut self, claim: &ErrandClaim) -> Vec<Errand> {
        let is_free = |kept: &&mut Kept| {
            kept.queue == claim.queue
                && kept.done_at.is_none()
                && kept.due_at <= claim.now
                && kept.owned_until.is_none_or(|until| until <= claim.now)
        };
        let mut due: Vec<_> = self.errands.values_mut().filter(is_free).collect();
        due.sort_by_key(|kept| kept.due_at);
        due.truncate(claim.limit);
        let take = |kept: &mut Kept| {
            kept.errand.version += 1;
            let until = claim.now + claim.lease;
            (kept.owned_until, kept.due_at) = (Some(until), until);
            kept.errand.clone()
        };
        due.into_iter().map(take).collect()
    }

    fn save_errand(&mut self, change: ErrandChange) -> bool {
        let kept = self.errands.get_mut(&change.id);
        let Some(kept) =
            kept.filter(|kept| kept.done_at.is_none() && kept.errand.version == change.version)
        else {
            return false;
        };
        kept.errand.body = change.body;
        let owned_until = kept.owned_until.take();
        let was_woken = owned_until.is_some_and(|until| kept.due_at < until);
        match change.next {
            ErrandNext::Keep(until) => {
                kept.owned_until = Some(until);
                if !was_woken {
                    kept.due_at = until;
                }
            }
            ErrandNext::Later(_) if was_woken => {}
            ErrandNext::Later(at) => kept.due_at = at,
            ErrandNext::Done(at) => {
                kept.done_at = Some(at);
                kept.errand.is_done = true;
            }
        }
        true
    }

    fn wake_errand(&mut self, id: &str, now: Time) -> bool {
        let kept = self.errands.get_mut(id);
        let Some(kept) = kept.filter(|kept| kept.done_at.is_none()) else {
            return false;
        };
        kept.due_at = kept.due_at.min(now);
        true
    }

    fn forget_errands(&mut self, before: Time) -> u64 {
        let all = self.errands.len();
        self.errands
            .retain(|_, kept| kept.done_at.is_none_or(|at| at >= before));
        (all - self.errands.len()) as u64
    }
}

#[async_trait]
impl<W: Way> Errands for Reached<W> {
    async fn add_errand(&self, errand: NewErrand) -> Result<bool> {
        let add = move |t: &mut Tables| Ok(t.add_errand(errand));
        self.way.carry("add_errand", add).await
    }
    async fn claim_errands(&self, claim: ErrandClaim) -> Result<Vec<Errand>> {
        let take = move |t: &mut Tables| Ok(t.claim_errands(&claim));
        self.way.carry("claim_errands", take).await
    }
    async fn save_errand(&self, change: ErrandChange) -> Result<bool> {
        let save = move |t: &mut Tables| Ok(t.save_errand(change));
        self.way.carry("save_errand", save).await
    }
    async fn wake_errand(&self, id: &str, now: Time) -> Result<bool> {
        let id = id.to_owned();
        let wake = move |t: &mut Tables| Ok(t.wake_errand(&id, now));
        self.way.carry("wake_errand", wake).await
    }
    async fn errand(&self, id: &str) -> Result<Option<Errand>> {
        let id = id.to_owned();
        let find = move |t: &mut Tables| Ok(t.errands.get(&id).map(|kept| kept.errand.clone()));
        self.way.carry("errand", find).await
    }
    async fn forget_errands(&self, before: Time) -> Result<u64> {
        let forget = move |t: &mut Tables| Ok(t.forget_errands(before));
        self.way.carry("forget_errands", forget).await
    }
}
