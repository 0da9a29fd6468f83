//! Random sequences of verbs against a model that fits on a page: the store and it agree after each.

use std::collections::BTreeMap;

use domain::execution::Totals;
use domain::{Epoch, ExecutionId, Seq, Status, Step, StepBody};
use proptest::prelude::*;
use std::sync::Arc;
use store::sqlite::Sqlite;
use store::{Append, Appended, CancelAnswer, Renewal, Signal, Store, Then};

use crate::server;
use crate::sqlite::quick;
use crate::suite::given::{at, claim, finish, park, submit, task, worker};

/// A verb; which execution, and whose epoch, are chosen modulo what there is.
#[derive(Debug, Clone)]
enum Verb {
    Submit,
    Wait(i64),
    Claim(usize),
    Append {
        which: usize,
        age: u32,
        steps: u32,
        then: Next,
    },
    Cancel(usize),
    Renew {
        which: usize,
        age: u32,
    },
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Continue,
    ParkSeeingAll,
    ParkSeeingNothing,
    HandBack,
    Finish,
}

fn verbs() -> impl Strategy<Value = Vec<Verb>> {
    let next = prop::sample::select(vec![
        Next::Continue,
        Next::Continue,
        Next::ParkSeeingAll,
        Next::ParkSeeingNothing,
        Next::HandBack,
        Next::Finish,
    ]);
    // Mostly the current owner, sometimes one that has been overtaken.
    let age = prop::sample::select(vec![0u32, 0, 0, 1, 2]);
    let verb = prop_oneof![
        2 => Just(Verb::Submit),
        2 => (1i64..15).prop_map(Verb::Wait),
        4 => (1usize..4).prop_map(Verb::Claim),
        8 => (any::<usize>(), age.clone(), 0u32..3, next)
            .prop_map(|(which, age, steps, then)| Verb::Append { which, age, steps, then }),
        1 => any::<usize>().prop_map(Verb::Cancel),
        2 => (any::<usize>(), age).prop_map(|(which, age)| Verb::Renew { which, age }),
    ];
    prop::collection::vec(verb, 1..60)
}

/// What the model knows of an execution.
#[derive(Debug, Clone)]
struct Known {
    status: Status,
    epoch: u32,
    is_leased: bool,
    due: i64,
    steps: u32,
    wakes: u64,
    wakes_claimed: u64,
    crashes: u32,
    is_cancelled: bool,
}

struct World {
    store: Arc<dyn Store>,
    known: BTreeMap<ExecutionId, Known>,
    now: i64,
}

impl World {
    fn nth(&self, which: usize) -> Option<ExecutionId> {
        let n = self.known.len();
        self.known.keys().nth(which.checked_rem(n)?).copied()
    }

    async fn perform(&mut self, verb: &Verb) {
        match verb {
            Verb::Submit => self.submit().await,
            Verb::Wait(seconds) => self.now += seconds,
            Verb::Claim(limit) => self.claim(*limit).await,
            Verb::Append {
                which,
                age,
                steps,
                then,
            } => self.append(*which, *age, *steps, *then).await,
            Verb::Cancel(which) => self.cancel(*which).await,
            Verb::Renew { which, age } => self.renew(*which, *age).await,
        }
    }

    async fn submit(&mut self) {
        let mut task = task(["a", "b", "c"][self.known.len() % 3]);
        task.created_at = at(self.now);
        let id = submit(&*self.store, task).await;
        let known = Known {
            status: Status::Queued,
            epoch: 0,
            is_leased: false,
            due: self.now,
            steps: 0,
            wakes: 0,
            wakes_claimed: 0,
            crashes: 0,
            is_cancelled: false,
        };
        self.known.insert(id, known);
    }

    async fn claim(&mut self, limit: usize) {
        let is_due = |known: &Known| !known.status.is_terminal() && known.due <= self.now;
        let due = self.known.values().filter(|known| is_due(known)).count();
        let claimed = claim(&*self.store, limit, at(self.now)).await;
        assert_eq!(claimed.len(), due.min(limit));
        for claimed in claimed {
            let known = self.known.get_mut(&claimed.execution.id).unwrap();
            assert!(!known.status.is_terminal() && known.due <= self.now);
            known.crashes += u32::from(known.is_leased);
            known.epoch += 1;
            known.is_leased = true;
            known.status = Status::Running;
            known.due = self.now + 10;
            known.wakes_claimed = known.wakes;
            assert_eq!(claimed.epoch.get(), known.epoch);
            assert_eq!(claimed.crashes, known.crashes);
            assert_eq!(claimed.waiting.wakes, known.wakes);
            assert_eq!(claimed.steps.len(), known.steps as usize);
        }
    }

