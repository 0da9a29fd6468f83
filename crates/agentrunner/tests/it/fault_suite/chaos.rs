//! Breaks things when the schedule says so, mends them again, and counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::Weather;
use testkit::servers::Kind;

use super::hints::Stranger;
use super::schedule::{Fault, Lane, Planned};
use super::world::{World, name};

/// What was done, by its name in the table.
pub(super) type Done = BTreeMap<String, usize>;

/// Carries out a schedule.
pub(super) struct Chaos {
    world: Arc<World>,
    done: Mutex<Done>,
}

impl Chaos {
    pub(super) fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world,
            done: Mutex::default(),
        })
    }

    /// Runs all of it: what belongs to one lane one after the other, lanes side by side. When this answers, everything
    /// is mended.
    pub(super) async fn run(self: &Arc<Self>, plan: &[Planned]) {
        let began = Instant::now();
        let mut lanes: BTreeMap<Lane, Vec<Planned>> = BTreeMap::new();
        for planned in plan {
            lanes
                .entry(planned.fault.lane())
                .or_default()
                .push(*planned);
        }
        let mut running = tokio::task::JoinSet::new();
        for lane in lanes.into_values() {
            let this = self.clone();
            running.spawn(async move {
                for planned in lane {
                    tokio::time::sleep_until((began + planned.at).into()).await;
                    this.carry_out(planned.fault).await;
                }
            });
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
    }

    pub(super) fn done(&self) -> Done {
        self.done.lock().unwrap().clone()
    }

    fn count(&self, what: impl Into<String>) {
        self.count_many(what, 1);
    }

    fn count_many(&self, what: impl Into<String>, times: usize) {
        *self.done.lock().unwrap().entry(what.into()).or_default() += times;
    }

    async fn carry_out(&self, fault: Fault) {
        let world = &self.world;
        match fault {
            Fault::Kill { process, down } => {
                let process = &world.processes[process];
                if process.kill(down).await {
                    self.count(format!("kill -9: {}", process.role.name()));
                }
            }
            Fault::Freeze { process, length } => {
                if world.processes[process].freeze(length).await {
                    self.count("SIGSTOP past the lease");
                }
            }
            Fault::KillServer { server, down } => self.kill_server(server, down).await,
            Fault::Storm {
                process,
                server,
                weather,
                length,
            } => {
                world.set_weather(process, server, weather);
                tokio::time::sleep(length).await;
                world.set_weather(process, server, Weather::Clear);
                self.count(format!("network: {}", describe(weather)));
            }
            Fault::Hints(how) => {
                let stranger = Stranger::at(world.server(Kind::RabbitMq), &world.client);
                match stranger.meddle(how).await {
                    Some(about) => {
                        self.count(format!("hints {}", format!("{how:?}").to_lowercase()));
                        self.count_many("hints touched", about);
                    }
                    None => self.count("hints left alone: the broker was away"),
                }
            }
            Fault::FullDisk { length } => self.fill_disk(length).await,
            Fault::Clock {
                process,
                seconds,
                length,
            } => {
                world.processes[process].set_clock(seconds);
                tokio::time::sleep(length).await;
                world.processes[process].set_clock(0);
                self.count(format!("clock: {seconds:+} s and back"));
            }
        }
    }

    async fn kill_server(&self, kind: Kind, down: Duration) {
        let server = self.world.server(kind);
        server.kill();
        self.count(format!("kill -9: {}", name(kind)));
        tokio::time::sleep(down).await;
        server.up().await;
    }

    async fn fill_disk(&self, length: Duration) {
        let Ok(disk) = &self.world.disk else { return };
        // Writing a file of this size takes its time; the world goes on.
        tokio::task::block_in_place(|| disk.fill());
        tokio::time::sleep(length).await;
        tokio::task::block_in_place(|| disk.free());
        // It may have given up.
        self.world.server(Kind::Postgres).up().await;
        self.count("full disk: PostgreSQL");
    }
}

const fn describe(weather: Weather) -> &'static str {
    match weather {
        Weather::Clear => "clear",
        Weather::Slow(_) => "slow",
        Weather::BlackHole => "black hole",
        Weather::Reset => "resets",
        Weather::CutAfter(_) => "cuts",
    }
}
