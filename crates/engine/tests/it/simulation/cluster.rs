//! The workers: real engines, each behind its gate, that are killed, frozen, cut off and restarted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrunner_engine::{Engine, Ports, Registration, Settings, Surroundings};
use chrono::TimeDelta;
use domain::{ExecutionMode, WorkerId};
use store::ConfigRecord;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::broker::Line;
use super::cast;
use super::model::Model;
use super::store::{Reached, Signals};
use super::toolset::{Done, Toolset};
use super::wire::{Gate, Health, Wire};
use super::world::World;

/// One process.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) gate: Arc<Gate>,
    pub(crate) engine: Engine,
}

/// All processes, by place.
pub(crate) struct Cluster {
    world: Arc<World>,
    records: Vec<ConfigRecord>,
    places: Mutex<Vec<Place>>,
    done: Done,
    gone: Arc<Mutex<BTreeSet<WorkerId>>>,
}

struct Place {
    worker: Worker,
    /// How often it was started.
    starts: u32,
    /// Whether something is being done to it.
    is_busy: bool,
}

impl Cluster {
    /// Starts some workers.
    pub(crate) fn start(world: &Arc<World>) -> Arc<Self> {
        let records = cast::records(world.now());
        for record in &records {
            world.tables().put_config(record.clone());
        }
        let cluster = Arc::new(Self {
            world: world.clone(),
            records,
            places: Mutex::default(),
            done: Done::default(),
            gone: Arc::default(),
        });
        let count = 2 + world.lots().below(3);
        for place in 0..count {
            let worker = cluster.launch(place as usize, 1);
            cluster.places.lock().unwrap().push(Place {
                worker,
                starts: 1,
                is_busy: false,
            });
        }
        cluster
    }

    fn launch(&self, place: usize, start: u32) -> Worker {
        let world = &self.world;
        let name: WorkerId = format!("w{place}.{start}").parse().unwrap();
        world.note(format_args!("{name} starts"));
        let gate = Gate::new(name.clone());
        let signals = Signals::default();
        let way = Wire {
            world: world.clone(),
            gate: gate.clone(),
            signals: signals.clone(),
        };
        // Clocks are never quite the same.
        let skew = TimeDelta::milliseconds(world.lots().below(1000) as i64 - 500);
        let clock = world.clone();
        let ports = Ports {
            store: Arc::new(Reached { way, signals }),
            bus: Arc::new(Line {
                world: world.clone(),
                gate: gate.clone(),
            }),
            model: Arc::new(Model {
                world: world.clone(),
                gate: gate.clone(),
            }),
            tools: Arc::new(Toolset {
                world: world.clone(),
                gate: gate.clone(),
                done: self.done.clone(),
            }),
            clock: Arc::new(move || clock.now() + skew),
        };
        let settings = self.settings(name);
        let ids = world.clone();
        let agents = cast::agents(&self.records);
        let engine = Engine::within(
            ports,
            agents,
            settings,
            Surroundings {
                new_id: Arc::new(move || ids.new_id()),
                ..Surroundings::default()
            },
        );
        engine.start();
        Worker { gate, engine }
    }

    fn settings(&self, worker: WorkerId) -> Settings {
        let gone = self.gone.clone();
        let knows_its_host = self.world.lots().below(2) == 0;
        Settings {
            worker,
            capacity: 2 + self.world.lots().below(5) as usize,
            modes: vec![ExecutionMode::Autonomous],
            lease: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            max_crashes: 3,
            max_reply_bytes: 1 << 20,
            registration: Registration::default(),
            is_gone: knows_its_host.then(|| {
                let is_gone = move |other: &WorkerId| gone.lock().unwrap().contains(other);
                Arc::new(is_gone) as agentrunner_engine::IsGone
            }),
        }
    }

    /// Any worker: whoever asks it may find it dead.
    pub(crate) fn any(&self) -> Worker {
        let places = self.places.lock().unwrap();
        let which = self.world.lots().below(places.len() as u64) as usize;
        places[which].worker.clone()
    }