    async fn append(&mut self, which: usize, age: u32, steps: u32, next: Next) {
        let Some(id) = self.nth(which) else { return };
        let known = self.known.get_mut(&id).unwrap();
        let epoch = Epoch::new(known.epoch.saturating_sub(age));
        let may = known.is_leased && epoch.get() == known.epoch;
        let step = |seq| Step {
            seq: Seq::new(seq),
            at: at(self.now),
            epoch,
            body: StepBody::Note {
                text: format!("{epoch}.{seq}"),
            },
        };
        let append = Append {
            id,
            epoch,
            now: at(self.now),
            steps: (known.steps + 1..=known.steps + steps).map(step).collect(),
            totals: Totals::default(),
            events: Vec::new(),
            children: Vec::new(),
            then: match next {
                Next::Continue => Then::Continue,
                Next::HandBack => Then::HandBack,
                Next::Finish => finish(),
                Next::ParkSeeingAll => park(at(self.now + 20), known.wakes),
                Next::ParkSeeingNothing => park(at(self.now + 20), 0),
            },
        };
        let answer = self.store.append(append).await.unwrap();
        // `Woken` is applied as well, with the news of a wake-up.
        assert_eq!(answer != Appended::LostLease, may);
        if !may {
            return;
        }
        known.steps += steps;
        known.crashes = if steps > 0 { 0 } else { known.crashes };
        known.is_leased = matches!(next, Next::Continue);
        match next {
            Next::Continue => {}
            Next::HandBack => known.due = self.now,
            Next::Finish => known.status = Status::Completed,
            Next::ParkSeeingNothing if known.wakes > 0 => known.due = self.now,
            Next::ParkSeeingAll | Next::ParkSeeingNothing => known.due = self.now + 20,
        }
    }

    async fn cancel(&mut self, which: usize) {
        let Some(id) = self.nth(which) else { return };
        let known = self.known.get_mut(&id).unwrap();
        let answer = self.store.cancel(id, "me", "", at(self.now)).await.unwrap();
        if known.status.is_terminal() {
            assert_eq!(answer, CancelAnswer::AlreadyOver(known.status));
            return;
        }
        assert_eq!(answer, CancelAnswer::Accepted);
        if known.status == Status::Queued {
            known.status = Status::Cancelled;
            known.steps += 1;
        } else if !known.is_cancelled {
            known.wakes += 1;
            if !known.is_leased {
                known.due = known.due.min(self.now);
            }
        }
        known.is_cancelled = true;
    }

    async fn renew(&mut self, which: usize, age: u32) {
        let Some(id) = self.nth(which) else { return };
        let known = self.known.get_mut(&id).unwrap();
        let epoch = Epoch::new(known.epoch.saturating_sub(age));
        let renewal = Renewal {
            worker: worker("w1"),
            leases: vec![(id, epoch)],
            now: at(self.now),
            until: at(self.now + 10),
        };
        let signals = self.store.renew(renewal).await.unwrap();
        if !known.is_leased || epoch.get() != known.epoch {
            assert_eq!(signals, [Signal::Lost(id)]);
            return;
        }
        known.due = self.now + 10;
        let wakes = known.wakes;
        let woken = (wakes > known.wakes_claimed).then_some(Signal::Woken { id, wakes });
        assert_eq!(signals, woken.into_iter().collect::<Vec<_>>());
    }

    /// The store's rows say what the model knows, and every journal is whole.
    async fn agree(&self) {
        for (id, known) in &self.known {
            let row = self.store.execution(*id).await.unwrap().unwrap();
            assert_eq!(row.status, known.status);
            assert_eq!(row.epoch.get(), known.epoch);
            assert_eq!(row.worker.is_some(), known.is_leased);
            assert_eq!((row.steps, row.crashes), (known.steps, known.crashes));
            let due = (!known.status.is_terminal()).then(|| at(known.due));
            assert_eq!(row.due_at, due);
            assert_eq!(row.outcome.is_some(), known.status.is_terminal());
            assert_eq!(row.finished_at.is_some(), known.status.is_terminal());
            let steps = self.store.steps(*id, None, 1000).await.unwrap();
            let positions: Vec<_> = steps.iter().map(|step| step.seq.get()).collect();
            assert_eq!(positions, (1..=known.steps).collect::<Vec<_>>());
            let epochs: Vec<_> = steps.iter().map(|step| step.epoch).collect();
            assert!(epochs.is_sorted(), "an overtaken owner wrote");
        }
    }
}

async fn agree(store: Arc<dyn Store>, verbs: &[Verb]) {
    let mut world = World {
        store,
        known: BTreeMap::new(),
        now: 0,
    };
    for verb in verbs {
        world.perform(verb).await;
    }
    world.agree().await;
    let stats = world.store.agent_stats(None).await.unwrap();
    let total: u64 = stats.iter().map(|stats| stats.total).sum();
    assert_eq!(total, world.known.len() as u64);
    world.store.close().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_the_model(verbs in verbs()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let store = Arc::new(Sqlite::open(&dir.path().join("m.db"), quick()).unwrap());
            agree(store, &verbs).await;
        });
    }
}

proptest! {
    // Fewer: each has a database of its own.
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn postgres_agrees_with_the_model(verbs in verbs()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = server::connect(&server::database().await).await;
            agree(Arc::new(store), &verbs).await;
        });
    }
}
