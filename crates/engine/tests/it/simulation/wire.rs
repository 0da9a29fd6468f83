//! What lies between a worker and the rest of the world: everything that it does to others goes through its gate.
//!
//! A killed worker's gate lets nothing through any more, in neither direction: to the world that is the same as if its
//! tasks were gone. A frozen one's keeps everything until it thaws. What was on its way to the database when it died
//! or froze still arrives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::Delivery;
use domain::WorkerId;
use store::{Certainty, Result};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::store::{Signals, Way};
use super::tables::{Tables, unavailable};
use super::world::World;

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Alive,
    /// Stopped by SIGSTOP.
    Frozen,
    /// Killed.
    Dead,
}

/// A worker's connection to the world.
pub(crate) struct Gate {
    pub(crate) worker: WorkerId,
    health: Mutex<Health>,
    /// Not a `watch`, which wakes those who wait in an order that no seed decides.
    changed: Notify,
    /// Whether it is cut off from the database, and from the broker.
    pub(crate) cut: Mutex<(bool, bool)>,
    /// Deliveries in its hands; the broker takes them back when it dies.
    held: Mutex<(u64, BTreeMap<u64, Delivery>)>,
}

impl Gate {
    pub(crate) fn new(worker: WorkerId) -> Arc<Self> {
        Arc::new(Self {
            worker,
            health: Mutex::new(Health::Alive),
            changed: Notify::new(),
            cut: Mutex::default(),
            held: Mutex::default(),
        })
    }

    pub(crate) fn health(&self) -> Health {
        *self.health.lock().unwrap()
    }

    pub(crate) fn become_(&self, health: Health) {
        if self.health() == Health::Dead {
            return;
        }
        *self.health.lock().unwrap() = health;
        self.changed.notify_waiters();
        if health == Health::Dead {
            self.held.lock().unwrap().1.clear();
        }
    }

    /// Goes through: at once, when it thaws, or never.
    pub(crate) async fn pass(&self) {
        self.reaches(Health::Alive).await;
    }

    /// Comes back when it is killed.
    pub(crate) async fn killed(&self) {
        self.reaches(Health::Dead).await;
    }

    async fn reaches(&self, wanted: Health) {
        loop {
            let changed = self.changed.notified();
            if self.health() == wanted {
                return;
            }
            changed.await;
        }
    }

    /// Takes a delivery into its hands; the number is for letting go of it.
    pub(crate) fn hold(&self, delivery: Delivery) -> u64 {
        let mut held = self.held.lock().unwrap();
        held.0 += 1;
        let number = held.0;
        held.1.insert(number, delivery);
        number
    }

    /// Lets go of it; `None` when the broker has taken it back.
    pub(crate) fn let_go(&self, number: u64) -> Option<Delivery> {
        self.held.lock().unwrap().1.remove(&number)
    }
}

/// The way from a worker to the database.
pub(crate) struct Wire {
    pub(crate) world: Arc<World>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) signals: Signals,
}

impl Wire {
    /// What keeps the request from arriving.
    async fn obstacle(&self, name: &str) -> Option<store::Error> {
        let is_cut = self.gate.cut.lock().unwrap().0;
        let away = self.world.weather().database_away_until;
        let is_away = away.is_some_and(|until| tokio::time::Instant::now() < until);
        if is_cut || is_away {
            let wait = self.world.lots().millis(1, 4000);
            sleep(wait).await;
            self.world
                .note(format_args!("{} {name}: no connection", self.gate.worker));
            return Some(unavailable("no connection", Certainty::NotApplied));
        }
        if self.world.goes_wrong(6) {
            self.world
                .note(format_args!("{} {name}: refused", self.gate.worker));
            return Some(unavailable("out of connections", Certainty::NotApplied));
        }
        if self.world.goes_wrong(6) {
            sleep(self.world.latency()).await;
            self.world
                .note(format_args!("{} {name}: lost on its way", self.gate.worker));
            return Some(unavailable("connection reset", Certainty::Unknown));
        }
        None
    }
}

/// The database performs a verb, at one instant; whoever is concerned is told, and it is written down.
fn perform<T>(
    world: &World,
    signals: &Signals,
    worker: &WorkerId,
    verb: impl FnOnce(&mut Tables) -> Result<T>,
) -> Result<T> {
    let (result, told, seen) = {
        let mut tables = world.tables();
        let result = verb(&mut tables);
        let told = std::mem::take(&mut tables.told);
        (result, told, std::mem::take(&mut tables.seen))
    };
    signals.tell(told);
    for one in seen {
        world.see(worker, one);
    }
    result
}

impl Way for Wire {
    async fn carry<T: Send + 'static>(
        &self,
        name: &'static str,
        verb: impl FnOnce(&mut Tables) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.gate.pass().await;
        if let Some(error) = self.obstacle(name).await {
            self.gate.pass().await;
            return Err(error);
        }
        let (there, back) = (self.world.latency(), self.world.latency());
        let is_answer_lost = self.world.goes_wrong(8);
        let (world, signals) = (self.world.clone(), self.signals.clone());
        let worker = self.gate.worker.clone();
        let (answer, answered) = oneshot::channel();
        // On its way it is no longer the caller's: whatever becomes of it, the database performs it.
        drop(tokio::spawn(async move {
            sleep(there).await;
            let result = perform(&world, &signals, &worker, verb);
            sleep(back).await;
            // Nobody may be there to hear it.
            drop(answer.send(result));
        }));
        let result = answered.await;
        self.gate.pass().await;
        match result {
            Ok(result) if !is_answer_lost => result,
            _ => {
                self.world
                    .note(format_args!("{} {name}: answer lost", self.gate.worker));
                sleep(Duration::from_millis(100)).await;
                Err(unavailable("connection reset", Certainty::Unknown))
            }
        }
    }
}
