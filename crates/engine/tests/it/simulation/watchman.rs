//! Watches every commit from outside and knows only the rules: what the database answered must agree with them,
//! whatever the database's own reasons were.

use std::collections::{BTreeMap, BTreeSet};

use domain::definition::Effect;
use domain::{AgentName, Epoch, EventId, ExecutionId, Outcome, Seq, StepBody, Time, WorkerId};
use store::{Append, Appended, CancelAnswer, Claim, Claimed, Submitted, Then};

use super::world::World;

/// What a transaction did.
#[derive(Debug)]
pub(crate) enum Seen {
    Submitted {
        asked: ExecutionId,
        /// The agent and the event that starts it.
        cause: Option<(AgentName, EventId)>,
        answer: Submitted,
    },
    Claimed {
        id: ExecutionId,
        epoch: Epoch,
        crashes: u32,
        now: Time,
    },
    Renewed {
        leases: usize,
        news: usize,
    },
    Appended {
        id: ExecutionId,
        epoch: Epoch,
        steps: Vec<(Seq, &'static str)>,
        keeps_lease: bool,
        end: Option<Outcome>,
        /// `None` when it was an error.
        answer: Option<Appended>,
    },
    Cancelled {
        id: ExecutionId,
        answer: CancelAnswer,
    },
    /// A person allowed a call to be made once more.
    MayRepeat {
        key: String,
    },
}

impl Seen {
    pub(crate) fn claimed(claimed: &Claimed, claim: &Claim) -> Self {
        Self::Claimed {
            id: claimed.execution.id,
            epoch: claimed.epoch,
            crashes: claimed.crashes,
            now: claim.now,
        }
    }

    pub(crate) fn appended(append: &Append) -> Self {
        let steps = append.steps.iter();
        Self::Appended {
            id: append.id,
            epoch: append.epoch,
            steps: steps.map(|step| (step.seq, step.body.kind())).collect(),
            keeps_lease: matches!(append.then, Then::Continue),
            end: match &append.then {
                Then::Finish { outcome, .. } => Some(outcome.clone()),
                Then::Continue | Then::Park { .. } | Then::HandBack => None,
            },
            answer: None,
        }
    }

    pub(crate) fn answered(&mut self, given: &store::Result<Appended>) {
        if let Self::Appended { answer, .. } = self {
            *answer = given.as_ref().ok().copied();
        }
    }
}

/// What is known of an execution.
#[derive(Default)]
struct Watched {
    /// The epoch of the last claim.
    epoch: u32,
    /// Whether that lease was neither given up nor overtaken.
    is_held: bool,
    /// The last journaled step.
    last: u32,
    is_over: bool,
    /// The epoch in which it was cancelled, and when.
    cancelled: Option<(u32, Time)>,
    /// By whom it was claimed, in order.
    claims: Vec<(WorkerId, u32, Time)>,
}

/// What happened in the world under one key.
#[derive(Default)]
struct Effects {
    count: u32,
    /// Whether one of them was the act of a worker that had been overtaken.
    by_overtaken: bool,
}

/// Knows the rules.
#[derive(Default)]
pub(crate) struct Watchman {
    executions: BTreeMap<ExecutionId, Watched>,
    effects: BTreeMap<String, Effects>,
    repeats: BTreeMap<String, u32>,
    /// Which event started which agent.
    starts: BTreeSet<(AgentName, EventId)>,
    /// Executions that were cancelled before anybody had begun them.
    pub(crate) never_begun: BTreeSet<ExecutionId>,
}

/// The end of an id, to read.
pub(crate) fn short(id: ExecutionId) -> String {
    let text = id.to_string();
    text[text.len() - 6..].to_owned()
}

impl World {
    /// Writes down what a transaction did, and compares it with the rules.
    pub(crate) fn see(&self, worker: &WorkerId, seen: Seen) {
        match seen {
            Seen::Submitted {
                asked,
                cause,
                answer,
            } => {
                self.note(format_args!(
                    "{worker} submits {}: {answer:?}",
                    short(asked)
                ));
                if let (Some(cause), Submitted::New) = (cause, answer) {
                    self.see_start(cause);
                }
            }
            Seen::Claimed {
                id,
                epoch,
                crashes,
                now,
            } => {
                self.count("claims");
                self.note(format_args!(
                    "{worker} claims {} as {epoch}, {crashes} crashes",
                    short(id)
                ));
                self.see_claim(worker, id, epoch, now);
            }
            Seen::Renewed { leases, news } => {
                self.note(format_args!("{worker} renews {leases}, {news} news"));
            }
            Seen::Appended {
                id,
                epoch,
                ref steps,
                keeps_lease,
                ref end,
                answer,
            } => {
                let end_ = end.as_ref().map(|end| end.status());
                self.note(format_args!(
                    "{worker} appends to {} as {epoch} {steps:?} keeps {keeps_lease} end {end_:?}: {answer:?}",
                    short(id)
                ));
                self.see_append(worker, &seen);
            }
            Seen::Cancelled { id, answer } => {
                self.note(format_args!("{worker} cancels {}: {answer:?}", short(id)));
                let now = self.now();
                let mut watchman = self.watchman();
                if answer == CancelAnswer::Accepted {
                    let watched = watchman.executions.entry(id).or_default();
                    let epoch = watched.epoch;
                    watched.cancelled.get_or_insert((epoch, now));
                    if epoch == 0 {
                        watchman.never_begun.insert(id);
                    }
                }
            }
            Seen::MayRepeat { key } => {
                self.note(format_args!("a person lets {key} be repeated"));
                *self.watchman().repeats.entry(key).or_default() += 1;
            }
        }
    }