    fn restart(&self, place: usize) {
        let start = {
            let mut places = self.places.lock().unwrap();
            places[place].starts += 1;
            places[place].starts
        };
        let worker = self.launch(place, start);
        let mut places = self.places.lock().unwrap();
        places[place].worker = worker;
        places[place].is_busy = false;
    }

    fn end(&self, worker: &Worker) {
        worker.gate.become_(Health::Dead);
        self.gone.lock().unwrap().insert(worker.gate.worker.clone());
    }

    /// A worker that nothing is being done to; something is, from now on.
    fn victim(&self) -> Option<(usize, Worker)> {
        let mut places = self.places.lock().unwrap();
        let which = self.world.lots().below(places.len() as u64) as usize;
        let place = &mut places[which];
        if place.is_busy {
            return None;
        }
        place.is_busy = true;
        Some((which, place.worker.clone()))
    }

    fn leave(&self, place: usize) {
        self.places.lock().unwrap()[place].is_busy = false;
    }

    /// Lets things go wrong for a while; in the end all is well again.
    pub(crate) async fn suffer(self: Arc<Self>) {
        let troubles = self.world.lots().below(10);
        let mut healing = JoinSet::new();
        for _ in 0..troubles {
            let pause = self.world.lots().millis(200, 9000);
            sleep(pause).await;
            if self.world.lots().below(7) == 0 {
                self.lose_database();
                continue;
            }
            let Some((place, worker)) = self.victim() else {
                continue;
            };
            let this = self.clone();
            match self.world.lots().below(6) {
                0 | 1 => healing.spawn(async move { this.kill(place, worker).await }),
                2 | 3 => healing.spawn(async move { this.freeze(place, worker).await }),
                4 => healing.spawn(async move { this.cut_off(place, worker).await }),
                _ => healing.spawn(async move { this.shut_down(place, worker).await }),
            };
        }
        while healing.join_next().await.is_some() {}
        self.world.calm_down();
    }

    fn lose_database(&self) {
        let time = self.world.lots().millis(500, 9000);
        self.world.count("database away");
        self.world
            .note(format_args!("the database is away for {time:?}"));
        self.world.weather().database_away_until = Some(Instant::now() + time);
    }

    async fn kill(&self, place: usize, worker: Worker) {
        self.world.count("kills");
        self.world
            .note(format_args!("{} is killed", worker.gate.worker));
        self.end(&worker);
        let pause = self.world.lots().millis(100, 15_000);
        sleep(pause).await;
        self.restart(place);
    }

    async fn freeze(&self, place: usize, worker: Worker) {
        let time = self.world.lots().millis(500, 35_000);
        self.world.count("freezes");
        self.world
            .note(format_args!("{} freezes for {time:?}", worker.gate.worker));
        worker.gate.become_(Health::Frozen);
        sleep(time).await;
        self.world
            .note(format_args!("{} thaws", worker.gate.worker));
        worker.gate.become_(Health::Alive);
        self.leave(place);
    }

    async fn cut_off(&self, place: usize, worker: Worker) {
        let time = self.world.lots().millis(500, 25_000);
        let cut = *self
            .world
            .lots()
            .pick(&[(true, false), (false, true), (true, true)]);
        self.world.count("partitions");
        self.world.note(format_args!(
            "{} is cut off {cut:?} for {time:?}",
            worker.gate.worker
        ));
        *worker.gate.cut.lock().unwrap() = cut;
        sleep(time).await;
        *worker.gate.cut.lock().unwrap() = (false, false);
        self.leave(place);
    }

    async fn shut_down(&self, place: usize, worker: Worker) {
        self.world.count("shutdowns");
        self.world
            .note(format_args!("{} is asked to stop", worker.gate.worker));
        let limit = self.world.lots().millis(100, 8000);
        worker.engine.shutdown(limit).await;
        self.world
            .note(format_args!("{} stops", worker.gate.worker));
        self.end(&worker);
        let pause = self.world.lots().millis(10, 3000);
        sleep(pause).await;
        self.restart(place);
    }
}