    fn see_start(&self, cause: (AgentName, EventId)) {
        let text = format!("{} started {} once more", cause.1, cause.0);
        if !self.watchman().starts.insert(cause) {
            self.violated("I4", text);
        }
    }

    fn see_claim(&self, worker: &WorkerId, id: ExecutionId, epoch: Epoch, now: Time) {
        let mut watchman = self.watchman();
        let watched = watchman.executions.entry(id).or_default();
        let (before, is_over, is_takeover) = (watched.epoch, watched.is_over, watched.is_held);
        watched.epoch = epoch.get();
        watched.is_held = true;
        watched.claims.push((worker.clone(), epoch.get(), now));
        drop(watchman);
        if is_takeover {
            self.count("takeovers");
            if self.is_calm() {
                let text = format!("{worker} takes {id} over as {epoch}, and nobody was lost");
                self.violated("R7", text);
            }
        }
        if epoch.get() != before + 1 || is_over {
            let text = format!("{worker} got {id} as {epoch} after {before}, over: {is_over}");
            self.violated("I2", text);
        }
    }

    fn see_append(&self, worker: &WorkerId, seen: &Seen) {
        let Seen::Appended {
            id,
            epoch,
            steps,
            keeps_lease,
            end,
            answer,
        } = seen
        else {
            return;
        };
        let mut watchman = self.watchman();
        let watched = watchman.executions.entry(*id).or_default();
        let may = watched.is_held && watched.epoch == epoch.get();
        let (last, was_over) = (watched.last, watched.is_over);
        let mut broken: Vec<(&'static str, String)> = Vec::new();
        match answer {
            Some(Appended::Applied | Appended::Woken { .. }) => {
                self.count("commits");
                if !may {
                    let text = format!("{worker} wrote to {id} as {epoch}, which is not its owner");
                    broken.push(("I2", text));
                }
                if was_over {
                    broken.push(("I3", format!("{worker} wrote to {id} after its end")));
                }
                let first = steps.first().map_or(last + 1, |(seq, _)| seq.get());
                if first > last + 1 {
                    broken.push(("I8", format!("{id} has no steps {}..{first}", last + 1)));
                }
                watched.last = steps.last().map_or(last, |(seq, _)| seq.get()).max(last);
                watched.is_held = *keeps_lease;
                watched.is_over |= end.is_some();
            }
            Some(Appended::LostLease) => {
                self.count("late writes refused");
                if may {
                    broken.push((
                        "I2",
                        format!("{worker} owns {id} as {epoch} and was refused"),
                    ));
                }
            }
            None => self.count("appends that did not follow"),
        }
        drop(watchman);
        for (rule, text) in broken {
            self.violated(rule, text);
        }
    }

    /// A worker begins an action of an execution: it must not be cancelled or late, as far as the worker can know.
    /// Tells whether the worker is the owner.
    pub(crate) fn begins(&self, worker: &WorkerId, id: ExecutionId, what: &str) -> bool {
        self.note(format_args!("{worker} begins {what} of {}", short(id)));
        let (deadline, journal) = {
            let tables = self.tables();
            let row = &tables.rows[&id];
            (row.execution.deadline, row.steps.len())
        };
        let now = self.now();
        let watchman = self.watchman();
        let Some(watched) = watchman.executions.get(&id) else {
            return false;
        };
        let Some((_, epoch, since)) = watched.claims.iter().rfind(|(who, ..)| who == worker) else {
            return false;
        };
        let is_owner = watched.is_held && watched.epoch == *epoch;
        let mut broken = None;
        // Whoever claims is told; whoever has it is told when it renews, which it does in less than a lease.
        if let Some((told, at)) = watched.cancelled {
            let patience = chrono::TimeDelta::seconds(20);
            if *epoch > told || (is_owner && now - at > patience) {
                broken = Some(format!(
                    "{worker} begins {what} of {id}, cancelled at {at} in epoch {told}"
                ));
            }
        }
        if *since >= deadline {
            broken = Some(format!(
                "{worker} begins {what} of {id} with {journal} steps after its deadline"
            ));
        }
        drop(watchman);
        if let Some(text) = broken {
            self.violated("I7", text);
        }
        is_owner
    }

    /// Whether a worker has had an execution only once, so that there are no two runs of it in one process.
    pub(crate) fn has_claimed_once(&self, worker: &WorkerId, id: ExecutionId) -> bool {
        let watchman = self.watchman();
        let claims = watchman.executions.get(&id).map(|w| w.claims.as_slice());
        claims
            .unwrap_or_default()
            .iter()
            .filter(|(who, ..)| who == worker)
            .count()
            == 1
    }

    /// Something happened in the world.
    pub(crate) fn has_effect(&self, worker: &WorkerId, key: &str, effect: Effect, is_owner: bool) {
        self.note(format_args!("{worker} has the effect {key} ({effect:?})"));
        self.count("effects");
        let mut watchman = self.watchman();
        let repeats = watchman.repeats.get(key).copied().unwrap_or_default();
        let effects = watchman.effects.entry(key.to_owned()).or_default();
        effects.count += 1;
        effects.by_overtaken |= !is_owner;
        let (count, by_overtaken) = (effects.count, effects.by_overtaken);
        drop(watchman);
        let is_doubled = match effect {
            Effect::ReadOnly | Effect::Idempotent => false,
            // Who asked and was told "no" can't know that one that froze between its intent and its call wakes up.
            Effect::Checkable => count > 1 + repeats && !by_overtaken,
            Effect::Unsafe => count > 1 + repeats,
        };
        if is_doubled {
            self.violated(
                "I1",
                format!(
                    "{key} ({effect:?}) happened {count} times, {repeats} repeats were allowed"
                ),
            );
        }
    }

    /// A call is about to be made: its result must not be in the journal.
    pub(crate) fn is_settled(&self, id: ExecutionId, key: &str) -> bool {
        let tables = self.tables();
        let steps = &tables.rows[&id].steps;
        let mut intents = steps.iter().filter_map(|step| match &step.body {
            StepBody::ToolIntent(intent) if intent.key == key => Some((step.seq, intent.call)),
            _ => None,
        });
        let Some((seq, call)) = intents.next_back() else {
            // Nothing may be called that was not written down.
            return true;
        };
        steps.iter().any(|step| match &step.body {
            StepBody::ToolResult(result) => {
                let is_known = !matches!(result.outcome, domain::ToolOutcome::Unknown { .. });
                step.seq > seq && result.call == call && is_known
            }
            _ => false,
        })
    }
}
